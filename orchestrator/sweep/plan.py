"""Turns a sweep file into trials. Pure functions of the file and the overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.cells import sweep_cells
from orchestrator.sweep.file import Compare, EarlyStopping, Paper, SweepFile, parse_seeds
from orchestrator.sweep.names import Planned, check_name, check_sweep_name
from orchestrator.sweep.presets import parse_override
from orchestrator.sweep.syntax import check_count, parse_value
from trainers.config import TrialConfig, is_runtime_option
from trainers.metrics import EPOCH_METRICS, Metric
from trainers.parts import nearest


@dataclass(frozen=True)
class PlannedTrial(Planned):
    """One trial of a sweep, with its configuration."""

    config: TrialConfig


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, seed by seed and in the order of the file, so that a table fills up evenly."""

    name: str
    sweep_file: SweepFile
    overrides: tuple[str, ...]
    trials: tuple[PlannedTrial, ...]
    compare: Compare
    early_stopping: EarlyStopping | None
    continue_from: str | None
    paper: Paper | None


def make_plan(
    sweep_file: SweepFile,
    arguments: Sequence[str] = (),
    name: str | None = None,
    cache_dir: Path | None = None,
) -> Plan:
    """The trials of a sweep.

    ``arguments`` are Hydra overrides for every trial and three special ones. ``seeds=…`` replaces the seeds,
    ``scale=NAME`` chooses one of the file's reductions, and ``continue_from=NAME`` names a sweep whose finished trials
    are continued with a larger budget. Some datasets must be read before they can be planned; ``cache_dir`` is where
    they keep what they read. Raises :class:`UserError` for anything that cannot be run as it is written.
    """
    scale, overrides = _split(arguments, "scale")
    continue_from, overrides = _split(overrides, "continue_from")
    if continue_from is None:
        continue_from = sweep_file.continue_from
    else:
        check_name(continue_from, lambda problem: UserError(f"continue_from: {problem}"))
    scaled = _scale_overrides(sweep_file, scale)
    file_seeds, scaled = _split(scaled, "seeds")
    own_seeds, overrides = _split(overrides, "seeds")
    written = file_seeds if own_seeds is None else own_seeds
    seeds = sweep_file.seeds if written is None else parse_seeds(parse_value(written)[0])
    options = [*scaled, *overrides]
    cells = sweep_cells(sweep_file, options, cache_dir)
    check_count(f"{len(cells):,} cells with {len(seeds):,} seeds", len(cells) * len(seeds))
    keys = [parse_override(text).key_or_group for text in overrides]
    changed = own_seeds is not None or any(not is_runtime_option(key, cell.config) for cell in cells for key in keys)
    sweep_name = _sweep_name(sweep_file, scale, name, changed)
    short = short_names({axis for cell in cells for axis in cell.axes})
    trials: dict[str, PlannedTrial] = {}
    for seed in seeds:
        for cell in cells:
            config = TrialConfig.from_dict({**cell.config, "seed": seed})
            setting = " ".join(f"{short[axis]}={short_value(value)}" for axis, value in cell.axes.items())
            trial = PlannedTrial(config.identity, cell.variant, setting, cell.axes, seed, config)
            if (twin := trials.get(trial.trial_id)) is not None:
                problem = f"duplicate cell: '{trial.label}' is the same trial as '{twin.label}'"
                raise sweep_file.document.error((*cell.place, "grid"), problem)
            trials[trial.trial_id] = trial
    _check_paper(sweep_file, [trial.label for trial in trials.values()])
    paper = None if "dataset" in keys else sweep_file.paper
    reference = _one_reference(sweep_file, list(trials.values()))
    compare = _compare(sweep_file, reference)
    early_stopping = _early_stopping(sweep_file, compare, list(trials.values()))
    if continue_from == sweep_name:
        raise UserError(f"continue_from={continue_from}: a sweep cannot continue itself; name this one with --name")
    return Plan(
        sweep_name, sweep_file, tuple(arguments), tuple(trials.values()), compare, early_stopping, continue_from, paper
    )


def _one_reference(sweep_file: SweepFile, trials: Sequence[PlannedTrial]) -> TrialConfig:
    """The first trial's configuration. All trials share its dataset, evaluation, probes and opponent.

    Raises :class:`UserError` if they do not: a table can only compare what was measured in the same way.
    """
    first = trials[0]
    for trial in trials:
        for part in ("evaluation", "dataset", "probes", "opponent"):
            if getattr(trial.config, part) != getattr(first.config, part):
                problem = (
                    f"'{first.label}' and '{trial.label}' differ in {part}; a table needs one reference for all rows"
                )
                axis = next((axis for axis in trial.axes if axis.partition(".")[0] == part), "")
                raise sweep_file.document.error(("grid", axis), problem)
    return first.config


def _check_paper(sweep_file: SweepFile, labels: Sequence[str]) -> None:
    for cell in sweep_file.paper.rows if sweep_file.paper else ():
        if cell not in labels:
            problem = f"this sweep has no cell called '{cell}'{nearest(cell, labels)}"
            raise sweep_file.document.error(("paper", "rows", cell), problem)


def _compare(sweep_file: SweepFile, config: TrialConfig) -> Compare:
    """The metric that tables compare by: the file's, or else the evaluation's first one."""
    if sweep_file.compare is None:
        metric = next((metric for metric in config.metrics if metric.direction), [*config.metrics, *EPOCH_METRICS][0])
        return Compare(metric.name, metric.mode)
    compare = sweep_file.compare
    metric = _metric(sweep_file, "compare", compare.metric, config)
    return replace(compare, mode=compare.mode or metric.mode)


def _metric(sweep_file: SweepFile, key: str, name: str, config: TrialConfig) -> Metric:
    known = {metric.name: metric for metric in (*config.metrics, *EPOCH_METRICS)}
    if name not in known:
        problem = f"these trials log no metric called '{name}'{nearest(name, known)}"
        raise sweep_file.document.error((key, "metric"), problem)
    return known[name]


def _early_stopping(sweep_file: SweepFile, compare: Compare, trials: Sequence[PlannedTrial]) -> EarlyStopping | None:
    """The file's early stopping. If it names no metric, it uses the one that tables compare by."""
    options = sweep_file.early_stopping
    if options is None:
        return None
    config = trials[0].config
    if options.metric:
        metric = _metric(sweep_file, "early_stopping", options.metric, config)
        options = replace(options, mode=options.mode or metric.mode)
    else:
        options = replace(options, metric=compare.metric, mode=compare.mode)
    budget = max(trial.config.budget for trial in trials)
    if options.grace >= budget:
        problem = f"no trial has more than {budget} critic iterations, so none can be stopped after {options.grace}"
        raise sweep_file.document.error(("early_stopping", "grace"), problem)
    return options


def _scale_overrides(sweep_file: SweepFile, scale: str | None) -> list[str]:
    if scale is None:
        return []
    if scale not in sweep_file.scale:
        known = nearest(scale, sweep_file.scale) or "; the file has none"
        raise sweep_file.document.error(("scale",), f"there is no scale called '{scale}'{known}")
    return list(sweep_file.scale[scale])


def _split(arguments: Sequence[str], key: str) -> tuple[str | None, list[str]]:
    """The value of ``key=…`` among the arguments, and the other arguments."""
    values = [text.partition("=")[2] for text in arguments if text.startswith(f"{key}=")]
    if len(values) > 1:
        raise UserError(f"{key}= is given twice")
    return values[0] if values else None, [text for text in arguments if not text.startswith(f"{key}=")]


def _sweep_name(sweep_file: SweepFile, scale: str | None, name: str | None, changes_trials: bool) -> str:
    if name is not None:
        return check_sweep_name(name, lambda problem: UserError(f"--name: {problem}"))
    if changes_trials:
        raise UserError(
            f"these overrides change the trials of '{sweep_file.name}', which makes another sweep; name it with --name"
        )
    if scale is None:
        return sweep_file.name
    return check_name(
        f"{sweep_file.name}-{scale}", lambda problem: UserError(f"scale={scale}: {problem}; name the sweep with --name")
    )


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """The shortest clear name of each axis: ``q`` for ``objective.q``, unless another axis ends in ``q`` too."""
    names = sorted(set(axes))
    ends = [name.rpartition(".")[2] for name in names]
    return {name: end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)}


def short_value(value: Any) -> str:
    """An axis value as text, distinct for distinct values: 1.0 as ``1``, a neighbourhood as ``(0,1)×1+(1,0)×2``."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "offset" in each for each in value):
        return "+".join("({},{})×{}".format(*each["offset"], short_value(each.get("weight", 1))) for each in value)
    if isinstance(value, list):
        return f"[{','.join(map(short_value, value))}]"
    return str(value)

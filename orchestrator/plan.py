"""SweepFile to trials: axes, variants, zip, exclude and seeds. Pure functions of the file and the overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cells import sweep_cells
from orchestrator.composition import parse_override
from orchestrator.errors import UserError
from orchestrator.sweep_file import SweepFile, check_name, parse_seeds
from trainers.config import RUNTIME_OPTIONS, TrialConfig
from trainers.parts import nearest


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a sweep: the cell it belongs to (variant and axis values), its seed, its configuration.

    ``setting`` is the cell's axis values in words: ``q=1 p=2``.
    """

    trial_id: str
    variant: str
    setting: str
    axes: Mapping[str, Any]
    seed: int
    config: TrialConfig

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return f"{self.variant} {self.setting}".strip()


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, in the order of the file, seed by seed: a table fills up evenly."""

    name: str
    sweep_file: SweepFile
    overrides: tuple[str, ...]
    trials: tuple[PlannedTrial, ...]


def make_plan(sweep_file: SweepFile, arguments: Sequence[str] = (), name: str | None = None) -> Plan:
    """The trials of a sweep.

    ``arguments`` are Hydra overrides for every trial, ``seeds=…``, and ``scale=NAME`` for one of the file's named
    reductions. Raises :class:`UserError` for anything that cannot be run as it is written.
    """
    scale, overrides = _split(arguments, "scale")
    scaled = _scale_overrides(sweep_file, scale)
    file_seeds, scaled = _split(scaled, "seeds")
    own_seeds, overrides = _split(overrides, "seeds")
    written = file_seeds if own_seeds is None else own_seeds
    seeds = sweep_file.seeds if written is None else parse_seeds(parse_override(f"seeds={written}").value())
    options = [*scaled, *overrides]
    changed = own_seeds is not None or any(
        parse_override(text).key_or_group not in RUNTIME_OPTIONS for text in overrides
    )

    cells = sweep_cells(sweep_file, options)
    sweep_name = _sweep_name(sweep_file, scale, name, changed)
    short = short_names({axis for cell in cells for axis in cell.axes})
    trials: dict[str, PlannedTrial] = {}
    for seed in seeds:
        for cell in cells:
            config = TrialConfig.from_dict({**cell.config, "seed": seed})
            setting = " ".join(f"{short[axis]}={short_value(value)}" for axis, value in cell.axes.items())
            trial = PlannedTrial(config.identity, cell.variant, setting, cell.axes, seed, config)
            if (twin := trials.get(trial.trial_id)) is not None:
                problem = f"the cell '{trial.label}' is the same trial as '{twin.label}': a duplicate cell"
                raise sweep_file.document.error((*cell.place, "grid"), problem)
            trials[trial.trial_id] = trial
    return Plan(sweep_name, sweep_file, tuple(arguments), tuple(trials.values()))


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
        return check_name(name, lambda problem: UserError(f"--name: {problem}"))
    if changes_trials:
        raise UserError(
            f"overrides that change the trials of '{sweep_file.name}' make another sweep: give it a name with --name"
        )
    return sweep_file.name if scale is None else f"{sweep_file.name}-{scale}"


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """``objective.q`` as ``q`` where no other axis ends alike."""
    names = sorted(set(axes))
    ends = [name.rpartition(".")[2] for name in names]
    return {name: end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)}


def short_value(value: Any) -> str:
    """An axis value for people: 1.0 as 1, a written-out neighbourhood as its size."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return f"[{len(value)} edges]"
    return str(value)

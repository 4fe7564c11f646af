"""Turns a sweep file into trials. Pure functions of the file and the overrides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.cells import Cell, sweep_cells
from orchestrator.sweep.file import Compare, EarlyStopping, Paper, SweepFile, parse_seeds
from orchestrator.sweep.growing import FIRST_FRESH_SEED, Confirm, Group, Growing, Race, Seeds
from orchestrator.sweep.names import Planned, cell_label, check_name, check_sweep_name
from orchestrator.sweep.presets import parse_override
from orchestrator.sweep.searching import warn_of_random_proposals
from orchestrator.sweep.setting import setting_text, short_names
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
    """All trials of a sweep, seed by seed and in the order of the file, so that a table fills up evenly.

    ``examples`` has a trial of each cell, also of cells that are searched, whose trials are decided later. ``growing``
    says what may be decided; None if nothing may.
    """

    name: str
    sweep_file: SweepFile
    overrides: tuple[str, ...]
    trials: tuple[PlannedTrial, ...]
    compare: Compare
    early_stopping: EarlyStopping | None
    continue_from: str | None
    paper: Paper | None
    examples: tuple[PlannedTrial, ...]
    growing: Growing | None = None


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
    seeds, confirm, trials_of_searches, scaled = _counts(sweep_file, scaled, sweep_file.seeds, sweep_file.confirm)
    own_seeds, own_confirm, own_trials, own = _counts(sweep_file, overrides, seeds, confirm)
    changes_counts = own != overrides
    seeds, confirm, overrides, trials_of_each = own_seeds, own_confirm, own, own_trials or trials_of_searches
    options = [*scaled, *overrides]
    cells = [_with_trials(cell, trials_of_each) for cell in sweep_cells(sweep_file, options, cache_dir)]
    _check_growth(sweep_file, cells, seeds, confirm, continue_from)
    keys = [parse_override(text).key_or_group for text in overrides]
    changed = changes_counts or any(not is_runtime_option(key, cell.config) for cell in cells for key in keys)
    sweep_name = _sweep_name(sweep_file, scale, name, changed)
    short = short_names({axis for cell in cells for axis in (*cell.axes, *(cell.search.space if cell.search else ()))})
    trials: dict[str, PlannedTrial] = {}
    examples = []
    for seed in seeds.first:
        for cell in cells:
            config = TrialConfig.from_dict({**cell.config, "seed": seed})
            setting = setting_text(cell.axes, short)
            trial = PlannedTrial(config.identity, cell.variant, setting, cell.axes, seed, config)
            if seed == seeds.first[0]:
                examples.append(trial)
            if cell.search is not None:
                continue
            if (twin := trials.get(trial.trial_id)) is not None:
                problem = f"duplicate cell: '{trial.label}' is the same trial as '{twin.label}'"
                raise sweep_file.document.error((*cell.place, "grid"), problem)
            trials[trial.trial_id] = trial
    _check_twins(sweep_file, cells)
    searched = {cell_label(cell.variant, setting_text(cell.axes, short)) for cell in cells if cell.search is not None}
    _check_paper(sweep_file, [trial.label for trial in examples], searched)
    paper = None if "dataset" in keys else sweep_file.paper
    reference = _one_reference(sweep_file, examples)
    compare = _compare(sweep_file, reference)
    early_stopping = _early_stopping(sweep_file, compare, examples)
    if continue_from == sweep_name:
        raise UserError(f"continue_from={continue_from}: a sweep cannot continue itself; name this one with --name")
    groups = tuple(Group(cell.variant, cell.axes, cell.config, cell.search) for cell in cells if cell.search)
    grows = groups or seeds.race or confirm
    return Plan(
        sweep_name,
        sweep_file,
        tuple(arguments),
        tuple(trials.values()),
        compare,
        early_stopping,
        continue_from,
        paper,
        tuple(examples),
        Growing(seeds.first, short, groups, seeds.race, confirm) if grows else None,
    )


def _counts(
    sweep_file: SweepFile, options: Sequence[str], seeds: Seeds, confirm: Confirm | None
) -> tuple[Seeds, Confirm | None, int | None, list[str]]:
    """What ``seeds=``, ``confirm.seeds=``, ``confirm.best=`` and ``search.trials=`` among the options make of these.

    Returns the number of proposals too, and the other options.
    """
    written, others = _split(options, "seeds")
    if written is not None:
        value = parse_value(written)[0]
        seeds = parse_seeds(
            value, lambda key, problem: UserError(f"seeds={written}: {f'{key}: ' * bool(key)}{problem}")
        )
    for key in ("seeds", "best"):
        number, others = _whole(others, f"confirm.{key}")
        if number is not None:
            if confirm is None:
                raise UserError(f"confirm.{key}={number}: {sweep_file.document.path} has no confirm")
            confirm = replace(confirm, **{key: number})
    trials, others = _whole(others, "search.trials")
    if trials is not None and not sweep_file.searches:
        raise UserError(f"search.trials={trials}: {sweep_file.document.path} has no search")
    for text in others:
        if text.startswith(("search", "confirm", "seeds.")):
            known = "seeds, search.trials, confirm.seeds and confirm.best"
            raise UserError(f"'{text}': of what may be decided, an override changes {known}; change the file")
    return seeds, confirm, trials, others


def _whole(options: Sequence[str], key: str) -> tuple[int | None, list[str]]:
    """The whole number that ``key=…`` gives, and the other options."""
    written, others = _split(options, key)
    if written is None:
        return None, others
    if not (written.isascii() and written.isdigit() and int(written)):
        raise UserError(f"{key}={written}: expected a whole number of at least 1")
    return int(written), others


def _with_trials(cell: Cell, trials: int | None) -> Cell:
    if cell.search is None or trials is None:
        return cell
    return replace(cell, search=replace(cell.search, trials=trials))


def _check_growth(
    sweep_file: SweepFile, cells: Sequence[Cell], seeds: Seeds, confirm: Confirm | None, continue_from: str | None
) -> None:
    """Raises :class:`UserError` for decisions that exclude each other, and for more trials than a sweep can have."""
    error = sweep_file.document.error
    searches = [cell.search for cell in cells if cell.search is not None]
    if searches and seeds.race is not None:
        problem = "a race cannot give seeds to what a search proposes; write seeds: 3 and confirm: {best: 1, seeds: 10}"
        raise error(("seeds",), problem)
    if searches and continue_from is not None:
        raise error(searches[0].place, "a search cannot continue the trials of another sweep; leave continue_from out")
    if sweep_file.compare is None and (searches or seeds.race or confirm):
        what = "search" if searches else "race" if seeds.race else "confirmation"
        place = searches[0].place if searches else ("seeds",) if seeds.race else ("confirm",)
        example = "compare: {metric: classifier_fid, mode: min}"
        raise error(place, f"a {what} needs the metric that decides; write {example} at the top level")
    if seeds.race is not None:
        _check_race(sweep_file, seeds.race, len(cells))
    if confirm is not None:
        _check_confirm(sweep_file, cells, seeds, confirm)
    proposals = sum(search.trials for search in searches)
    most = len(seeds.first) if seeds.race is None else seeds.race.most
    confirmed = 0 if confirm is None else confirm.seeds * confirm.best * len(cells)
    try:
        number = most * (len(cells) - len(searches) + proposals) + confirmed
        check_count(f"{len(cells):,} cells with their seeds, proposals and confirmations", number)
    except UserError as problem:
        raise error((*searches[0].place, "trials") if searches else ("seeds",), str(problem)) from None
    warn_of_random_proposals(sweep_file, searches)


def _check_race(sweep_file: SweepFile, race: Race, cells: int) -> None:
    error = sweep_file.document.error
    if cells == 1:
        raise error(("seeds",), "a race takes at least two cells; write seeds: 3")
    if race.trials is not None and race.trials <= cells * race.first:
        problem = f"the first seeds of {cells} cells are {cells * race.first} trials already, which leaves no race"
        raise error(("seeds", "trials"), f"{problem}; expected more than that, got {race.trials}")


def _check_confirm(sweep_file: SweepFile, cells: Sequence[Cell], seeds: Seeds, confirm: Confirm) -> None:
    error = sweep_file.document.error
    largest = max([*seeds.first, *([seeds.race.most - 1] if seeds.race else [])])
    if largest >= FIRST_FRESH_SEED:
        fresh = f"with confirm the seeds from {FIRST_FRESH_SEED} on are those of confirmations"
        raise error(("seeds",), f"seed {largest}: {fresh}; expected smaller seeds")
    among = [cell.search.trials for cell in cells if cell.search is not None]
    among += Counter(cell.variant for cell in cells if cell.search is None).values()
    if confirm.best > max(among):
        problem = f"there are never so many cells to choose from: expected at most {max(among)}, got {confirm.best}"
        raise error(("confirm", "best"), problem)


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


def _check_twins(sweep_file: SweepFile, cells: Sequence[Cell]) -> None:
    """Raises :class:`UserError` for two cells that would be searched in the same way, with the same trials."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.search is None:
            continue
        identity = TrialConfig.from_dict({**cell.config, "seed": 0}).identity
        key = repr((identity, replace(cell.search, place=(), trials=1)))
        if (twin := seen.setdefault(key, cell)) is not cell:
            problem = f"duplicate cell: the search of '{cell.variant}' has the same trials as that of '{twin.variant}'"
            raise sweep_file.document.error(cell.place or cell.search.place, problem)


def _check_paper(sweep_file: SweepFile, labels: Sequence[str], searched: Collection[str]) -> None:
    for cell in sweep_file.paper.rows if sweep_file.paper else ():
        if cell in searched:
            problem = "this cell is searched, so that no row of the table has its name; leave it out"
            raise sweep_file.document.error(("paper", "rows", cell), problem)
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

"""Shows what a sweep would run, without running it (``--dry-run``)."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.printing import printable
from orchestrator.screen.console import say
from orchestrator.screen.units import in_bytes
from orchestrator.store.decision_log import cell_key
from orchestrator.store.outlook import Outlook, SearchOutlook
from orchestrator.store.plan_changes import changes, check_meaning, decisions_for, outlook_of
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing_words import told
from orchestrator.sweep.plan import Plan
from orchestrator.sweep.searching import extremes
from orchestrator.sweep.setting import set_option
from orchestrator.sweep.space import Dimension
from trainers.config import TrialConfig
from trainers.footprint import checkpoint_bytes, generator_bytes
from trainers.parts import ConfigError

GRID_SAMPLES = 64
GRID_OVERHEAD = 8_000
"""Bytes of a sample grid beyond its samples, for the magnification of small images or the axes of a plot.

Samples count in full, because they hardly compress.
"""
PROBE_BYTES = 25_000
"""Bytes of a probe's curves and their picture, per evaluation."""
EPOCH_BYTES = 400 + 2_800
"""Bytes of an epoch's metrics: a line of JSON, and about ten rows with three indices in MLflow's SQLite."""


def show_plan(plan: Plan, store: SweepStore) -> None:
    """Prints the cells with their seeds and finished trials, the totals, and the disk space that the rest will need.

    Of a plan that may grow it prints what may be decided, with the fewest and the most trials. If the sweep exists, it
    also prints what the plan adds to it and removes from it. Raises :class:`UserError` for a plan that changes what
    earlier decisions of the sweep mean.
    """
    console = Console()
    check_meaning(store, plan)
    outlook = outlook_of(store, plan)
    done: dict[Hashable, list[bool]] = {}
    there: list[TrialConfig] = []
    to_run: list[TrialConfig] = []
    for trial_id, (row, config) in _known_trials(store, plan).items():
        has_ended = store.trial(trial_id).status().state.is_result
        done.setdefault(row, []).append(has_ended)
        there.append(config)
        if not has_ended:
            to_run.append(config)
    console.print(_table(plan, outlook, done))
    for line in told(plan.growing) if plan.growing else []:
        say(console, line)
    least, most = trials_to_come(plan, outlook)
    trials = _range(len(there) + len(least), len(there) + len(most))
    iterations = _range(*(sum(config.budget for config in [*there, *further]) for further in (least, most)))
    running = _range(len(to_run) + len(least), len(to_run) + len(most))
    say(
        console,
        f"{plan.name}: {len(plan.examples)} cells, {trials} trials, {iterations} critic iterations; "
        f"{running} trials to run. Nothing was started.",
    )
    to_run += most
    for line in [*changes(store, plan), *(disk_lines(to_run, store.runs_dir, exact=least == most) if to_run else [])]:
        say(console, line)


def _known_trials(store: SweepStore, plan: Plan) -> dict[str, tuple[Hashable, TrialConfig]]:
    """The row of the table and the configuration of each trial that is planned or decided, by its id."""
    known: dict[str, tuple[Hashable, TrialConfig]] = {
        trial.trial_id: (cell_key(trial.variant, trial.axes), trial.config) for trial in plan.trials
    }
    examples = _examples(plan)
    for entry in (entry for decision in decisions_for(store, plan)[0] for entry in decision.trials):
        grid = {name: value for name, value in entry.axes.items() if name not in entry.searched}
        cell = cell_key(entry.variant, grid)
        values = {name: entry.axes[name] for name in entry.searched}
        row = (CONFIRMATION, cell if entry.searched else cell_key(entry.variant, {}))
        config = _with_values(examples[cell], values)
        known.setdefault(entry.trial_id, (row if entry.stage == "confirm" else cell, config))
    return known


def _examples(plan: Plan) -> dict[Hashable, TrialConfig]:
    """A configuration of each cell."""
    return {cell_key(each.variant, each.axes): each.config for each in plan.examples}


def _with_values(config: TrialConfig, values: Mapping[str, Any]) -> TrialConfig:
    """The configuration with these values of options. Raises ConfigError if there is none."""
    if not values:
        return config
    changed = config.to_dict()
    for name, value in values.items():
        changed = set_option(changed, name, value)
    return TrialConfig.from_dict(changed)


CONFIRMATION = "confirmation"
"""Marks the row of a confirmation among those of cells."""


def _table(plan: Plan, outlook: Outlook, done: Mapping[Hashable, Sequence[bool]]) -> Table:
    """The table of a plan's cells and of its confirmations, with the trials that are ``done`` in each row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell")
    names = ["proposals", "decided", "seeds", "done"] if outlook.searches else ["seeds", "done"]
    for name in names:
        table.add_column(name, justify="right")

    def add(label: str, key: Hashable, seeds: str, search: SearchOutlook | None = None) -> None:
        row = {"seeds": seeds, "done": str(sum(done.get(key, [])))}
        if search is not None:
            row |= {"proposals": str(search.proposals), "decided": str(search.decided)}
        table.add_row(Text(printable(label)), *(row.get(name, "") for name in names))

    for example in plan.examples:
        key = cell_key(example.variant, example.axes)
        seeds, race = str(len(done.get(key, []))), outlook.race
        if race is not None and key in race.racing and race.further:
            seeds = f"{seeds} to {race.race.most}"
        search = outlook.searches.get(key)
        add(example.label, key, seeds if search is None else str(search.seeds), search)
    for cell, each in outlook.confirmations.items():
        times = "" if each.confirm.best == 1 else f"{min(each.confirm.best, each.of)} × "
        add(f"confirmation of {each.label}", (CONFIRMATION, cell), f"{times}{each.confirm.seeds}")
    return table


def trials_to_come(plan: Plan, outlook: Outlook) -> tuple[list[TrialConfig], list[TrialConfig]]:
    """A configuration for each of the fewest and of the most trials that may be decided.

    Of what a search may choose, the fewest have the smallest values and the most have the largest ones.
    """
    examples = _examples(plan)
    least: list[TrialConfig] = []
    most: list[TrialConfig] = []
    for key, search in outlook.searches.items():
        small, large = _extremes(examples[key], search.group.search.space)
        confirmation = outlook.confirmations.get(key)
        least += [small] * (search.left * search.seeds + (confirmation.least if confirmation else 0))
        most += [large] * (search.left * search.seeds + (confirmation.most if confirmation else 0))
    if (race := outlook.race) is not None:
        further = [config for key in race.racing for config in [examples[key]] * race.further]
        most += sorted(further, key=_size, reverse=True)[: race.most]
    for key, each in outlook.confirmations.items():
        if key not in outlook.searches:
            configs = sorted((example.config for example in plan.examples if example.variant == each.label), key=_size)
            least += [configs[0]] * each.least
            most += [configs[-1]] * each.most
    return least, most


def _extremes(config: TrialConfig, space: Mapping[str, Dimension]) -> tuple[TrialConfig, TrialConfig]:
    """The smallest and the largest configuration that a search may propose, one option after the other."""
    small = large = config
    for name, dimension in space.items():
        for value in extremes(dimension):
            with contextlib.suppress(ConfigError):  # each value is valid by itself; together they may not be
                small = min(small, _with_values(small, {name: value}), key=_size)
            with contextlib.suppress(ConfigError):
                large = max(large, _with_values(large, {name: value}), key=_size)
    return small, large


def _size(config: TrialConfig) -> tuple[int, int]:
    return config.budget, sum(disk_shares(config).values())


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"from {least:,} to {most:,}"


def disk_lines(trials: Sequence[TrialConfig], runs_dir: Path, *, exact: bool = True) -> list[str]:
    """Lines on the disk space that trials will need, with the largest share in brackets. Warns if less is free.

    The estimate ignores files that already exist. It counts one checkpoint too many for a trial that ends before its
    second checkpoint is due. Unless it is ``exact``, there may be fewer trials or smaller ones.
    """
    shares: Counter[str] = Counter()
    for config in trials:
        shares.update(disk_shares(config))
    total = shares.total()
    [(largest, _)] = shares.most_common(1)
    if largest == "checkpoints":
        sizes = sorted(map(checkpoint_bytes, trials))
        number = {2: "two", 3: "three"}[checkpoints_kept(trials[0])]
        span = " to ".join(dict.fromkeys([in_bytes(sizes[0]), in_bytes(sizes[-1])]))
        largest = f"{number} checkpoints of {span} each trial"
    what = "the trial" if len(trials) == 1 else f"the {len(trials)} trials"
    lines = [f"disk: {'about' if exact else 'at most about'} {in_bytes(total)} for {what} to run (mostly {largest})"]
    runs_dir = runs_dir.resolve()
    folder = next(folder for folder in (runs_dir, *runs_dir.parents) if folder.exists())
    if (free := shutil.disk_usage(folder).free) < total:
        lines.append(f"warning: only {in_bytes(free)} are free in '{folder}'")
    return lines


def disk_shares(config: TrialConfig) -> dict[str, int]:
    """Bytes of one trial, by kind of file. Sample grids and probes count twice: in the store and in MLflow."""
    example = math.prod(config.dataset.shape)
    grids = min(config.evaluation.times, config.epochs) + 1  # one per evaluation, and one of the untrained generator
    return {
        "checkpoints": checkpoints_kept(config) * checkpoint_bytes(config),
        "sample grids": 2 * grids * (GRID_SAMPLES * example + GRID_OVERHEAD),
        "probes": 2 * grids * sum(PROBE_BYTES + probe.pictured * example for probe in config.probes),
        "metrics": config.epochs * EPOCH_BYTES,
        "generators": generator_bytes(config),
    }


def checkpoints_kept(config: TrialConfig) -> int:
    """The number of checkpoints on disk: the last, the one before, and the best if there is a metric to choose it."""
    return 3 if config.evaluation.metrics else 2

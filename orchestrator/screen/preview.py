"""Shows what a sweep would run, without running it (``--dry-run``)."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.printing import printable
from orchestrator.screen.console import say
from orchestrator.screen.units import in_bytes
from orchestrator.store.plan_changes import changes
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.plan import Plan
from trainers.config import TrialConfig
from trainers.footprint import checkpoint_bytes, generator_bytes

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

    If the sweep exists, it also prints what the plan adds to it and removes from it.
    """
    console = Console()
    cells: dict[str, list[bool]] = {}
    to_run: list[TrialConfig] = []
    for trial in plan.trials:
        done = store.trial(trial.trial_id).status().state.is_result
        cells.setdefault(trial.label, []).append(done)
        if not done:
            to_run.append(trial.config)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell")
    table.add_column("seeds", justify="right")
    table.add_column("done", justify="right")
    for label, finished in cells.items():
        table.add_row(Text(printable(label)), str(len(finished)), str(sum(finished)))
    console.print(table)
    iterations = sum(trial.config.budget for trial in plan.trials)
    console.print(
        f"{plan.name}: {len(cells)} cells, {len(plan.trials)} trials, {iterations:,} critic iterations; "
        f"{len(to_run)} trials to run. Nothing was started.",
        highlight=False,
        soft_wrap=True,
    )
    for line in [*changes(store, plan), *(disk_lines(to_run, store.runs_dir) if to_run else [])]:
        say(console, line)


def disk_lines(trials: Sequence[TrialConfig], runs_dir: Path) -> list[str]:
    """Lines on the disk space that trials will need, with the largest share in brackets. Warns if less is free.

    The estimate ignores files that already exist. It counts one checkpoint too many for a trial that ends before its
    second checkpoint is due.
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
    lines = [f"disk: about {in_bytes(total)} for {what} to run (mostly {largest})"]
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

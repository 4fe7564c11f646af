"""What a sweep would run, without running it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.plan import Plan
from orchestrator.store import SweepStore


def show_plan(plan: Plan, store: SweepStore) -> None:
    """The cells with their number of seeds, and how many of the trials have a result already."""
    console = Console()
    cells: dict[str, list[str]] = {}
    for trial in plan.trials:
        cells.setdefault(trial.label, []).append(trial.trial_id)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell")
    table.add_column("seeds", justify="right")
    table.add_column("done", justify="right")
    done = 0
    for label, trial_ids in cells.items():
        finished = sum(store.trial(trial_id).status().state.is_result for trial_id in trial_ids)
        done += finished
        table.add_row(Text(label), str(len(trial_ids)), str(finished))
    console.print(table)
    iterations = sum(trial.config.budget for trial in plan.trials)
    console.print(
        f"{plan.name}: {len(cells)} cells, {len(plan.trials)} trials, {iterations:,} critic iterations; "
        f"{len(plan.trials) - done} trials to run. Nothing was started.",
        highlight=False,
        soft_wrap=True,
    )

"""Commands that maintain runs directories and MLflow: sync, prune."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import RunsDir, SweepName, TrackingUri, tell

if TYPE_CHECKING:
    from orchestrator.store.sweep import SweepStore


def sync(name: SweepName, runs_dir: RunsDir = "runs", tracking_uri: TrackingUri = None) -> None:
    """Write to MLflow what the store has and MLflow lacks."""
    from orchestrator.store.lock import driver_lock
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore
    from orchestrator.tracking.address import check_uri, chosen_uri
    from orchestrator.tracking.mirror import level

    store = SweepStore.open(runs_at(runs_dir), name)
    store.plan()  # a damaged one is told before MLflow is asked
    uri = chosen_uri(tracking_uri, store.runs)
    check_uri(uri)
    with driver_lock(store, tell):
        note, problems = level(store, uri, _verdict(store))
    tell(f"MLflow is up to date with '{name}'{', except for:' if problems else '.'}")
    for line in (*problems, *([note] if note else [])):
        tell(f"{line}.")
    raise typer.Exit(1 if problems else 0)


def prune(
    name: SweepName,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also delete the last and best checkpoints of trials with a result.")
    ] = False,
    removed: Annotated[
        bool, typer.Option("--removed", help="Also delete trials that are no longer in the sweep file.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    runs_dir: RunsDir = "runs",
) -> None:
    """Free disk space: delete the previous checkpoints of trials with a result, and attempts before a restart."""
    from orchestrator.screen.units import in_bytes
    from orchestrator.store.lock import driver_lock
    from orchestrator.store.pruning import prunable, prune, size_of
    from orchestrator.store.runs import location, runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    with driver_lock(store, tell), store.outline() as outline:
        paths = prunable(outline, checkpoints=checkpoints, removed=removed)
        if dry_run:
            for path in paths:
                tell(f"{in_bytes(size_of(path)):>9}  {location(store.runs)}/{path.relative_to(outline.runs_dir)}")
            tell(f"{in_bytes(sum(map(size_of, paths)))} could be freed. Nothing was deleted.")
            return
        freed, problems = prune(paths)
    for problem in problems:
        tell(f"orchestrator: {problem}", err=True)
    tell(f"{in_bytes(freed)} freed.")
    raise typer.Exit(1 if problems else 0)


def _verdict(store: SweepStore) -> str:
    """The verdict of the sweep's table, from what can be read. What cannot be read is told by the mirror."""
    from orchestrator.results.comparison import comparison_table
    from orchestrator.results.verdict_text import answer
    from orchestrator.store.readable import leave_out_unreadable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leave_out_unreadable(store)
    return answer(comparison_table(store)) if store.has_results() else ""

"""Commands that run trials: sweep, resume, stop, train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import (
    Address,
    ExecutorName,
    FeatureWeights,
    MaxConcurrent,
    Offline,
    RunsDir,
    SweepName,
    TrackingUri,
    given_path,
    run_options,
    tell,
)
from orchestrator.errors import disk_errors

if TYPE_CHECKING:
    from orchestrator.driver.options import Options
    from orchestrator.store.selection import Selection
    from orchestrator.store.sweep import SweepStore
    from orchestrator.sweep.plan import Plan


def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep file.", parser=given_path("FILE"))],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]…", help="key=value for every trial; also scale=NAME, seeds=N, continue_from=NAME."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name for the sweep; needed with overrides.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    offline: Offline = False,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
    feature_weights: FeatureWeights = None,
    executor: ExecutorName = "ray",
) -> None:
    """Plan a sweep, run the trials that are not done, print the comparison table."""
    from orchestrator.store.runs import cache_dir, folder_of, runs_at
    from orchestrator.store.sweep import SweepStore
    from orchestrator.store.weights import plan_with_weights
    from orchestrator.sweep.file import read_sweep_file
    from orchestrator.sweep.plan import make_plan

    runs = runs_at(runs_dir)
    plan = make_plan(read_sweep_file(file, name), overrides or [], name, cache_dir(folder_of(runs)))
    plan = plan_with_weights(plan, feature_weights)
    store = SweepStore(runs, plan.name)
    if dry_run:
        store.pull()
        from orchestrator.screen.preview import show_plan

        show_plan(plan, store)
        return
    options = run_options(runs, tracking_uri, offline, address, max_concurrent, executor=executor)
    with disk_errors():
        plan.examples[0].config.dataset.prepare(store.cache_dir)  # all trials share it
    raise typer.Exit(_drive(store, options, plan))


def resume(
    name: SweepName,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only trials in this state: failed, lost or pending.")
    ] = None,
    trial: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this trial; the first digits of its id are enough.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Train from the start; the old attempts are kept.")
    ] = False,
    retry_diverged: Annotated[bool, typer.Option("--retry-diverged", help="Also run diverged trials.")] = False,
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    offline: Offline = False,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
    feature_weights: FeatureWeights = None,
    executor: ExecutorName = "ray",
) -> None:
    """Continue the trials that failed, were lost or did not finish, from their checkpoints."""
    from orchestrator.store.runs import runs_at
    from orchestrator.store.selection import select
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    options = run_options(store.runs, tracking_uri, offline, address, max_concurrent, feature_weights, executor)
    selection = select(store, only or [], trial or [], restart=restart, retry_diverged=retry_diverged)
    raise typer.Exit(_drive(store, options, selection=selection))


def stop(name: SweepName, runs_dir: RunsDir = "runs") -> None:
    """Ask a running sweep to write checkpoints and end; wait until it has ended."""
    from orchestrator.screen.waiting import waits_for
    from orchestrator.store.runs import runs_at
    from orchestrator.store.stopping import stop_driver
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    if not stop_driver(store, tell, lambda driver: tell(waits_for(store, driver))):
        raise typer.Exit(130)
    tell(f"'{name}' has stopped.")


def train(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDE]…", help="key=value.")] = None,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Train one trial in this process, without Ray, to develop a method."""
    from orchestrator.store.runs import folder_at
    from orchestrator.trial.here import train_here

    raise typer.Exit(train_here(overrides or [], folder_at(runs_dir), feature_weights))


def _drive(store: SweepStore, options: Options, plan: Plan | None = None, selection: Selection | None = None) -> int:
    from rich.console import Console

    from orchestrator.driver.run import run_sweep
    from orchestrator.screen.output import outlive_closed_pipes
    from orchestrator.store.selection import EVERYTHING

    outlive_closed_pipes()
    return run_sweep(store, options, Console(), plan, selection or EVERYTHING)

"""Commands that show the progress of sweeps: status, ui."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import RunsDir, TrackingUri, tell
from orchestrator.errors import UserError


def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; default: all sweeps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    runs_dir: RunsDir = "runs",
) -> None:
    """Show the progress of a sweep, or of all sweeps. It is read from the runs directory, so the sweep need not run."""
    from json import dumps

    from orchestrator.screen.status import show_status, sweep_status
    from orchestrator.store.runs import runs_at, sweep_names
    from orchestrator.store.sweep import SweepStore

    runs = runs_at(runs_dir)
    names = [name] if name else sweep_names(runs)
    known, unread = [], 0
    for each in names:
        try:
            known.append(sweep_status(SweepStore.open(runs, each)))
            unread += len(known[-1]["damaged"])
        except UserError as problem:  # a damaged sweep must not hide the others
            if name:
                raise
            tell(f"orchestrator: {problem}", err=True)
            unread += 1
    if not names:
        tell(f"there is no sweep in '{runs_dir}' yet", err=True)
    if json:
        typer.echo(dumps(known[0] if name else known, indent=1))
    else:
        show_status(known, with_trials=name is not None)
    raise typer.Exit(1 if unread else 0)


def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; default: all sweeps.")] = None,
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="A port of the loopback interface; default: 5000.")
    ] = None,
) -> None:
    """Serve MLflow's web pages on this machine: the list of sweeps, or one sweep's charts."""
    from orchestrator.store.runs import runs_at
    from orchestrator.tracking.ui import serve

    serve(runs_at(runs_dir, asking=False), tracking_uri, port, name)

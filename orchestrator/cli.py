"""The commands, thin: what they do stands in the other modules, imported when a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import Aborted, UserError

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.store import SweepStore

app = typer.Typer(
    help="Experiment sweeps for Wasserstein GANs: which ground metric, which penalty, how many critic iterations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunsDir = Annotated[Path, typer.Option(help="Where sweeps, MLflow's database and caches are kept.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow's tracking URI; default: SQLite in the runs directory.")]
Address = Annotated[str | None, typer.Option(help="host:port of a Ray cluster; default: a local Ray of its own.")]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="At most so many trials at once.")]
SweepName = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE]…", help="key=value for every trial; scale=NAME, seeds=N."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Another name for the sweep; needed with overrides.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
    runs_dir: RunsDir = Path("runs"),
    tracking_uri: TrackingUri = None,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
) -> None:
    """Plan a sweep, run what is not done, print the comparison table."""
    from orchestrator.plan import make_plan
    from orchestrator.store import SweepStore
    from orchestrator.sweep_file import read_sweep_file

    plan = make_plan(read_sweep_file(file), overrides or [], name)
    store = SweepStore(runs_dir, plan.name)
    if dry_run:
        from orchestrator.preview import show_plan

        show_plan(plan, store)
        return
    raise typer.Exit(_drive(store, tracking_uri, address, max_concurrent, plan))


@app.command()
def resume(
    name: SweepName,
    restart: Annotated[bool, typer.Option("--restart", help="From the start instead; old attempts are kept.")] = False,
    runs_dir: RunsDir = Path("runs"),
    tracking_uri: TrackingUri = None,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
) -> None:
    """Run what failed or did not finish, from checkpoints."""
    from orchestrator.store import SweepStore

    store = SweepStore.open(runs_dir, name)
    raise typer.Exit(_drive(store, tracking_uri, address, max_concurrent, restart=restart))


@app.command()
def stop(name: SweepName, runs_dir: RunsDir = Path("runs")) -> None:
    """Ask a running sweep to write checkpoints and end, and wait until it has."""
    from orchestrator.driver import stop_driver
    from orchestrator.store import SweepStore

    stop_driver(SweepStore.open(runs_dir, name))
    typer.echo(f"'{name}' has stopped.")


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; default: all sweeps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show the states of a sweep's trials, or of all sweeps."""
    from json import dumps

    from orchestrator.progress import status_summary
    from orchestrator.store import SweepStore, sweep_names

    stores = (
        [SweepStore.open(runs_dir, name)] if name else [SweepStore(runs_dir, each) for each in sweep_names(runs_dir)]
    )
    summaries = [status_summary(store) for store in stores]
    if json:
        typer.echo(dumps(summaries[0] if name else summaries, indent=1))
        return
    for summary in summaries:
        counts = ", ".join(f"{number} {state}" for state, number in summary["counts"].items())
        typer.echo(f"{summary['sweep']}: {counts}")
        for trial in summary["trials"] if name else []:
            error = f"  {trial['error']}" if trial["error"] else ""
            place = f"{trial['epoch']}/{trial['epochs']}"
            typer.echo(
                f"  {trial['trial_id']}  {trial['state']:<8}  {place:>9}  {trial['cell']} seed={trial['seed']}{error}"
            )


@app.command()
def sync(name: SweepName, runs_dir: RunsDir = Path("runs"), tracking_uri: TrackingUri = None) -> None:
    """Bring MLflow level with the store."""
    from orchestrator.driver import driver_lock
    from orchestrator.store import SweepStore
    from orchestrator.tracking import Mirror, check_uri, default_uri

    store = SweepStore.open(runs_dir, name)
    uri = tracking_uri or default_uri(runs_dir)
    check_uri(uri)
    with driver_lock(store):
        Mirror(store, uri).finish()
    typer.echo(f"MLflow is level with '{name}'.")


@app.command()
def export(
    name: SweepName,
    format: Annotated[str, typer.Option(help="csv, markdown, latex, html or json.")] = "markdown",  # noqa: A002
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; default: standard output.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write a sweep's comparison table."""
    from orchestrator.formats import FORMATS
    from orchestrator.store import SweepStore
    from orchestrator.tables import comparison_table
    from trainers.parts import nearest

    if format not in FORMATS:
        raise UserError(f"--format: there is no format called '{format}'{nearest(format, FORMATS)}")
    store = SweepStore.open(runs_dir, name)
    text = FORMATS[format][1](comparison_table(store))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}") from None


@app.command()
def train(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDE]…", help="key=value.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train one trial here, without Ray: for developing a method."""
    from orchestrator.single import train_here

    raise typer.Exit(train_here(overrides or [], runs_dir))


@app.command()
def ui(
    runs_dir: RunsDir = Path("runs"),
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(help="On the loopback interface.")] = 5000,
) -> None:
    """Open MLflow's pages on this machine."""
    from orchestrator.ui import serve

    serve(runs_dir, tracking_uri, port)


def _drive(
    store: SweepStore,
    tracking_uri: str | None,
    address: str | None,
    max_concurrent: int | None,
    plan: Plan | None = None,
    *,
    restart: bool = False,
) -> int:
    from rich.console import Console

    from orchestrator.driver import Options, run_sweep
    from orchestrator.tracking import default_uri

    options = Options(tracking_uri or default_uri(store.runs_dir), address, max_concurrent, restart)
    return run_sweep(store, options, Console(), plan)


def main() -> None:
    """Entry point. 0: every trial has its result; 1: some did not finish; 2: bad input; 130: interrupted."""
    from trainers.parts import ConfigError

    try:
        app()
    except (UserError, ConfigError) as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Aborted):
        sys.exit(130)

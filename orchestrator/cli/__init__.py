"""The commands, thin: what they do stands in the other modules, imported when a command runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import Aborted, UserError, disk_errors

if TYPE_CHECKING:
    from orchestrator.driver.run import Options
    from orchestrator.store.runs import Runs
    from orchestrator.store.selection import Selection
    from orchestrator.store.sweep import SweepStore
    from orchestrator.sweep.plan import Plan

app = typer.Typer(
    help="Experiment sweeps for Wasserstein GANs: which ground metric, which penalty, how many critic iterations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SECONDS_TO_LEAVE = 60.0

RunsDir = Annotated[
    str,
    typer.Option(metavar="DIR", help="Where sweeps, MLflow's database and caches are kept; or s3://bucket/folder."),
]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow's tracking URI; default: SQLite in the runs directory.")]
Address = Annotated[str | None, typer.Option(help="host:port of a Ray cluster; default: a local Ray of its own.")]
Offline = Annotated[bool, typer.Option("--offline", help="Leave MLflow for a later sync.")]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="At most so many trials at once.")]
FeatureWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Inception's weights; default: the published ones, downloaded once."),
]
SweepName = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The sweep file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]…", help="key=value for every trial; scale=NAME, seeds=N, continue_from=NAME."
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
) -> None:
    """Plan a sweep, run what is not done, print the comparison table."""
    from orchestrator.store.runs import cache_dir, folder_of, runs_at
    from orchestrator.store.sweep import SweepStore
    from orchestrator.store.weights import plan_with_weights
    from orchestrator.sweep.file import read_sweep_file
    from orchestrator.sweep.plan import make_plan

    runs = runs_at(runs_dir)
    plan = make_plan(read_sweep_file(file), overrides or [], name, cache_dir(folder_of(runs)))
    plan = plan_with_weights(plan, feature_weights)
    store = SweepStore(runs, plan.name)
    if dry_run:
        store.pull()
        from orchestrator.screen.preview import show_plan

        show_plan(plan, store)
        return
    options = _options(runs, tracking_uri, offline, address, max_concurrent)
    with disk_errors():
        plan.trials[0].config.dataset.prepare(store.cache_dir)  # one of all trials
    raise typer.Exit(_drive(store, options, plan))


@app.command()
def resume(
    name: SweepName,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only trials that are failed, lost or pending.")
    ] = None,
    trial: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this trial; the first digits will do.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="From the start instead; old attempts are kept.")] = False,
    retry_diverged: Annotated[bool, typer.Option("--retry-diverged", help="Diverged trials as well.")] = False,
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    offline: Offline = False,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
    feature_weights: FeatureWeights = None,
) -> None:
    """Run what failed, was lost or did not finish, from checkpoints."""
    from orchestrator.store.runs import runs_at
    from orchestrator.store.selection import select
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    options = _options(store.runs, tracking_uri, offline, address, max_concurrent, feature_weights)
    selection = select(store, only or [], trial or [], restart=restart, retry_diverged=retry_diverged)
    raise typer.Exit(_drive(store, options, selection=selection))


@app.command(hidden=True)
def conclude(
    name: SweepName,
    because: Annotated[str, typer.Option(help="Why it stopped early.")],
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    offline: Offline = False,
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
) -> None:
    """What a driver becomes when Ray has gone: mark what was running as lost, and print how to go on."""
    from rich.console import Console

    from orchestrator.driver.run import conclude_without_ray
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    options = _options(store.runs, tracking_uri, offline, address, max_concurrent)
    raise typer.Exit(conclude_without_ray(store, options, Console(), because))


@app.command()
def stop(name: SweepName, runs_dir: RunsDir = "runs") -> None:
    """Ask a running sweep to write checkpoints and end, and wait until it has."""
    from orchestrator.store.lock import stop_driver
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    stop_driver(SweepStore.open(runs_at(runs_dir), name), typer.echo)
    typer.echo(f"'{name}' has stopped.")


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; default: all sweeps.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    runs_dir: RunsDir = "runs",
) -> None:
    """Show how far a sweep, or every sweep, has come: from its directory alone, while it runs or afterwards."""
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
        except UserError as problem:  # one that is damaged hides no other
            if name:
                raise
            typer.echo(f"orchestrator: {problem}", err=True)
            unread += 1
    if not names:
        typer.echo(f"there is no sweep in '{runs_dir}' yet", err=True)
    if json:
        typer.echo(dumps(known[0] if name else known, indent=1))
    else:
        show_status(known, with_trials=name is not None)
    raise typer.Exit(1 if unread else 0)


@app.command()
def prune(
    name: SweepName,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also the last and the best checkpoint of trials with a result.")
    ] = False,
    removed: Annotated[
        bool, typer.Option("--removed", help="Also the trials that are no longer in the sweep file.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    runs_dir: RunsDir = "runs",
) -> None:
    """Give disk space back: previous checkpoints of trials that have their result, and what restarts put aside."""
    from orchestrator.screen.units import in_bytes
    from orchestrator.store.lock import driver_lock
    from orchestrator.store.pruning import prunable, prune, size_of
    from orchestrator.store.runs import location, runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    with driver_lock(store, typer.echo), store.outline() as outline:
        paths = prunable(outline, checkpoints=checkpoints, removed=removed)
        if dry_run:
            for path in paths:
                typer.echo(f"{in_bytes(size_of(path)):>9}  {location(store.runs)}/{path.relative_to(outline.runs_dir)}")
            typer.echo(f"{in_bytes(sum(map(size_of, paths)))} could be freed. Nothing was deleted.")
        else:
            typer.echo(f"{in_bytes(prune(paths))} freed.")


@app.command()
def sync(name: SweepName, runs_dir: RunsDir = "runs", tracking_uri: TrackingUri = None) -> None:
    """Bring MLflow level with the store."""
    from orchestrator.store.lock import driver_lock
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore
    from orchestrator.tracking.address import check_uri, default_uri
    from orchestrator.tracking.mirror import level

    store = SweepStore.open(runs_at(runs_dir), name)
    uri = tracking_uri or default_uri(store.runs)
    check_uri(uri)
    with driver_lock(store, typer.echo):
        level(store, uri)
    typer.echo(f"MLflow is level with '{name}'.")


@app.command()
def export(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="The sweep's name; several make one table.")],
    format: Annotated[str, typer.Option(help="csv, markdown, latex, html or json.")] = "markdown",  # noqa: A002
    rows: Annotated[
        str, typer.Option(metavar="NAME=VALUE,…", help="Only cells with this variant or axis value; NAME alone sorts.")
    ] = "",
    columns: Annotated[
        str, typer.Option(metavar="NAME,…", help="Axes, or variant, that lie side by side; NAME=VALUE selects.")
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="NAME,…", help="Which metrics; default: the evaluation's, and the seconds.")
    ] = "",
    at: Annotated[
        str, typer.Option(help="last, best, epoch=K, seconds=S, or METRIC=VALUE: the evaluation nearest to it.")
    ] = "last",
    baseline: Annotated[
        str, typer.Option(metavar="CELL", help="Show differences to this cell, paired by seed; a cell as in the table.")
    ] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; default: standard output.")] = None,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Write a sweep's comparison table, or that of several."""
    from orchestrator.results.formats import FORMATS
    from orchestrator.results.frames import parse_at
    from orchestrator.results.pivot import lay_out
    from orchestrator.results.tables import comparison_table
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore
    from trainers.parts import nearest

    if format not in FORMATS:
        raise UserError(f"--format: there is no format called '{format}'{nearest(format, FORMATS)}")
    runs, when = runs_at(runs_dir), parse_at(at)
    checkpoints = ["best.pt"] if when.what == "best" else []
    stores = [SweepStore.open(runs, name, checkpoints) for name in dict.fromkeys(names)]
    wanted = tuple(name.strip() for name in metrics.split(",") if name.strip())
    again = None
    if feature_weights is not None and when.what != "best":
        raise UserError("--feature-weights goes with --at best: nothing else is measured again")
    if not any(store.has_results() for store in stores):
        raise UserError(f"there is nothing to show: no trial of '{', '.join(names)}' has come to its end yet")
    if when.what == "best":
        from orchestrator.results.evaluate import best_again

        lay_out(comparison_table(*stores, metrics=wanted, baseline=baseline), rows, columns)  # is all of it there?
        again = best_again(stores, feature_weights, tell=lambda text: typer.echo(text, err=True))
    table = comparison_table(*stores, at=when, metrics=wanted, baseline=baseline, again=again)
    text = FORMATS[format][1](lay_out(table, rows, columns))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror}") from None


@app.command()
def plot(
    name: SweepName,
    metric: Annotated[str | None, typer.Option(help="Any logged metric; default: what the sweep compares by.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Default: the sweep's folder figures/.")
    ] = None,
    runs_dir: RunsDir = "runs",
) -> None:
    """Draw a sweep's figures as SVG and PNG: curves, heat maps, parallel coordinates, samples."""
    from orchestrator.results.figures import sweep_pictures, write_pictures
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    folder = output or store.path / "figures"
    for path in write_pictures(sweep_pictures(store, metric), folder):
        typer.echo(path)
    store.keep(folder)


@app.command()
def report(
    name: SweepName,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Default: NAME.html in the sweep's folder.")
    ] = None,
    runs_dir: RunsDir = "runs",
) -> None:
    """Write one HTML file with all of a sweep: question, table, figures, samples, failures, cost, how to repeat it."""
    from orchestrator.results.report import write_report
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    file = write_report(store, output or store.path / f"{name}.html")
    typer.echo(file)
    store.keep(file)


@app.command()
def train(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDE]…", help="key=value.")] = None,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Train one trial here, without Ray: for developing a method."""
    from orchestrator.store.runs import folder_at
    from orchestrator.trial.here import train_here

    raise typer.Exit(train_here(overrides or [], folder_at(runs_dir), feature_weights))


@app.command()
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="A sweep's name, a checkpoint (FILE.pt), a trial's directory, or a folder of images."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDE]…", help="evaluation=NAME, evaluation.KEY=value; for a folder dataset=NAME."),
    ] = None,
    trial: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this trial of the sweep; the first digits will do.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Measure again: the checkpoints of a sweep, one checkpoint, or a folder of images. The store stays as it is."""
    from json import dumps

    from orchestrator.results.evaluate import Request, evaluate, show_scores
    from orchestrator.store.runs import runs_at

    words = tuple(overrides or []), tuple(trial or [])
    request = Request(target, *words, checkpoint, runs_at(runs_dir), feature_weights)
    scores = evaluate(request, tell=lambda text: typer.echo(text, err=True))
    if json:
        typer.echo(dumps(scores.to_dict(), indent=1))
    else:
        show_scores(scores)
    raise typer.Exit(1 if scores.missing else 0)


@app.command()
def ui(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The sweep's name; default: all sweeps.")] = None,
    runs_dir: RunsDir = "runs",
    tracking_uri: TrackingUri = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="On the loopback interface; default: 5000.")
    ] = None,
) -> None:
    """Open MLflow's pages on this machine: the list of sweeps, or one sweep's charts."""
    from orchestrator.store.runs import folder_at
    from orchestrator.tracking.ui import serve

    serve(Path() if tracking_uri else folder_at(runs_dir), tracking_uri, port, name)


def _options(
    runs: Runs,
    tracking_uri: str | None,
    offline: bool,
    address: str | None,
    max_concurrent: int | None,
    feature_weights: Path | None = None,
) -> Options:
    from orchestrator.driver.run import Options
    from orchestrator.tracking.address import default_uri

    if offline and tracking_uri is not None:
        raise UserError("--offline leaves MLflow out: it does not go with --tracking-uri")
    uri = None if offline else tracking_uri or default_uri(runs)
    return Options(uri, address, max_concurrent, feature_weights)


def _drive(store: SweepStore, options: Options, plan: Plan | None = None, selection: Selection | None = None) -> int:
    from rich.console import Console

    from orchestrator.driver.run import run_sweep
    from orchestrator.store.selection import EVERYTHING

    return run_sweep(store, options, Console(), plan, selection or EVERYTHING)


def program() -> None:
    """The program ``orchestrator``: :func:`main` in a process of its own, which ends when that has."""
    from orchestrator.leaving import leave_within

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no '·' ends no sweep
    code: object = 1
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
        raise
    finally:
        leave_within(SECONDS_TO_LEAVE, code if isinstance(code, int) else 1)


def main() -> None:
    """What ``sys.argv`` asks for. 0: every trial has its result; 1: some did not finish; 2: bad input; 130: stopped."""
    from trainers.parts import ConfigError

    try:
        app()
    except (UserError, ConfigError) as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Aborted):
        sys.exit(130)

"""Commands that compare: export, plot, report, evaluate."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import FeatureWeights, RunsDir, SweepName, given_path, tell
from orchestrator.errors import UserError

StageOption = Annotated[
    str,
    typer.Option(
        help="Of a sweep that confirms: explored (all that was tried), or confirmed (fresh seeds alone); "
        "default: confirmed, as soon as it has a value."
    ),
]


def export(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="The sweep's name; several share a table.")],
    format: Annotated[  # noqa: A002
        str,
        typer.Option(help="csv, markdown, latex, html or json; default: what --output ends in, otherwise markdown."),
    ] = "",
    rows: Annotated[
        str,
        typer.Option(
            metavar="NAME=VALUE,…", help="Show only cells with this variant or axis value; NAME alone sorts by it."
        ),
    ] = "",
    columns: Annotated[
        str,
        typer.Option(
            metavar="NAME,…", help="Axes (or variant) whose values become columns; NAME=VALUE shows only that value."
        ),
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="NAME,…", help="The metrics to show; default: the evaluation's, and the seconds.")
    ] = "",
    at: Annotated[
        str,
        typer.Option(
            help="The evaluation to show: last, best, epoch=K, seconds=S, or METRIC=VALUE (the one nearest to VALUE)."
        ),
    ] = "last",
    baseline: Annotated[
        str,
        typer.Option(
            metavar="CELL", help="Show differences to this cell, over the same seeds. Write it as the table shows it."
        ),
    ] = "",
    intervals: Annotated[
        str, typer.Option(help="Intervals of means: t (Student's t), or log (the same on the logarithm's scale).")
    ] = "t",
    stage: StageOption = "",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: standard output.", parser=given_path("--output")),
    ] = None,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Write the comparison table of one sweep, or of several, with its verdict."""
    from orchestrator.results.export import exported, format_for
    from orchestrator.store.runs import runs_at

    note = functools.partial(tell, err=True)
    text, damaged = exported(
        runs_at(runs_dir),
        names,
        format_for(output, format, note),
        rows=rows,
        columns=columns,
        metrics=metrics,
        at=at,
        baseline=baseline,
        intervals=intervals,
        stage=stage,
        feature_weights=feature_weights,
        tell=note,
    )
    if output is None:
        typer.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--output {output}: cannot be written: {error.strerror}") from None
    raise typer.Exit(1 if damaged else 0)


def plot(
    name: SweepName,
    metric: Annotated[
        str | None, typer.Option(help="Any logged metric; default: the one that the sweep compares by.")
    ] = None,
    stage: StageOption = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Default: figures/ in the sweep's folder; with --stage explored figures/explored/.",
            parser=given_path("--output"),
        ),
    ] = None,
    runs_dir: RunsDir = "runs",
) -> None:
    """Draw a sweep's figures as SVG and PNG: curves, heat maps, parallel coordinates, samples, searches, races."""
    from orchestrator.results.figures import sweep_pictures, write_pictures
    from orchestrator.results.stages import stage_named
    from orchestrator.store.readable import leave_out_unreadable
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    shown = stage_named(stage)
    store = SweepStore.open(runs_at(runs_dir), name)
    damaged = leave_out_unreadable(store)
    folder = output or store.path / "figures" / ("explored" if shown == "explored" else "")
    for path in write_pictures(sweep_pictures(store, metric, stage=shown), folder):
        tell(path)
    store.keep(folder)
    raise typer.Exit(1 if damaged else 0)


def report(
    name: SweepName,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Default: NAME.html in the sweep's folder.",
            parser=given_path("--output"),
        ),
    ] = None,
    runs_dir: RunsDir = "runs",
) -> None:
    """Write a sweep's report, one HTML file: verdict, table, figures, samples, failures, cost, how to repeat it."""
    from orchestrator.results.report import write_report
    from orchestrator.store.readable import leave_out_unreadable
    from orchestrator.store.runs import runs_at
    from orchestrator.store.sweep import SweepStore

    store = SweepStore.open(runs_at(runs_dir), name)
    damaged = leave_out_unreadable(store)
    file = write_report(store, output or store.path / f"{name}.html")
    tell(file)
    store.keep(file)
    raise typer.Exit(1 if damaged else 0)


def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A sweep's name, a checkpoint (FILE.pt), a trial's directory, or a folder of images.",
            parser=given_path("TARGET", str),
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OVERRIDE]…", help="evaluation=NAME, evaluation.KEY=value; a folder needs dataset=NAME."
        ),
    ] = None,
    trial: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this trial; the first digits of its id are enough.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="The checkpoint to measure: last or best.")] = "last",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    runs_dir: RunsDir = "runs",
    feature_weights: FeatureWeights = None,
) -> None:
    """Measure a sweep's checkpoints again, or one checkpoint, or a folder of images. The store is not changed."""
    from json import dumps

    from orchestrator.results.evaluate import Request, evaluate
    from orchestrator.results.scores import show_scores
    from orchestrator.store.runs import runs_at

    words = tuple(overrides or []), tuple(trial or [])
    request = Request(target, *words, checkpoint, runs_at(runs_dir), feature_weights)
    scores = evaluate(request, tell=functools.partial(tell, err=True))
    if json:
        typer.echo(dumps(scores.to_dict(), indent=1))
    else:
        show_scores(scores)
    raise typer.Exit(1 if scores.missing else 0)

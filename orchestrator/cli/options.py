"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.driver.options import Options
    from orchestrator.store.runs import Runs

RunsDir = Annotated[
    str,
    typer.Option(metavar="DIR", help="The folder, or s3://bucket/folder, of sweeps, MLflow's database and caches."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow's tracking URI; default: $MLFLOW_TRACKING_URI, or SQLite in the runs directory."),
]
Address = Annotated[str | None, typer.Option(help="host:port of a Ray cluster; default: start a local Ray.")]
Offline = Annotated[bool, typer.Option("--offline", help="Write nothing to MLflow; a later sync does.")]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="Run at most this many trials at once.")]
FeatureWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file with Inception's weights; default: download the published ones once."),
]
SweepName = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name.")]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        help="ray or local. local runs one trial after the other in this process, so that breakpoints work.",
    ),
]


def run_options(
    runs: Runs,
    tracking_uri: str | None,
    offline: bool,
    address: str | None,
    max_concurrent: int | None,
    feature_weights: Path | None = None,
    executor: str = "ray",
) -> Options:
    """The driver's options, from those of the command line. Raises :class:`UserError` for a contradiction."""
    from orchestrator.driver.options import Options
    from orchestrator.tracking.address import chosen_uri

    if offline and tracking_uri is not None:
        raise UserError("--offline writes nothing to MLflow, so it cannot be combined with --tracking-uri")
    uri = None if offline else chosen_uri(tracking_uri, runs)
    return Options(uri, address, max_concurrent, feature_weights, executor)

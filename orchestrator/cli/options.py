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
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        help="ray, or local: one trial after the other in this process, so that breakpoints work.",
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
    """How to run, as the command line says it. Raises :class:`UserError` for options that do not go together."""
    from orchestrator.driver.options import Options
    from orchestrator.tracking.address import default_uri

    if offline and tracking_uri is not None:
        raise UserError("--offline leaves MLflow out: it does not go with --tracking-uri")
    uri = None if offline else tracking_uri or default_uri(runs)
    return Options(uri, address, max_concurrent, feature_weights, executor)

"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import UserError
from orchestrator.printing import printable
from trainers.paths import full_path

if TYPE_CHECKING:
    from orchestrator.driver.options import Options
    from orchestrator.store.runs import Runs


def tell(text: object, *, err: bool = False) -> None:
    """Prints a line for a person, with its control characters written out."""
    typer.echo(printable(text), err=err)


def given_path(name: str, kind: type[Path] | type[str] = Path) -> Callable[[str], Path | str]:
    """A parser for the option or argument ``name``, a path: ``~`` and variables in it are replaced.

    It returns a ``kind`` and raises :class:`UserError` if the path is empty.
    """

    def parse(text: str) -> Path | str:
        try:
            return kind(full_path(text))
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None

    return parse


def given_text(name: str) -> Callable[[str], str]:
    """A parser for the option ``name``, a text: an empty one, as of a variable that is not set, is an error.

    ``sqlite:///PATH`` holds a path that the user gives.
    """

    def parse(text: str) -> str:
        if not text.strip():
            raise UserError(f"{name}: is empty; is it a variable that is not set?")
        path = text.removeprefix("sqlite:///")
        return f"sqlite:///{given_path(name)(path)}" if path != text and path.startswith(("~", "$")) else text

    return parse


RunsDir = Annotated[
    str,
    typer.Option(metavar="DIR", help="The folder, or s3://bucket/folder, of sweeps, MLflow's database and caches."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="MLflow's tracking URI; default: $MLFLOW_TRACKING_URI, or SQLite in the runs directory.",
        parser=given_text("--tracking-uri"),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="host:port of a Ray cluster; default: start a local Ray.",
        parser=given_text("--address"),
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Write nothing to MLflow; a later sync does.")]
MaxConcurrent = Annotated[int | None, typer.Option(min=1, help="Run at most this many trials at once.")]
FeatureWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with Inception's weights; default: download the published ones once.",
        parser=given_path("--feature-weights"),
    ),
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

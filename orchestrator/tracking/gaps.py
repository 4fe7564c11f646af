"""What a run in MLflow lacks of what a trial's directory has, whatever the run's tags say of it.

An older version may have logged fewer metrics, a driver may have been killed, somebody may have deleted points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.store.epochs import POSITION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

NOT_METRICS = frozenset(POSITION) - {"iteration"}
"""What MLflow has a place of its own for."""
CONFIGURATION = "config.yaml"


def points(epochs: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """The points of these epochs, each with the stored timestamp."""
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), record["timestamp"], record["epoch"])
        for record in epochs
        for name, value in record.items()
        if name not in NOT_METRICS
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a configuration, as MLflow's parameters."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def lacking_points(client: MlflowClient, run: Run, expected: Sequence[Metric]) -> list[Metric]:
    """Those of the ``expected`` points that a run does not have. It costs one request a metric.

    A metric that the run does not have at all costs none.
    """
    lacking = []
    by_name: dict[str, list[Metric]] = {}
    for point in expected:
        by_name.setdefault(point.key, []).append(point)
    for name, wanted in by_name.items():
        known = client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else []
        there = {(point.step, point.timestamp) for point in known}
        lacking += [point for point in wanted if (point.step, point.timestamp) not in there]
    return lacking


def lacking_files(client: MlflowClient, run: Run, expected: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the ``expected`` files, as folder and name, that a run does not have. It costs one request a folder."""
    wanted = list(expected)
    there = {
        (folder, PurePosixPath(item.path).name)
        for folder in {folder for folder, _ in wanted}
        for item in client.list_artifacts(run.info.run_id, folder or None)
    }
    return [each for each in wanted if each not in there]

"""Everything that MLflow knows of a sweep, as plain values that compare."""

from __future__ import annotations

from typing import Any

from orchestrator.tracking import quiet_client

Dump = dict[str, dict[str, Any]]


def dump(uri: str, sweep: str, *, times: bool = True) -> Dump:
    """Every run by its name; ``times`` are those at which runs began and ended, and whatever tells them apart."""
    client = quiet_client(uri)
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    found: Dump = {}
    runs = client.search_runs([experiment.experiment_id])
    names = {run.info.run_id: run.info.run_name for run in runs}
    for run in runs:
        assert run.info.run_name not in found, f"two runs are called {run.info.run_name}"
        tags = dict(run.data.tags)
        tags["mlflow.parentRunId"] = names.get(tags.get("mlflow.parentRunId", ""), "none")
        run_id = run.info.run_id
        found[run.info.run_name] = {
            "id": run_id if times else None,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time) if times else None,
            "tags": tags,
            "params": dict(run.data.params),
            "metrics": {
                key: [(point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, key)]
                for key in sorted(run.data.metrics)
            },
            "artifacts": artifacts(client, run_id),
        }
    return found


def artifacts(client: Any, run_id: str, folder: str | None = None) -> list[tuple[str, int]]:
    """The files of a run, with their sizes."""
    found = []
    for item in client.list_artifacts(run_id, folder):
        found += artifacts(client, run_id, item.path) if item.is_dir else [(item.path, item.file_size)]
    return sorted(found)


def points_of(dumped: dict[str, Any]) -> list[tuple[str, int, int, float]]:
    """Every point of a run."""
    return sorted((key, *point) for key, points in dumped["metrics"].items() for point in points)

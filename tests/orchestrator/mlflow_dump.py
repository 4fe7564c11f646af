"""Everything that MLflow has of a sweep, as plain values that can be compared."""

from __future__ import annotations

from typing import Any

from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import quiet_client

Dump = dict[str, dict[str, Any]]


def dump(uri: str, sweep: str, *, times: bool = True) -> Dump:
    """Every run of a sweep, by name. ``times`` adds what differs between two equal runs: ids, start and end."""
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
        if "generator" in tags:
            tags["generator"] = tags["generator"].replace(run_id, "ID")
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
            "models": [
                {
                    "id": model.model_id if times else None,
                    "name": model.name,
                    "status": str(model.status),
                    "metrics": {metric.key: (metric.step, metric.value) for metric in model.metrics or []},
                }
                for model in client.search_logged_models([experiment.experiment_id], f"source_run_id = '{run_id}'")
            ],
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


def expected_points(trial: TrialStore) -> list[tuple[str, int, int, float]]:
    """The points that MLflow should have of a trial: every stored value, and the seconds of training so far."""
    expected, seconds = [], 0.0
    for record in trial.epochs():
        seconds += record.get("epoch_seconds", 0.0)
        values = {name: value for name, value in record.items() if name not in ("epoch", "timestamp")}
        for name, value in {**values, "training_seconds": seconds}.items():
            expected.append((name, record["epoch"], record["timestamp"], float(value)))
    return sorted(expected)


def expected_files(trial: TrialStore) -> list[str]:
    """The files that MLflow should have of a trial: its configuration, and every picture in full and in small."""
    pictures = []
    for file in trial.sample_files():
        _, epoch, *probe = file.stem.split("_", 2)
        name = f"images/{probe[0] if probe else 'samples'}+step+{epoch}+timestamp+0+{trial.trial_id}"
        pictures += [f"{name}+compressed.webp", f"{name}.png"]
    return ["config.yaml", *sorted(pictures)]


def files_of(dumped: dict[str, Any]) -> list[str]:
    """The files of a run."""
    return [path for path, _ in dumped["artifacts"]]

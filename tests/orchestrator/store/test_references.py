"""A trial's metrics as ``references.json`` has them, and back."""

from __future__ import annotations

from orchestrator.store.references import as_stored, stored_metrics
from trainers.metrics import Metric

METRICS = [Metric("fid", "min"), Metric("score", "max"), Metric("held_against")]


def test_directions_come_back_as_they_were_stored() -> None:
    stored = as_stored(METRICS)
    assert stored == {
        "metrics": ["fid", "score", "held_against"],
        "higher_is_better": ["score"],
        "neutral": ["held_against"],
    }
    assert list(stored_metrics({"floor": {}, **stored, "info": {}}).values()) == METRICS


def test_what_is_stored_goes_before_what_is_installed() -> None:
    assert stored_metrics({"metrics": ["fid"], "higher_is_better": ["fid"]})["fid"].direction == "max"


def test_earlier_versions_and_trials_without_references_are_read() -> None:
    assert stored_metrics({}) == {}
    old = {"metrics": ["fid", "score"], "higher_is_better": ["score"]}
    assert [metric.direction for metric in stored_metrics(old).values()] == ["min", "max"]

"""The metrics in a trial's ``references.json``: a list of names, and of them the names with another direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trainers.metrics import Direction, Metric


def as_stored(metrics: Iterable[Metric]) -> dict[str, list[str]]:
    """A trial's metrics as ``references.json`` has them: ``metrics``, ``higher_is_better`` and ``neutral``."""
    metrics = list(metrics)
    return {
        "metrics": [metric.name for metric in metrics],
        "higher_is_better": sorted(metric.name for metric in metrics if metric.direction == "max"),
        "neutral": sorted(metric.name for metric in metrics if metric.direction is None),
    }


def stored_metrics(references: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of a ``references.json``, by name, in its order; none where it has no such list.

    Directions are those that were stored: the package that brought an evaluation may not be installed here. Earlier
    versions stored no ``neutral``.
    """
    higher, neutral = (frozenset(references.get(key, ())) for key in ("higher_is_better", "neutral"))

    def direction(name: str) -> Direction | None:
        return "max" if name in higher else None if name in neutral else "min"

    return {name: Metric(name, direction(name)) for name in references.get("metrics", ())}

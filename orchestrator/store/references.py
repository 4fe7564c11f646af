"""The metrics in a trial's ``references.json``: a list of names, and of them the names with another direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.files import is_number, parse_json
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


def references_from(content: bytes) -> dict[str, Any]:
    """The content of a ``references.json``. Raises ValueError if it is damaged."""
    values = parse_json(content)
    if not isinstance(values, dict):
        raise ValueError("it holds no references")
    floor, info = values.get("floor", {}), values.get("info", {})
    if not isinstance(floor, dict) or not all(isinstance(value, float) or is_number(value) for value in floor.values()):
        raise ValueError("its 'floor' cannot be used")
    if not isinstance(info, dict) or not all(isinstance(value, str) or is_number(value) for value in info.values()):
        raise ValueError("its 'info' cannot be used")
    for key in ("metrics", "higher_is_better", "neutral"):
        names = values.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"its '{key}' cannot be used")
    return values

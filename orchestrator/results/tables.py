"""A comparison table: rows of values by metric. Every format shows the same table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.results.statistics import bootstrap_interval
from orchestrator.sweep.names import cell_label
from trainers.metrics import Metric

UNTRAINED = "untrained generator"
FLOOR = "real training images"
MIXED_CODE = "mixed code"
OTHER_REFERENCE = "other reference"


@dataclass(frozen=True)
class Value:
    """Mean, standard deviation (of a sample), count and 95 % bootstrap interval over seeds.

    For one seed the deviation and the interval are None.
    """

    mean: float
    deviation: float | None
    count: int
    interval: tuple[float, float] | None = None

    @property
    def range(self) -> tuple[float, float]:
        """The interval. Without one, the mean as both bounds."""
        return self.interval or (self.mean, self.mean)


def value_of(numbers: Iterable[float], *, interval: bool = True) -> Value | None:
    """The value of these numbers, without those that are missing or not finite. None if no number is left."""
    import numpy as np

    there = [float(number) for number in numbers if number is not None and math.isfinite(number)]
    if not there:
        return None
    deviation = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return Value(math.fsum(there) / len(there), deviation, len(there), bootstrap_interval(there) if interval else None)


@dataclass(frozen=True)
class Row:
    """A cell: its variant, its axis values as text and as they are, its values by metric, remarks, a paper's numbers.

    ``differences`` are those to the table's baseline, paired by seed. ``seeds`` counts the cell's trials, with a result
    or without.
    """

    variant: str
    setting: str
    axes: Mapping[str, Any]
    values: Mapping[str, Value]
    best: frozenset[str]
    remarks: tuple[str, ...]
    reference: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)
    sweep: str = ""
    differences: Mapping[str, Value] = field(default_factory=dict)
    seeds: int = 0

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return cell_label(self.variant, self.setting)


@dataclass(frozen=True)
class Table:
    """A table, as every format shows it."""

    title: str
    axes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    paper: tuple[str, ...] = ()
    """The metrics for which a paper reports numbers."""
    sweeps: tuple[str, ...] = ()
    """The names of the sweeps, if there are several."""
    baseline: str = ""
    """The label of the cell that others are compared to. Empty if none is."""
    intervals: tuple[str, ...] = ()
    """The metrics whose intervals and differences people see in columns of their own. Programs get all of them."""


def heading(metric: Metric) -> str:
    """The metric's name, with an arrow for the better direction if there is one."""
    return metric.name + {"min": " ↓", "max": " ↑", None: ""}[metric.direction]


def mark_best(table: Table) -> Table:
    """The table with the best cell of each metric marked, if there is one that can be told apart.

    A cell is not marked if another cell's interval overlaps its own, if some of its seeds have no value, or if it is no
    better than the untrained generator. Nothing is marked without another cell to compare with.
    """
    rows = table.rows
    best: list[set[str]] = [set() for _ in rows]
    comparable = [i for i, row in enumerate(rows) if not row.reference and OTHER_REFERENCE not in row.remarks]
    untrained = next((row.values for row in rows if row.reference and row.variant == UNTRAINED), {})
    for metric, direction in ((each.name, each.direction) for each in table.metrics):
        there = [i for i in comparable if metric in rows[i].values]
        if direction is None or not there or len(comparable) < 2:
            continue
        sign = -1 if direction == "max" else 1
        first = min(there, key=lambda i: sign * rows[i].values[metric].mean)
        value, others = rows[first].values[metric], [rows[i].values[metric] for i in there if i != first]
        untold = value.interval is None and any(other.interval is not None for other in others)
        learned = metric not in untrained or sign * value.mean < sign * untrained[metric].mean
        low, high = value.range
        apart = all(other.range[1] < low or other.range[0] > high for other in others)
        if apart and learned and not untold and value.count >= rows[first].seeds:
            best[first].add(metric)
    return replace(
        table, rows=tuple(replace(row, best=frozenset(marked)) for row, marked in zip(rows, best, strict=True))
    )

"""A comparison table: rows of values by metric. Every format shows the same table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.results.stages import Grown, Out, Race
from orchestrator.results.statistics import Scale, mean_interval
from orchestrator.store.entry import Stage
from orchestrator.sweep.names import cell_label
from trainers.metrics import Metric

if TYPE_CHECKING:
    from orchestrator.results.verdict import Verdict

UNTRAINED = "untrained generator"
FLOOR = "real training images"
MIXED_CODE = "mixed code"
OTHER_REFERENCE = "other reference"
EARLIER = "no longer the best of its search"
ALIKE = "†"
"""The mark of values that are the best or not told apart from it, where no single value is told apart from all."""


@dataclass(frozen=True)
class Value:
    """Mean, standard deviation (of a sample), count and 95 % interval of the mean over seeds.

    For one seed the deviation and the interval are None.
    """

    mean: float
    deviation: float | None
    count: int
    interval: tuple[float, float] | None = None


def value_of(numbers: Iterable[float], scale: Scale | None = "t") -> Value | None:
    """The value of these numbers, without those that are missing or not finite. None if no number is left.

    ``scale`` says how its interval is made, None that it has none. An interval on the logarithm's scale needs positive
    numbers; others have Student's t.
    """
    import numpy as np

    there = [float(number) for number in numbers if number is not None and math.isfinite(number)]
    if not there:
        return None
    mean = math.fsum(there) / len(there)
    if len(there) == 1:
        return Value(mean, None, 1)
    deviation = float(np.std(there, ddof=1))
    if scale is None:
        return Value(mean, deviation, len(there))
    low, high = mean_interval(mean, deviation, len(there), scale if min(there) > 0 else "t")
    return Value(mean, deviation, len(there), (float(low), float(high)))


@dataclass(frozen=True)
class Row:
    """A cell: its variant, its axis values as text and as they are, its values by metric, remarks, a paper's numbers.

    ``best`` are the metrics by which it is the best beyond chance; by those in ``alike`` it is the best or not told
    apart from it. ``differences`` are those to the table's baseline. ``seeds`` counts the cell's trials, with a result
    or without; ``trials`` are their ids. ``stage``, ``proposal`` and ``searched`` are those of its trials, see
    :class:`~orchestrator.store.entry.Entry`. ``out`` says why the cell is out of a race.
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
    alike: frozenset[str] = frozenset()
    trials: frozenset[str] = frozenset()
    stage: Stage = ""
    proposal: int | None = None
    searched: tuple[str, ...] = ()
    out: Out = ""

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return cell_label(self.variant, self.setting)

    def lacks(self, metric: str) -> bool:
        """Whether some of the cell's seeds have no value of the metric, so that its survivors may flatter it."""
        return metric not in self.values or self.values[metric].count < self.seeds


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
    grown: tuple[Grown, ...] = ()
    """The sweeps whose plans grow, and which of their two tables this is."""
    race: Race | None = None
    """The race that the table's cells have run. Of several sweeps, or of other evaluations than the last, none."""
    verdict: Verdict | None = None
    """What the values say by the first metric that has a direction. Set by :func:`~.verdict.judged`."""


def heading(metric: Metric) -> str:
    """The metric's name, with an arrow for the better direction if there is one."""
    return metric.name + {"min": " ↓", "max": " ↑", None: ""}[metric.direction]

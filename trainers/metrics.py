"""Every metric that a trial logs, with its direction, unit and source.

Each metric is described once. The metrics of every trial stand in this module. Evaluations and probes state the
metrics that they add in their ``metrics``. All lists of metrics, here and in the orchestrator, are made from these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from trainers.parts import installed

Direction = Literal["min", "max"]
Source = Literal["loss", "evaluation", "probe", "timing"]


@dataclass(frozen=True)
class Metric:
    """One number that a trial logs.

    - ``direction``: ``min`` if less is better, ``max`` if more is better, None if neither is better.
    - ``source``: what computes the metric.
    - ``logarithmic``: whether a chart should have a logarithmic axis. Distances should: an untrained generator's
      distance is far above all later ones. Losses and KID should not, because they may be negative.
    """

    name: str
    direction: Direction | None = None
    unit: str = ""
    source: Source = "evaluation"
    logarithmic: bool = False

    @property
    def mode(self) -> Direction:
        """The direction of a comparison by this metric if the user gives none: ``min`` unless more is better."""
        return self.direction or "min"


def names_of(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """The metrics' names, in order."""
    return tuple(metric.name for metric in metrics)


EPOCH_METRICS = (
    Metric("critic_loss", source="loss"),
    Metric("generator_loss", source="loss"),
    Metric("dual_value", source="loss"),
    Metric("wasserstein_estimate", source="loss"),
    Metric("penalty", source="loss"),
    Metric("critic_gradient_norm", source="loss"),
    Metric("epoch_seconds", unit="s", source="timing"),
    Metric("images_per_second", unit="1/s", source="timing"),
    Metric("peak_memory_mb", unit="MB", source="timing"),
)
"""The metrics that every epoch of every trial logs."""
EVALUATION_SECONDS = Metric("evaluation_seconds", unit="s", source="timing")
"""The time of an evaluation. Only epochs that end with an evaluation log it."""
COMPILE_SECONDS = Metric("compile_seconds", unit="s", source="timing")
"""The time of compiling. Only the first epoch of a compiled trial logs it."""
TRAINING_SECONDS = Metric("training_seconds", unit="s", source="timing")
"""The sum of ``epoch_seconds`` up to an epoch. No epoch logs it: it is computed when it is asked for."""
OF_EVERY_TRIAL = (*EPOCH_METRICS, EVALUATION_SECONDS, COMPILE_SECONDS, TRAINING_SECONDS)
TIMING = frozenset(metric.name for metric in OF_EVERY_TRIAL if metric.source == "timing")
"""The names of the metrics that differ between two runs of the same trial."""


def find_metric(name: str) -> Metric:
    """The metric of this name. A name that no part states gives a metric without direction and unit."""
    return next((metric for metric in chain(OF_EVERY_TRIAL, stated_metrics()) if metric.name == name), Metric(name))


def stated_metrics() -> Iterator[Metric]:
    """Every metric that an evaluation or probe states, in this package and in other packages."""
    for part in installed("evaluation", "probe"):
        yield from getattr(part, "metrics", ())
        yield from getattr(part, "also_logged", ())

"""Every metric that a trial logs: its direction, its unit, where it comes from.

A metric is described once. What every trial measures stands here. An evaluation and a probe state the metrics that
they add, in their ``metrics``. All lists of metrics, in this package and in the orchestrator, are taken from these.
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

    ``direction``: ``min`` if less is better, ``max`` if more is better, None if neither is.
    ``source``: what computes it. ``logarithmic``: whether a chart of it wants a logarithmic axis. A
    distance does: an untrained generator's is far above all others. A loss or KID may be negative and does not.
    """

    name: str
    direction: Direction | None = None
    unit: str = ""
    source: Source = "evaluation"
    logarithmic: bool = False

    @property
    def mode(self) -> Direction:
        """The direction of a comparison by this metric where nobody states one: ``min`` unless more is better."""
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
"""What every epoch of every trial logs."""
EVALUATION_SECONDS = Metric("evaluation_seconds", unit="s", source="timing")
"""Logged by every epoch that ends with an evaluation."""
COMPILE_SECONDS = Metric("compile_seconds", unit="s", source="timing")
"""Logged by the first epoch of a compiled trial."""
TRAINING_SECONDS = Metric("training_seconds", unit="s", source="timing")
"""Logged by no epoch: the sum of ``epoch_seconds`` up to it."""
OF_EVERY_TRIAL = (*EPOCH_METRICS, EVALUATION_SECONDS, COMPILE_SECONDS, TRAINING_SECONDS)
TIMING = frozenset(metric.name for metric in OF_EVERY_TRIAL if metric.source == "timing")
"""The names of what two runs of one trial do not share."""


def find_metric(name: str) -> Metric:
    """The metric of this name; one without direction and unit where no part states a metric of this name."""
    return next((metric for metric in chain(OF_EVERY_TRIAL, stated_metrics()) if metric.name == name), Metric(name))


def stated_metrics() -> Iterator[Metric]:
    """Every metric that some evaluation or probe states, of this package or another."""
    for part in installed("evaluation", "probe"):
        yield from getattr(part, "metrics", ())
        yield from getattr(part, "also_logged", ())

"""Probes, which measure a critic. This module describes them and does not import torch.

Probes are switched on by name (``probes: [distance, vertical_shift]``) and run at every evaluation. They do not change
the training: networks are in evaluation mode, and probes draw their own random numbers. Each probe adds its metrics to
the epoch's, and its curves with a picture to the trial's directory. A probe is one class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from trainers.metrics import Direction, Metric
from trainers.parts import ConfigError, Part

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.training import Training

QUERIES = 6
"""The number of images whose neighbours the probe ``neighbours`` finds."""
NEIGHBOURS = 9
"""The number of neighbours of each image (Dukler et al., Fig. 1)."""


@dataclass(frozen=True)
class Probed:
    """The results of one probe.

    - ``metrics``: values by name.
    - ``curves``: lists of numbers by name, which are drawn as a picture.
    - ``picture``: a picture of examples instead of one of curves, shape (rows, columns, …).
    """

    metrics: dict[str, float]
    curves: dict[str, list[float]] = field(default_factory=dict)
    picture: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Probe(Part):
    """A measurement of a critic in its present state."""

    kind: ClassVar[str] = "probe"

    metrics: ClassVar[tuple[Metric, ...]]
    """The metrics that it adds to an epoch's record. Only the first one must always be there."""
    needs_images: ClassVar[bool] = False
    pictured: ClassVar[int] = 0
    """The number of examples in its picture. 0 if its picture shows curves."""
    axes: ClassVar[tuple[str, str]] = ("", "")
    """The labels of the curves' axes, x then y."""

    def check(self, trial: Any) -> None:
        """Raises :class:`ConfigError` if the probe cannot measure a trial with the rest of this ``TrialConfig``."""
        if self.needs_images and len(trial.dataset.shape) != 3:
            raise ConfigError("probes", f"{self.name} needs images; {trial.dataset.name} has points")

    def measure(self, training: Training) -> Probed:
        """Measures the critic of a training. The networks are in evaluation mode meanwhile.

        What later evaluations of this training need again may be kept in ``training.kept``, under the probe's name.
        """
        raise NotImplementedError(f"{type(self).__name__} must measure")


def _metric(name: str, direction: Direction | None = None, *, logarithmic: bool = False) -> Metric:
    """A probe's metric. Without a direction it is neutral: other metrics are compared with it."""
    return Metric(name, direction, source="probe", logarithmic=logarithmic)


@dataclass(frozen=True, kw_only=True)
class Distance(Probe):
    """The error of the critic's estimate of the distance. See :func:`trainers.probes.measure.distance`."""

    name: ClassVar[str] = "distance"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("distance_error", "min", logarithmic=True),
        _metric("distance_control_error", logarithmic=True),
        _metric("distance_estimate"),
        _metric("distance_exact"),
        _metric("distance_population_error", "min", logarithmic=True),
    )
    axes: ClassVar[tuple[str, str]] = ("pair of minibatches", "W(q,p)")

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import distance

        return distance(training)


@dataclass(frozen=True, kw_only=True)
class Lipschitz(Probe):
    """The Lipschitz constant of the critic. See :func:`trainers.probes.measure.lipschitz`."""

    name: ClassVar[str] = "lipschitz"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("lipschitz_constant"),
        _metric("lipschitz_distance", logarithmic=True),
    )

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import lipschitz

        return lipschitz(training)


@dataclass(frozen=True, kw_only=True)
class VerticalShift(Probe):
    """The critic on images that move down. See :func:`trainers.probes.measure.vertical_shift`."""

    name: ClassVar[str] = "vertical_shift"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("shift_total_variation", "min"),
        _metric("shift_zero_crossings", "min"),
    )
    needs_images: ClassVar[bool] = True
    axes: ClassVar[tuple[str, str]] = ("rows moved down", "φ, centred")

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import vertical_shift

        return vertical_shift(training)


@dataclass(frozen=True, kw_only=True)
class SaltAndPepper(Probe):
    """The critic on noisy images. See :func:`trainers.probes.measure.salt_and_pepper`."""

    name: ClassVar[str] = "salt_and_pepper"
    metrics: ClassVar[tuple[Metric, ...]] = (_metric("noise_overlap", "max"),)
    needs_images: ClassVar[bool] = True
    axes: ClassVar[tuple[str, str]] = ("bin of φ", "share of images")

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import salt_and_pepper

        return salt_and_pepper(training)


@dataclass(frozen=True, kw_only=True)
class Nearest(Probe):
    """The distance of samples to the nearest training example. See :func:`trainers.probes.measure.nearest`."""

    name: ClassVar[str] = "nearest"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("nearest_distance", logarithmic=True),
        _metric("nearest_distance_held_out"),
    )
    axes: ClassVar[tuple[str, str]] = ("percentile", "distance to the nearest training example")

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import nearest

        return nearest(training)


@dataclass(frozen=True, kw_only=True)
class GeneratorGradient(Probe):
    """The norm of the gradient of the generator's loss. See :func:`trainers.probes.measure.generator_gradient`."""

    name: ClassVar[str] = "generator_gradient"
    metrics: ClassVar[tuple[Metric, ...]] = (_metric("generator_gradient_norm"),)

    def check(self, trial: Any) -> None:
        super().check(trial)
        if not trial.opponent.trained:
            raise ConfigError("probes", f"{self.name} needs a generator, and the opponent is {trial.opponent.words}")

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import generator_gradient

        return generator_gradient(training)


@dataclass(frozen=True, kw_only=True)
class TransportMap(Probe):
    """The critic's transport map. See :func:`trainers.probes.measure.transported`."""

    name: ClassVar[str] = "transport_map"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("map_variance"),
        _metric("map_distance", logarithmic=True),
        _metric("map_distance_held_out"),
        _metric("map_cost"),
        _metric("map_cost_exact"),
    )
    axes: ClassVar[tuple[str, str]] = ("pair of minibatches", "W(q,p)")

    def check(self, trial: Any) -> None:
        super().check(trial)
        if not trial.opponent.carried:
            problem = f"{self.name} needs opponent=noise, and the opponent is {trial.opponent.words}"
            raise ConfigError("probes", problem)

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import transported

        return transported(training)


@dataclass(frozen=True, kw_only=True)
class Neighbours(Probe):
    """The nearest training images under ℓ₂ and W₂. See :func:`trainers.probes.measure.neighbours`."""

    name: ClassVar[str] = "neighbours"
    metrics: ClassVar[tuple[Metric, ...]] = (
        _metric("neighbours_in_common"),
        _metric("neighbours_same_class_l2"),
        _metric("neighbours_same_class_w2"),
    )
    needs_images: ClassVar[bool] = True
    pictured: ClassVar[int] = QUERIES * (1 + 2 * NEIGHBOURS)

    def measure(self, training: Training) -> Probed:
        from trainers.probes.measure import neighbours

        return neighbours(training)

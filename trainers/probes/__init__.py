"""What is measured of a trained critic, beside the evaluation of its generator: what there is, without torch.

Probes are switched on by name (``probes: [distance, vertical_shift]``), run at every evaluation, and disturb nothing:
networks in evaluation mode, random numbers of their own. Each adds its metrics to the epoch's, and its curves, and a
picture of them, to the trial's directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainers.metrics import Direction, Metric
from trainers.parts import ConfigError

ProbeName = Literal[
    "distance",
    "lipschitz",
    "vertical_shift",
    "salt_and_pepper",
    "nearest",
    "generator_gradient",
    "transport_map",
    "neighbours",
]

QUERIES = 6
"""Images whose neighbours ``neighbours`` looks for."""
NEIGHBOURS = 9
"""Of each (Dukler et al., Fig. 1)."""


@dataclass(frozen=True)
class Probe:
    """``metrics`` are what it adds to an epoch's record, the first one what tables would compare by."""

    metrics: tuple[Metric, ...]
    needs_images: bool = False
    pictured: int = 0
    """The number of examples in its picture; 0 where that is one of curves."""


def _metric(name: str, direction: Direction | None = None, *, logarithmic: bool = False) -> Metric:
    """One that is neutral, where it has no direction: what others are held against."""
    return Metric(name, direction, source="probe", logarithmic=logarithmic)


PROBES: dict[ProbeName, Probe] = {
    "distance": Probe(
        (
            _metric("distance_error", "min", logarithmic=True),
            _metric("distance_control_error", logarithmic=True),
            _metric("distance_estimate"),
            _metric("distance_exact"),
            _metric("distance_population_error", "min", logarithmic=True),
        )
    ),
    "lipschitz": Probe((_metric("lipschitz_constant"), _metric("lipschitz_distance", logarithmic=True))),
    "vertical_shift": Probe(
        (_metric("shift_total_variation", "min"), _metric("shift_zero_crossings", "min")), needs_images=True
    ),
    "salt_and_pepper": Probe((_metric("noise_overlap", "max"),), needs_images=True),
    "nearest": Probe((_metric("nearest_distance", logarithmic=True), _metric("nearest_distance_held_out"))),
    "generator_gradient": Probe((_metric("generator_gradient_norm"),)),
    "transport_map": Probe(
        (
            _metric("map_variance"),
            _metric("map_distance", logarithmic=True),
            _metric("map_distance_held_out"),
            _metric("map_cost"),
            _metric("map_cost_exact"),
        )
    ),
    "neighbours": Probe(
        (
            _metric("neighbours_in_common"),
            _metric("neighbours_same_class_l2"),
            _metric("neighbours_same_class_w2"),
        ),
        needs_images=True,
        pictured=QUERIES * (1 + 2 * NEIGHBOURS),
    ),
}
"""Every probe. What each measures stands in :mod:`trainers.probes.measure`."""

_THE = {"generator": "the generator", "data": "the data", "noise": "noise"}


def metrics_of(names: Sequence[ProbeName]) -> tuple[Metric, ...]:
    """The metrics of some probes, in order."""
    return tuple(metric for name in names for metric in PROBES[name].metrics)


def check_probes(trial: Any) -> None:
    """Raises :class:`ConfigError` for probes that the rest of the ``TrialConfig`` leaves nothing to measure."""
    for name in trial.probes:
        if PROBES[name].needs_images and len(trial.dataset.shape) != 3:
            raise ConfigError("probes", f"{name} needs images; {trial.dataset.name} has points")
        if name == "generator_gradient" and trial.opponent != "generator":
            raise ConfigError("probes", f"{name} needs a generator, and the opponent is {_THE[trial.opponent]}")
        if name == "transport_map" and trial.opponent != "noise":
            raise ConfigError("probes", f"{name} carries noise to the data, and the opponent is {_THE[trial.opponent]}")
    if len(set(trial.probes)) < len(trial.probes):
        raise ConfigError("probes", "names a probe twice")

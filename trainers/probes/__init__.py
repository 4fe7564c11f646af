"""What is measured of a trained critic, beside the evaluation of its generator: what there is, without torch.

Probes are switched on by name (``probes: [distance, vertical_shift]``), run at every evaluation, and disturb nothing:
networks in evaluation mode, random numbers of their own. Each adds its metrics to the epoch's, and its curves, and a
picture of them, to the trial's directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

    metrics: tuple[str, ...]
    needs_images: bool = False
    pictured: int = 0
    """The number of examples in its picture; 0 where that is one of curves."""


PROBES: dict[ProbeName, Probe] = {
    "distance": Probe(
        (
            "distance_error",
            "distance_control_error",
            "distance_estimate",
            "distance_exact",
            "distance_population_error",
        )
    ),
    "lipschitz": Probe(("lipschitz_constant", "lipschitz_distance")),
    "vertical_shift": Probe(("shift_total_variation", "shift_zero_crossings"), needs_images=True),
    "salt_and_pepper": Probe(("noise_overlap",), needs_images=True),
    "nearest": Probe(("nearest_distance", "nearest_distance_held_out")),
    "generator_gradient": Probe(("generator_gradient_norm",)),
    "transport_map": Probe(("map_variance", "map_distance", "map_distance_held_out", "map_cost", "map_cost_exact")),
    "neighbours": Probe(
        ("neighbours_in_common", "neighbours_same_class_l2", "neighbours_same_class_w2"),
        needs_images=True,
        pictured=QUERIES * (1 + 2 * NEIGHBOURS),
    ),
}
"""Every probe. What each measures stands in :mod:`trainers.probes.measure`."""
HIGHER_IS_BETTER = frozenset({"noise_overlap"})
NEUTRAL = frozenset(
    {
        "distance_control_error",
        "distance_estimate",
        "distance_exact",
        "lipschitz_constant",
        "lipschitz_distance",
        "nearest_distance",
        "nearest_distance_held_out",
        "generator_gradient_norm",
        "map_variance",
        "map_distance",
        "map_distance_held_out",
        "map_cost",
        "map_cost_exact",
        "neighbours_in_common",
        "neighbours_same_class_l2",
        "neighbours_same_class_w2",
    }
)
"""Of which neither more nor less is better: what others are held against."""

_THE = {"generator": "the generator", "data": "the data", "noise": "noise"}


def metrics_of(names: Sequence[ProbeName]) -> tuple[str, ...]:
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

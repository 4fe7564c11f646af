"""What the critic tells the training examples from: a generator's fakes, other examples, or noise.

An opponent has no options of its own: a configuration names it by its name alone (``opponent: data``). To study how
well a critic estimates a distance, it is the ``data``. Against ``noise`` the critic's transport map makes the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainers.objectives import GroundCost
from trainers.parts import Part

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainers.datasets import Data


@dataclass(frozen=True, kw_only=True)
class Opponent(Part):
    """A module from noise (m, latent size) to the points (m, …) that stand against the training examples."""

    kind: ClassVar[str] = "opponent"

    words: ClassVar[str]
    """The opponent in a sentence: ``the data``."""
    trained: ClassVar[bool] = False
    """Whether the module is a generator that learns."""
    makes_samples: ClassVar[bool] = True
    """Whether samples are something that the trial has learned."""
    carried: ClassVar[bool] = False
    """Whether φ's transport map carries the module's points to the data: φ then lives on their side."""

    def build(self, trial: Any, data: Data) -> nn.Module:
        """The module, which may draw from torch's global random state."""
        raise NotImplementedError(f"{type(self).__name__} must build a module")

    def latent_size(self, trial: Any) -> int:
        """The dimension of the noise that the module takes."""
        return trial.network.latent_size

    def in_order(self, real: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Training examples and the module's points as an objective takes them: φ's side first, then ψ's."""
        return (points, real) if self.carried else (real, points)

    def to_samples(self, points: Tensor, critic: nn.Module, cost: GroundCost) -> Tensor:
        """The module's points as samples. Raises FloatingPointError where they are not finite on the way."""
        return points

    def population_distance(self, data: Data, cost: GroundCost) -> float | None:
        """W_{q,p} of the distributions behind the minibatches, where it is known."""
        return None


@dataclass(frozen=True, kw_only=True)
class GeneratorOpponent(Opponent):
    """The network's generator, trained against the critic."""

    name: ClassVar[str] = "generator"
    words: ClassVar[str] = "the generator"
    trained: ClassVar[bool] = True

    def build(self, trial: Any, data: Data) -> nn.Module:
        return trial.network.build_generator(trial.dataset.shape)


@dataclass(frozen=True, kw_only=True)
class DataOpponent(Opponent):
    """Other examples of the dataset: its second distribution where it has one, else the training examples."""

    name: ClassVar[str] = "data"
    words: ClassVar[str] = "the data"
    makes_samples: ClassVar[bool] = False

    def build(self, trial: Any, data: Data) -> nn.Module:
        from trainers.untrained import Resampler

        return Resampler(data.train if data.other is None else data.other)

    def population_distance(self, data: Data, cost: GroundCost) -> float | None:
        """0 between the data and themselves; (‖s‖_q^p / p)^{1/p} for a translation by s, an optimal plan of a convex
        cost.
        """
        import torch

        from trainers.transport.ground_costs import ground_cost

        if data.shift is None:
            return 0.0 if data.other is None else None
        here = torch.zeros(1, len(data.shift))
        return ground_cost(here, here + torch.tensor(data.shift), q=cost.q, p=cost.p).item() ** (1 / cost.p)


@dataclass(frozen=True, kw_only=True)
class NoiseOpponent(Opponent):
    """Noise of the data's shape, on whose side φ lives: its transport map makes samples of the noise.

    Mallasto et al., § 5.3.
    """

    name: ClassVar[str] = "noise"
    words: ClassVar[str] = "noise"
    carried: ClassVar[bool] = True

    def check(self, trial: Any) -> None:
        from trainers.transport.transport_map import check_map

        check_map(trial.objective.cost)

    def build(self, trial: Any, data: Data) -> nn.Module:
        from trainers.untrained import Noise

        return Noise(trial.dataset.shape)

    def latent_size(self, trial: Any) -> int:
        return math.prod(trial.dataset.shape)

    def to_samples(self, points: Tensor, critic: nn.Module, cost: GroundCost) -> Tensor:
        """Carried to the data by φ's transport map: ‖∇φ‖^{1/(p−1)} leaves float32 for p near 1 and ‖∇φ‖ above 1."""
        from trainers.transport.transport_map import transport_map

        mapped = transport_map(critic, points, q=cost.q, p=cost.p)
        if not mapped.isfinite().all():
            raise FloatingPointError(f"the transport map for p = {cost.p:g} is not finite")
        return mapped

"""What the critic tells the training examples from: a generator's fakes, other examples, or noise.

The opponents here have no options, so a configuration gives the name alone (``opponent: data``). The opponent ``data``
serves to study how well a critic estimates a distance. With ``noise``, the critic's transport map makes the samples.
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
    """A module that maps noise (m, latent size) to points (m, …). The critic tells the training examples from these."""

    kind: ClassVar[str] = "opponent"

    words: ClassVar[str]
    """The opponent's name in messages, such as ``the data``."""
    trained: ClassVar[bool] = False
    """Whether the module is a generator that is trained."""
    makes_samples: ClassVar[bool] = True
    """Whether samples show something that the trial has learned."""
    carried: ClassVar[bool] = False
    """Whether φ's transport map carries the module's points to the data. φ then is the potential of these points."""

    def build(self, trial: Any, data: Data) -> nn.Module:
        """Builds the module. It may draw from torch's global random state."""
        raise NotImplementedError(f"{type(self).__name__} must build a module")

    def latent_size(self, trial: Any) -> int:
        """The dimension of the module's noise."""
        return trial.network.latent_size

    def in_order(self, real: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Training examples and the module's points in an objective's order: φ's side first, then ψ's."""
        return (points, real) if self.carried else (real, points)

    def to_samples(self, points: Tensor, critic: nn.Module, cost: GroundCost) -> Tensor:
        """Turns the module's points into samples. Raises FloatingPointError if a value is not finite."""
        return points

    def population_distance(self, data: Data, cost: GroundCost) -> float | None:
        """W_{q,p} between the distributions that the minibatches are drawn from. None where it is unknown."""
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
    """Other examples of the dataset: its second distribution if it has one, else the training examples."""

    name: ClassVar[str] = "data"
    words: ClassVar[str] = "the data"
    makes_samples: ClassVar[bool] = False

    def build(self, trial: Any, data: Data) -> nn.Module:
        from trainers.untrained import Resampler

        return Resampler(data.train if data.other is None else data.other)

    def population_distance(self, data: Data, cost: GroundCost) -> float | None:
        """0 between the data and themselves. (‖s‖_q^p / p)^{1/p} if the second distribution is a translation by s.

        For a convex cost a translation is an optimal plan. None for any other second distribution.
        """
        import torch

        from trainers.transport.ground_costs import ground_cost

        if data.shift is None:
            return 0.0 if data.other is None else None
        here = torch.zeros(1, len(data.shift))
        return ground_cost(here, here + torch.tensor(data.shift), q=cost.q, p=cost.p).item() ** (1 / cost.p)


@dataclass(frozen=True, kw_only=True)
class NoiseOpponent(Opponent):
    """Noise of the data's shape. φ is the potential of the noise, and its transport map turns noise into samples.

    Source: Mallasto et al., § 5.3.
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
        """Carries the points to the data by φ's transport map.

        Raises FloatingPointError if the map is not finite: ‖∇φ‖^{1/(p−1)} exceeds float32 for p near 1 and ‖∇φ‖ above
        1.
        """
        from trainers.transport.transport_map import transport_map

        mapped = transport_map(critic, points, q=cost.q, p=cost.p)
        if not mapped.isfinite().all():
            raise FloatingPointError(f"the transport map for p = {cost.p:g} is not finite")
        return mapped

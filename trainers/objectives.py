"""Objectives, which define ψ: Kantorovich-Rubinstein, c-transform, soft c-transform and exact transport.

All methods play the same game. Means are over a minibatch of m images x and m fakes y = g(z):

    critic     maximises   mean φ(x) + mean ψ(y) − penalty
    generator  minimises   mean ψ(y)

An objective computes ψ from the critic φ and the two minibatches (a :class:`~trainers.pair.Pair`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from trainers.parts import ConfigError, Part, number

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.pair import Pair, Side


class GroundCost(NamedTuple):
    """c(x, y) = ‖x − y‖_q^p / p (Mallasto et al., eqs. 10 and 12)."""

    q: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Objective(Part):
    """Computes ψ for a critic φ. Subclasses implement :meth:`psi`.

    Options ``q`` and ``p``, where an objective has them, choose the ground cost ‖x − y‖_q^p / p.
    """

    kind: ClassVar[str] = "objective"

    @property
    def cost(self) -> GroundCost:
        """The ground cost of the transport cost that the objective estimates."""
        return GroundCost(q=2.0, p=1.0)

    @property
    def admissible(self) -> bool:
        """Whether φ(x) + ψ(y) ≤ c(x, y) holds by construction for all x, y of the two minibatches."""
        return False

    def psi(self, pair: Pair, side: Side) -> Tensor:
        """ψ at the points of one minibatch, shape (m,)."""
        raise NotImplementedError(f"{type(self).__name__} must say what ψ is")

    def value(self, pair: Pair) -> Tensor:
        """The dual value mean φ(x) + mean ψ(y), a scalar, which the critic maximises."""
        return pair.phi("real").mean() + pair.psi("fake").mean()

    def generator_loss(self, pair: Pair) -> Tensor:
        """The generator's loss mean ψ(y), a scalar, which the generator minimises."""
        return pair.psi("fake").mean()


@dataclass(frozen=True, kw_only=True)
class KantorovichRubinstein(Objective):
    """ψ = −φ: the dual of W₁ if φ is 1-Lipschitz (Mallasto et al., eq. 15; Arjovsky et al., 2017).

    A penalty must make φ 1-Lipschitz. The ground cost is the Euclidean distance.
    """

    name: ClassVar[str] = "kantorovich_rubinstein"

    def psi(self, pair: Pair, side: Side) -> Tensor:
        return -pair.phi(side)


@dataclass(frozen=True, kw_only=True)
class CTransform(Objective):
    """ψ(y) = min over x ∈ B of c(x, y) − φ(x), with c = ‖x − y‖_q^p / p (Mallasto et al., eqs. 7 and 17).

    (φ, ψ) is admissible on B × all points, and mean φ(x) + mean ψ(y) never exceeds the exact transport cost of the
    minibatches.

    - ``search_space``: B is the real minibatch (``real``) or both minibatches (``both``).
    - ``detach_search``: whether the generator's gradient stops at the fakes in B. The paper does not say.
    """

    name: ClassVar[str] = "c_transform"

    q: float = number(2.0, at_least=1)
    p: float = number(1.0, at_least=1)
    search_space: Literal["real", "both"] = "both"
    detach_search: bool = False

    @property
    def cost(self) -> GroundCost:
        return GroundCost(self.q, self.p)

    @property
    def admissible(self) -> bool:
        return self.search_space == "both"

    def psi(self, pair: Pair, side: Side) -> Tensor:
        sides: list[Side] = ["real", "fake"] if self.search_space == "both" else ["real"]
        scores = [
            pair.cost(x, side, detach=self.detach_search) - pair.phi(x, detach=self.detach_search)[:, None]
            for x in sides
        ]
        return self.reduce(_rows(scores))

    def reduce(self, scores: Tensor) -> Tensor:
        """Reduces c(x, y) − φ(x), shape (candidates x, points y), over the candidates to shape (points y,)."""
        return scores.amin(dim=0)


@dataclass(frozen=True, kw_only=True)
class SoftCTransform(CTransform):
    """ψ(y) = −ε [logsumexp over x ∈ B of (φ(x) − c(x, y))/ε − log |B|], the (c,ε)-transform.

    ψ is at most ε log |B| above the hard c-transform and tends to it as ε → 0. Admissibility does not hold by
    construction.
    """

    name: ClassVar[str] = "soft_c_transform"

    epsilon: float = number(0.1, above=0)

    @property
    def admissible(self) -> bool:
        return False

    def reduce(self, scores: Tensor) -> Tensor:
        return -self.epsilon * ((-scores / self.epsilon).logsumexp(dim=0) - math.log(scores.shape[0]))


@dataclass(frozen=True, kw_only=True)
class ExactTransport(Objective):
    """The exact transport cost OT_c of the two minibatches, c = ‖x − y‖_q^p / p, by POT. It needs no critic.

    The generator descends Σ γ_ij c(x_i, y_j) with the optimal plan γ held fixed (the envelope theorem). Mallasto et
    al., Fig. 1, use it with all points in one batch. The dual value is OT_c itself, the value of a perfect critic.
    """

    name: ClassVar[str] = "exact_transport"

    q: float = number(2.0, at_least=1)
    p: float = number(1.0, at_least=1)

    def check(self, trial: Any) -> None:
        if trial.penalty.name != "none":
            problem = f"exact_transport has no critic to penalise: use none, got {trial.penalty.name}"
            raise ConfigError("penalty.name", problem)
        if trial.compile is not False:
            raise ConfigError("compile", "exact_transport is solved by POT, which does not compile: use false")
        if trial.opponent.carried:
            raise ConfigError("opponent", f"exact_transport has no critic to carry {trial.opponent.words} to the data")

    @property
    def cost(self) -> GroundCost:
        return GroundCost(self.q, self.p)

    def value(self, pair: Pair) -> Tensor:
        return self.generator_loss(pair).detach() + 0 * pair.phi("real").sum()  # the critic's gradient is zero

    def generator_loss(self, pair: Pair) -> Tensor:
        import ot
        import torch

        from trainers.transport.ground_costs import PIVOTS

        cost = pair.cost("real", "fake")
        weights = [torch.full((size,), 1 / size, dtype=torch.float64) for size in cost.shape]
        plan = ot.emd(*weights, cost.detach().double().cpu(), numItermax=PIVOTS)
        return (plan.to(cost) * cost).sum()


def _rows(blocks: list[Tensor]) -> Tensor:
    import torch  # imported here: reading a configuration must not take torch's three seconds

    return torch.cat(blocks)

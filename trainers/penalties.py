"""Penalties, which keep the critic admissible: clipping, gradient penalties, P1 and P2.

A penalty is one class. Its fields are its options, ``__call__`` returns a term of the critic's loss, and ``constrain``
changes the critic after each critic step. To add a penalty from another package, subclass :class:`Penalty` (or
:class:`GradientPenalty`, and override ``norm``) and register it in the entry-point group ``trainers.penalties``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainers.parts import ConfigError, Part, number

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainers.pair import Critic, Pair, Side


@dataclass(frozen=True, kw_only=True)
class Penalty(Part):
    """A term of the critic's loss, a constraint on its weights, or both."""

    kind: ClassVar[str] = "penalty"

    def __call__(self, critic: Critic, pair: Pair) -> Tensor:
        """The term that is added to the critic's loss, a scalar."""
        return pair.phi("real").new_zeros(())

    def constrain(self, critic: nn.Module) -> None:
        """Changes the critic in place after each critic step."""


@dataclass(frozen=True, kw_only=True)
class NoPenalty(Penalty):
    """No penalty, for objectives that are admissible by construction."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class WeightClipping(Penalty):
    """Clips every weight to [−bound, bound] after each critic step (Arjovsky et al., 2017, Algorithm 1)."""

    name: ClassVar[str] = "clipping"

    bound: float = number(0.01, above=0)

    def constrain(self, critic: nn.Module) -> None:
        for parameter in critic.parameters():
            parameter.data.clamp_(-self.bound, self.bound)


@dataclass(frozen=True, kw_only=True)
class GradientPenalty(Penalty):
    """λ mean (‖∇φ(x̂)‖₂ − 1)² at random interpolates x̂ (Gulrajani et al., 2017, eq. 3).

    With ``one_sided`` it is WGAN-LP's λ mean max(‖∇φ(x̂)‖₂ − 1, 0)² (Petzka et al., 2017, eq. 8).
    """

    name: ClassVar[str] = "gradient"

    weight: float = number(10.0, at_least=0)
    one_sided: bool = False

    def norm(self, gradient: Tensor, points: Tensor) -> Tensor:
        """The norm of ∇φ at each point, shape (m,). ``gradient`` and ``points`` have shape (m, …)."""
        from trainers.transport.gradients import euclidean_norm

        return euclidean_norm(gradient)

    def gradient(self, critic: Critic, pair: Pair) -> tuple[Tensor, Tensor]:
        """∇φ(x̂) and the random interpolates x̂, both of shape (m, …)."""
        from trainers.transport.gradients import input_gradient, interpolate

        points = interpolate(pair.points["real"], pair.points["fake"])
        return input_gradient(critic, points, differentiable=True), points

    def __call__(self, critic: Critic, pair: Pair) -> Tensor:
        excess = self.norm(*self.gradient(critic, pair)) - 1
        if self.one_sided:
            excess = excess.clamp(min=0)
        return self.weight * excess.square().mean()


@dataclass(frozen=True, kw_only=True)
class Edge:
    """An edge with ``weight`` ω from each pixel to its neighbour at ``offset`` = (rows down, columns right)."""

    offset: tuple[int, int]
    weight: float = number(1.0, above=0)

    def __post_init__(self) -> None:
        if self.offset == (0, 0):
            raise ConfigError("offset", "must not be [0, 0]: a pixel is no neighbour of itself")


Neighbourhood = Literal["cross", "square", "diamond"] | tuple[Edge, ...]

_CROSS = ((0, 1), (1, 0))
_DIAGONALS = ((1, 1), (1, -1))
_NAMED: dict[str, tuple[tuple[int, int], ...]] = {
    "cross": _CROSS,
    "square": (*_CROSS, *_DIAGONALS),
    "diamond": (*_CROSS, *_DIAGONALS, (0, 2), (2, 0)),
}


@dataclass(frozen=True, kw_only=True)
class WassersteinPenalty(GradientPenalty):
    """λ mean (‖grad φ(x̂)‖_W − 1)², the Wasserstein norm on images (Dukler et al., Prop. 5, Remark 6).

    - ``neighbourhood``: cross (4 neighbours), square (8), diamond (12), or a list of offsets and weights that names
      each undirected edge once.
    - ``channel_edges``: whether edges also join the colour channels of a pixel.
    - ``degree``: the paper's d_i, which sum to one (``paper``), or 1/2 as in the authors' code (``constant``).
    - ``mass``: the pixel intensity in [0, 1] (``intensity``), or intensities divided by their sum (``probability``).
    - ``reference``: a term for uniform gradients, which L(X) does not see: α(Σ g)² (``rank_one``, eq. 9), γ‖g‖²
      (``identity``, the authors' code), or no term (``none``). ``reference_weight`` is α or γ.

    See :func:`trainers.transport.pixel_graph.wasserstein_norm_squared` for the formula.
    """

    name: ClassVar[str] = "wasserstein"

    weight: float = number(4.0, at_least=0)
    neighbourhood: Neighbourhood = "diamond"
    channel_edges: bool = False
    degree: Literal["paper", "constant"] = "constant"
    mass: Literal["intensity", "probability"] = "intensity"
    reference: Literal["rank_one", "identity", "none"] = "identity"
    reference_weight: float = number(1.0, at_least=0)

    def __post_init__(self) -> None:
        seen: set[tuple[int, int]] = set()
        if not self.edges:
            raise ConfigError("neighbourhood", "needs at least one offset")
        for edge in self.edges:
            down, right = edge.offset
            if edge.offset in seen:
                raise ConfigError("neighbourhood", f"names the edge {list(edge.offset)} twice (edges are undirected)")
            seen |= {(down, right), (-down, -right)}

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The neighbourhood as edges, one for each undirected pair of neighbours."""
        if isinstance(self.neighbourhood, str):
            return tuple(Edge(offset=offset) for offset in _NAMED[self.neighbourhood])
        return self.neighbourhood

    def check(self, trial: Any) -> None:
        shape = trial.dataset.shape
        if len(shape) != 3:
            raise ConfigError("penalty.name", f"the Wasserstein norm needs images; {trial.dataset.name} has points")
        for edge in self.edges:
            if abs(edge.offset[0]) >= shape[1] or abs(edge.offset[1]) >= shape[2]:
                raise ConfigError(
                    "penalty.neighbourhood",
                    f"the offset {list(edge.offset)} leaves an image of {shape[1]} × {shape[2]} pixels",
                )
        if self.channel_edges and shape[0] == 1:
            raise ConfigError("penalty.channel_edges", f"{trial.dataset.name} has only one channel: use false")

    def norm(self, gradient: Tensor, points: Tensor) -> Tensor:
        from trainers.transport.gradients import TINY
        from trainers.transport.pixel_graph import wasserstein_norm_squared

        return (wasserstein_norm_squared(gradient, points, self) + TINY).sqrt()


@dataclass(frozen=True, kw_only=True)
class Admissibility(Penalty):
    """P1 + P2 of the (q,p)-WGAN on the slack ξ = c − φ − ψ (Mallasto et al., eq. 19 and Algorithm 1).

    P1 = λ₁ m⁻² Σ_ij ξ(x_i, y_j)² draws the pairs towards the support of the optimal plan.
    P2 = λ₂ (4m²)⁻¹ Σ over x, y ∈ B_x ∪ B_y of min(ξ, 0)² penalises pairs that are not admissible (``eq19``). With
    ``alg1`` the sum is of ξ², because Algorithm 1 prints no min. The means are Algorithm 1's, the λ are eq. 19's.
    """

    name: ClassVar[str] = "admissibility"

    lambda1: float = number(0.1, at_least=0)
    lambda2: float = number(10.0, at_least=0)
    p2: Literal["eq19", "alg1"] = "eq19"

    def __call__(self, critic: Critic, pair: Pair) -> Tensor:
        total = pair.phi("real").new_zeros(())
        if self.lambda1:
            total = total + self.lambda1 * pair.slack("real", "fake").square().mean()
        # With the hard c-transform over both minibatches ξ ≥ 0 on them, so eq. 19's P2 is zero and is not computed.
        if self.lambda2 and not (self.p2 == "eq19" and pair.objective.admissible):
            total = total + self.lambda2 * self._p2(pair)
        return total

    def _p2(self, pair: Pair) -> Tensor:
        sides: tuple[Side, Side] = ("real", "fake")
        total = pair.phi("real").new_zeros(())
        for x in sides:
            for y in sides:
                slack = pair.slack(x, y)
                violation = slack.clamp(max=0) if self.p2 == "eq19" else slack
                total = total + violation.square().mean() / 4
        return total

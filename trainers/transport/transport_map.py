"""The optimal transport map that follows from a Kantorovich potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainers.objectives import GroundCost
from trainers.parts import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


def transport_map(critic: nn.Module, points: Tensor, *, q: float, p: float) -> Tensor:
    """T(x) = x − ∇h*(∇φ(x)) for the cost h(x − y) = ‖x − y‖_q^p / p, in the shape of ``points`` (m, …).

    With 1/q + 1/q' = 1/p + 1/p' = 1, ∇h*(v) = ‖v‖_{q'}^{p'−q'} sign(v) |v|^{q'−1}; for q = 2 it is ‖v‖₂^{p'−2} v
    (Mallasto et al., eq. 11). φ must be the potential of the points' distribution. T then carries this distribution
    to the other one. Raises :class:`~trainers.parts.ConfigError` as :func:`check_map` does.
    """
    from trainers.transport.gradients import input_gradient

    check_map(GroundCost(q, p))
    gradient = input_gradient(critic, points, differentiable=False)
    flat = gradient.flatten(1)
    tiny = 1e-30  # at ∇φ = 0 the map leaves x where it is
    largest = flat.abs().amax(dim=1, keepdim=True).clamp(min=tiny)  # division first: q' is large for q near 1
    norm = (largest * (flat / largest).norm(p=q / (q - 1), dim=1, keepdim=True)).clamp(min=tiny)
    step = norm ** (1 / (p - 1)) * flat.sign() * (flat.abs() / norm) ** (1 / (q - 1))
    return points.detach() - step.view_as(gradient)


def check_map(cost: GroundCost) -> None:
    """Raises :class:`~trainers.parts.ConfigError` if no map follows from the potential: for q = 1 and for p = 1."""
    q, p = cost
    if q == 1 or p == 1:
        why = "p = 1 has no transport map" if p == 1 else "with q = 1 the potential does not determine it"
        problem = f"noise needs the critic's transport map: {why}; q and p must be above 1"
        raise ConfigError("opponent", f"{problem}, got q = {q:g}, p = {p:g}")

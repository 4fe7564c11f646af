"""A pair of minibatches under a critic: potentials, costs and slack, each computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from trainers.objectives import Objective
from trainers.transport.ground_costs import cost_of, lq_distance

Side = Literal["real", "fake"]
Critic = Callable[[Tensor], Tensor]


class Pair:
    """One minibatch of real images x and one of fakes y, each of shape (m, …), under one critic.

    Everything is computed on first use and kept, so that an objective and a penalty share critic values and ground
    costs. Where the points equal those of an ``earlier`` pair, its distances are reused.
    """

    def __init__(
        self, objective: Objective, critic: Critic, real: Tensor, fake: Tensor, *, earlier: Pair | None = None
    ) -> None:
        self.objective = objective
        self.critic = critic
        self.points: dict[Side, Tensor] = {"real": real, "fake": fake}
        self._phi: dict[Side, Tensor] = {}
        self._psi: dict[Side, Tensor] = {}
        self._cost: dict[tuple[Side, Side, bool], Tensor] = {}
        self._distance: dict[tuple[Side, Side], Tensor] = {}
        if earlier is not None:
            same = {side for side in self.points if torch.equal(self.points[side], earlier.points[side])}
            self._distance = {sides: known for sides, known in earlier._distance.items() if same.issuperset(sides)}

    def measured(self) -> Pair:
        """A pair with the same minibatches and distances, but without the critic's values."""
        kept = Pair(self.objective, self.critic, *(self.points[side].detach() for side in ("real", "fake")))
        kept._distance = self._distance
        return kept

    def score(self) -> None:
        """Computes φ on both minibatches in one pass through the critic."""
        both = self.critic(torch.cat([self.points["real"], self.points["fake"]]))
        self._phi["real"], self._phi["fake"] = both.split(self.points["real"].shape[0])

    def phi(self, side: Side, *, detach: bool = False) -> Tensor:
        """φ at the points of one minibatch, shape (m,). With ``detach`` no gradient reaches the points."""
        if side not in self._phi:
            self._phi[side] = self.critic(self.points[side])
        if detach and self.points[side].requires_grad:
            return self._phi[side].detach()
        return self._phi[side]

    def psi(self, side: Side) -> Tensor:
        """The objective's ψ at the points of one minibatch, shape (m,)."""
        if side not in self._psi:
            self._psi[side] = self.objective.psi(self, side)
        return self._psi[side]

    def cost(self, x: Side, y: Side, *, detach: bool = False) -> Tensor:
        """The ground cost c(x_i, y_j), shape (m, m). With ``detach`` no gradient reaches the x_i."""
        key = (x, y, detach and self.points[x].requires_grad)
        if key not in self._cost:
            left = self.points[x].detach() if key[2] else self.points[x]
            cost = self.objective.cost
            distance = lq_distance(left, self.points[y], q=cost.q, known=self._distance.get((x, y)))
            self._distance[x, y] = distance.detach()
            self._cost[key] = cost_of(distance, cost.p)
        return self._cost[key]

    def slack(self, x: Side, y: Side) -> Tensor:
        """ξ(x_i, y_j) = c(x_i, y_j) − φ(x_i) − ψ(y_j), shape (m, m) (Mallasto et al., eq. 18)."""
        return self.cost(x, y) - self.phi(x)[:, None] - self.psi(y)[None, :]

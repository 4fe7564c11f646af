"""Exact optimal transport between point sets, by POT."""

from __future__ import annotations

import numpy as np
import ot
from torch import Tensor

from trainers.datasets import Data
from trainers.objectives import GroundCost
from trainers.stopping import stop_if_asked
from trainers.transport.ground_costs import PIVOTS, ground_cost


def exact_wasserstein(x: Tensor, y: Tensor, *, q: float, p: float) -> float:
    """W_{q,p} = (min over plans of mean c)^{1/p}, c = ‖x − y‖_q^p / p, between uniform point sets.

    ``x`` has shape (n, …), ``y`` has shape (m, …). The factor 1/p in c is Mallasto et al.'s (eq. 13). Multiply by
    p^{1/p} to get the W_p of OT libraries.
    """
    cost = ground_cost(x.double(), y.double(), q=q, p=p).numpy()
    weights = [np.full(size, 1 / size) for size in cost.shape]
    return float(ot.emd2(*weights, cost, numItermax=PIVOTS)) ** (1 / p)


class TransportEvaluator:
    """Computes exact transport. See :class:`trainers.evaluation.TransportEvaluation`."""

    def __init__(self, data: Data, cost: GroundCost) -> None:
        self.count = data.held_out.shape[0]
        self.info: dict[str, str | float] = {"exact_transport": f"POT {ot.__version__}"}
        self._data = data
        self._cost = cost

    def measure(self, samples: Tensor) -> dict[str, float]:
        to_held_out = exact_wasserstein(self._data.held_out, samples, q=2, p=1)
        stop_if_asked()
        to_train = exact_wasserstein(self._data.train, samples, q=self._cost.q, p=self._cost.p)
        return {"exact_w1": to_held_out, "exact_wqp": to_train}

    def floor(self) -> dict[str, float]:
        return {"exact_w1": exact_wasserstein(self._data.held_out, self._data.train, q=2, p=1)}

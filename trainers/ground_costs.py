"""Ground costs between minibatches."""

from __future__ import annotations

import torch
from torch import Tensor


def ground_cost(x: Tensor, y: Tensor, *, q: float, p: float) -> Tensor:
    """c(x_i, y_j) = ‖x_i − y_j‖_q^p / p for real q, p ≥ 1 (Mallasto et al., eqs. 10, 12 and 13).

    ``x`` has shape (n, …) and ``y`` (m, …) with the same trailing shape, which is flattened; the result
    has shape (n, m). The transport cost OT_c gives W_{q,p} = OT_c^{1/p}, which includes the 1/p; OT
    libraries' W_p is p^{1/p} larger.

    The difference is taken directly and not through ‖x‖² + ‖y‖² − 2⟨x, y⟩, which leaves a non-zero cost
    at x = y. The gradient at x = y is zero, a subgradient, for every q and p. Powers other than 1 and 2 are
    taken in double precision of differences scaled to at most 1, so that a large q neither overflows nor
    loses the small distances.
    """
    distance = _distance(x.flatten(1), y.flatten(1), q)
    return distance if p == 1 else distance.pow(p) / p


def _distance(x: Tensor, y: Tensor, q: float) -> Tensor:
    if q in (1, 2):
        return torch.cdist(x, y, p=q, compute_mode="donot_use_mm_for_euclid_dist")
    with torch.no_grad():
        scale = 2 * torch.maximum(x.abs().amax(), y.abs().amax()).double().clamp(min=torch.finfo(x.dtype).tiny)
    return (torch.cdist(x.double() / scale, y.double() / scale, p=q) * scale).to(x.dtype)

"""Ground costs between minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 2**17, "cuda": 2**19}
"""The number of differences |x_i − y_j| held at once: what a CPU's cache holds, or on a GPU 2 MB in float32."""

PIVOTS = 10_000_000
"""The largest number of pivots of POT's network simplex: far more than our problems need, so plans are optimal."""


def ground_cost(x: Tensor, y: Tensor, *, q: float, p: float) -> Tensor:
    """c(x_i, y_j) = ‖x_i − y_j‖_q^p / p for real q, p ≥ 1 (Mallasto et al., eqs. 10, 12 and 13).

    ``x`` has shape (n, …) and ``y`` shape (m, …), with the same trailing shape, which is flattened. The result has
    shape (n, m). The transport cost OT_c gives W_{q,p} = OT_c^{1/p}, which includes the 1/p. The W_p of OT libraries is
    larger by the factor p^{1/p}.

    Differences are computed directly, not through ‖x‖² + ‖y‖² − 2⟨x, y⟩, which leaves a non-zero cost at x = y. The
    gradient at x = y is zero, a subgradient, for every q and p. Before powers are taken, each pair's differences are
    divided by their largest, so that a large q neither overflows nor loses small distances. Neither the cost nor its
    gradient holds all n·m·d differences at once. The cost can be differentiated once.
    """
    return cost_of(lq_distance(x, y, q=q), p)


def cost_of(distance: Tensor, p: float) -> Tensor:
    """The ground cost from the distances ‖x_i − y_j‖_q."""
    return distance if p == 1 else distance.pow(p) / p


def lq_distance(x: Tensor, y: Tensor, *, q: float, known: Tensor | None = None) -> Tensor:
    """‖x_i − y_j‖_q, shape (n, m), for ``x`` and ``y`` as in :func:`ground_cost`.

    ``known`` is the distance of the same points if it was computed before. Then only a gradient takes time.
    """
    if torch.compiler.is_compiling():
        return _opaque_distance(x.flatten(1), y.flatten(1), q)
    if x.device.type == "cpu" and q in (1, 2):  # as lean as ours, but on CUDA its gradient holds n·m·d numbers
        return _euclidean_or_taxicab(x.flatten(1), y.flatten(1), q)
    return _Distance.apply(x.flatten(1), y.flatten(1), q, known)


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, q: float, known: Tensor | None) -> Tensor:
        distance = _distance(x, y, q) if known is None else known.clone()
        ctx.save_for_backward(x, y, distance)
        ctx.q = q
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        needed = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        x, y, distance = ctx.saved_tensors
        of_x, of_y = _distance_backward(gradient, x, y, distance, ctx.q, *needed)
        return of_x if needed[0] else None, of_y if needed[1] else None, None, None


def _euclidean_or_taxicab(x: Tensor, y: Tensor, q: float) -> Tensor:
    return torch.cdist(x, y, p=q, compute_mode="donot_use_mm_for_euclid_dist")


def _distance(x: Tensor, y: Tensor, q: float) -> Tensor:
    if q in (1, 2):
        return _euclidean_or_taxicab(x, y, q)
    same = x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
    return _powers_of_differences(x, y, q, symmetric=same)


def _distance_backward(
    gradient: Tensor, x: Tensor, y: Tensor, distance: Tensor, q: float, need_x: bool, need_y: bool
) -> tuple[Tensor, Tensor]:
    """Σ_j g_ij s_ij for x_i and −Σ_i g_ij s_ij for y_j, with s = sign(d) (|d| / ‖d‖_q)^{q−1}. Zeros if not needed."""
    gradient = torch.where(distance > 0, gradient, 0)
    of_x, of_y = torch.zeros_like(x), torch.zeros_like(y)
    pairs = gradient.nonzero()  # one a column for a c-transform: worth a synchronisation
    if len(pairs) <= gradient.numel() // 4:
        for some in pairs.split(_chunk(x)):
            rows, columns = some.unbind(1)
            step = _slope(x[rows] - y[columns], distance[rows, columns, None], q)
            step *= gradient[rows, columns, None]
            if need_x:
                of_x.index_add_(0, rows, step)
            if need_y:
                of_y.index_add_(0, columns, step, alpha=-1)
        return of_x, of_y
    for rows, columns in _tiles(x, y):
        step = _slope(x[rows, None] - y[columns], distance[rows, columns, None], q)
        step *= gradient[rows, columns, None]
        if need_x:
            of_x[rows] += step.sum(dim=1)
        if need_y:
            of_y[columns] -= step.sum(dim=0)
    return of_x, of_y


# The compiler treats these two functions as opaque: it neither looks inside nor rewrites them.
_opaque_distance = torch.library.custom_op(
    "trainers::lq_distance", _distance, mutates_args=(), schema="(Tensor x, Tensor y, float q) -> Tensor"
)
_opaque_backward = torch.library.custom_op(
    "trainers::lq_distance_backward",
    _distance_backward,
    mutates_args=(),
    schema="(Tensor g, Tensor x, Tensor y, Tensor distance, float q, bool need_x, bool need_y) -> (Tensor, Tensor)",
)


@_opaque_distance.register_fake
def _(x: Tensor, y: Tensor, q: float) -> Tensor:
    return x.new_empty(len(x), len(y))


@_opaque_backward.register_fake
def _(g: Tensor, x: Tensor, y: Tensor, distance: Tensor, q: float, need_x: bool, need_y: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    x, y, ctx.q = inputs
    ctx.save_for_backward(x, y, output)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    needed = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
    of_x, of_y = _opaque_backward(gradient, *ctx.saved_tensors, ctx.q, *needed)
    return of_x if needed[0] else None, of_y if needed[1] else None, None


_opaque_distance.register_autograd(_differentiate, setup_context=_keep)


def _powers_of_differences(x: Tensor, y: Tensor, q: float, *, symmetric: bool) -> Tensor:
    """max|d| (Σ (|d| / max|d|)^q)^{1/q} for each pair of rows. ``symmetric``: x is y, so one triangle is enough."""
    distance = x.new_zeros(len(x), len(y))
    for rows, columns in _tiles(x, y, upper=symmetric):
        differences = (x[rows, None] - y[columns]).abs_()
        largest = differences.amax(dim=2, keepdim=True)
        differences /= largest.clamp(min=torch.finfo(x.dtype).tiny)
        distance[rows, columns] = largest[..., 0] * _power(differences, q).sum(dim=2).pow(1 / q)
    return distance.triu() + distance.triu(1).T if symmetric else distance


def _slope(differences: Tensor, distance: Tensor, q: float) -> Tensor:
    """sign(d) (|d| / ‖d‖_q)^{q−1}, the derivative of ‖d‖_q. Any value but NaN where ‖d‖_q = 0. Overwrites d."""
    if q == 1:
        return differences.sign_()
    differences /= distance.clamp(min=torch.finfo(distance.dtype).tiny)
    if q == 2:
        return differences
    return _power(differences.abs(), q - 1).copysign_(differences)


def _power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent for base in [0, 1]. ``base`` may be overwritten.

    exp(e log b) is as exact as torch.pow up to the rounding of e log b, and takes half the time.
    """
    if exponent == 1:
        return base
    if exponent in (0.5, 2, 3):
        return base.pow_(exponent)
    if exponent == 1.5:
        return base.mul_(base.sqrt())
    return base.log_().mul_(exponent).exp_()


def _tiles(x: Tensor, y: Tensor, *, upper: bool = False) -> Iterator[tuple[slice, slice]]:
    """Slices of x and y whose differences are at most CHUNK numbers, or one pair. ``upper``: upper triangle only."""
    pairs = _chunk(x)
    columns = min(len(y), pairs)
    rows = max(1, pairs // max(1, columns))
    for top in range(0, len(x), rows):
        for left in range(top if upper else 0, len(y), max(1, columns)):
            yield slice(top, min(top + rows, len(x))), slice(left, min(left + columns, len(y)))


def _chunk(x: Tensor) -> int:
    """The number of pairs whose differences are at most CHUNK numbers. At least one."""
    return max(1, CHUNK.get(x.device.type, CHUNK["cpu"]) // max(1, x.shape[1]))

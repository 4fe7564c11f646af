"""The Wasserstein norm on images, computed by slices of a pixel graph."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from trainers.penalties import Edge, WassersteinPenalty


def wasserstein_norm_squared(gradient: Tensor, images: Tensor, options: WassersteinPenalty) -> Tensor:
    """‖grad φ(X)‖_W² = Σ over edges (i,j) of ω_ij (g_i − g_j)² (X_i/d_i + X_j/d_j)/2, plus the reference term.

    ``gradient`` g and ``images`` have shape (m, C, H, W). The result has shape (m,). g is the gradient with respect to
    the network's own input in [−1, 1]. X is the image mapped to [0, 1], as in the authors' code. Each undirected edge
    counts once. Degrees and mass are per channel, or over the whole image if channel edges join the channels (Dukler et
    al., Prop. 5, Remark 6, eq. 9 and Algorithm 2).
    """
    channels, height, width = images.shape[1:]
    joined = (1, 2, 3) if options.channel_edges else (2, 3)  # the dimensions of one connected graph
    mass = ((images + 1) / 2).clamp(min=0)
    if options.mass == "probability":
        mass = mass / mass.sum(dim=joined, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
    if options.degree == "constant":
        density = 2 * mass
    else:
        degree = _degrees(options.edges, options.channel_edges, channels, height, width)
        density = mass / degree.to(mass)
    if images.requires_grad or torch.compiler.is_compiling():
        total = _dirichlet_energy(gradient, density, options)
    else:
        total = _DirichletEnergy.apply(gradient, density, options)
    if options.reference == "identity":
        total = total + options.reference_weight * gradient.square().sum(dim=(1, 2, 3))
    elif options.reference == "rank_one":
        sums = gradient.sum(dim=joined).reshape(gradient.shape[0], -1)  # one sum for each connected graph
        total = total + options.reference_weight * sums.square().sum(dim=1)
    return total


def _dirichlet_energy(gradient: Tensor, density: Tensor, options: WassersteinPenalty) -> Tensor:
    """gᵀLg as the sum over edges."""
    total = gradient.new_zeros(gradient.shape[0])
    for weight, here, there in _joins(gradient, options):
        step, mean = gradient[here] - gradient[there], (density[here] + density[there]) / 2
        total = total + weight * (step.square() * mean).flatten(1).sum(dim=1)
    return total


class _DirichletEnergy(torch.autograd.Function):
    """gᵀLg, and in the same pass its derivative 2Lg, since L is symmetric. A third of autograd's time."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, density: Tensor, options: WassersteinPenalty) -> Tensor:
        product = torch.zeros_like(gradient)
        for weight, here, there in _joins(gradient, options):
            step, twice = gradient[here] - gradient[there], density[here] + density[there]
            product[here].addcmul_(step, twice, value=weight / 2)
            product[there].addcmul_(step, twice, value=-weight / 2)
        ctx.save_for_backward(product)
        joined = (1, 2, 3) if options.channel_edges else (2, 3)
        centred = gradient - gradient.mean(dim=joined, keepdim=True)  # L does not see a constant, which costs digits
        return (centred * product).sum(dim=(1, 2, 3)).clamp(min=0)  # rounding may give less than 0, and a root follows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (product,) = ctx.saved_tensors
        return 2 * weight[:, None, None, None] * product, None, None


def _joins(gradient: Tensor, options: WassersteinPenalty) -> Iterator[tuple[float, tuple, tuple]]:
    """(ω, index of the pixels i, index of their neighbours j) for each kind of edge, with channel edges."""
    channels, height, width = gradient.shape[1:]
    yield from _edge_slices(options.edges, height, width)
    if options.channel_edges:
        for one, other in _channel_pairs(channels):
            yield 1.0, (slice(None), one), (slice(None), other)


def _edge_slices(edges: tuple[Edge, ...], height: int, width: int) -> Iterator[tuple[float, tuple, tuple]]:
    """(ω, index of the pixels i, index of their neighbours j) for each kind of edge."""
    for edge in edges:
        rows = _shift(edge.offset[0], height)
        columns = _shift(edge.offset[1], width)
        yield edge.weight, (..., rows[0], columns[0]), (..., rows[1], columns[1])


def _shift(offset: int, size: int) -> tuple[slice, slice]:
    """The positions whose neighbour at ``offset`` is inside the image, and the positions of these neighbours."""
    low, high = max(0, -offset), size - max(0, offset)
    return slice(low, high), slice(low + offset, high + offset)


def _channel_pairs(channels: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(channels) for other in range(one + 1, channels)]


@functools.lru_cache(maxsize=16)
def _degrees(edges: tuple[Edge, ...], channel_edges: bool, channels: int, height: int, width: int) -> Tensor:
    """d_i = Σ_j ω_ij / Σ_i'j' ω_i'j', shape (C, H, W). The sum is 1 in each channel, or over all joined channels."""
    degree = torch.zeros(channels, height, width, dtype=torch.float64)
    for weight, here, there in _edge_slices(edges, height, width):
        degree[here] += weight
        degree[there] += weight
    if channel_edges:
        degree += channels - 1
        return degree / degree.sum()
    return degree / degree.sum(dim=(1, 2), keepdim=True)

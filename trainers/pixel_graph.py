"""The Wasserstein norm on images, by slices of a pixel graph."""

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

    ``gradient`` g and ``images`` have shape (m, C, H, W); the result has shape (m,). g is the gradient with
    respect to the network's own input in [−1, 1]; X is the image mapped to [0, 1] (as in the authors' code).
    Each undirected edge counts once. Degrees and mass are per channel, or over the whole image where
    channel edges join the channels (Dukler et al., Prop. 5, Remark 6, eq. 9 and Algorithm 2).
    """
    channels, height, width = images.shape[1:]
    joined = (1, 2, 3) if options.channel_edges else (2, 3)  # what one connected graph spans
    mass = ((images + 1) / 2).clamp(min=0)
    if options.mass == "probability":
        mass = mass / mass.sum(dim=joined, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
    if options.degree == "constant":
        density = 2 * mass
    else:
        degree = _degrees(options.edges, options.channel_edges, channels, height, width)
        density = mass / degree.to(mass)
    if images.requires_grad or torch.compiler.is_compiling():
        return _quadratic_form(gradient, density, options)[0]
    return _QuadraticForm.apply(gradient, density, options)


class _QuadraticForm(torch.autograd.Function):
    """gᵀLg whose derivative 2Lg is there with its value: L is symmetric, and the images are given."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, density: Tensor, options: WassersteinPenalty) -> Tensor:
        total, product = _quadratic_form(gradient, density, options)
        ctx.save_for_backward(product)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (product,) = ctx.saved_tensors
        return 2 * weight[:, None, None, None] * product, None, None


def _quadratic_form(gradient: Tensor, density: Tensor, options: WassersteinPenalty) -> tuple[Tensor, Tensor]:
    """gᵀLg of each image, shape (m,), and Lg."""
    channels, height, width = gradient.shape[1:]
    joined = (1, 2, 3) if options.channel_edges else (2, 3)
    product = torch.zeros_like(gradient)
    for weight, here, there in _edge_slices(options.edges, height, width):
        _join(product, gradient, density, weight, here, there)
    if options.channel_edges:
        for one, other in _channel_pairs(channels):
            _join(product, gradient, density, 1.0, (slice(None), one), (slice(None), other))
    # L does not see a constant, which would only cost digits.
    total = ((gradient - gradient.mean(dim=joined, keepdim=True)) * product).sum(dim=(1, 2, 3))

    if options.reference == "identity":
        total = total + options.reference_weight * gradient.square().sum(dim=(1, 2, 3))
        product = product + options.reference_weight * gradient
    elif options.reference == "rank_one":
        sums = gradient.sum(dim=joined, keepdim=True)  # one for each connected graph
        total = total + options.reference_weight * sums.square().sum(dim=(1, 2, 3))
        product = product + options.reference_weight * sums
    return total, product


def _join(product: Tensor, gradient: Tensor, density: Tensor, weight: float, here: tuple, there: tuple) -> None:
    """Adds what the edges of one kind bring to Lg: ω (g_i − g_j) (X_i/d_i + X_j/d_j)/2 at i, and its reverse at j."""
    step = gradient[here] - gradient[there]
    mean = density[here] + density[there]
    product[here].addcmul_(step, mean, value=weight / 2)
    product[there].addcmul_(step, mean, value=-weight / 2)


def _edge_slices(edges: tuple[Edge, ...], height: int, width: int) -> Iterator[tuple[float, tuple, tuple]]:
    """(ω, index of the pixels i, index of their neighbours j) for each kind of edge."""
    for edge in edges:
        rows = _shift(edge.offset[0], height)
        columns = _shift(edge.offset[1], width)
        yield edge.weight, (..., rows[0], columns[0]), (..., rows[1], columns[1])


def _shift(offset: int, size: int) -> tuple[slice, slice]:
    """The positions whose neighbour at ``offset`` lies inside, and those neighbours."""
    low, high = max(0, -offset), size - max(0, offset)
    return slice(low, high), slice(low + offset, high + offset)


def _channel_pairs(channels: int) -> list[tuple[int, int]]:
    return [(one, other) for one in range(channels) for other in range(one + 1, channels)]


@functools.lru_cache(maxsize=16)
def _degrees(edges: tuple[Edge, ...], channel_edges: bool, channels: int, height: int, width: int) -> Tensor:
    """d_i = Σ_j ω_ij / Σ_i'j' ω_i'j', shape (C, H, W): one per channel, or one over all joined channels."""
    degree = torch.zeros(channels, height, width, dtype=torch.float64)
    for weight, here, there in _edge_slices(edges, height, width):
        degree[here] += weight
        degree[there] += weight
    if channel_edges:
        degree += channels - 1
        return degree / degree.sum()
    return degree / degree.sum(dim=(1, 2), keepdim=True)

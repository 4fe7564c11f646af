"""W₂ between images as histograms of pixels, and the nearest images under W₂ (Dukler et al., Fig. 1)."""

from __future__ import annotations

import numpy as np
import ot
import torch
from torch import Tensor
from torch.nn import functional

from trainers.transport.ground_costs import PIVOTS

CHUNK = 2000
"""The number of images whose rows and columns are compared at once."""


def histograms(images: Tensor) -> Tensor:
    """Images (n, C, H, W), black 0, as float64 distributions over pixels, one a channel. Black channels are uniform."""
    mass = images.double()
    total = mass.sum(dim=(2, 3), keepdim=True)
    return torch.where(total > 0, mass / total.clamp(min=torch.finfo(mass.dtype).tiny), 1 / mass[0, 0].numel())


def pixel_wasserstein(one: Tensor, other: Tensor) -> float:
    """W₂ of two images (C, H, W), black 0, in pixels, by POT: (mean over channels of min Σ γ_ij ‖i − j‖²)^{1/2}.

    Pixels are a grid of side 1, and each channel is a distribution of its own (:func:`histograms`). An image on black
    and the same image moved by s, if it still fits, are ‖s‖ apart. Photographs of 32×32 take one to two seconds.
    """
    height, width = one.shape[1:]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    cost = torch.cdist(places, places).square().numpy()
    pairs = histograms(torch.stack([one, other])).flatten(2).numpy().swapaxes(0, 1)
    return float(np.mean([_transport_cost(a, b, cost) for a, b in pairs])) ** 0.5


def _transport_cost(a: np.ndarray, b: np.ndarray, cost: np.ndarray) -> float:
    here, there = a > 0, b > 0  # the simplex is faster without pixels that have no mass
    return float(ot.emd2(a[here], b[there], np.ascontiguousarray(cost[here][:, there]), numItermax=PIVOTS))


def lower_bounds(image: Tensor, images: Tensor) -> Tensor:
    """Lower bounds of W₂ from an image (C, H, W) to each of n images (n, C, H, W), shape (n,), by POT in one dimension.

    ‖i − j‖² is the sum of a vertical and a horizontal part, and a plan between two images also transports their sums of
    rows and of columns. So W₂² ≥ W₂²(sums of rows) + W₂²(sums of columns), with equality for a translation.
    """
    query = histograms(image[None])
    parts = []
    for chunk in images.split(CHUNK):
        there = histograms(chunk)
        squares = torch.zeros(there.shape[:2], dtype=torch.float64)
        for axis in (2, 3):
            sums = there.sum(dim=axis)
            ours = query.sum(dim=axis).expand_as(sums)
            weights, our_weights = (each.flatten(0, 1).T.contiguous() for each in (sums, ours))
            places = torch.arange(len(weights), dtype=torch.float64)[:, None].expand_as(weights).contiguous()
            squares += ot.wasserstein_1d(places, places, our_weights, weights, p=2).view_as(squares)
        parts.append(squares.mean(dim=1).clamp(min=0).sqrt())
    return torch.cat(parts)


def nearest_under_wasserstein(
    image: Tensor, images: Tensor, *, count: int, candidates: int, short_list: int = 500
) -> tuple[Tensor, Tensor]:
    """The ``count`` of the uint8 images (n, C, H, W) that are nearest to one image (C, H, W), nearest first.

    Returns their indices and distances, both of shape (count,). The distance is :func:`pixel_wasserstein`, which is
    computed for ``candidates`` images. To choose these, the ``short_list`` images with the least :func:`lower_bounds`
    are taken, and of these the nearest at :func:`coarse` resolution. Small images have no coarse resolution: there the
    images with the least bounds are the candidates. With ``candidates`` = n all images are compared.
    """
    chosen = torch.arange(len(images))
    if candidates < len(images):
        chosen = lower_bounds(image, images).argsort()[:short_list]
        here, there = coarse(image[None])[0], coarse(images[chosen])
        if here.shape != image.shape:
            chosen = chosen[torch.tensor([pixel_wasserstein(here, each) for each in there]).argsort()]
        chosen = chosen[:candidates]
    distances, order = torch.tensor([pixel_wasserstein(image, images[index]) for index in chosen]).sort()
    return chosen[order[:count]], distances[:count]


def coarse(images: Tensor) -> Tensor:
    """Images (n, C, H, W) at a resolution of about eight squares a side. Each value is the sum over a square of pixels.

    Squares that extend beyond the image are filled up with black.
    """
    height, width = images.shape[2:]
    side = max(1, min(height, width) // 8)
    filled = functional.pad(images.double(), (0, -width % side, 0, -height % side))
    return functional.avg_pool2d(filled, side, divisor_override=1)

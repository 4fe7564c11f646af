"""W₂ of pixel histograms: closed forms, and a search for neighbours that misses none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainers.transport.pixel_histograms import (
    coarse,
    histograms,
    lower_bounds,
    nearest_under_wasserstein,
    pixel_wasserstein,
)


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """The images, moved. Their borders have room for it."""
    return images.roll((down, right), dims=(-2, -1))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """40 colour images of 6×6 pixels, of which one in ten is bright, with a margin of two black pixels."""
    source = torch.Generator().manual_seed(0)
    inside = torch.randint(256, (40, 3, 6, 6), generator=source, dtype=torch.uint8)
    inside *= torch.rand(inside.shape, generator=source) < 0.1
    return torch.nn.functional.pad(inside, (2, 2, 2, 2))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -2), (2, 1)])
def test_a_picture_and_the_same_moved_are_so_far_apart(pictures: Tensor, down: int, right: int) -> None:
    pixel = torch.zeros(1, 10, 10, dtype=torch.uint8)
    pixel[0, 4, 5] = 200
    for picture in (pixel, pictures[0]):
        other = moved(picture, down, right)
        assert pixel_wasserstein(picture, other) == pytest.approx(math.hypot(down, right), abs=1e-6)
        assert lower_bounds(picture, other[None]).item() == pytest.approx(math.hypot(down, right), abs=1e-6)


def test_channels_are_distributions_of_their_own(pictures: Tensor) -> None:
    """One of three channels is moved by 2: W₂² is the mean of 0, 0 and 4."""
    other = pictures[0].clone()
    other[1] = moved(other[1], 2, 0)
    assert pixel_wasserstein(pictures[0], other) == pytest.approx(math.sqrt(4 / 3))
    assert lower_bounds(pictures[0], other[None]).item() == pytest.approx(math.sqrt(4 / 3))


def test_brightness_does_not_matter_and_black_is_uniform(pictures: Tensor) -> None:
    dark = pictures[:1] // 2 * 2
    assert torch.allclose(histograms(dark // 2), histograms(dark))
    black = torch.zeros(1, 1, 4, 5, dtype=torch.uint8)
    assert (histograms(black) == 1 / 20).all()
    assert pixel_wasserstein(black[0], torch.full_like(black[0], 7)) == pytest.approx(0, abs=1e-6)


def test_rows_and_columns_bound_the_distance(pictures: Tensor) -> None:
    bounds = lower_bounds(pictures[0], pictures)
    distances = torch.tensor([pixel_wasserstein(pictures[0], each) for each in pictures])
    assert bounds.shape == (40,)
    assert (bounds <= distances + 1e-6).all()
    assert (bounds[1:] > 0.3 * distances[1:]).all()


def test_a_full_search_finds_the_nearest(pictures: Tensor) -> None:
    query, others = pictures[0], torch.cat([pictures[1:], moved(pictures[:1], 0, 1)])
    distances = torch.tensor([pixel_wasserstein(query, each) for each in others])
    indices, found = nearest_under_wasserstein(query, others, count=5, candidates=len(others))
    assert torch.equal(indices, distances.argsort()[:5])
    assert torch.allclose(found, distances.sort().values[:5])


@pytest.mark.parametrize("scale", [1, 3], ids=["whole pixels", "coarse"])
def test_a_smaller_search_loses_none_of_the_nearest(pictures: Tensor, scale: int) -> None:
    images = pictures.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    others = torch.cat([images[1:], moved(images[:1], 0, 1)])
    whole, part = (
        nearest_under_wasserstein(images[0], others, count=3, candidates=count, short_list=25) for count in (40, 12)
    )
    assert torch.equal(part[0], whole[0])
    assert torch.equal(part[1], whole[1])
    assert (whole[0][0].item(), whole[1][0].item()) == (39, pytest.approx(1, abs=1e-6))


def test_coarse_images_keep_all_their_mass(pictures: Tensor) -> None:
    assert torch.equal(coarse(pictures), pictures)  # ten pixels a side: coarse sums nothing
    wide = torch.randint(256, (2, 3, 28, 35), dtype=torch.uint8)
    assert coarse(wide).shape == (2, 3, 10, 12)
    assert torch.equal(coarse(wide).sum(dim=(2, 3)), wide.double().sum(dim=(2, 3)))
    assert coarse(wide)[0, 0, 0, 0] == wide[0, 0, :3, :3].sum()

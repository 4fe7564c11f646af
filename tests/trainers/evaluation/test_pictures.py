"""Samples as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.evaluation.pictures import save_samples


@pytest.mark.parametrize(
    ("shape", "factor", "columns", "rows"),
    [
        pytest.param((64, 1, 8, 8), 6, 8, 8, id="digits"),
        pytest.param((10, 3, 32, 32), 1, 8, 2, id="a short row"),
        pytest.param((3, 3, 64, 64), 1, 3, 1, id="one row"),
        pytest.param((9, 1, 28, 28), 1, 8, 2, id="grey"),
    ],
)
def test_a_grid_shows_every_image_between_gaps(
    shape: tuple[int, ...], factor: int, columns: int, rows: int, tmp_path: Path
) -> None:
    images = torch.randint(100, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    path = tmp_path / "grid.png"
    save_samples(images, path)
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L" if shape[1] == 1 else "RGB")
        pixels = np.asarray(picture)
    side = shape[-1] * factor
    gap = (pixels.shape[1] - columns * side) // (columns + 1)
    assert gap >= 2
    assert pixels.shape[:2] == (rows * (side + gap) + gap, columns * (side + gap) + gap)
    outside = np.ones(pixels.shape[:2], dtype=bool)
    for index, image in enumerate(images):
        top, left = gap + index // columns * (side + gap), gap + index % columns * (side + gap)
        shown = pixels[top : top + side, left : left + side]
        magnified = image.permute(1, 2, 0).squeeze(2).numpy().repeat(factor, axis=0).repeat(factor, axis=1)
        assert np.array_equal(shown, magnified)
        outside[top : top + side, left : left + side] = False
    assert len(np.unique(pixels[outside].reshape(outside.sum(), -1), axis=0)) == 1  # gaps have one grey level


def test_points_are_a_scatter_plot(tmp_path: Path) -> None:
    blank, dotted = tmp_path / "blank.png", tmp_path / "dotted.png"
    save_samples(torch.full((4, 2), 50.0), blank)  # all points are outside the axes
    save_samples(torch.randn(64, 2), dotted)
    with Image.open(blank) as one, Image.open(dotted) as other:
        assert one.size == other.size == (400, 400)
        assert not np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("shape", [(4, 5), (4, 2, 8, 8)], ids=["5-D points", "two channels"])
def test_what_has_no_picture_leaves_no_file(shape: tuple[int, ...], tmp_path: Path) -> None:
    save_samples(torch.zeros(shape), tmp_path / "nothing.png")
    assert list(tmp_path.iterdir()) == []

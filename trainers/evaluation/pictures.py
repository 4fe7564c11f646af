"""Saves samples as a picture (a magnified grid of images, or a scatter plot of points), and loads images as samples."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trainers.parts import ConfigError

SIDE = 48
"""Small images are magnified to about this many pixels."""
COLUMNS = 8
SUFFIXES = (".png", ".jpg", ".jpeg")
"""The endings of image files, the same as torch-fidelity's."""


def save_rows(rows: Tensor, path: Path) -> None:
    """Saves examples of shape (rows, columns, …) as :func:`save_samples` does, with this number of columns."""
    save_samples(rows.flatten(0, 1), path, columns=rows.shape[1])


def save_samples(samples: Tensor, path: Path, *, columns: int = COLUMNS) -> None:
    """Saves uint8 images (n, C, H, W) as a grid, or points (n, 2) as a scatter plot, in a PNG file.

    Images are magnified without interpolation. For other shapes nothing is written. The file appears by rename.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        if samples.dim() == 4 and samples.shape[1] in (1, 3):
            _save_grid(samples, temporary, columns)
        elif samples.dim() == 2 and samples.shape[1] == 2:
            _save_scatter(samples, temporary)
        else:
            return
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_images(folder: Path, count: int, shape: tuple[int, ...]) -> Tensor:
    """The first ``count`` images of a folder, by name, as uint8 (count, C, H, W) of ``shape`` = (C, H, W).

    The images are converted to grey or RGB, as the shape requires, but never resized. Raises
    :class:`~trainers.parts.ConfigError` for too few images, and for images that cannot be read or have another size.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) < count:
        problem = f"'{folder}' has {len(paths)} images ({', '.join(SUFFIXES)}), but {count} are needed"
        raise ConfigError("evaluation.samples", problem)
    images = torch.empty(count, *shape, dtype=torch.uint8)
    unfit = []
    for index, path in enumerate(paths[:count]):
        try:
            image = _load_image(path, shape[0])
        except OSError as error:
            unfit.append(f"{path.name} (unreadable: {error})")
            continue
        if image.shape == shape:
            images[index] = image
        else:
            unfit.append(f"{path.name} ({image.shape[2]}×{image.shape[1]})")
    if unfit:
        some = ", ".join(unfit[:5]) + (f" and {len(unfit) - 5} more" if len(unfit) > 5 else "")
        raise ConfigError("", f"'{folder}': not every image is {shape[2]}×{shape[1]} as in the dataset: {some}")
    return images


def _load_image(path: Path, channels: int) -> Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array).reshape(*array.shape[:2], -1).permute(2, 0, 1)


def _save_grid(images: Tensor, path: Path, columns: int) -> None:
    from PIL import Image

    factor = max(1, SIDE // images.shape[-1])
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    n, channels, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    gap = max(2, width // 16)
    canvas = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 96, dtype=torch.uint8)
    for index, image in enumerate(images):
        top = gap + (index // columns) * (height + gap)
        left = gap + (index % columns) * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    array = canvas[0].numpy() if channels == 1 else canvas.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(path, format="PNG")


def _save_scatter(points: Tensor, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlim=(-2, 2), ylim=(-2, 2))
    axes.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=8)
    figure.savefig(path, format="png")

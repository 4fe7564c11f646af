"""Saves samples as a picture (a magnified grid of images, or a scatter plot of points), and loads images as samples."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.data.decoding import (
    Depths,
    composed,
    decode_all,
    decoded,
    decoded_as_it_is,
    is_image,
    printable,
    walk,
)
from trainers.data.splits import Unclear, find_split, may_be_image, refuse_inner_splits
from trainers.parts import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 48
"""Small images are magnified to about this many pixels."""
COLUMNS = 8
NAMED = 5
"""The number of files that a message names."""


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


def load_images(
    folder: Path, count: int, shape: tuple[int, ...], *, resize: bool = False, bits: int | None = None
) -> Tensor:
    """``count`` images of a folder and its subfolders, sorted by path, as uint8 (count, C, H, W) of ``shape``.

    Of more images these are a fixed choice, by the SHA-256 of their paths, and a warning says so. Images are decoded as
    for training, see :mod:`trainers.data.decoding`: with ``resize`` by :func:`~trainers.data.decoding.decoded`,
    otherwise in their own size, which must be that of ``shape`` = (C, H, W). ``bits`` is the number of bits that values
    of 16-bit images have; None means what those of the chosen images take.

    Raises :class:`~trainers.parts.ConfigError` for too few images, for images that cannot be read or have another size,
    and for a folder that holds a split.
    """
    paths = _choose(folder, count)

    def decode(path: Path) -> NDArray[np.uint8]:
        if resize:
            return decoded(path, shape[1], shape[0], bits or 16, depths)
        return decoded_as_it_is(path, shape, bits or 16, depths)

    depths = Depths()
    images = _decode(folder, paths, shape, decode)
    seen = depths.bits(folder)
    if bits is None and seen < 16:
        told = f"the values of its 16-bit images take {seen} bits, of which the upper eight are used"
        warnings.warn(f"'{folder}': {told} (values divided by {2 ** (seen - 8)})", stacklevel=2)
        bits = seen
        images = _decode(folder, paths, shape, decode)
    return images


def _choose(folder: Path, count: int) -> list[Path]:
    """The files to load, sorted by path."""
    names = {name: composed(name) for name, _ in walk(folder)}
    try:
        split = find_split({name.split("/")[0] for name in names.values() if "/" in name and may_be_image(name)})
        refuse_inner_splits([*names.values()])
        if split is not None:
            raise Unclear(f"the folders '{split.training}' and '{split.held_out}' are a split")
    except Unclear as unclear:
        raise ConfigError("", f"'{folder}': {unclear}; give the folder of the images to measure") from None
    images = [name for name in names if is_image(folder / name)]
    others = sorted(names.keys() - set(images))
    if len(images) < count:
        problem = f"'{folder}' has {len(images):,} images, but {count:,} are needed"
        raise ConfigError("evaluation.samples", problem + (f" ({_passed_over(others, len(names))})" if others else ""))
    if others:
        warnings.warn(f"'{folder}': {_passed_over(others, len(names))}", stacklevel=3)
    if len(images) > count:
        told = f"'{folder}': {count:,} of {len(images):,} images are measured, always the same by a hash of their names"
        warnings.warn(f"{told}; evaluation.samples sets how many", stacklevel=3)
    images.sort(key=lambda name: hashlib.sha256(os.fsencode(names[name])).digest())
    return [folder / name for name in sorted(images[:count], key=lambda name: names[name])]


def _decode(
    folder: Path, paths: Sequence[Path], shape: tuple[int, ...], decode: Callable[[Path], NDArray[np.uint8]]
) -> Tensor:
    images = torch.empty(len(paths), *shape, dtype=torch.uint8)
    unfit = []
    for index, image in enumerate(decode_all(paths, decode)):
        name = printable(str(paths[index].relative_to(folder)))
        if isinstance(image, str):
            unfit.append(f"{name} (unreadable: {image})")
        elif image.shape == shape:
            images[index] = torch.from_numpy(image.copy())
        else:
            unfit.append(f"{name} ({image.shape[2]}×{image.shape[1]})")
    if unfit:
        some = ", ".join(unfit[:NAMED]) + (f" and {len(unfit) - NAMED:,} more" if len(unfit) > NAMED else "")
        raise ConfigError("", f"'{folder}': not every image is {shape[2]}×{shape[1]} as in the dataset: {some}")
    return images


def _passed_over(others: Sequence[str], total: int) -> str:
    some = ", ".join(map(printable, others[:NAMED])) + (" …" if len(others) > NAMED else "")
    verb = "is" if len(others) == 1 else "are"
    return f"{len(others):,} of {total:,} files {verb} passed over, since not an image: {some}"


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

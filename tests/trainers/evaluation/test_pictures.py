"""Samples as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import picture, save
from PIL import Image

from trainers.data.image_folder import ImageFolder
from trainers.evaluation.pictures import load_images, save_samples


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


def grey16(dtype: str, factor: int) -> Callable[[int], Image.Image]:
    """Pictures with 16-bit values of ``dtype``, eight bits times ``factor``."""
    return lambda seed: Image.fromarray(np.asarray(picture(12, 10, seed).convert("L")).astype(dtype) * factor)


def mode(name: str) -> Callable[[int], Image.Image]:
    """Pictures in a mode of Pillow."""

    def make(seed: int) -> Image.Image:
        image = picture(12, 10, seed)
        if name in ("LA", "RGBA"):
            image.putalpha(picture(12, 10, seed + 1).convert("L"))
        return image.convert(name)

    return make


KINDS: dict[str, tuple[str, Callable[[int], Image.Image], dict[str, Any]]] = {
    **{f"{name} png": ("png", mode(name), {}) for name in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"{name} tiff": ("tif", mode(name), {}) for name in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr")},
    **{f"{name} jpeg": ("jpg", mode(name), {}) for name in ("L", "RGB", "CMYK")},
    **{f"exif {turn}": ("jpg", mode("RGB"), {"turn": turn}) for turn in range(1, 9)},
    **{f"exif {ending}": (ending, mode("RGB"), {"turn": 6}) for ending in ("png", "tif", "webp")},
    **{
        ending: (ending, mode("RGB"), {})
        for ending in ("gif", "bmp", "webp", "avif", "jp2", "ppm", "qoi", "tga", "ico")
    },
    **{f"several {ending}": (ending, mode("RGB"), {"several": True}) for ending in ("gif", "png", "tif", "webp")},
    "transparent palette": ("png", mode("P"), {"transparency": 3}),
    "transparent bytes": ("png", mode("P"), {"transparency": bytes(range(256))}),
    "transparent colour": ("png", mode("L"), {"transparency": 0}),
    "progressive jpeg": ("jpg", mode("RGB"), {"progressive": True}),
    "lzw tiff": ("tif", mode("RGB"), {"compression": "tiff_lzw"}),
    "16-bit png": ("png", grey16("uint16", 257), {}),
    "16-bit tiff": ("tif", grey16("uint16", 257), {}),
    "16-bit big-endian tiff": ("tif", grey16(">u2", 257), {}),
    "16-bit pgm": ("pgm", grey16("uint16", 257), {}),
    "12-bit png": ("png", grey16("uint16", 16), {}),
    "10-bit tiff": ("tif", grey16("uint16", 4), {}),
    "8 bits in 16": ("png", grey16("uint16", 1), {}),
}


@pytest.mark.filterwarnings("ignore:.*16-bit images take")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_on_is_measured_as_the_same_bytes(kind: str, channels: int, tmp_path: Path) -> None:
    ending, make, options = KINDS[kind]
    options = dict(options)
    if turn := options.pop("turn", None):
        options["exif"] = exif = Image.Exif()
        exif[0x0112] = turn
    for index in range(4):
        if options.get("several") or "append_images" in options:
            options = {"save_all": True, "append_images": [make(index + 50)]}
        path = tmp_path / "images" / f"{index}.{ending}"
        path.parent.mkdir(exist_ok=True)
        make(index).save(path, **options)
    for size in (8, 10):
        dataset = ImageFolder(root=str(tmp_path / "images"), size=size, channels=channels)  # type: ignore[arg-type]
        dataset = dataset.filled_in(tmp_path / "cache")
        data = dataset.load(tmp_path / "cache")
        measured = load_images(
            tmp_path / "images", 4, dataset.shape, resize=True, bits=dataset.bits(tmp_path / "cache")
        )
        assert sorted(map(bytes, measured.numpy())) == sorted(
            map(bytes, torch.cat([data.train, data.held_out]).numpy())
        )
    if "bit" in kind or kind == "8 bits in 16":
        expected = [np.asarray(picture(12, 10, index).convert("L")) for index in range(4)]
        own = load_images(tmp_path / "images", 4, (channels, 10, 12))
        assert np.array_equal(own[:, 0], np.stack(expected))


def test_dark_samples_are_scaled_as_the_dataset_is(tmp_path: Path) -> None:
    for index in range(4):
        bright = save(grey16("uint16", 257)(index), tmp_path / "dataset" / f"{index}.png")
        with Image.open(bright) as image:
            save(Image.fromarray(np.asarray(image) >> 4), tmp_path / "dark" / f"{index}.png")
    dataset = ImageFolder(root=str(tmp_path / "dataset"), size=10, channels=1).filled_in(tmp_path / "cache")
    assert dataset.bits(tmp_path / "cache") == 16
    dark = load_images(tmp_path / "dark", 4, dataset.shape, resize=True, bits=16)
    assert dark.max() <= 16
    with pytest.warns(UserWarning, match=r"16-bit images take 12 bits, of which .* \(values divided by 16\)"):
        own = load_images(tmp_path / "dark", 4, dataset.shape, resize=True)
    assert own.max() > 200

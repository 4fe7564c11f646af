"""Image files for tests: made here, and the real ones beside the repository where they are."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = next(
    (
        folder / "shared" / "data"
        for folder in Path(__file__).resolve().parents
        if (folder / "shared" / "data").is_dir()
    ),
    Path("no real data"),
)
MNIST = DATA / "mnist.npz"
CIFAR = DATA / "cifar10-jpeg.tar.xz"
needs_mnist = pytest.mark.skipif(not MNIST.exists(), reason="real MNIST is not beside the repository")
needs_cifar = pytest.mark.skipif(not CIFAR.exists(), reason="real CIFAR-10 is not beside the repository")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Random blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def make_folder(root: Path, count: int = 20, side: int = 12) -> Path:
    """``count`` pictures, half of them PNG."""
    for index in range(count):
        save(picture(side, side + index % 3, index), root / f"{index:03}.{('png', 'jpg')[index % 2]}")
    return root


def unpack_cifar(root: Path, count: int) -> Path:
    """The first images of the archive, without unpacking the rest."""
    with tarfile.open(CIFAR, "r|xz") as archive:
        found = 0
        for member in archive:
            if member.name.endswith(".jpg"):
                content = archive.extractfile(member)
                assert content is not None
                path = root / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
                found += 1
            if found == count:
                return root
    raise AssertionError(f"only {found} images in {CIFAR}")

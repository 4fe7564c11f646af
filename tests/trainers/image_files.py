"""Image files for tests: made here, or real ones if they are beside the repository."""

from __future__ import annotations

import hashlib
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
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


def idx(array: NDArray[np.uint8]) -> bytes:
    """Bytes in the format of MNIST's files."""
    return struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape) + array.tobytes()


def cifar_files(monkeypatch: pytest.MonkeyPatch, pixels: Callable[[], NDArray[np.uint8]]) -> dict[str, bytes]:
    """Files in CIFAR-10's format, by name: six batches of 10,000 × 3,072 ``pixels``, with labels 0 … 9 in turn.

    torchvision is made to expect their checksums.
    """
    from torchvision.datasets import CIFAR10

    files = {}
    for key in ("train_list", "test_list"):
        names = [name for name, _ in getattr(CIFAR10, key)]
        files |= {name: pickle.dumps({"data": pixels(), "labels": [*range(10)] * 1000}) for name in names}
        monkeypatch.setattr(CIFAR10, key, [[name, md5(files[name])] for name in names])
    files["batches.meta"] = pickle.dumps({"label_names": [str(number) for number in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
    return files


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


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

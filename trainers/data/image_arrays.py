"""Images that are decoded once into arrays on disk. One process of a machine builds them, and all memory-map them.

A dataset's folder in the cache holds ``train.npy`` (uint8, (n, C, H, W)), ``train_labels.npy`` (int64, (n,)) if there
are labels, the same for ``test``, and ``about.json``: the files' digest and sizes, and what the builder returns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trainers.locks import locked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

F = TypeVar("F")

READERS = 8
"""The number of threads that decode. Pillow releases the interpreter's lock meanwhile."""
CHUNK = 1000
"""The number of images held in memory while an array is built."""


def kept(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Returns the content of ``about.json`` in a dataset's folder. Builds the folder if it is missing or damaged.

    ``build(folder)`` writes the arrays into an empty folder and returns a dictionary for ``about.json``. It runs under
    a lock, and the folder appears by rename. So other processes wait for it and never see a half-written folder.
    ``digest``, the SHA-256 of the arrays, is added. It is computed once, so that no trial has to read gigabytes for it.
    """
    about = _read(folder)
    if about is not None:
        return about
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        about = _read(folder)  # another process may have built it while we waited
        if about is None:
            building = folder.with_name(f".{folder.name}.building")
            shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
            building.mkdir()
            try:
                about = build(building)
                files = sorted(building.glob("*.npy"))
                about |= {"digest": _digest(files), "bytes": {file.name: file.stat().st_size for file in files}}
                (building / "about.json").write_text(json.dumps(about, indent=1))
                shutil.rmtree(folder, ignore_errors=True)
                building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return about


def _read(folder: Path) -> dict[str, Any] | None:
    """The content of ``about.json``, or None if a file is missing or truncated.

    Reading beyond the end of a memory-mapped file would kill the process.
    """
    try:
        about = json.loads((folder / "about.json").read_text())
        whole = all((folder / name).stat().st_size == size for name, size in about["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about if whole else None


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files' names and contents. Also flushes the files to the disk."""
    content = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return content.hexdigest()


def open_images(folder: Path, split: str) -> Tensor:
    """The images of ``train`` or ``test``, uint8 (n, C, H, W), memory-mapped and read-only."""
    import numpy as np
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing writes to it
        return torch.from_numpy(np.load(folder / f"{split}.npy", mmap_mode="r"))


def open_labels(folder: Path, split: str) -> Tensor | None:
    """The labels of ``train`` or ``test``, int64 (n,), in memory. None if the images have no labels."""
    import numpy as np
    import torch

    with contextlib.suppress(FileNotFoundError):
        return torch.from_numpy(np.load(folder / f"{split}_labels.npy"))
    return None


def write_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """Writes one array as ``name.npy``."""
    import numpy as np

    np.save(folder / f"{name}.npy", np.ascontiguousarray(array))


def write_images(
    path: Path, sources: Sequence[F], decode: Callable[[F], NDArray[np.uint8]], shape: tuple[int, ...]
) -> dict[int, str]:
    """Decodes every source and writes the images of ``shape``, in order, to one .npy file.

    The images are never all in memory. A source that cannot be decoded is left out. Returns the problems of these
    sources, by index.
    """
    import concurrent.futures

    import numpy as np

    def attempt(source: F) -> NDArray[np.uint8] | str:
        try:
            return decode(source)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise any error on a broken file
            return _problem(error)

    problems: dict[int, str] = {}
    with path.open("wb") as file, concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        _write_header(file, (len(sources), *shape))
        for start in range(0, len(sources), CHUNK):
            for index, image in enumerate(pool.map(attempt, sources[start : start + CHUNK]), start):
                if isinstance(image, str):
                    problems[index] = image
                else:
                    file.write(np.ascontiguousarray(image).tobytes())
        end = file.tell()
        file.seek(0)
        _write_header(file, (len(sources) - len(problems), *shape))  # no longer than before: numpy leaves room
        assert end == file.tell() + (len(sources) - len(problems)) * int(np.prod(shape))
    return problems


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0][:100] or type(error).__name__


def to_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """A Pillow image in mode L or RGB as (C, H, W)."""
    import numpy as np

    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decoded(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Decodes any image file to uint8 (``channels``, ``size``, ``size``).

    The image is turned as its EXIF orientation says. Transparency becomes white. Of 16-bit greys the upper eight bits
    are kept, and of an animation the first frame. Then the central square is resampled by Pillow's antialiasing Lanczos
    filter, unless it already has the size. This resizes the shorter side and crops in one step. Smaller images are
    magnified. Raises Pillow's error for a file that is not an image or is truncated.
    """
    from PIL import Image, ImageOps

    if not path.is_file():
        raise ValueError("not a regular file")
    with Image.open(path) as opened:
        image = _opaque(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    if image.size != (size, size):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box)
    return to_pixels(image, channels)


def _opaque(image: Image.Image) -> Image.Image:
    """The image without an alpha channel and with eight bits a value."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit values, whose range is not known")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
    return image

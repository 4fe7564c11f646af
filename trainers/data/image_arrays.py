"""Images decoded once into arrays on disk: built by one process of a machine, memory-mapped by all.

A dataset's folder in the cache holds ``train.npy`` (uint8, (n, C, H, W)), perhaps ``train_labels.npy`` (int64, (n,)),
the same of ``test``, and ``about.json``: the digest of these files, their sizes, and whatever the builder tells.
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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

F = TypeVar("F")

READERS = 8
"""Threads that decode: Pillow lets go of the interpreter's lock."""
CHUNK = 1000
"""Images that are held in memory while an array is built."""


def kept(folder: Path, build: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What ``about.json`` of a dataset's folder tells; where the folder is missing or damaged, it is built first.

    ``build(folder)`` writes the arrays into an empty folder and returns what is worth telling. It runs under a lock
    and the folder appears by rename: processes that ask meanwhile wait, and none sees half of it. ``digest`` is added:
    SHA-256 of the arrays, computed here once so that no trial reads gigabytes for it.
    """
    about = _read(folder)
    if about is not None:
        return about
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        about = _read(folder)  # somebody else may have built it while we waited
        if about is None:
            building = folder.with_name(f".{folder.name}.building")
            shutil.rmtree(building, ignore_errors=True)  # of a builder that was killed
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
    """None if anything is missing or cut short: reading beyond the end of a mapped file would kill the process."""
    try:
        about = json.loads((folder / "about.json").read_text())
        whole = all((folder / name).stat().st_size == size for name, size in about["bytes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about if whole else None


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files' names and contents; they are on the disk for good afterwards."""
    content = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return content.hexdigest()


def open_images(folder: Path, split: str) -> Tensor:
    """The images of ``train`` or ``test``, uint8 (n, C, H, W), on the mapped file: for reading only."""
    import numpy as np
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # and nobody writes
        return torch.from_numpy(np.load(folder / f"{split}.npy", mmap_mode="r"))


def open_labels(folder: Path, split: str) -> Tensor | None:
    """The labels of ``train`` or ``test``, int64 (n,), in memory; None where the images have none."""
    import numpy as np
    import torch

    with contextlib.suppress(FileNotFoundError):
        return torch.from_numpy(np.load(folder / f"{split}_labels.npy"))
    return None


def write_array(folder: Path, name: str, array: NDArray[Any]) -> None:
    """One whole array as ``name.npy``."""
    import numpy as np

    np.save(folder / f"{name}.npy", np.ascontiguousarray(array))


def write_images(
    path: Path, sources: Sequence[F], decode: Callable[[F], NDArray[np.uint8]], shape: tuple[int, ...]
) -> dict[int, str]:
    """Every source that can be decoded to ``shape``, in order, as one .npy file, never all of them in memory.

    Returns what is wrong with each of the others, by its index.
    """
    import concurrent.futures

    import numpy as np

    def attempt(source: F) -> NDArray[np.uint8] | str:
        try:
            return decode(source)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever their parsing of a broken file ran into
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
        _write_header(file, (len(sources) - len(problems), *shape))  # as long as before: numpy leaves room in it
        assert end == file.tell() + (len(sources) - len(problems)) * int(np.prod(shape))
    return problems


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0][:100] or type(error).__name__


def to_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """A Pillow image in mode L or RGB as (C, H, W)."""
    import numpy as np

    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decoded(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Any image file as uint8 (``channels``, ``size``, ``size``).

    Turned as its EXIF orientation says; transparency on white; 16-bit greys by their upper eight bits; the first frame
    of an animation. Then the central square, resampled by Pillow's antialiasing Lanczos filter unless it has the size
    already: resizing the shorter side and cropping in one step. Smaller images are magnified.
    Raises what Pillow raises for a file that is no image or cut short.
    """
    from PIL import Image, ImageOps

    if not path.is_file():
        raise ValueError("no regular file")
    with Image.open(path) as opened:
        image = _opaque(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    if image.size != (size, size):
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box)
    return to_pixels(image, channels)


def _opaque(image: Image.Image) -> Image.Image:
    """Without an alpha channel and with eight bits a value."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32-bit values, of which nobody knows the range")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
    return image

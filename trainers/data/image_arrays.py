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

from trainers.data.decoding import decode_all
from trainers.locks import locked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

F = TypeVar("F")


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
    import numpy as np

    problems: dict[int, str] = {}
    with path.open("wb") as file:
        _write_header(file, (len(sources), *shape))
        for index, image in enumerate(decode_all(sources, decode)):
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

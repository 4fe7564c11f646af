"""Images that are decoded once into arrays on disk. One process of a machine builds them, and all memory-map them.

A dataset's folder in the cache holds ``train.npy`` (uint8, (n, C, H, W)), ``train_labels.npy`` (int64, (n,)) if there
are labels, the same for ``test``, and ``about.json``: the files' digest and sizes, and what the builder returns.

A process compares the digest with the files when it first opens them, and again only if they have changed since. That
reads every byte once: one to two seconds for each gigabyte. Arrays that do not match are made again.
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

    A file that does not match the digest that was stored with it is told in a warning, and the folder is built again.

    ``build(folder)`` writes the arrays into an empty folder and returns a dictionary for ``about.json``. It runs under
    a lock, and the folder appears by rename. So other processes wait for it and never see a half-written folder.
    ``digest``, the SHA-256 of the arrays, is added. It is computed once, so that no trial has to read gigabytes for it.
    """
    about = _read(folder)
    if about is not None and _is_verified(folder, about):
        return about
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        about = _read(folder)  # another process may have built it while we waited
        if about is not None and not _is_verified(folder, about):  # no process can change it now
            problem = "does not match the digest that was stored with it: it is damaged, and is made again"
            warnings.warn(f"'{folder}' {problem}", stacklevel=2)
            about = None
        if about is None:
            building = folder.with_name(f".{folder.name}.building")
            shutil.rmtree(building, ignore_errors=True)  # left by a process that was killed
            building.mkdir()
            try:
                about = build(building)
                files = sorted(building.glob("*.npy"))
                for path in files:
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                about |= {"digest": _digest(files), "bytes": {file.name: file.stat().st_size for file in files}}
                about["about_digest"] = _digest_of(about)
                (building / "about.json").write_text(json.dumps(about, indent=1))
                shutil.rmtree(folder, ignore_errors=True)
                building.rename(folder)
                _verified[folder] = _stamps(folder, about)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return about


_verified: dict[Path, dict[str, tuple[int, ...]]] = {}
"""The stamps of the files that this process has compared with their digest."""


def _is_verified(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the files are those whose digest was stored."""
    try:
        stamps = _stamps(folder, about)
        if _verified.get(folder) == stamps:
            return True
        files = sorted(folder / name for name in about["bytes"])
        whole = about["digest"] == _digest(files) and about.get("about_digest") in (None, _digest_of(about))
    except FileNotFoundError:  # another process makes the folder again
        return False
    if whole:
        _verified[folder] = stamps
    return whole


def _stamps(folder: Path, about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """What changes with a file's content: its inode, its size and its time of change."""
    found = {name: (folder / name).stat() for name in (*about["bytes"], "about.json")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def _digest_of(about: dict[str, Any]) -> str:
    """SHA-256 of what ``about.json`` says. Earlier versions did not store it."""
    values = {key: value for key, value in about.items() if key != "about_digest"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> dict[str, Any] | None:
    """The content of ``about.json``, or None if a file is missing or truncated.

    Reading beyond the end of a memory-mapped file would kill the process.
    """
    try:
        about = json.loads((folder / "about.json").read_text())
        whole = all((folder / name).stat().st_size == size for name, size in about["bytes"].items())
        whole = whole and isinstance(about["digest"], str)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return about if whole else None


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the files' names and contents."""
    content = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
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

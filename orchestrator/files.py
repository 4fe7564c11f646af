"""Atomic writing of files, careful reading of JSON, and the disk space that files take."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside ``path``, and renames it to ``path`` at the end. After an error it is deleted."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file atomically: a reader sees the old text or the new one."""
    with replacing(path) as file:
        file.write(text.encode())


def parse_json(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError for any other text, and for one that is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_number(value: Any) -> bool:
    """Whether a value that was read is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def remove(path: Path) -> None:
    """Deletes a file, a link (not what it leads to) or a folder. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def reason(error: OSError) -> str:
    """Why a file could not be written, without its name. For a copied tree it is the reason of the first file."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][-1])
    return error.strerror or str(error)


def disk_usage(folders: Iterable[Path]) -> int:
    """Total size in bytes of all files below some folders."""
    total = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # deleted in the meantime
                    total += os.lstat(os.path.join(root, name)).st_size
    return total

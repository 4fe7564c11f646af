"""Atomic writing of files, and the disk space that files take."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO


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

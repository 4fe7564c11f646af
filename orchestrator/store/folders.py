"""Copying trials' folders, and telling one trial's broken folder from a disk that fails all trials."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

OF_ONE_TRIAL = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.EACCES, errno.EPERM}
)


def is_of_one_trial(error: OSError) -> bool:
    """Whether an error is that of one trial's folder: something else is in a file's place, or access is denied.

    Any other error, such as that of a full disk, would befall the next trial too.
    """
    return error.errno in OF_ONE_TRIAL


def copy_plain(source: Path, target: Path, *ignored: str) -> None:
    """Copies a folder without the files of these names. Raises OSError, for a link, a pipe or a device in it too."""
    named = shutil.ignore_patterns(*ignored)
    failed: list[OSError] = []

    def ignore(folder: str, names: list[str]) -> set[str]:
        left = set(named(folder, names))
        for path in (Path(folder, name) for name in names if name not in left):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise OSError(errno.ELOOP, "is a link or no file", str(path))
        return left

    def copy(file: str, to: str) -> str:
        try:
            return shutil.copy2(file, to)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(source, target, ignore=ignore, copy_function=copy)
    except shutil.Error:  # it holds the texts of the errors, without their numbers
        if failed:
            raise failed[0] from None
        raise

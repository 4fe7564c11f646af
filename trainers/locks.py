"""Locks for files that several processes make, on every file system."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""The errors of ``flock`` on a file system that has no such locks: some network file systems, and some of FUSE."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file or folder, in ``PATH.lock`` beside it. Waits while another process holds it.

    On a file system without ``flock`` the existence of ``PATH.exists.lock`` is the lock. If its owner was killed, the
    next process on the same machine takes the lock; on another machine somebody has to delete the file.
    """
    from filelock import FileLock, SoftFileLock

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(f"{path}.lock", fallback_to_soft=False))
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            # Not PATH.lock: the attempt above has made this file, and an empty file counts as another's lock.
            held.enter_context(SoftFileLock(f"{path}.exists.lock"))
        yield

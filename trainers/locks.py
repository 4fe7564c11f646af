"""Locks for files that several processes make, on every file system."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.stopping import Stopped, asked_to_stop

if TYPE_CHECKING:
    from filelock import BaseFileLock

NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""The errors of ``flock`` on a file system that has no such locks: some network file systems, and some of FUSE."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file or folder, in ``PATH.lock`` beside it. Waits while another process holds it.

    On a file system without ``flock`` the existence of ``PATH.exists.lock`` is the lock. If its owner was killed, the
    next process on the same machine takes the lock; on another machine somebody has to delete the file. Raises
    :class:`~trainers.stopping.Stopped` if this process is asked to stop while it waits.
    """
    from filelock import FileLock, SoftFileLock

    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_acquired(FileLock(f"{path}.lock", fallback_to_soft=False)))
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            # Not PATH.lock: the attempt above has made this file, and an empty file counts as another's lock.
            held.enter_context(_acquired(SoftFileLock(f"{path}.exists.lock")))
        yield


def _acquired(lock: BaseFileLock) -> contextlib.AbstractContextManager[object]:
    from filelock import Timeout

    try:
        return lock.acquire(cancel_check=asked_to_stop)
    except Timeout:
        raise Stopped from None

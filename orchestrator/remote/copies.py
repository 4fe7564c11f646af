"""Where this machine and its workers keep their copies of a runs directory in an object store."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.remote.object_store import endpoint
from orchestrator.remote.replica import Replica


def copy_of(url: str) -> Path:
    """The folder of this machine's copy of a runs directory, in the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(f"{endpoint() or ''} {url.rstrip('/')}".encode()).hexdigest()[:12]
    return caches / "orchestrator" / socket.gethostname() / digest


def open_replica(url: str, *, asking: bool = True) -> Replica:
    """The runs directory at a URL. With ``asking`` the object store is contacted.

    Raises :class:`UserError` if the copy on this machine cannot be written, and if an object store that is contacted
    does not answer or refuses access.
    """
    try:
        copy = copy_of(url)
        copy.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"--runs-dir {url}: its copy on this machine cannot be written: {error}") from None
    try:
        replica = Replica(url, copy)  # some object stores connect here already
        if asking:
            replica.names()
    except PermissionError as error:
        keys = (
            "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in your environment. " if url.startswith("s3://") else ""
        )
        raise UserError(f"--runs-dir {url}: the object store refused access. {keys}It answered: {error}") from None
    except OSError as error:
        raise UserError(f"--runs-dir {url}: the object store cannot be reached: {error}") from None
    return replica


@contextlib.contextmanager
def scratch(replica: Replica) -> Iterator[Replica]:
    """A second copy of the same runs directory for one worker, deleted at the end.

    Copies that killed workers left behind are deleted first.
    """
    folder = replica.copy / ".workers"
    for left in folder.glob("*"):
        if not Path(f"/proc/{left.name.partition('-')[0]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    ours = folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
    ours.mkdir(parents=True)
    try:
        yield Replica(replica.url, ours)
    finally:
        shutil.rmtree(ours, ignore_errors=True)

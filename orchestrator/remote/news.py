"""News that machines exchange through an object store while a sweep runs: new epochs and requests to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from orchestrator.remote.replica import Replica
from orchestrator.threads import in_background

FOLLOW_SECONDS = 3.0
"""Seconds between two looks into the object store."""


@contextlib.contextmanager
def asked_to_stop(replica: Replica, *files: Path) -> Iterator[threading.Event]:
    """An event that a thread sets as soon as one of these files is in the object store."""
    asked = threading.Event()

    def look(ended: threading.Event) -> None:
        while not asked.is_set():
            with contextlib.suppress(OSError):
                if any(replica.exists(replica.key(file)) for file in files):
                    asked.set()
            if ended.wait(FOLLOW_SECONDS):
                return

    with in_background(look, "stop"):
        yield asked


@contextlib.contextmanager
def exchange_news(replica: Replica, name: str, at_work: Collection[str]) -> Iterator[None]:
    """Fetches what the workers of these trials write, every few seconds, in a thread.

    The file ``stop`` is passed on in both directions: from this machine to the object store and back.
    """
    stop = replica.copy / name / "stop"

    def look(ended: threading.Event) -> None:
        passed_on = False
        while not ended.wait(FOLLOW_SECONDS):
            with contextlib.suppress(OSError):  # tried again at the next look
                if stop.exists() and not passed_on:
                    replica.write(f"{name}/stop", b"")
                    passed_on = True
                elif not passed_on and replica.exists(f"{name}/stop"):
                    stop.touch()
                for trial_id in sorted(at_work):
                    # A trial that has just ended belongs to the driver: a pull would undo the state it writes.
                    with replica.lock:
                        if trial_id in at_work:
                            replica.pull(f"{name}/trials/{trial_id}")

    with in_background(look, "follower"):
        yield

"""What machines tell each other through an object store while a sweep runs: epochs, and that it is to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from orchestrator.remote.replica import Replica

FOLLOW_SECONDS = 3.0
"""How often one looks for what others have written."""


@contextlib.contextmanager
def asked_to_stop(replica: Replica, *files: Path) -> Iterator[threading.Event]:
    """An event that is set when one of these files is seen in the store, where a thread looks every few seconds."""
    ended, asked = threading.Event(), threading.Event()

    def look() -> None:
        while not asked.is_set():
            with contextlib.suppress(OSError):
                if any(replica.exists(replica.key(file)) for file in files):
                    asked.set()
            if ended.wait(FOLLOW_SECONDS):
                return

    thread = threading.Thread(target=look, name="stop", daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def exchange_news(replica: Replica, name: str, at_work: Collection[str]) -> Iterator[None]:
    """Every few seconds a thread fetches what the workers of these trials have written; a stop goes both ways."""
    ended = threading.Event()
    stop = replica.copy / name / "stop"

    def look() -> None:
        passed_on = False
        while not ended.wait(FOLLOW_SECONDS):
            with contextlib.suppress(OSError):  # the next time, perhaps
                if stop.exists() and not passed_on:
                    replica.write(f"{name}/stop", b"")
                    passed_on = True
                elif not passed_on and replica.exists(f"{name}/stop"):
                    stop.touch()
                for trial_id in sorted(at_work):
                    with replica.lock:  # one that has ended since is the driver's to write: its state is not undone
                        if trial_id in at_work:
                            replica.pull(f"{name}/trials/{trial_id}")

    thread = threading.Thread(target=look, name="follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

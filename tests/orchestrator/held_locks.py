"""Processes that drive a sweep, which is to say that they have its lock, and do nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from orchestrator.store.sweep import SweepStore

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.store import lock
from orchestrator.store.sweep import SweepStore
lock.HEARTBEAT_SECONDS = 0.05
store = SweepStore(Path(sys.argv[1]), sys.argv[2])
with lock.driver_lock(store):
    print("held", flush=True)
    for _ in range(1000):
        time.sleep(0.1)
        if store.stop_file.exists():
            time.sleep(0.5)  # the time it takes to write a checkpoint
            (store.path / "written").touch()
            break
"""

Driving = subprocess.Popen[str]


@contextlib.contextmanager
def driving(
    store: SweepStore, program: str = HOLD, where: Sequence[str] = (), stdin: int | None = None
) -> Iterator[Driving]:
    """A driver in its own process that does nothing until it is told to stop."""
    command = [*where, sys.executable, "-c", program, str(store.runs_dir), store.name]
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def out_of_reach(store: SweepStore) -> None:
    """Hides a driver's lock from other processes, like a file system whose locks do not reach other hosts."""
    store.lock_file.unlink()
    store.lock_file.touch()

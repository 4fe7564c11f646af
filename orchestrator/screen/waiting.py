"""What ``orchestrator stop`` waits for, and the way out."""

from __future__ import annotations

import contextlib
import socket
import time

from orchestrator.errors import UserError
from orchestrator.screen.progress import Seen, Watch
from orchestrator.screen.units import duration
from orchestrator.store.lock import Driver
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore


def waits_for(store: SweepStore, driver: Driver | None) -> str:
    """The trials that still run, since when each was last heard of, and the ways out, in a few lines.

    ``driver`` is None while the driver is starting.
    """
    if driver is None:
        return f"waiting: the driver of '{store.name}' is starting and is asked to stop as soon as it has"
    who = f"process {driver.pid} on {driver.host}"
    running = _running(store)
    if not running:
        lines = [f"waiting for the driver of '{store.name}' ({who}): no trial runs any more"]
    else:
        count = "1 trial still runs" if len(running) == 1 else f"{len(running)} trials still run"
        lines = [f"waiting for the driver of '{store.name}' ({who}): {count}"]
        lines += [_line(store, seen) for seen in running]
    there = "" if driver.host == socket.gethostname() else f", on {driver.host}"
    lines += [
        "Ctrl-C ends only this waiting. If a trial hangs, this ends the sweep at once and loses only the work since "
        f"the last checkpoints{there}: kill -INT {driver.pid}"
    ]
    return "\n".join(lines)


def _running(store: SweepStore) -> list[Seen]:
    """The trials whose workers have not ended their attempts."""
    with contextlib.suppress(UserError):  # what is known of a sweep in an object store is old then
        store.pull()
    watch = Watch(store)
    watch.refresh()
    return [
        seen
        for seen in watch.trials
        if seen.status.state is State.RUNNING and seen.status.attempts and seen.status.attempts[-1].ended is None
    ]


def _line(store: SweepStore, seen: Seen) -> str:
    trial, attempt = store.trial(seen.entry.trial_id), seen.status.attempts[-1]
    heard = [attempt.started, seen.epoch_at or 0.0]
    if store.replica is None:  # otherwise these are times of copying
        for file in (trial.log_file, trial.checkpoint_file):
            with contextlib.suppress(FileNotFoundError):
                heard.append(file.stat().st_mtime)
    ago = duration(max(0.0, time.time() - max(heard)))
    worker = f"process {attempt.pid} on {attempt.host}"
    return f"  {seen.label} ({worker}): last heard of {ago} ago (log: {trial.log_file})"

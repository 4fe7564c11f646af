"""Handles Ctrl-C and SIGTERM while a sweep runs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.errors import Aborted


@contextlib.contextmanager
def signals(stop_file: Path) -> Iterator[threading.Event]:
    """Handles signals: the first one lets running trials write a checkpoint and end; the second raises Aborted.

    The yielded event is set by the first signal. A Ctrl-C after ``orchestrator stop`` counts as the second. A SIGTERM
    less than a second after the first signal counts as the same one: ``timeout`` and other programs send it to a
    process and to its group.
    """
    stopping, aborting = threading.Event(), threading.Event()
    first = 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if stopping.is_set() or (number == signal.SIGINT and stop_file.exists()):
            if number == signal.SIGTERM and time.monotonic() - first < 1:
                return
            aborting.set()
            raise Aborted
        stopping.set()
        first = time.monotonic()
        try:
            stop_file.touch()
        except OSError:  # nothing can be written any more, so no checkpoint either
            aborting.set()
            raise Aborted from None
        with contextlib.suppress(OSError):  # standard error may be full or closed
            os.write(2, b"\nStopping: running trials write a checkpoint. Once more to leave at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    except BaseException:
        if aborting.is_set():  # Ray may have turned Aborted into another error
            raise Aborted from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What Ctrl-C and SIGTERM do while a command drives a sweep.

One process has one handler, because a signal may come twice: job managers and ``timeout`` send SIGTERM to a process and
to its group, and the supervisor passes on what it gets. A SIGTERM less than a second after the last signal counts as
the same one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import Aborted

SAME_SECONDS = 1.0
"""How long after a signal a SIGTERM counts as the same one."""
STOPPING = b"\nStopping: running trials write a checkpoint. Once more to leave at once.\n"
OF_SUPERVISOR = b"a signal"
"""What the supervisor writes into the file that asks to stop. The driver has not heeded that signal yet."""


class Presses:
    """Counts signals. ``count`` says whether a signal is a new one."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def count(self, number: int) -> bool:
        """Notes a signal. Returns False if it counts as the same one as the last."""
        now = time.monotonic()
        if number == signal.SIGTERM and now - self._last < SAME_SECONDS:
            return False
        self._last = now
        return True


class Signals:
    """The handler of a process. A signal raises :class:`Aborted`, but the first one within :meth:`asking` only asks."""

    def __init__(self) -> None:
        self.asked = False
        """Whether a signal has asked the trials to stop."""
        self.aborted = False
        """Whether a signal has raised :class:`Aborted`. Further signals do nothing."""
        self.on_press: Callable[[int], object] = lambda count: None
        """Called with the number of signals so far, before one is heeded."""
        self._presses = Presses()
        self._count = 0
        self._stop_file: Path | None = None

    def handle(self, number: int, frame: Any) -> None:
        """Called by Python in the main thread."""
        if not self._presses.count(number) or self.aborted:
            return
        self._count += 1
        self.on_press(self._count)
        if self._stop_file is None or self.asked or (number == signal.SIGINT and _was_asked(self._stop_file)):
            self.abort()
        self.asked = True
        try:
            self._stop_file.touch()
        except OSError:  # nothing can be written any more, so no checkpoint either
            self.abort()
        with contextlib.suppress(OSError):  # standard error may be full or closed
            os.write(2, STOPPING)

    def abort(self) -> NoReturn:
        """Raises :class:`Aborted`, once."""
        self.aborted = True
        raise Aborted

    @contextlib.contextmanager
    def asking(self, stop_file: Path) -> Iterator[None]:
        """Within the context the first signal makes ``stop_file``, so that running trials write a checkpoint and end.

        The second raises :class:`Aborted`; a Ctrl-C after ``orchestrator stop`` is the second. Ray may turn the
        exception into another error, or lose it: the end of the context raises it again.
        """
        self._stop_file = stop_file
        try:
            yield
        except BaseException:
            if self.aborted:
                raise Aborted from None
            raise
        finally:
            self._stop_file = None
        if self.aborted:
            raise Aborted


def _was_asked(stop_file: Path) -> bool:
    """Whether another command has asked the sweep to stop."""
    try:
        return stop_file.read_bytes() != OF_SUPERVISOR
    except OSError:
        return False


@contextlib.contextmanager
def signals() -> Iterator[Signals]:
    """Handles SIGINT and SIGTERM within the context, see :class:`Signals`.

    Within another such context it is the same handler.
    """
    present = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(present, Signals):
        yield present
        return
    ours = Signals()
    before = {number: signal.signal(number, ours.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ours
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

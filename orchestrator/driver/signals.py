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
from typing import Any

from orchestrator.errors import Aborted

SAME_SECONDS = 1.0
"""How long after a signal a SIGTERM counts as the same one."""
STOPPING = b"\nStopping: running trials write a checkpoint. Once more to leave at once.\n"


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
        self._presses = Presses()
        self._ask: Callable[[], None] | None = None

    def handle(self, number: int, frame: Any) -> None:
        """Called by Python in the main thread."""
        if not self._presses.count(number) or self.aborted:
            return
        if self._ask is not None and not self.asked:
            self.asked = True
            try:
                self._ask()
            except OSError:  # nothing can be written any more, so no checkpoint either
                self.abort()
            os.write(2, STOPPING)
            return
        self.abort()

    def abort(self) -> None:
        """Raises :class:`Aborted`, once."""
        self.aborted = True
        raise Aborted

    @contextlib.contextmanager
    def asking(self, ask: Callable[[], None]) -> Iterator[None]:
        """Within the context the first signal calls ``ask``, so that running trials write a checkpoint and end.

        The second raises :class:`Aborted`. Ray may turn it into another error, or lose it: the end of the context
        raises it again.
        """
        self._ask = ask
        try:
            yield
        except BaseException:
            if self.aborted:
                raise Aborted from None
            raise
        finally:
            self._ask = None
        if self.aborted:
            raise Aborted


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

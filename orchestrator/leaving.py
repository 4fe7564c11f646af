"""The end of a process whose result is there: no library's thread or exit handler keeps it for ever."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading


def leave_within(seconds: float, code: int) -> None:
    """Lets this process exit by itself, and ends it with ``code`` if it has not done so after ``seconds``.

    What its threads were waiting for is then on standard error. Daemon threads run until Python has gone through its
    exit handlers and has joined the other threads, which is where a process hangs.
    """

    def end() -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        print(f"orchestrator: did not come to its end in {seconds:g} s and was ended; its threads:", file=sys.stderr)
        sys.stderr.flush()
        faulthandler.dump_traceback()
        os._exit(code)

    last_resort = threading.Timer(seconds, end)
    last_resort.daemon = True
    last_resort.start()

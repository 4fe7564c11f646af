"""Makes sure that a process with a finished result ends, even if a library's thread or exit handler hangs."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading


def leave_within(seconds: float, code: int) -> None:
    """Ends this process with exit code ``code`` if it has not ended by itself after ``seconds``.

    It then prints the stack of every thread on standard error. The timer is a daemon thread: it still runs while Python
    calls exit handlers and joins other threads, which is where a process hangs.
    """

    def end() -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        print(
            f"orchestrator: the process did not end within {seconds:g} s and was stopped. Its threads:", file=sys.stderr
        )
        sys.stderr.flush()
        faulthandler.dump_traceback()
        os._exit(code)

    last_resort = threading.Timer(seconds, end)
    last_resort.daemon = True
    last_resort.start()

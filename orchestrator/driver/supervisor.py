"""A parent process of the driver. It concludes the sweep where the driver cannot.

Ray ends the process that has joined it, without an exception, when one of Ray's own processes dies. It hangs, in C++,
when one of them stands still. The kernel kills a process that takes too much memory, and a fault in a library aborts
it. So the commands that drive a sweep run in a child process. The parent loads nothing, waits, and passes signals on.
If the child has not ended by itself, the parent ends what is left of its Ray, and concludes the sweep from the store.

The child tells the parent what it does: one line of JSON each time, see :func:`report`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.driver.signals import OF_SUPERVISOR, STOPPING, Presses

HEED_SECONDS = 2.0
"""How long the child may take to heed the first signal, before the parent asks the trials to stop in its place."""
LEAVE_SECONDS = 5.0
"""How long the child may take to leave after the second signal, before the parent kills it."""
FORWARD_SECONDS = 0.1
"""How long the parent waits before it passes a signal on: the child may get the signal itself, and that one first."""
SI_KERNEL = 0x80
"""The ``si_code`` of a signal that a terminal sends to all processes in its foreground."""
PR_SET_PDEATHSIG = 1

_to_parent: int | None = None


def report(**facts: Any) -> bool:
    """Tells the parent facts. Returns False if this process has no supervisor.

    A later fact of the same name replaces an earlier one.

    ``driving``: what :func:`orchestrator.driver.conclusion.conclude_in_place_of` needs to conclude the sweep.
    ``stop_file``: the file that asks the running trials to stop; None while none run. ``gone``: why the driver is about
    to end itself. ``heeded``: how many signals its handler has counted. ``code``: the exit code with which Python ends.
    """
    if _to_parent is None:
        return False
    with contextlib.suppress(OSError):
        os.write(_to_parent, json.dumps(facts).encode() + b"\n")
    return True


def supervise() -> None:
    """Forks. Returns in the child; the parent stays here until the child has ended, and exits with its code.

    The kernel kills the child if the parent dies. So to kill the command's process is still to kill the driver.
    """
    global _to_parent  # noqa: PLW0603
    sys.stdout.flush()
    sys.stderr.flush()
    watched = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started this process may have had it ignored
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    parent = os.getpid()
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)
        os.close(from_child)
        _to_parent = to_parent
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os.close(to_parent)
    os.set_blocking(from_child, False)
    _Parent(child, from_child).wait(watched)


@dataclass
class _Parent:
    """The parent of a driver."""

    child: int
    from_child: int
    facts: dict[str, Any] = field(default_factory=dict)
    text: bytes = b""
    presses: int = 0
    heed_by: float = float("inf")
    leave_by: float = float("inf")

    def wait(self, watched: set[signal.Signals]) -> NoReturn:
        """Waits for the child's end, heeds signals, and exits."""
        presses = Presses()
        while not (ended := os.waitpid(self.child, os.WNOHANG))[0]:
            soonest = min(self.heed_by, self.leave_by) - time.monotonic()
            got = signal.sigtimedwait(watched, min(max(soonest, 0.0), 3600.0))
            self.listen()
            if got is not None and got.si_signo != signal.SIGCHLD and presses.count(got.si_signo):
                self.heed(got)
            self.lose_patience()
        self.listen()
        self.leave(os.waitstatus_to_exitcode(ended[1]))

    def listen(self) -> None:
        """Reads what the child has reported."""
        with contextlib.suppress(BlockingIOError):
            while read := os.read(self.from_child, 65536):
                self.text += read
        *lines, self.text = self.text.split(b"\n")
        for line in lines:
            self.facts |= json.loads(line)

    def heed(self, got: signal.struct_siginfo) -> None:
        """Passes a signal on that the child has not got itself, as SIGTERM, of which the child takes two for one."""
        self.presses += 1
        if got.si_code != SI_KERNEL:
            time.sleep(FORWARD_SECONDS)
            while signal.sigtimedwait({signal.SIGINT, signal.SIGTERM}, 0):
                pass  # ``timeout`` sends one to the process and another to its group
            self.listen()
            if self.facts.get("heeded", 0) < self.presses:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.child, signal.SIGTERM)
        if self.presses == 1:
            self.heed_by = time.monotonic() + HEED_SECONDS
        else:
            self.leave_by = min(self.leave_by, time.monotonic() + LEAVE_SECONDS)

    def lose_patience(self) -> None:
        """Does what the child should have done by now: its main thread may hang in a library."""
        now = time.monotonic()
        if now >= self.heed_by:
            self.heed_by = float("inf")
            if (stop_file := self.facts.get("stop_file")) and not os.path.exists(stop_file):
                with contextlib.suppress(OSError):
                    Path(stop_file).write_bytes(OF_SUPERVISOR)
                    os.write(2, STOPPING)
        if now >= self.leave_by:
            self.leave_by = float("inf")
            os.kill(self.child, signal.SIGKILL)

    def leave(self, code: int) -> NoReturn:
        """Exits as the child did, after concluding the sweep in its place if it could not."""
        if (reported := self.facts.get("code")) is not None:
            sys.exit(reported)
        driving, at_once = self.facts.get("driving"), self.presses > 1
        if driving is None:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            if code < 0 and not at_once:
                _die_of(-code)
            sys.exit(130 if code < 0 else code)
        from orchestrator.driver.conclusion import conclude_in_place_of

        sys.exit(conclude_in_place_of(driving, self.facts.get("gone") or _why(code), at_once=at_once))


def _why(code: int) -> str:
    """Why the driver ended, as far as its exit code tells."""
    if code >= 0:
        return f"Ray ended the driver (exit code {code}), because a process of Ray's had died"
    name = signal.Signals(-code).name
    kinds = {"SIGKILL": ", perhaps for lack of memory", "SIGABRT": ", by a fault in a library"}
    return f"the driver was ended by {name}{kinds.get(name, '')}"


def _die_of(number: int) -> NoReturn:
    """Ends this process by a signal, so that who started it sees what ended the child."""
    if number != signal.SIGKILL:  # nobody can handle it
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the signal does not end a process by default

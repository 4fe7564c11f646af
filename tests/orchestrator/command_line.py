"""Runs ``orchestrator`` as a separate process, and finds the processes that it leaves behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CommandLine = Callable[..., tuple[int, str, str]]
"""``command_line("status", "--json")`` runs the command in this process. Returns its exit code, output and errors."""


class Cluster(NamedTuple):
    """The arguments and the environment of a command that joins a running Ray."""

    arguments: list[str]
    environment: dict[str, str]


PROGRAM = Path(sys.executable).with_name("orchestrator")
MARK = "ORCHESTRATOR_TEST_MARK"
PATIENCE = 200.0
"""How long tests wait, in seconds, for an event that is sure to come."""
EAGER_WORKERS = {"RAY_worker_niceness": "0"}
"""By default Ray's workers have niceness 15; next to other work they would get a few percent of a processor."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, without variables that a Ray in this process may have added."""
    from_ray = ("RAY_", "TUNE_", "PYTHONBREAKPOINT", "PYTHONSAFEPATH")  # Ray has a debugger of its own
    ours = {key: value for key, value in os.environ.items() if not key.startswith(from_ray)}
    return ours | {"COLUMNS": "200"} | EAGER_WORKERS | changes


def orchestrator(*arguments: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@dataclass
class Running:
    """A running command in its own process group. All its children have its mark in their environment."""

    process: subprocess.Popen[str]
    mark: str

    def signal_group(self, number: int) -> None:
        """Signals every process of the group, as a terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def signal_all(self, number: int) -> None:
        """Signals the command's own process and then all of its processes, as a job manager does."""
        for pid in (self.process.pid, *marked(self.mark)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> tuple[int, str, str]:
        """Waits for the end. Returns exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def descendants(self) -> set[int]:
        """The ids of all descendants of the command's process."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone in the meantime
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        found, young = set[int](), {self.process.pid}
        while young:
            young = {pid for pid, parent in parents.items() if parent in young}
            found |= young
        return found

    def left_over(self, seconds: float) -> list[str]:
        """The command lines of processes that still have the mark after ``seconds``."""
        wait_until(lambda: not marked(self.mark), seconds, may_fail=True)
        return list(marked(self.mark).values())


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, **changes: str) -> Iterator[Running]:
    """Starts a command. At the end, processes that are left of it are killed by their ids."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [str(PROGRAM), *map(str, arguments)],
        cwd=cwd,
        env=environment(**{MARK: mark}, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Running(process, mark)
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def free_port() -> int:
    """A port at which no process listens. It lies below the range from which the system and Ray choose free ports."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def marked(mark: str) -> dict[int, str]:
    """The command lines, by process id, of processes with the mark in their environment. Skips zombies."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone in the meantime
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_until(
    condition: Callable[[], object], seconds: float = PATIENCE, *, may_fail: bool = False, pause: float = 0.02
) -> None:
    """Waits until a condition holds. Raises TimeoutError; on a busy machine Ray alone takes a minute to start."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if may_fail:
                return
            raise TimeoutError(f"still not so after {seconds} s")
        time.sleep(pause)

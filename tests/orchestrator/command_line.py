"""``orchestrator`` as a process of its own, and what is left of it."""

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
"""``command_line("status", "--json")``: the command in this process; its exit code, output and errors."""


class Cluster(NamedTuple):
    """The arguments and the environment of a command that joins a running Ray."""

    arguments: list[str]
    environment: dict[str, str]


PROGRAM = Path(sys.executable).with_name("orchestrator")
MARK = "ORCHESTRATOR_TEST_MARK"
PATIENCE = 200.0
"""Seconds that are waited for what is sure to come."""
EAGER_WORKERS = {"RAY_worker_niceness": "0"}
"""Ray's workers run at 15 otherwise: beside anybody else's work they get a few percent of a processor."""


def environment(**changes: str) -> dict[str, str]:
    """Ours, without what a Ray in this process may have added."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    return ours | {"COLUMNS": "200"} | EAGER_WORKERS | changes


def orchestrator(*arguments: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@dataclass
class Running:
    """A command that is still running, in a process group of its own; all its children bear its mark."""

    process: subprocess.Popen[str]
    mark: str

    def signal_group(self, number: int) -> None:
        """What a terminal does on Ctrl-C: every process of the foreground group gets the signal."""
        os.killpg(self.process.pid, number)

    def signal_all(self, number: int) -> None:
        """What a job manager does: the command's own process gets the signal, and then all of its processes get it."""
        for pid in (self.process.pid, *marked(self.mark)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> tuple[int, str, str]:
        """Waits: exit code, standard output, standard error."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def descendants(self) -> set[int]:
        """Every process that comes from the command's own."""
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
        """The command lines of the processes that still bear the mark after so long."""
        wait_until(lambda: not marked(self.mark), seconds, may_fail=True)
        return list(marked(self.mark).values())


@contextlib.contextmanager
def started(*arguments: object, cwd: Path, **changes: str) -> Iterator[Running]:
    """Starts a command; whatever is left of it at the end is killed, by id."""
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
    """A port at which nobody listens, and which nobody is given who asks for any: those are higher, Ray's too."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def marked(mark: str) -> dict[int, str]:
    """The processes, zombies apart, that have the mark in their environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone in the meantime
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def wait_until(
    condition: Callable[[], object], seconds: float = PATIENCE, *, may_fail: bool = False, pause: float = 0.02
) -> None:
    """Waits for a condition, looking often. On a busy machine a Ray that starts takes a minute."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            if may_fail:
                return
            raise TimeoutError(f"still not so after {seconds} s")
        time.sleep(pause)

"""Machines made of network namespaces. Each has its own address, and only the network connects them.

Making them needs root and Linux's ``ip``. This machine's own network does not change, because the bridge between the
machines has its own namespace.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line import wait_until


@dataclass(frozen=True)
class Started:
    """A process on a machine, and the files with its output."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def end(self, seconds: float = 200) -> tuple[int, str, str]:
        """Waits for the end. Returns exit code, standard output and standard error."""
        code = self.process.wait(seconds)
        return code, self.out.read_text(), self.err.read_text()

    def succeed(self) -> None:
        """Waits for the end. Raises AssertionError for an exit code other than 0."""
        code, out, err = self.end()
        assert code == 0, out + err


@dataclass(frozen=True)
class Machine:
    """A network namespace and its address."""

    namespace: str
    address: str

    def start(self, command: Sequence[object], log: Path, environment: Mapping[str, str]) -> Started:
        """Starts a process that ends with the machine. Its output goes to ``log.out`` and ``log.err``."""
        out, err = log.with_name(f"{log.name}.out"), log.with_name(f"{log.name}.err")
        inside = ["ip", "netns", "exec", self.namespace, "setpriv", "--pdeathsig", "KILL", *map(str, command)]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                inside, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=dict(environment)
            )
        return Started(process, out, err)

    def processes(self) -> list[int]:
        """The ids of all processes on the machine."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [int(pid) for pid in listed.stdout.split()]

    def power_off(self) -> None:
        """Kills all processes on the machine and waits until they have ended."""

        def all_gone() -> bool:
            running = [pid for pid in self.processes() if not _is_zombie(pid)]
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not running

        wait_until(all_gone, 30)


@contextlib.contextmanager
def machines(*names: str) -> Iterator[dict[str, Machine]]:
    """Machines that can reach each other. At the end they are deleted with all their processes."""
    _end_leftovers()
    run = f"orchestrator-{os.getpid()}-{secrets.token_hex(2)}"
    subnet = f"10.231.{secrets.randbelow(256)}"
    switch = f"{run}-switch"
    made = {name: Machine(f"{run}-{name}", f"{subnet}.{10 + number}") for number, name in enumerate(names)}
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, machine in enumerate(made.values()):
            there = machine.namespace
            _ip("netns", "add", there)
            _ip("-n", there, "link", "set", "lo", "up")
            _ip("-n", there, "link", "add", "eth0", "type", "veth", "peer", f"port{number}", "netns", switch)
            _ip("-n", there, "address", "add", f"{machine.address}/24", "dev", "eth0")
            _ip("-n", there, "link", "set", "eth0", "up")
            _ip("-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
        yield made
    finally:
        there = _ip("netns", "list").split()
        for machine in made.values():
            if machine.namespace in there:
                machine.power_off()
                _ip("netns", "delete", machine.namespace)
        if switch in there:
            _ip("netns", "delete", switch)


def why_not() -> str | None:
    """Why this process cannot make machines; None if it can."""
    if shutil.which("ip") is None:
        return "there is no command 'ip' (Debian's iproute2)"
    name = f"orchestrator-{os.getpid()}-{secrets.token_hex(2)}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces can be made here ({error.stderr.strip()})"
    return None


def _end_leftovers() -> None:
    """Ends the machines of test runs that were killed."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(r"orchestrator-(\d+)-\S+", line)
        if found and not Path(f"/proc/{found[1]}").exists():
            Machine(found[0], "").power_off()
            _ip("netns", "delete", found[0])


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True

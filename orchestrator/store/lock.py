"""One driver per sweep: the lock, the heartbeat, and cleaning up after a dead driver.

A driver locks ``driver.lock`` (flock) while it runs; the kernel releases the lock when the driver dies. ``driver.json``
describes the driver to people and to other hosts, which the lock may not reach. The file's time of change is the
driver's heartbeat. Every process of the driver's Ray has the driver's ``mark`` in its environment, and Ray's temporary
folders have it in their names. By the mark a later command finds what a dead driver left, and nothing else.

If the runs directory is in an object store, these files lie in this machine's copy and exclude only drivers of the same
machine. A ``lease`` in the object store excludes drivers of other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import write_atomically
from orchestrator.remote.lease import STALE_SECONDS, Held, Lease, take
from orchestrator.store.runs import runs_argument
from orchestrator.store.sweep import SweepStore
from orchestrator.threads import in_background

HEARTBEAT_SECONDS = 10.0
SYSTEM_TEMPORARY = Path("/tmp")
ROOM = 2**20
"""The bytes that must fit into a temporary folder; Ray's logs need more."""
MARK = "ORCHESTRATOR_DRIVER"
"""The environment variable that the processes of a driver's Ray inherit."""


@dataclass(frozen=True)
class Driver:
    """The process that drives a sweep.

    ``machine`` tells boots and containers of one host apart. ``started`` tells processes apart that had the same id.
    """

    host: str
    machine: str
    pid: int
    started: int
    mark: str


def this_process() -> Driver:
    """This process as a driver, with a mark of its own."""
    return Driver(socket.gethostname(), _machine(), os.getpid(), _start_time(os.getpid()), secrets.token_hex(6))


def read_driver(store: SweepStore) -> Driver | None:
    """The driver of the sweep, alive or dead; None if there is no readable ``driver.json``."""
    try:
        return _read(store)
    except OSError:
        return None


def driver_from(values: Any) -> Driver | None:
    """The driver that these values of a JSON file describe. None if they describe none."""
    if not isinstance(values, dict):
        return None
    try:
        driver = Driver(**values)
    except TypeError:
        return None
    return driver if re.fullmatch("[0-9a-f]{12}", str(driver.mark)) else None


def is_alive(store: SweepStore, driver: Driver) -> bool:
    """Whether a driver is alive: its process exists on this machine, or its heartbeat from elsewhere is fresh."""
    if (driver.host, driver.machine) == (socket.gethostname(), _machine()):
        return _start_time(driver.pid) == driver.started != 0
    try:
        return _heartbeat_age(store) < STALE_SECONDS
    except FileNotFoundError:  # the driver has just ended
        return False


@contextlib.contextmanager
def driver_lock(store: SweepStore, tell: Callable[[str], None] = lambda text: None) -> Iterator[Driver]:
    """Makes this process the only driver of a sweep. First cleans up after dead drivers in the same runs directory.

    Raises :class:`UserError` with the host and process of another driver that is alive. If another host takes over the
    sweep, because this one gave no heartbeat for 60 s, this process ends at once, as if it had been killed.
    """
    try:
        file = store.lock_file.open("a")
    except OSError as error:
        raise UserError(f"the runs directory '{store.runs_dir}' cannot be written: {error.strerror}") from None
    with file:
        _take(file.fileno(), store)
        left = read_driver(store)
        if left is not None and is_alive(store, left):
            raise UserError(_held(store, _who(left)))
        end_leftovers(store.runs_dir, tell, own=store)
        driver = this_process()
        with _leased(store, driver) as lease:
            try:
                store.stop_file.unlink(missing_ok=True)  # an earlier driver's: later requests are meant for this one
                write_atomically(store.driver_file, json.dumps(asdict(driver)))
            except OSError as error:
                raise UserError(f"the sweep's directory '{store.path}' cannot be written: {error.strerror}") from None
            try:
                with in_background(functools.partial(_beat, store, driver, lease), "heartbeat"):
                    yield driver
            finally:
                if read_driver(store) == driver:
                    with contextlib.suppress(OSError):  # on a read-only disk the file stays; it names a dead process
                        store.driver_file.unlink(missing_ok=True)


@contextlib.contextmanager
def _leased(store: SweepStore, driver: Driver) -> Iterator[Lease | None]:
    """Takes the lease of a sweep in an object store and synchronises this machine's copy. None without object store.

    Raises :class:`UserError` if a driver of another machine holds the lease, or the object store cannot be reached.
    """
    if store.replica is None:
        yield None
        return

    def is_dead(holder: dict[str, Any]) -> bool:
        here = (holder.get("host"), holder.get("machine")) == (driver.host, driver.machine)
        return here and _start_time(holder["pid"]) != holder["started"]

    try:
        lease = take(store.replica, store.name, asdict(driver), is_dead)
        store.replica.delete(store.replica.key(store.stop_file))  # an earlier driver's
        store.replica.pull_as_driver(store.name)
    except Held as held:
        raise UserError(_held(store, f"process {held.holder.get('pid')} on {held.holder.get('host')}")) from None
    except OSError as error:
        raise UserError(f"{store.replica.url}/{store.name} cannot be read and written: {error}") from None
    try:
        yield lease
    finally:
        store.replica.close(store.name)
        with contextlib.suppress(OSError):  # an unreleased lease is stale after a minute
            lease.release()


def try_lock(lock: int) -> bool:
    """Tries to take the lock. Returns False if another process of this host has it.

    Returns True on a file system without locks, where only the heartbeat tells drivers apart.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def end_leftovers(runs_dir: Path, tell: Callable[[str], None], own: SweepStore | None = None) -> list[str]:
    """Ends the processes and deletes the temporary folders of dead drivers of this machine.

    ``own`` is a sweep whose lock the caller holds. Returns the names of the sweeps whose drivers had died.
    """
    found = []
    for file in runs_dir.glob("*/driver.json"):
        store = SweepStore(runs_dir, file.parent.name)
        ended = False
        if own is not None and store.name == own.name:
            ended = _end_left(store, tell)
        else:
            with contextlib.suppress(OSError), store.lock_file.open("a") as lock:
                ended = try_lock(lock.fileno()) and _end_left(store, tell)
        found += [store.name] if ended else []
    return found


def end_marked(mark: str) -> int:
    """Kills the processes with a mark and deletes its temporary folders. Returns the number of killed processes."""
    ended = set[int]()  # a set, so that a process that takes a while to end counts once
    deadline = time.monotonic() + 30
    while (processes := marked_processes(mark)) and time.monotonic() < deadline:
        ended |= {pid for pid in processes if _kill(pid, mark)}
        time.sleep(0.05)
    for purpose in ("ray", "orchestrator-tune"):
        for folder in temporary_folders(purpose, mark):
            shutil.rmtree(folder, ignore_errors=True)
    return len(ended)


def marked_processes(mark: str) -> list[int]:
    """The ids of the processes with this mark in their environment."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _bears(pid, mark)]


def make_temporary_folder(purpose: str, mark: str, longest: int = 4096) -> Path:
    """Makes a temporary folder with this mark where there is room for it. Its path has at most ``longest`` bytes.

    Raises :class:`UserError` with what is wrong with each place.
    """
    problems = []
    for folder in temporary_folders(purpose, mark):
        if too_long := max(0, len(os.fsencode(folder)) - longest):
            problems.append(f"'{folder.parent}' is {too_long} characters too long for the paths of Ray's sockets")
            continue
        try:
            folder.mkdir(mode=0o700)
            (folder / "room").write_bytes(bytes(ROOM))
            (folder / "room").unlink()
            return folder
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            problems.append(f"'{folder.parent}' cannot be written: {error.strerror}")
    short = f" and a path of at most {longest - len(f'/{purpose}-{mark}')} characters" if longest < 4096 else ""
    why = "; ".join(problems) or "no folder can be written"
    raise UserError(f"there is no room for temporary files: {why}. Set TMPDIR to a folder with free space{short}")


def temporary_folders(purpose: str, mark: str) -> list[Path]:
    """Where a temporary folder with this mark may be, best first. Ray's sockets need a short path, such as /tmp's."""
    places = [SYSTEM_TEMPORARY] if purpose == "ray" else []
    with contextlib.suppress(FileNotFoundError):  # no usable folder for temporary files
        places.append(Path(tempfile.gettempdir()))
    return [place / f"{purpose}-{mark}" for place in dict.fromkeys(places)]


def _end_left(store: SweepStore, tell: Callable[[str], None]) -> bool:
    """Cleans up after the dead driver of a sweep. Returns whether there was one. The caller holds the sweep's lock."""
    driver = read_driver(store)
    if driver is None or is_alive(store, driver):
        return False
    ended = end_marked(driver.mark) if driver.host == socket.gethostname() else 0
    if store.replica is None:  # otherwise the next driver mends it, after synchronising
        store.mend()
    store.driver_file.unlink(missing_ok=True)
    processes_ended = f"; {ended} processes that it left were ended" if ended else ""
    tell(f"the driver of '{store.name}' (process {driver.pid} on {driver.host}) had died{processes_ended}")
    return True


def _kill(pid: int, mark: str) -> bool:
    """Kills a process if it still has the mark. A process that has since been given the same id is left alone."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if _bears(pid, mark):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                return True
        finally:
            os.close(handle)
    return False


def _bears(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # another user's process, or one that has just ended
        return False


def _take(lock: int, store: SweepStore) -> None:
    """Takes the lock. Raises :class:`UserError` if a driver has it, and if it is not free after two seconds.

    ``orchestrator stop`` and commands that clean up have it for an instant. A driver that is starting has it before it
    has written ``driver.json``.
    """
    deadline = time.monotonic() + 2
    while not try_lock(lock):
        driver = read_driver(store)
        alive = driver is not None and is_alive(store, driver)
        if alive or time.monotonic() > deadline:
            raise UserError(_held(store, _who(driver) if driver is not None and alive else None))
        time.sleep(0.05)


def _who(driver: Driver) -> str:
    return f"process {driver.pid} on {driver.host}"


def _held(store: SweepStore, who: str | None) -> str:
    by = f" ({who})" if who else ""
    stop = f"orchestrator stop {store.name}{runs_argument(store.runs)}"
    return f"'{store.name}' is already running{by}; stop it with: {stop}"


def _beat(store: SweepStore, driver: Driver, lease: Lease | None, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        try:
            os.utime(store.driver_file)
            still_ours = _read(store) == driver and (lease is None or lease.beat())
        except FileNotFoundError:
            still_ours = False
        except OSError:
            continue  # the next beat may come through
        if not still_ours and not ended.is_set():
            text = f"orchestrator: another driver has taken over '{store.name}', or its directory was deleted\n"
            with contextlib.suppress(OSError):  # standard error may be closed
                os.write(2, text.encode())
            end_marked(driver.mark)
            if read_driver(store) == driver:  # the lease is lost: the supervisor must not take the sweep for ours
                with contextlib.suppress(OSError):
                    store.driver_file.unlink(missing_ok=True)
            os._exit(1)  # at once, so that nothing more is written


def _read(store: SweepStore) -> Driver | None:
    """Reads ``driver.json``; None if it is damaged. Raises OSError."""
    try:
        return driver_from(json.loads(store.driver_file.read_text()))
    except ValueError:
        return None


def _heartbeat_age(store: SweepStore) -> float:
    """Seconds since the last heartbeat, by the file system's clock, because the clocks of hosts differ."""
    beat = store.driver_file.stat().st_mtime
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=store.path) as now:
        return os.fstat(now.fileno()).st_mtime - beat
    return time.time() - beat  # a read-only directory


def _machine() -> str:
    """The id of this machine's boot and the namespace of its process ids; the two tell containers apart."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


def _start_time(pid: int) -> int:
    """When a process started, in clock ticks since the boot; 0 if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # the fields after the name, which may hold any character
    return 0 if fields[0] in "ZX" else int(fields[19])

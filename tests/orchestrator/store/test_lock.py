"""One driver per sweep: its lock, its heartbeat, and cleaning up after dead drivers.

Real processes. Another host is a process with its own host name and process ids, whose lock does not reach this host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from command_line import CommandLine, wait_until
from held_locks import HOLD, driving, out_of_reach

from orchestrator.errors import UserError
from orchestrator.files import write_atomically
from orchestrator.store.lock import (
    MARK,
    STALE_SECONDS,
    Driver,
    driver_lock,
    end_leftovers,
    is_alive,
    marked_processes,
    read_driver,
    temporary_folders,
    this_process,
)
from orchestrator.store.states import State
from orchestrator.store.stopping import stop_driver
from orchestrator.store.sweep import SweepStore

GONE = "orchestrator: another driver has taken over 'hand', or its directory was deleted\n"


@pytest.fixture(scope="session")
def elsewhere() -> list[str]:
    """The words before a command that run it as process 1 of the host ``other``."""
    names = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespaces = ["unshare", *names, "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    where = [*namespaces, "sh", "-c", 'hostname other && exec "$@"', "sh"]
    try:
        tried = subprocess.run([*where, "true"], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if tried.returncode:
        pytest.skip(f"unshare is not permitted here: {tried.stderr.strip()}")
    return where


def heard_of(store: SweepStore, seconds_ago: float) -> None:
    """Sets the last heartbeat back."""
    then = time.time() - seconds_ago
    os.utime(store.driver_file, (then, then))


def died(store: SweepStore, *, running: int = 0) -> Driver:
    """A driver that was killed while some of its trials were running, as its driver.json describes it."""
    with driving(store) as process:
        driver = read_driver(store)
        assert driver is not None
        for entry in store.entries()[:running]:
            store.trial(entry.trial_id).set_state(State.RUNNING)
        process.kill()
    return driver


@pytest.fixture
def second(store: SweepStore) -> SweepStore:
    """Another sweep in the same runs directory."""
    shutil.copytree(store.path, store.runs_dir / "second")
    return SweepStore(store.runs_dir, "second")


Sleepers = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def sleeper() -> Iterator[Sleepers]:
    """``sleeper(MARK="…")``: a process with this environment that sleeps."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-S", "-c", "import time; time.sleep(300)", *arguments]
            process = stack.enter_context(subprocess.Popen(command, env=environment))
            stack.callback(process.kill)
            wait_until(Path(f"/proc/{process.pid}/environ").read_bytes if environment else lambda: True)
            return process  # its environment can be read, some milliseconds after its start

        yield start


@pytest.fixture
def folder() -> Iterator[Callable[[str, str], Path]]:
    """``folder("ray", mark)``: a temporary folder as the driver with this mark has it, with something inside."""
    with contextlib.ExitStack() as stack:

        def make(purpose: str, mark: str) -> Path:
            path = temporary_folders(purpose, mark)[0]
            path.mkdir()
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            (path / "session").mkdir()
            (path / "session" / "log").write_text("a log\n")
            return path

        yield make


# the lock


def test_a_second_driver_is_refused_by_name_and_let_in_when_the_first_is_gone(store: SweepStore) -> None:
    with driving(store) as first:
        told = rf"'hand' is already running \(process {first.pid} on {socket.gethostname()}\)"
        with pytest.raises(UserError, match=told), driver_lock(store):
            pass
    with driver_lock(store):  # a lock dies with its process
        assert str(os.getpid()) in store.driver_file.read_text()
    with driver_lock(store):
        pass


def test_stopping_waits_until_the_driver_has_ended(store: SweepStore, command_line: CommandLine) -> None:
    with driving(store):
        code, out, _ = command_line("stop", "hand", "--runs-dir", store.runs_dir)
        assert (code, out) == (0, "'hand' has stopped.\n")
        assert (store.path / "written").exists()
    with pytest.raises(UserError, match="'hand' is not running"):
        stop_driver(store)


def test_a_lock_is_released_by_an_error(store: SweepStore) -> None:
    with pytest.raises(ValueError, match="odd"), driver_lock(store):
        raise ValueError("odd")
    assert not store.driver_file.exists()
    with driver_lock(store):
        pass


def test_two_drivers_never_have_one_mark(store: SweepStore) -> None:
    marks = set()
    for _ in range(3):
        with driver_lock(store) as driver:
            assert read_driver(store) == driver
            marks.add(driver.mark)
    assert len(marks) == 3


# who lives


def test_another_host_s_driver_is_refused_by_host_and_process_while_its_heart_beats(
    store: SweepStore, elsewhere: list[str]
) -> None:
    with driving(store, where=elsewhere):
        out_of_reach(store)
        heard_of(store, 2 * STALE_SECONDS)
        wait_until(lambda: time.time() - store.driver_file.stat().st_mtime < 2)  # it keeps itself alive
        with (
            pytest.raises(UserError, match=r"'hand' is already running \(process 1 on other\)"),
            driver_lock(store),
        ):
            pass
        driver = read_driver(store)
        assert driver is not None
        assert driver.host == "other"
        assert is_alive(store, driver)


def test_another_host_s_driver_that_was_not_heard_of_for_a_minute_is_taken_over_and_ends_when_it_wakes(
    store: SweepStore, elsewhere: list[str]
) -> None:
    told: list[str] = []
    with driving(store, where=elsewhere) as other:
        out_of_reach(store)
        running = store.trial(store.entries()[0].trial_id)
        running.set_state(State.RUNNING)
        os.killpg(other.pid, signal.SIGSTOP)  # a host that hangs
        heard_of(store, STALE_SECONDS - 10)
        with pytest.raises(UserError, match=r"\(process 1 on other\)"), driver_lock(store):
            pass
        heard_of(store, STALE_SECONDS + 1)
        with driver_lock(store, told.append) as ours:
            assert told == ["the driver of 'hand' (process 1 on other) had died"]
            assert running.status().state is State.LOST
            os.killpg(other.pid, signal.SIGCONT)
            _, errors = other.communicate(timeout=30)
            assert (other.returncode, errors) == (1, GONE)
            assert read_driver(store) == ours  # what it found there was not its own


def test_another_host_s_driver_is_stopped_and_waited_for(store: SweepStore, elsewhere: list[str]) -> None:
    with driving(store, where=elsewhere) as other:
        out_of_reach(store)
        stop_driver(store)
        assert (store.path / "written").exists()
        assert other.wait(timeout=30) == 0


def test_a_driver_whose_process_id_is_another_process_s_by_now_is_dead(store: SweepStore, sleeper: Sleepers) -> None:
    driver = died(store)
    somebody = sleeper()
    write_atomically(store.driver_file, json.dumps(asdict(replace(driver, pid=somebody.pid))))
    found = read_driver(store)
    assert found is not None
    assert not is_alive(store, found)
    with driver_lock(store):
        pass
    assert somebody.poll() is None


def test_a_driver_that_nobody_has_waited_for_is_dead(store: SweepStore) -> None:
    with driving(store) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its number is still taken
        driver = read_driver(store)
        assert driver is not None
        assert not is_alive(store, driver)
        with driver_lock(store):
            pass


def test_another_host_s_driver_that_has_just_left_is_dead(store: SweepStore) -> None:
    left = replace(this_process(), host="other")
    assert not store.driver_file.exists()
    assert not is_alive(store, left)


def test_a_driver_of_this_machine_before_it_was_started_anew_is_dead_when_its_heart_is_still(store: SweepStore) -> None:
    before = replace(this_process(), machine="another boot")
    write_atomically(store.driver_file, json.dumps(asdict(before)))
    assert is_alive(store, before)
    heard_of(store, STALE_SECONDS + 1)
    assert not is_alive(store, before)


def test_status_tells_whether_the_driver_lives(store: SweepStore, command_line: CommandLine) -> None:
    def status() -> tuple[object, str]:
        _, out, _ = command_line("status", "hand", "--json", "--runs-dir", store.runs_dir)
        return json.loads(out)["driver"], command_line("status", "hand", "--runs-dir", store.runs_dir)[1].split("\n")[0]

    assert status()[0] is None
    with driving(store) as process:
        process_and_host = {"host": socket.gethostname(), "pid": process.pid}
        driver, line = status()
        assert driver == process_and_host | {"alive": True}
        assert line.endswith(f"driven by process {process.pid} on {socket.gethostname()}")
        process.kill()
    driver, line = status()
    assert driver == process_and_host | {"alive": False}
    assert line.endswith(f"left by a driver that died, process {process.pid} on {socket.gethostname()}")
    assert store.driver_file.exists()  # looking changes nothing


DAMAGED = [b"", b"null", b"[]", b'{"host": "other"}', b"\xff\xfe", b'{"host": "other", "machine": "m", "pid": 1, "star']


@pytest.mark.parametrize("content", DAMAGED, ids=map(repr, DAMAGED))
def test_a_damaged_driver_json_is_no_obstacle(store: SweepStore, command_line: CommandLine, content: bytes) -> None:
    store.driver_file.write_bytes(content)
    assert read_driver(store) is None
    code, out, _ = command_line("status", "hand", "--json", "--runs-dir", store.runs_dir)
    assert (code, json.loads(out)["driver"]) == (0, None)
    with driver_lock(store) as ours:
        assert read_driver(store) == ours
    assert not store.driver_file.exists()


# a driver that has lost its sweep


def test_a_driver_that_was_taken_over_ends_at_once(store: SweepStore) -> None:
    with driving(store) as process:
        successor = replace(this_process(), host="other")
        write_atomically(store.driver_file, json.dumps(asdict(successor)))
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, out, errors) == (1, "", GONE)
    assert read_driver(store) == successor


def test_a_driver_whose_directory_was_moved_away_ends_at_once_and_makes_no_new_one(store: SweepStore) -> None:
    with driving(store) as process:
        moved = store.path.rename(store.runs_dir / "moved")
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (1, GONE)
    assert not store.path.exists()
    with driver_lock(SweepStore(store.runs_dir, moved.name)):  # it can be driven where it is now
        pass


def test_a_driver_that_ends_before_it_notices_leaves_the_other_s_sweep_alone(store: SweepStore) -> None:
    successor = replace(this_process(), host="other")
    running = store.trial(store.entries()[0].trial_id)
    with driver_lock(store):
        write_atomically(store.driver_file, json.dumps(asdict(successor)))
        running.set_state(State.RUNNING)
    assert read_driver(store) == successor
    assert running.status().state is State.RUNNING


def test_a_driver_that_was_taken_over_takes_its_own_processes_along(
    store: SweepStore, sleeper: Sleepers, folder: Callable[[str, str], Path]
) -> None:
    with driving(store) as process:
        driver = read_driver(store)
        assert driver is not None
        worker, its_own = sleeper(**{MARK: driver.mark}), folder("ray", driver.mark)
        wait_until(lambda: marked_processes(driver.mark) == [worker.pid])
        store.driver_file.write_text(json.dumps(asdict(this_process())))
        assert process.wait(timeout=30) == 1
        assert worker.wait(timeout=10) == -signal.SIGKILL
        assert not its_own.exists()


def test_a_driver_that_was_taken_over_ends_although_nobody_reads_what_it_says(store: SweepStore) -> None:
    with driving(store) as process:
        assert process.stderr is not None
        process.stderr.close()
        write_atomically(store.driver_file, json.dumps(asdict(this_process())))
        assert process.wait(timeout=10) == 1


def test_a_heartbeat_that_cannot_look_is_no_end(store: SweepStore) -> None:
    program = HOLD.replace(
        'print("held", flush=True)',
        """
    import os, resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))  # no file can be opened any more
    print("held", flush=True)
    time.sleep(0.5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    """,
    )
    with driving(store, program) as process:
        heard_of(store, STALE_SECONDS)
        time.sleep(1)
        assert process.poll() is None
        stop_driver(store)
        assert process.wait(timeout=30) == 0


# what dead drivers have left


def test_of_a_dead_driver_only_what_bears_its_mark_is_ended_and_removed(
    store: SweepStore, sleeper: Sleepers, folder: Callable[[str, str], Path]
) -> None:
    driver, other = died(store, running=1), secrets.token_hex(6)
    left = [sleeper(**{MARK: driver.mark}), sleeper(**{"A": "b", MARK: driver.mark, "Z": ""})]
    strangers = [
        sleeper(),
        sleeper(**{MARK: other}),
        sleeper(**{MARK: driver.mark + "0"}),
        sleeper(**{MARK: ""}),
        sleeper(**{f"{MARK}_2": driver.mark}),
        sleeper(f"{MARK}={driver.mark}"),
    ]
    its_own = [folder("ray", driver.mark), folder("orchestrator-tune", driver.mark)]
    others = [folder("ray", other), folder("ray", driver.mark + "0"), folder("orchestrator-tune", other)]
    wait_until(lambda: set(marked_processes(driver.mark)) == {process.pid for process in left})

    told: list[str] = []
    assert end_leftovers(store.runs_dir, told.append)
    assert [process.wait(timeout=10) for process in left] == [-signal.SIGKILL, -signal.SIGKILL]
    assert [process.poll() for process in strangers] == [None] * len(strangers)
    assert not any(path.exists() for path in its_own)
    assert all((path / "session" / "log").exists() for path in others)
    who = f"the driver of 'hand' (process {driver.pid} on {driver.host})"
    assert told == [f"{who} had died; 2 processes that it left were ended"]
    assert store.trial(store.entries()[0].trial_id).status().state is State.LOST
    assert not store.driver_file.exists()
    assert not end_leftovers(store.runs_dir, told.append)  # it is told, and done, once
    assert len(told) == 1


def test_whoever_drives_next_ends_what_was_left_of_every_sweep_in_the_runs_directory(
    store: SweepStore, second: SweepStore, sleeper: Sleepers, folder: Callable[[str, str], Path]
) -> None:
    dead = died(second, running=2)
    left, its_own = sleeper(**{MARK: dead.mark}), folder("ray", dead.mark)
    told: list[str] = []
    with driver_lock(store, told.append):
        assert left.wait(timeout=10) == -signal.SIGKILL
        assert not its_own.exists()
        assert told == [
            f"the driver of 'second' (process {dead.pid} on {dead.host}) had died; 1 processes that it left were ended"
        ]
        assert not second.driver_file.exists()
        states = [second.trial(entry.trial_id).status().state for entry in second.entries()]
        assert states == [State.LOST, State.LOST, State.PENDING, State.PENDING]


def test_the_processes_of_drivers_that_live_are_left_alone(
    store: SweepStore, second: SweepStore, sleeper: Sleepers, folder: Callable[[str, str], Path]
) -> None:
    with driving(second):
        driver = read_driver(second)
        assert driver is not None
        workers, its_own = sleeper(**{MARK: driver.mark}), folder("ray", driver.mark)
        second.trial(second.entries()[0].trial_id).set_state(State.RUNNING)
        with driver_lock(store):
            assert not end_leftovers(store.runs_dir, pytest.fail, own=store)
        assert workers.poll() is None
        assert its_own.exists()
        assert read_driver(second) == driver
        assert second.trial(second.entries()[0].trial_id).status().state is State.RUNNING


def test_what_a_dead_driver_left_is_left_to_whoever_has_its_sweep_s_lock(
    store: SweepStore, second: SweepStore, sleeper: Sleepers
) -> None:
    dead = died(second, running=1)
    left = sleeper(**{MARK: dead.mark})
    with second.lock_file.open("a") as starting:  # a driver that has not written its driver.json yet
        fcntl.flock(starting, fcntl.LOCK_EX)
        with driver_lock(store, pytest.fail):
            pass
        assert left.poll() is None
        assert read_driver(second) == dead
        assert second.trial(second.entries()[0].trial_id).status().state is State.RUNNING


def test_what_a_living_driver_of_another_host_has_is_left_alone(
    store: SweepStore, second: SweepStore, elsewhere: list[str]
) -> None:
    with driving(second, where=elsewhere) as other:
        out_of_reach(second)
        second.trial(second.entries()[0].trial_id).set_state(State.RUNNING)
        with driver_lock(store, pytest.fail):
            pass
        assert second.trial(second.entries()[0].trial_id).status().state is State.RUNNING
        time.sleep(0.3)  # some heartbeats
        assert other.poll() is None


STRANGE = ["", "0123456789a", "0123456789abc", "0123456789AB", "0123456789ab\n", "*", "x/../../{}", None]


@pytest.mark.parametrize("strange", STRANGE, ids=map(repr, STRANGE))
def test_a_mark_that_is_none_ends_and_removes_nothing(
    store: SweepStore, tmp_path: Path, sleeper: Sleepers, folder: Callable[[str, str], Path], strange: str | None
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    mark = strange and strange.format(precious)
    steps = folder("ray", "x") if mark and "/" in mark else None  # so that the path exists
    if steps is not None:
        assert temporary_folders("ray", str(mark))[0].resolve() == precious
    values = asdict(replace(this_process(), started=1)) | {"mark": mark}  # somebody who has died
    store.driver_file.write_text(json.dumps(values))
    named = None if steps else folder("ray", str(mark))
    bears = sleeper(**{MARK: str(mark)})
    with driver_lock(store, pytest.fail):
        pass
    assert bears.poll() is None
    assert precious.exists()
    assert named is None or (named / "session" / "log").exists()


def test_stopping_a_sweep_whose_driver_has_died_ends_what_it_left(
    store: SweepStore, sleeper: Sleepers, command_line: CommandLine
) -> None:
    driver = died(store, running=1)
    left = sleeper(**{MARK: driver.mark})
    code, out, _ = command_line("stop", "hand", "--runs-dir", store.runs_dir)
    assert (code, out.splitlines()[1:]) == (0, ["'hand' has stopped."])
    assert out.startswith(f"the driver of 'hand' (process {driver.pid} on {driver.host}) had died; 1 process")
    assert left.wait(timeout=10) == -signal.SIGKILL
    assert store.trial(store.entries()[0].trial_id).status().state is State.LOST
    code, _, errors = command_line("stop", "hand", "--runs-dir", store.runs_dir)
    assert (code, errors) == (2, "orchestrator: 'hand' is not running: there is nothing to stop\n")


def test_stopping_a_sweep_that_nobody_drives_is_an_error_although_another_s_driver_has_died(
    store: SweepStore, second: SweepStore, command_line: CommandLine
) -> None:
    died(second)
    code, _, errors = command_line("stop", "hand", "--runs-dir", store.runs_dir)
    assert (code, errors) == (2, "orchestrator: 'hand' is not running: there is nothing to stop\n")
    assert not second.driver_file.exists()

"""The parent of a driver: real processes and signals, without Ray. ``test_ray_dies`` has a real Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import environment, wait_until

from orchestrator.driver import supervisor
from orchestrator.store.lock import read_driver
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

BEGINNING = """
import os, signal, sys, time
from pathlib import Path
from orchestrator.driver.supervisor import report, supervise
supervise()
"""
DRIVING = """
from orchestrator.driver.conclusion import tell_supervisor
from orchestrator.driver.options import Options
from orchestrator.driver.signals import signals
from orchestrator.store.lock import driver_lock
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
store = SweepStore(Path(sys.argv[1]), "hand")
with signals(), driver_lock(store) as driver:
    tell_supervisor(store, driver, Options(None))
    report(stop_file=str(store.stop_file))
    store.trial(store.entries()[0].trial_id).set_state(State.RUNNING)
    print("driving", flush=True)
"""
HANGING = """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}) # other threads get them, as in a library
    print("hanging", flush=True)
    time.sleep(600)
"""


def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a supervised process that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", BEGINNING + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def ended(code: str, *arguments: object) -> tuple[int, list[str], str]:
    """Exit code, lines of output and errors of a supervised process."""
    process = begin(code, *arguments)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), errors


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("sys.exit(7)", 7, id="its exit code"),
        pytest.param("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM, id="its signal"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, id="SIGKILL"),
        pytest.param("report(code=0); os.abort()", 0, id="its exit code, if a library's exit handler aborts"),
    ],
)
def test_a_command_ends_as_its_child(code: str, expected: int) -> None:
    assert ended(code) == (expected, [], "")


def test_a_command_whose_parent_ignores_its_children_s_ends_ends_as_its_child() -> None:
    outer = (
        "import signal, os, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    inner = [sys.executable, "-P", "-c", BEGINNING + "sys.exit(7)"]
    assert subprocess.run([sys.executable, "-c", outer, *inner], env=environment(), check=False).returncode == 7


def test_who_kills_the_command_kills_the_driver() -> None:
    process = begin("print(os.getpid(), flush=True); time.sleep(600)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    wait_until(
        lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    )


COUNT = """
seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: seen.append(number))
print("ready", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(0.5)
print(*[signal.Signals(number).name for number in seen])
"""


def test_a_signal_that_the_driver_has_heeded_is_not_passed_on() -> None:
    process = begin(COUNT.replace("seen.append(number)", "(report(heeded=1), seen.append(number))"))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("SIGINT\n", "")


def test_a_signal_to_the_command_and_one_to_its_group_are_one(store: SweepStore) -> None:
    process = begin(DRIVING + HANGING.replace("600", "8"), store.runs_dir)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["driving\n", "hanging\n"]
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert "Left at once" not in out  # the parent waits for the driver, which ends by itself


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_alone_reaches_the_driver(number: signal.Signals) -> None:
    process = begin(COUNT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("SIGTERM\n", "")
    assert process.returncode == 0


def test_a_signal_to_all_comes_before_the_one_that_is_passed_on() -> None:
    process = begin(COUNT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("SIGINT SIGTERM\n", "")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("os._exit(1)", "Ray ended the driver (exit code 1), because a process of Ray's had died"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the driver was ended by SIGKILL, perhaps for lack of memory"),
        ("os.abort()", "the driver was ended by SIGABRT, by a fault in a library"),
        (
            "from orchestrator.driver.conclusion import end_for; end_for(driver, 'the head has gone')",
            "the head has gone",
        ),
    ],
)
def test_the_sweep_of_a_driver_that_something_ended_is_concluded(store: SweepStore, end: str, why: str) -> None:
    code, out, errors = ended(DRIVING + f"    {end}", store.runs_dir)
    assert (code, errors) == (1, "")
    assert out[-3:] == [
        "hand: 1 LOST, 3 PENDING",
        f"Stopped early: {why}",
        f"Some trials did not finish; go on with: orchestrator resume hand --runs-dir {store.runs_dir} --offline",
    ]
    first = store.trial(store.entries()[0].trial_id).status()
    assert (first.state, first.error) == (State.LOST, why)
    assert read_driver(store) is None


def test_a_driver_that_hangs_does_not_keep_the_user(store: SweepStore) -> None:
    process = begin(DRIVING + HANGING, store.runs_dir)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["driving\n", "hanging\n"]
    process.send_signal(signal.SIGINT)
    wait_until(store.stop_file.exists)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == supervisor.STOPPING.decode()
    assert out == f"Left at once; go on with: orchestrator resume hand --runs-dir {store.runs_dir} --offline\n"
    first = store.trial(store.entries()[0].trial_id).status()
    assert (first.state, first.error) == (State.LOST, "the driver left at once")


def test_a_sweep_that_another_driver_has_taken_over_is_left_to_it(store: SweepStore) -> None:
    other = (
        '    store.driver_file.write_text(store.driver_file.read_text().replace(driver.mark, "0" * 12)); os._exit(1)'
    )
    assert ended(DRIVING + other, store.runs_dir) == (1, ["driving"], "")
    assert store.trial(store.entries()[0].trial_id).status().state is State.RUNNING

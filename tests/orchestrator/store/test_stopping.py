"""Requests to stop: none is lost, none reaches the next driver, and the command that waits says for what."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import started, wait_until
from hand_made import attempt, finish
from held_locks import HOLD, driving

from orchestrator.driver.options import Options
from orchestrator.driver.preparation import prepare
from orchestrator.driver.run import run_sweep
from orchestrator.errors import UserError
from orchestrator.screen.waiting import waits_for
from orchestrator.store import stopping
from orchestrator.store.lock import driver_lock, this_process
from orchestrator.store.states import State, Status
from orchestrator.store.stopping import stop_driver
from orchestrator.store.sweep import SweepStore

STARTING = HOLD.replace(
    "with lock.driver_lock(store):",
    """
end_leftovers = lock.end_leftovers
def told_to_go_on(*arguments, **options):  # it has the lock and its name is nowhere
    print("locked", flush=True)
    sys.stdin.readline()
    return end_leftovers(*arguments, **options)
lock.end_leftovers = told_to_go_on
with lock.driver_lock(store):
""",
)
"""A driver that takes the lock, says so, and waits for a line before it goes on to write its name."""

PATIENT = HOLD.replace("time.sleep(0.5)", "time.sleep(600)")
"""A driver that hangs once it is asked to stop."""


def test_a_request_between_the_lock_and_the_driver_s_name_is_honoured(store: SweepStore) -> None:
    command = [sys.executable, "-c", STARTING, str(store.runs_dir), store.name]
    store.stop_file.touch()  # an earlier driver's
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdin is not None
        assert driver.stdout.readline() == "locked\n"
        with started("stop", "hand", cwd=store.runs_dir.parent) as stop:
            descriptors = Path(f"/proc/{stop.process.pid}/fd")
            wait_until(lambda: store.lock_file in [file.resolve() for file in descriptors.iterdir()])
            driver.stdin.write("\n")
            driver.stdin.flush()
            assert driver.stdout.readline() == "held\n"
            assert driver.wait(60) == 0
            assert stop.end() == (0, "'hand' has stopped.\n", "")
    assert (store.path / "written").exists()


def test_a_request_of_an_earlier_driver_does_not_stop_the_next_one(store: SweepStore) -> None:
    store.stop_file.touch()
    with driver_lock(store):
        assert not store.asked_to_stop()
        store.stop_file.touch()
        assert prepare(store)
        assert store.asked_to_stop()


def test_a_request_before_anything_starts_starts_nothing(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    def asked_meanwhile(*arguments: object) -> list[str]:
        store.stop_file.touch()  # as the command does: the driver has its name by now
        return prepare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("orchestrator.driver.run.prepare", asked_meanwhile)
    code = run_sweep(store, Options(None), Console(), open_executor=lambda *_: pytest.fail("something was started"))
    out = capsys.readouterr().out.splitlines()
    assert (code, out[-2]) == (130, "hand: 4 PENDING")
    assert out[-1] == f"Stopped; go on with: orchestrator resume hand --runs-dir {store.runs_dir} --offline"
    assert [store.trial(entry.trial_id).status() for entry in store.entries()] == [Status()] * 4


def test_a_request_that_is_deleted_while_the_driver_lives_is_made_again(store: SweepStore) -> None:
    """As drivers of earlier versions do while they prepare."""
    program = HOLD.replace("    for _ in", "    sys.stdin.readline()\n    store.stop_file.unlink()\n    for _ in")
    with driving(store, program, stdin=subprocess.PIPE) as driver:
        assert driver.stdin is not None
        with started("stop", "hand", cwd=store.runs_dir.parent) as stop:
            wait_until(store.stop_file.exists)
            driver.stdin.write("\n")
            driver.stdin.flush()
            assert stop.end() == (0, "'hand' has stopped.\n", "")
    assert (store.path / "written").exists()


def test_ctrl_c_of_a_stop_ends_only_the_waiting(store: SweepStore) -> None:
    with driving(store, PATIENT) as driver, started("stop", "hand", cwd=store.runs_dir.parent) as stop:
        wait_until(store.stop_file.exists)
        stop.process.send_signal(signal.SIGINT)
        code, out, errors = stop.end()
        assert driver.poll() is None
    again = "To wait again: orchestrator stop hand"
    assert (code, out, errors) == (
        130,
        f"\nOnly the waiting was interrupted: 'hand' goes on stopping. {again}\n",
        "",
    )
    assert store.stop_file.exists()


def test_reminders_come_at_growing_intervals(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    seen: list[float] = []
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += 1
        if now[0] > 100:
            store.driver_file.unlink()  # the driver has ended

    monkeypatch.setattr(stopping.time, "sleep", sleep)
    store.driver_file.write_text(json.dumps(asdict(this_process())))
    stop_driver(store, remind=lambda driver: seen.append(now[0]))
    assert seen == [10, 20, 40, 80]
    store.driver_file.unlink(missing_ok=True)
    with pytest.raises(UserError, match="nothing to stop"):
        stop_driver(store)


@pytest.fixture
def some_running(store: SweepStore) -> Callable[[], str]:
    """Two trials run, one of which has a log, one has stopped and one is done."""
    first, second, third, fourth = store.entries()
    then = time.time() - 125
    for entry, ended in ((first, None), (second, None), (third, then)):
        store.trial(entry.trial_id).write_status(Status(State.RUNNING, [attempt(started=then, pid=7, ended=ended)]))
    store.trial(first.trial_id).log("hello")
    finish(store, fourth, {"exact_w1": 0.5})
    return lambda: waits_for(store, this_process())


def test_what_is_waited_for_is_named_with_its_age(store: SweepStore, some_running: Callable[[], str]) -> None:
    first, second, *_ = store.entries()
    head, *trials, _ = some_running().splitlines()
    assert head.endswith("): 2 trials still run")
    for entry, ago, line in zip((first, second), (r"\ds", r"2m\d\ds"), trials, strict=True):
        log = re.escape(str(store.trial(entry.trial_id).log_file))
        name = re.escape(f"  {entry.label} seed={entry.seed} (process 7 on somewhere)")
        assert re.fullmatch(rf"{name}: last heard of {ago} ago \(log: {log}\)", line)


def test_without_a_running_trial_and_without_a_driver_s_name_that_is_said(store: SweepStore) -> None:
    assert ": no trial runs any more\n" in waits_for(store, this_process())
    assert waits_for(store, None).startswith("waiting: the driver of 'hand' is starting")

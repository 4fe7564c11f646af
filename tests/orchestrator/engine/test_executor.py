"""A sweep under executors that are not Ray Tune: a pretended one that takes milliseconds, and this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import PATIENCE, PROGRAM, CommandLine, environment, orchestrator
from foreign import install
from hand_made import POINTS, finish, write_file
from rich.console import Console
from small_trials import assert_equal_to_the_bit

from orchestrator.driver.options import Options
from orchestrator.driver.run import run_sweep
from orchestrator.engine.executor import Executor
from orchestrator.engine.placement import anywhere
from orchestrator.engine.queue import Death, Queue
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial

Worker = Callable[[SweepStore, Entry], bool]
"""What stands in for a trial: writes its state and returns whether its worker died."""


class Pretended:
    """An executor whose trials take no time."""

    def __init__(self, trial_ids: list[str], worker: Worker) -> None:
        self.placement = anywhere(trial_ids, at_once=2)
        self.began: list[str] = []
        self._worker = worker

    def run(self, queue: Queue) -> None:
        entries = {entry.trial_id: entry for entry in queue.store.entries()}
        while not queue.finished:
            if (assignment := queue.next()) is not None:
                self.began.append(assignment.trial_id)
                died = self._worker(queue.store, entries[assignment.trial_id])
                queue.ended(assignment.trial_id, died=Death("it was killed") if died else None)


class Drive:
    """Drives the sweep ``hand`` with a pretended executor."""

    def __init__(self, store: SweepStore) -> None:
        self.store = store
        self.ids = [entry.trial_id for entry in store.entries()]
        self.console = Console(file=io.StringIO(), width=200)
        self.began: list[str] = []

    def run(self, worker: Worker, selection: Selection = EVERYTHING) -> int:
        """The exit code."""

        @contextlib.contextmanager
        def opened(_: SweepStore, trial_ids: Any, *__: object) -> Iterator[Executor]:
            executor = Pretended(list(trial_ids), worker)
            yield executor
            self.began = executor.began

        return run_sweep(self.store, Options(None), self.console, selection=selection, open_executor=opened)

    def states(self) -> list[State]:
        return [self.store.trial(trial_id).status().state for trial_id in self.ids]

    def printed(self) -> str:
        file = self.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


@pytest.fixture
def drive(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> Drive:
    monkeypatch.setattr("orchestrator.engine.queue.LONGEST_BACK_OFF", 0.001)
    return Drive(store)


def done(store: SweepStore, entry: Entry) -> bool:
    finish(store, entry, {"exact_w1": 0.25 + entry.seed})
    return False


def failing(store: SweepStore, entry: Entry) -> bool:
    store.trial(entry.trial_id).write_status(Status(State.FAILED, [Attempt(started=1.0)], "OSError: out of paper"))
    return False


def test_a_sweep_comes_to_its_table(drive: Drive) -> None:
    code = drive.run(done)
    assert (code, drive.states()) == (0, [State.DONE] * 4)
    assert drive.began == drive.ids
    assert "hand: 4 DONE" in drive.printed()
    assert (drive.store.tables / "hand.csv").exists()


def test_what_is_done_is_not_run_again(drive: Drive) -> None:
    drive.run(done)
    drive.run(done)
    assert drive.began == drive.ids  # nothing was opened the second time


def test_failures_are_retried_and_then_left_to_resume(drive: Drive) -> None:
    broken = drive.ids[1]
    code = drive.run(lambda store, entry: (failing if entry.trial_id == broken else done)(store, entry))
    assert code == 1
    assert drive.began.count(broken) == 1 + drive.store.plan()["retries"]
    assert drive.states() == [State.DONE, State.FAILED, State.DONE, State.DONE]
    assert "go on with: orchestrator resume hand" in drive.printed()
    code = drive.run(done)
    assert (code, drive.began) == (0, [broken])


def test_a_worker_that_dies_leaves_a_lost_trial_that_comes_again(drive: Drive) -> None:
    seen: list[State] = []

    def dies_once(store: SweepStore, entry: Entry) -> bool:
        seen.append(store.trial(entry.trial_id).status().state)
        if len(seen) == 1:
            store.trial(entry.trial_id).set_state(State.RUNNING)
            return True
        return done(store, entry)

    code = drive.run(dies_once)
    assert (code, drive.states()) == (0, [State.DONE] * 4)
    assert drive.began == [*drive.ids, drive.ids[0]]
    assert seen == [*[State.PENDING] * 4, State.LOST]


def test_a_stop_ends_the_sweep_with_what_has_begun(drive: Drive) -> None:
    def stops(store: SweepStore, entry: Entry) -> bool:
        store.stop_file.touch()
        return done(store, entry)

    code = drive.run(stops)
    assert (code, drive.began) == (130, drive.ids[:1])
    assert drive.states() == [State.DONE, *[State.PENDING] * 3]


def test_the_selection_says_what_runs(drive: Drive) -> None:
    code = drive.run(done, Selection(trial_ids=frozenset({drive.ids[2]})))
    assert (code, drive.began) == (1, [drive.ids[2]])


# --- in this process ------------------------------------------------------------------------------------------------


LOCAL = f"""\
name: local
base: {POINTS}
grid: {{penalty.weight: [1, 2]}}
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--executor", "locale"], "--executor: there is no executor 'locale'; did you mean 'local'?"),
        (["--executor", "local", "--address", "here:1"], "it cannot be combined with --address"),
        (["--executor", "local", "--max-concurrent", "2"], "it cannot be combined with --max-concurrent"),
    ],
)
def test_options_that_contradict_an_executor_are_errors(
    tmp_path: Path, command_line: CommandLine, arguments: list[str], told: str
) -> None:
    file = write_file(tmp_path, LOCAL)
    code, _, err = command_line("sweep", file, *arguments, "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert told in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_trials_run_one_after_the_other_in_the_process_of_the_command(tmp_path: Path) -> None:
    write_file(tmp_path, LOCAL)
    ran = orchestrator("sweep", "sweep.yaml", "--executor", "local", "--offline", cwd=tmp_path)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "local: 2 DONE"), ran.stderr
    assert "one after the other in this process" in ran.stdout
    store = SweepStore(tmp_path / "runs", "local")
    trials = [store.trial(entry.trial_id) for entry in store.entries()]
    first, second = (trial.status().attempts[0] for trial in trials)
    assert first.pid == second.pid
    assert first.ended is not None
    assert first.ended <= second.started
    for trial in trials:
        twin = TrialStore(tmp_path / "twin" / trial.trial_id)
        twin.create(trial.config())
        run_trial(twin, tmp_path / "cache")
        assert_equal_to_the_bit(trial, twin)


@pytest.mark.long
def test_breakpoints_work(tmp_path: Path) -> None:
    site = install(tmp_path / "site")
    module = site / "foreign_penalties" / "penalties.py"
    module.write_text(
        module.read_text().replace(
            "    def __call__(self, critic, pair):\n",
            "    def __call__(self, critic, pair):\n"
            "        if not stopped:\n"
            "            stopped.append(True)\n"
            "            breakpoint()\n",
        )
        + "\nstopped = []\n"
    )
    write_file(tmp_path, f"name: debugged\nbase: {POINTS[:-1]}, penalty=quiet]\n")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [PROGRAM, "sweep", "sweep.yaml", "--executor", "local", "--offline"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=path),
        input="p self.weight * 84\nc\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "(Pdb) 21.0" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "debugged: 1 DONE"

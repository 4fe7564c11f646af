"""A sweep whose driver and workers are killed twenty times at random moments, beside an undisturbed twin."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import MARK, Running, marked, orchestrator, wait_until
from driven_sweeps import Sweep, folders_of, new_sweep
from mlflow_dump import dump, expected_files, expected_points, files_of, points_of
from small_trials import assert_equal_to_the_bit

from orchestrator.store.lock import Driver, read_driver
from orchestrator.store.states import State, Status
from orchestrator.store.trial import TrialStore

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a Ray takes seconds to start, on a busy machine a minute

SHAKEN = """\
name: shaken
base:
  - dataset=mixture
  - evaluation=none
  - evaluation.times=1
  - batch_size=8
  - network.generator_widths=[16]
  - network.critic_widths=[16]
  - network.dropout=0.1
  - generator.ema=0.9
  - budget=1000
  - device=cpu
  - checkpoint_seconds=0.2
  - checkpoint_epochs=3
grid: {critic_iterations: [1, 2, 3]}
retries: 100
"""
EPOCHS = 59  # ⌈1000 / ⌊140 / 8⌋⌉
SEED = 20261122


@dataclass(frozen=True)
class Shot:
    """Kills a worker ``delay`` seconds after a ``moment`` of an attempt.

    The moment is the start of the attempt, the end of an epoch, or the writing of a checkpoint at that epoch or later.
    """

    moment: str
    epoch: int
    delay: float


@dataclass
class Shooting:
    """Shots at the workers of a sweep, and a record of those that hit."""

    sweep: Sweep
    over: threading.Event = field(default_factory=threading.Event)
    hits: list[tuple[str, float, Shot]] = field(default_factory=list)  # trial, when the attempt began, how
    half_written: int = 0

    def shoot(self, trial: TrialStore, shots: list[Shot]) -> None:
        """Kills the worker of one trial, time after time."""
        done: set[float] = set()
        tail, epoch = trial.tail(), -1
        for shot in shots:
            while not self.over.is_set():
                epoch += len(list(tail.read()))
                attempt = self._hit(trial, shot, epoch, done)
                if attempt is not None:
                    done.add(attempt)
                    self.hits.append((trial.trial_id, attempt, shot))
                    break
                time.sleep(0.02)

    def wait_for(self, hits: int, running: Running) -> None:
        """Waits until this many workers have been hit, or the command has ended too early."""
        wait_until(lambda: len(self.hits) >= hits or running.process.poll() is not None, 400)

    def _hit(self, trial: TrialStore, shot: Shot, epoch: int, done: set[float]) -> float | None:
        """Returns the start of the attempt that was hit; None if it is too early or the worker is gone."""
        status = trial.status()
        if status.state is not State.RUNNING:
            return None
        attempt = status.attempts[-1]
        if attempt.ended is not None or attempt.started in done:
            return None
        if shot.moment != "start" and epoch < shot.epoch:
            return None
        half_written = trial.path / f".{trial.checkpoint_file.name}.{attempt.pid}"
        if shot.moment == "checkpoint":
            soon = time.monotonic() + 1
            while not half_written.exists():
                if time.monotonic() > soon:
                    return None
                time.sleep(0.0005)
        time.sleep(shot.delay)
        if not self._kill(attempt.pid) or trial.status().attempts[len(status.attempts) - 1].ended is not None:
            return None
        self.half_written += half_written.exists()
        return attempt.started

    def _kill(self, pid: int) -> bool:
        """Kills a worker of this sweep, but no other process that has since been given the same id."""
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                names = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if any(f"{MARK}={command.mark}".encode() in names for command in self.sweep.commands):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    return True
            finally:
                os.close(handle)
        return False


def draw(source: random.Random, number: int) -> list[Shot]:
    """Shots at one trial: one at its start, half of the rest in training, half while a checkpoint is written."""
    moments = ["start", *(["epoch", "checkpoint"] * number)[: number - 1]]
    source.shuffle(moments)
    epochs = sorted(source.sample(range(1, EPOCHS * 3 // 4), number))
    delays = {"start": 0.3, "epoch": 0.2, "checkpoint": 0.0}
    return [
        Shot(moment, epoch, source.uniform(0, delays[moment])) for moment, epoch in zip(moments, epochs, strict=True)
    ]


@dataclass
class Killed:
    """A driver that was killed, and what was left of it when the next command began."""

    code: int
    driver: Driver | None
    before: list[Path]
    left: dict[int, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    stop: subprocess.CompletedProcess[str] | None = None

    def look(self, sweep: Sweep, running: Running) -> None:
        self.left, self.statuses = marked(running.mark), sweep.statuses()
        self.folders = [] if self.driver is None else folders_of(self.driver)


@dataclass
class Shaken:
    """The sweep at the end."""

    sweep: Sweep
    shooting: Shooting
    killed: list[Killed]
    code: int
    out: list[str]
    errors: str
    left: list[str]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.sweep.store.runs_dir / 'mlflow.db'}"


def kill(sweep: Sweep, running: Running) -> Killed:
    """Kills the driver."""
    driver = read_driver(sweep.store)
    folders = [] if driver is None else folders_of(driver)
    running.process.kill()
    return Killed(running.process.wait(), driver, folders)


def hang_a_worker(sweep: Sweep) -> bool:
    """Suspends a worker that runs a trial. There may be none at the moment, because workers are being killed."""
    for status in sweep.statuses():
        if status.state is State.RUNNING and status.attempts[-1].ended is None:
            pid = status.attempts[-1].pid
            with contextlib.suppress(OSError):  # it has died in the meantime
                os.kill(pid, signal.SIGSTOP)
                return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("R", "S", "T")
    return False


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Shaken]:
    """The workers of three trials are killed 18 times in all, the driver twice, once while it is starting."""
    folder = tmp_path_factory.mktemp("shaken")
    (folder / "runs").mkdir()
    shutil.copy(empty_database, folder / "runs" / "mlflow.db")
    source = random.Random(SEED)
    print(f"seed {SEED}")
    with new_sweep(folder, SHAKEN) as sweep:
        shooting, killed = Shooting(sweep), list[Killed]()
        running = sweep.start("sweep", "sweep.yaml")
        threads = [
            threading.Thread(target=shooting.shoot, args=[trial, draw(source, number)], daemon=True)
            for trial, number in zip(sweep.trials(), (6, 6, 6), strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            shooting.wait_for(source.randint(5, 10), running)
            time.sleep(source.uniform(0, 1.5))
            wait_until(lambda: hang_a_worker(sweep))
            first = kill(sweep, running)
            first.stop = orchestrator("stop", "shaken", cwd=sweep.folder)
            first.look(sweep, running)

            running = sweep.start("resume", "shaken")
            time.sleep(source.uniform(0.5, 6))  # while it is starting
            second = kill(sweep, running)
            before, running = running, sweep.start("resume", "shaken")
            wait_until(lambda: read_driver(sweep.store) not in (None, second.driver))
            second.look(sweep, before)
            killed += [first, second]
            out, errors = running.process.communicate(timeout=600)
        finally:
            shooting.over.set()
            for thread in threads:
                thread.join()
        left = [line for command in sweep.commands for line in command.left_over(0)]
        yield Shaken(sweep, shooting, killed, running.process.returncode, out.splitlines(), errors, left)


def test_twenty_kills_at_random_hit_workers_and_drivers(shaken: Shaken) -> None:
    attempts = {
        (trial.trial_id, attempt.started): attempt
        for trial in shaken.sweep.trials()
        for attempt in trial.status().attempts
    }
    hit = [attempts[trial_id, began] for trial_id, began, _ in shaken.shooting.hits]
    assert not any(attempt.ended is not None for attempt in hit)
    assert [killed.code for killed in shaken.killed] == [-signal.SIGKILL] * 2
    assert len(hit) + len(shaken.killed) == 20
    assert any(attempt.resumed_at is None for attempt in hit)  # while it was starting
    assert shaken.shooting.half_written  # while it was writing a checkpoint


def test_stop_after_a_driver_was_killed_ends_what_it_left_a_hanging_worker_too(shaken: Shaken) -> None:
    killed, _ = shaken.killed
    assert killed.driver is not None
    assert killed.stop is not None
    assert (killed.stop.returncode, killed.stop.stderr) == (0, "")
    died = f"the driver of 'shaken' (process {killed.driver.pid} on {killed.driver.host}) had died"
    told = killed.stop.stdout.splitlines()
    assert re.fullmatch(re.escape(died) + r"; \d+ process\w* that it left were ended", told[0]), told
    assert told[1:] == ["'shaken' has stopped."]
    assert [path.name.partition("-")[0] for path in killed.before] == ["ray", "orchestrator"]
    assert (killed.left, killed.folders) == ({}, [])


def test_the_trials_of_a_driver_that_was_killed_are_lost(shaken: Shaken) -> None:
    """Except for trials whose worker had just been killed and that had not started again."""
    was_running = [
        status for status in shaken.killed[0].statuses if status.error == "the driver of an earlier run died"
    ]
    assert was_running
    assert {status.state for status in was_running} == {State.LOST}
    assert not any(status.attempts[-1].ended is not None for status in was_running)
    assert State.RUNNING not in [status.state for status in shaken.killed[0].statuses]


def test_what_a_driver_left_that_was_killed_while_starting_is_ended_before_the_next_one_is_the_driver(
    shaken: Shaken,
) -> None:
    assert (shaken.killed[1].left, shaken.killed[1].folders) == ({}, [])


def test_after_twenty_kills_every_trial_is_done_and_nothing_is_left(shaken: Shaken) -> None:
    assert shaken.code == 0, shaken.errors
    assert shaken.out[-1] == "shaken: 3 DONE"
    assert "Traceback" not in shaken.errors
    assert shaken.left == []
    assert read_driver(shaken.sweep.store) is None


def test_after_twenty_kills_trials_equal_undisturbed_twins_to_the_bit(shaken: Shaken, tmp_path: Path) -> None:
    for trial, twin in shaken.sweep.twins(tmp_path):
        assert [record["epoch"] for record in trial.epochs()] == list(range(EPOCHS + 1))
        assert_equal_to_the_bit(trial, twin)
        assert "came out different" not in trial.log_file.read_text()


def test_after_twenty_kills_mlflow_has_one_run_a_trial_and_every_point_once(shaken: Shaken) -> None:
    runs = dump(shaken.uri, "shaken")
    assert len(runs) == 4
    for entry in shaken.sweep.store.entries():
        trial, run = shaken.sweep.store.trial(entry.trial_id), runs[f"{entry.label} seed={entry.seed}"]
        assert (run["status"], run["tags"]["state"]) == ("FINISHED", "DONE")
        assert run["tags"]["attempt"] == str(len(trial.status().attempts))
        assert points_of(run) == expected_points(trial)
        assert files_of(run) == expected_files(trial)
        assert [model["status"] for model in run["models"]] == ["READY"]

"""A sweep whose driver and workers are killed twenty times at random moments, beside an undisturbed twin."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import MARK, Running, marked, wait_until
from driven_sweeps import PATIENCE, Sweep, folders_of, new_sweep
from mlflow_dump import dump, expected_files, expected_points, files_of, points_of
from small_trials import assert_equal_to_the_bit

from orchestrator.lock import Driver, read_driver
from orchestrator.store import State, TrialStore

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
    """A worker is killed ``delay`` seconds after the ``moment`` of an attempt: when it has begun, or has come to an
    epoch, or, at that epoch or later, is writing a checkpoint."""

    moment: str
    epoch: int
    delay: float


@dataclass
class Shooting:
    """What was hit."""

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
        """Waits until so many workers have been hit, or the command has ended before it should."""
        wait_until(lambda: len(self.hits) >= hits or running.process.poll() is not None, 400)

    def _hit(self, trial: TrialStore, shot: Shot, epoch: int, done: set[float]) -> float | None:
        """Returns when the attempt that was hit began; None if it is not time, or if the worker was gone."""
        status = trial.status()
        if status.state is not State.RUNNING:
            return None
        attempt = status.attempts[-1]
        if "ended" in attempt or attempt["started"] in done:
            return None
        if shot.moment != "start" and epoch < shot.epoch:
            return None
        half_written = trial.path / f".{trial.checkpoint_file.name}.{attempt['pid']}"
        if shot.moment == "checkpoint":
            soon = time.monotonic() + 1
            while not half_written.exists():
                if time.monotonic() > soon:
                    return None
                time.sleep(0.0005)
        time.sleep(shot.delay)
        if not self._kill(attempt["pid"]) or "ended" in trial.status().attempts[len(status.attempts) - 1]:
            return None
        self.half_written += half_written.exists()
        return attempt["started"]

    def _kill(self, pid: int) -> bool:
        """Kills a worker of this sweep; another process that has come to have its id is left alone."""
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
    """Shots at one trial: one at a start, half of the others in training, half at the writing of a checkpoint."""
    moments = ["start", *(["epoch", "checkpoint"] * number)[: number - 1]]
    source.shuffle(moments)
    epochs = sorted(source.sample(range(1, EPOCHS * 3 // 4), number))
    delays = {"start": 0.3, "epoch": 0.2, "checkpoint": 0.0}
    return [
        Shot(moment, epoch, source.uniform(0, delays[moment])) for moment, epoch in zip(moments, epochs, strict=True)
    ]


@dataclass
class Killed:
    """A driver that was killed, and what was left of it when the next one touched the store."""

    code: int
    driver: Driver | None = None
    hanging: int | None = None
    left: dict[int, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)


@dataclass
class Shaken:
    """The sweep after all that."""

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


def kill(sweep: Sweep, running: Running, *, hang: bool) -> tuple[Running, Killed]:
    """Kills the driver, while one of its workers hangs if it shall; ``resume`` comes at once."""
    killed = Killed(0, read_driver(sweep.store))
    if hang:
        trials = [trial.status() for trial in sweep.trials()]
        killed.hanging = next((s.attempts[-1]["pid"] for s in trials if s.state is State.RUNNING), None)
        if killed.hanging is not None:
            os.kill(killed.hanging, signal.SIGSTOP)
    running.process.kill()
    killed.code = running.process.wait()
    following = sweep.start("resume", "shaken")
    wait_until(lambda: read_driver(sweep.store) not in (None, killed.driver), PATIENCE)
    killed.left = marked(running.mark)
    killed.folders = [] if killed.driver is None else folders_of(killed.driver)
    return following, killed


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Shaken]:
    """The workers of three trials are killed 17 times in all, the driver three times, once while it is starting."""
    folder = tmp_path_factory.mktemp("shaken")
    (folder / "runs").mkdir()
    shutil.copy(empty_database, folder / "runs" / "mlflow.db")
    source = random.Random(SEED)
    print(f"seed {SEED}")
    with new_sweep(folder, SHAKEN) as sweep:
        shooting, killed = Shooting(sweep), []
        running = sweep.start("sweep", "sweep.yaml")
        threads = [
            threading.Thread(target=shooting.shoot, args=[trial, draw(source, number)], daemon=True)
            for trial, number in zip(sweep.trials(), (6, 6, 5), strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            for hits in (source.randint(3, 5), None, source.randint(9, 12)):
                if hits is not None:
                    shooting.wait_for(hits, running)
                time.sleep(source.uniform(0, 1.5) if hits is not None else source.uniform(0.5, 6))
                running, was_killed = kill(sweep, running, hang=hits is not None)
                killed.append(was_killed)
            out, errors = running.process.communicate(timeout=600)
        finally:
            shooting.over.set()
            for thread in threads:
                thread.join()
        left = [line for command in sweep.commands for line in command.left_over(0)]
        yield Shaken(sweep, shooting, killed, running.process.returncode, out.splitlines(), errors, left)


def test_twenty_kills_at_random_hit_workers_and_drivers(shaken: Shaken) -> None:
    attempts = {
        (trial.trial_id, attempt["started"]): attempt
        for trial in shaken.sweep.trials()
        for attempt in trial.status().attempts
    }
    hit = [attempts[trial_id, began] for trial_id, began, _ in shaken.shooting.hits]
    assert not any("ended" in attempt for attempt in hit)
    assert [killed.code for killed in shaken.killed] == [-signal.SIGKILL] * 3
    assert len(hit) + len(shaken.killed) == 20
    assert any("resumed_at" not in attempt for attempt in hit)  # while it was starting
    assert shaken.shooting.half_written  # while it was writing a checkpoint


def test_what_a_killed_driver_left_is_ended_before_the_next_one_touches_the_store(shaken: Shaken) -> None:
    assert any(killed.hanging for killed in shaken.killed)
    assert any(killed.driver for killed in shaken.killed)
    assert [(killed.left, killed.folders) for killed in shaken.killed] == [({}, [])] * 3


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

"""Sweeps whose driver and workers are killed, and what comes of them: a real Ray, real processes, real signals."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import MARK, Running, marked, orchestrator, started, wait_until
from hand_made import write_file
from mlflow_dump import dump, points_of
from small_trials import assert_equal_to_the_bit

from orchestrator.lock import Driver, read_driver, temporary_folder
from orchestrator.store import State, Status, SweepStore, TrialStore
from orchestrator.worker import run_trial

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a Ray takes seconds to start, on a busy machine a minute

PATIENCE = 200.0
"""Seconds after which a test gives up waiting."""


@dataclass
class Sweep:
    """A sweep and every command that has driven it; whatever is left of them at the end is killed."""

    folder: Path
    store: SweepStore
    stack: contextlib.ExitStack
    commands: list[Running] = field(default_factory=list)

    def start(self, *arguments: object) -> Running:
        self.commands.append(self.stack.enter_context(started(*arguments, cwd=self.folder)))
        return self.commands[-1]

    def trials(self) -> list[TrialStore]:
        wait_until((self.store.path / "plan.json").exists, PATIENCE)
        return [self.store.trial(entry.trial_id) for entry in self.store.entries()]

    def statuses(self) -> list[Status]:
        return [trial.status() for trial in self.trials()]

    def start_and_wait_until_busy(self, *arguments: object) -> Running:
        """Starts a command and returns when every trial has trained for a while and goes on."""
        before = [len(trial.epochs()) for trial in self.trials()] if self.commands else [0, 0]
        running = self.start(*arguments)
        wait_until(
            lambda: all(len(trial.epochs()) > n + 3 for trial, n in zip(self.trials(), before, strict=True)), PATIENCE
        )
        assert [status.state for status in self.statuses()] == [State.RUNNING, State.RUNNING]
        return running

    def driver(self) -> Driver:
        driver = read_driver(self.store)
        assert driver is not None
        return driver

    def hang(self, number: int) -> None:
        """The worker of a trial takes no notice any more: it does not end by itself, whoever has died."""
        os.kill(self.trials()[number].status().attempts[-1]["pid"], signal.SIGSTOP)

    def twins(self, folder: Path) -> Iterator[tuple[TrialStore, TrialStore]]:
        """Every trial, and the same trial after a life without disturbances."""
        for trial in self.trials():
            twin = TrialStore(folder / trial.trial_id)
            twin.create(trial.config())
            assert run_trial(twin, folder / "cache") is State.DONE
            yield trial, twin


@contextlib.contextmanager
def new_sweep(folder: Path, text: str) -> Iterator[Sweep]:
    write_file(folder, text)
    with contextlib.ExitStack() as stack:
        yield Sweep(folder, SweepStore(folder / "runs", text.split()[1]), stack)


def folders_of(driver: Driver) -> list[Path]:
    """The temporary folders that a driver has, or has left."""
    paths = [temporary_folder(purpose, driver.mark) for purpose in ("ray", "orchestrator-tune")]
    return [path for path in paths if path.exists()]


# one sweep, its driver killed twice, told to end, told to end at once


DEAD = """\
name: dead
base: [dataset=mixture, batch_size=8, budget=2000, evaluation.times=4, device=cpu, checkpoint_seconds=0.3]
grid: {critic_iterations: [1, 2]}
"""


@dataclass
class Ended:
    """How a command ended and what was there then."""

    code: int
    out: list[str]
    errors: str
    statuses: list[Status]
    left: list[str]
    folders: list[Path]
    driver: Driver
    more: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with new_sweep(tmp_path_factory.mktemp("dead"), DEAD) as sweep:
        yield sweep


@pytest.fixture(scope="module")
def stopped(dead: Sweep) -> Ended:
    """The driver is killed, one of its workers hangs, and ``orchestrator stop`` comes at once."""
    running = dead.start_and_wait_until_busy("sweep", "sweep.yaml", "--offline")
    driver = dead.driver()
    folders = folders_of(driver)
    dead.hang(0)
    running.process.kill()
    stop = orchestrator("stop", "dead", cwd=dead.folder)
    left = running.left_over(0)
    return Ended(
        stop.returncode,
        stop.stdout.splitlines(),
        stop.stderr,
        dead.statuses(),
        left,
        folders_of(driver),
        driver,
        {"folders before": folders, "driver after": read_driver(dead.store)},
    )


@pytest.fixture(scope="module")
def terminated(dead: Sweep, stopped: Ended) -> Ended:
    """The next driver is killed as well, ``orchestrator resume`` comes at once, and gets SIGTERM when it is busy."""
    killed = dead.start_and_wait_until_busy("resume", "dead", "--offline")
    first = dead.driver()
    attempts = [len(status.attempts) for status in dead.statuses()]
    dead.hang(1)
    killed.process.kill()
    epochs = [len(trial.epochs()) for trial in dead.trials()]
    running = dead.start("resume", "dead", "--offline")
    wait_until(lambda: [len(status.attempts) for status in dead.statuses()] != attempts, PATIENCE)
    left, folders = marked(killed.mark), folders_of(first)  # when training begins
    wait_until(
        lambda: all(len(trial.epochs()) > n + 3 for trial, n in zip(dead.trials(), epochs, strict=True)), PATIENCE
    )
    driver = dead.driver()
    running.signal_all(signal.SIGTERM)
    code, out, errors = running.end()
    return Ended(
        code,
        out.splitlines(),
        errors,
        dead.statuses(),
        running.left_over(0),
        folders_of(driver),
        driver,
        {"first": first, "left of the first": left, "folders of the first": folders},
    )


@pytest.fixture(scope="module")
def aborted(dead: Sweep, terminated: Ended) -> Ended:
    """A worker hangs, so that the first SIGTERM does not come to an end; the second one does not wait for it."""
    running = dead.start_and_wait_until_busy("resume", "dead", "--offline")
    driver = dead.driver()
    dead.hang(0)
    running.process.send_signal(signal.SIGTERM)
    wait_until(dead.store.stop_file.exists)
    time.sleep(1)  # within a second they count as one
    running.process.send_signal(signal.SIGTERM)
    code, out, errors = running.end()
    return Ended(code, out.splitlines(), errors, dead.statuses(), running.left_over(0), folders_of(driver), driver)


@pytest.fixture(scope="module")
def finished(dead: Sweep, aborted: Ended) -> Ended:
    """``orchestrator resume``, to the end."""
    ran = orchestrator("resume", "dead", "--offline", cwd=dead.folder)
    return Ended(ran.returncode, ran.stdout.splitlines(), ran.stderr, dead.statuses(), [], [], aborted.driver)


def test_stop_after_a_driver_was_killed_ends_what_it_left(stopped: Ended) -> None:
    assert (stopped.code, stopped.errors) == (0, "")
    died = f"the driver of 'dead' (process {stopped.driver.pid} on {stopped.driver.host}) had died"
    assert re.fullmatch(re.escape(died) + r"; \d+ process\w* that it left were ended", stopped.out[0]), stopped.out
    assert stopped.out[1:] == ["'dead' has stopped."]
    assert stopped.left == []
    assert [path.name.partition("-")[0] for path in stopped.more["folders before"]] == ["ray", "orchestrator"]
    assert stopped.folders == []
    assert stopped.more["driver after"] is None


def test_the_trials_of_a_driver_that_was_killed_are_lost(stopped: Ended) -> None:
    assert [status.state for status in stopped.statuses] == [State.LOST, State.LOST]
    assert [status.error for status in stopped.statuses] == ["the driver of an earlier run died"] * 2
    assert not any("ended" in status.attempts[-1] for status in stopped.statuses)


def test_resume_after_a_driver_was_killed_ends_what_it_left_before_anything_trains(terminated: Ended) -> None:
    first = terminated.more["first"]
    died = f"the driver of 'dead' (process {first.pid} on {first.host}) had died"
    assert re.fullmatch(re.escape(died) + r"; \d+ process\w* that it left were ended", terminated.out[0])
    assert terminated.more["left of the first"] == {}
    assert terminated.more["folders of the first"] == []


def test_sigterm_to_every_process_lets_trials_write_a_checkpoint_and_leaves_nothing(
    dead: Sweep, terminated: Ended
) -> None:
    assert terminated.code == 130
    assert terminated.out[-1] == "Stopped; go on with: orchestrator resume dead --offline"
    assert "Traceback" not in terminated.errors
    assert [status.state for status in terminated.statuses] == [State.PENDING, State.PENDING]
    assert all("ended" in status.attempts[-1] for status in terminated.statuses)
    assert terminated.left == []
    assert terminated.folders == []


def test_a_second_sigterm_waits_for_nobody_and_leaves_nothing(aborted: Ended) -> None:
    assert aborted.code == 130
    assert "Traceback" not in aborted.errors
    assert aborted.left == []
    assert aborted.folders == []


def test_after_a_second_sigterm_no_trial_is_said_to_be_running(aborted: Ended) -> None:
    hanging, _ = aborted.statuses
    assert "ended" not in hanging.attempts[-1]
    assert (hanging.state, hanging.error) == (State.LOST, "the driver left at once")
    assert State.RUNNING not in [status.state for status in aborted.statuses]


def test_the_end_equals_undisturbed_twins_and_every_epoch_is_there_once(
    dead: Sweep, finished: Ended, tmp_path: Path
) -> None:
    assert (finished.code, finished.out[-1]) == (0, "dead: 2 DONE"), finished.errors
    for status in finished.statuses:
        assert [attempt["resumed_at"] > 0 for attempt in status.attempts] == [False, True, True, True, True]
    for trial, twin in dead.twins(tmp_path):
        assert [record["epoch"] for record in trial.epochs()] == list(range(119))  # epoch 0 and ⌈2000 / 17⌉
        assert_equal_to_the_bit(trial, twin)
        assert "came out different" not in trial.log_file.read_text()


# twenty kills at random moments


SHAKEN = """\
name: shaken
base:
  - dataset=digits
  - evaluation=none
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
EPOCHS = 50  # 1000 / ⌊1297 / 64⌋
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


def draw(source: random.Random) -> list[Shot]:
    """Five shots at one trial: at a start, two in training and two at the writing of a checkpoint."""
    moments = ["start", "epoch", "epoch", "checkpoint", "checkpoint"]
    source.shuffle(moments)
    epochs = sorted(source.sample(range(1, EPOCHS * 3 // 4), len(moments)))
    delays = {"start": 0.3, "epoch": 0.2, "checkpoint": 0.0}
    return [
        Shot(moment, epoch, source.uniform(0, delays[moment])) for moment, epoch in zip(moments, epochs, strict=True)
    ]


@dataclass
class Shaken:
    """The sweep after all that."""

    sweep: Sweep
    shooting: Shooting
    drivers: list[int]
    code: int
    out: list[str]
    errors: str
    left: list[str]
    folders: list[Path]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.sweep.store.runs_dir / 'mlflow.db'}"


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Shaken]:
    """Each of three trials has its worker killed five times; the driver is killed five times, twice while it is
    starting."""
    folder = tmp_path_factory.mktemp("shaken")
    (folder / "runs").mkdir()
    shutil.copy(empty_database, folder / "runs" / "mlflow.db")
    source = random.Random(SEED)
    print(f"seed {SEED}")
    with new_sweep(folder, SHAKEN) as sweep:
        shooting, marks, drivers = Shooting(sweep), [], []
        running = sweep.start("sweep", "sweep.yaml")
        plans = {trial.trial_id: draw(source) for trial in sweep.trials()}
        threads = [
            threading.Thread(target=shooting.shoot, args=[trial, plans[trial.trial_id]], daemon=True)
            for trial in sweep.trials()
        ]
        for thread in threads:
            thread.start()
        try:
            for hits in (source.randint(2, 4), None, source.randint(6, 7), None, source.randint(9, 11)):
                if hits is not None:
                    shooting.wait_for(hits, running)
                time.sleep(source.uniform(0, 1.5) if hits is not None else source.uniform(0.5, 6))
                if (driver := read_driver(sweep.store)) is not None:
                    marks.append(driver)
                running.process.kill()
                drivers.append(running.process.wait())
                running = sweep.start("resume", "shaken")
            out, errors = running.process.communicate(timeout=600)
        finally:
            shooting.over.set()
            for thread in threads:
                thread.join()
        left = [line for command in sweep.commands for line in command.left_over(5)]
        yield Shaken(
            sweep,
            shooting,
            drivers,
            running.process.returncode,
            out.splitlines(),
            errors,
            left,
            [path for driver in marks for path in folders_of(driver)],
        )


def test_twenty_kills_at_random_hit_workers_and_drivers(shaken: Shaken) -> None:
    attempts = {
        (trial.trial_id, attempt["started"]): attempt
        for trial in shaken.sweep.trials()
        for attempt in trial.status().attempts
    }
    hit = [attempts[trial_id, began] for trial_id, began, _ in shaken.shooting.hits]
    assert not any("ended" in attempt for attempt in hit)
    assert shaken.drivers == [-signal.SIGKILL] * 5
    assert len(hit) + len(shaken.drivers) == 20
    assert any("resumed_at" not in attempt for attempt in hit)  # while it was starting
    assert shaken.shooting.half_written  # while it was writing a checkpoint


def test_after_twenty_kills_every_trial_is_done_and_nothing_is_left(shaken: Shaken) -> None:
    assert shaken.code == 0, shaken.errors
    assert shaken.out[-1] == "shaken: 3 DONE"
    assert "Traceback" not in shaken.errors
    assert shaken.left == []
    assert shaken.folders == []
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
        assert points_of(run) == sorted(
            (name, record["epoch"], record["timestamp"], float(value))
            for record in trial.epochs()
            for name, value in record.items()
            if name not in ("epoch", "timestamp")
        )
        assert [path for path, _ in run["artifacts"]] == [
            "config.yaml",
            *(f"samples/{file.name}" for file in trial.sample_files()),
        ]

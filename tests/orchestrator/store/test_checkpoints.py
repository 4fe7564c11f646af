"""Checkpoints: a damaged one is refused, and the newest good one is continued exactly, however an attempt ended."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import wait_until
from hand_made import make_sweep
from rich.console import Console
from small_trials import (
    EVERYTHING,
    NewTrial,
    assert_equal_to_the_bit,
    contents,
    create,
    half_written,
    run,
)

import trainers
from orchestrator.screen.progress import Progress, Watch
from orchestrator.store import checkpoints
from orchestrator.store.checkpoints import MARKER, TRAILER, Unreadable
from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore
from orchestrator.sweep.presets import compose
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig
from trainers.training import Training

POINTS: dict[str, Any] = {
    "dataset": {"name": "mixture"},
    "batch_size": 8,
    "network": {"latent_size": 2, "generator_widths": [4], "critic_widths": [4], "generator_tail": ["relu", "none"]},
}
"""The smallest checkpoints."""

ONE_TRIAL = """\
name: one
base:
  - dataset=digits
  - evaluation=none
  - evaluation.times=1
  - network.generator_widths=[16]
  - network.critic_widths=[16]
  - budget=50
  - device=cpu
  - checkpoint_epochs=1
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("training")
    begun = Training(TrialConfig.from_dict(create(folder / "trial", **POINTS).config()), cache_dir=folder)
    begun.run_epoch(lambda: begun.iteration >= 3)
    return begun


@pytest.fixture
def saved(training: Training, tmp_path: Path) -> Path:
    path = tmp_path / "saved.pt"
    checkpoints.save(path, training, "0123456789ab")
    return path


def is_refused(path: Path) -> bool:
    """Whether a file is Unreadable; whatever else is raised fails the test."""
    try:
        checkpoints.read(path)
    except Unreadable:
        return True
    return False


def iteration_of(path: Path) -> int:
    return checkpoints.read(path)["training"]["iteration"]


def flip(path: Path) -> None:
    """Flips a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- one file -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_file_of_torch_and_a_checksum(saved: Path, training: Training) -> None:
    expected = {"identity": "0123456789ab", "training": training.state_dict()}
    for state in (checkpoints.read(saved), torch.load(saved, weights_only=True), torch.load(saved)):
        assert state.keys() == expected.keys()
        assert state["identity"] == "0123456789ab"
        assert state["training"]["iteration"] == 3
        for name, tensor in training.critic.state_dict().items():
            assert torch.equal(state["training"]["critic"][name], tensor)
    content = saved.read_bytes()
    assert content[-TRAILER:] == MARKER + hashlib.sha256(content[:-TRAILER]).hexdigest().encode()


def test_a_flipped_bit_anywhere_is_seen(saved: Path) -> None:
    """Flips one bit in every byte, and every bit of the checksum."""
    size, which = saved.stat().st_size, random.Random(0)
    places = [(position, 1 << which.randrange(8)) for position in range(size)]
    places += [(position, 1 << bit) for position in range(size - TRAILER, size) for bit in range(8)]
    with saved.open("r+b", buffering=0) as file:
        for position, bit in places:
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ bit]))
            assert is_refused(saved), f"bit {bit} of byte {position} of {size}"
            file.seek(position)
            file.write(bytes([byte]))
    assert checkpoints.read(saved)["identity"] == "0123456789ab"


def test_a_file_cut_short_is_seen_whatever_its_length(saved: Path) -> None:
    for length in reversed(range(saved.stat().st_size)):
        os.truncate(saved, length)
        assert is_refused(saved), f"{length} bytes"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: content + b"\0", id="a byte more"),
        pytest.param(lambda content: content + content[-100:], id="written twice at the end"),
        pytest.param(lambda content: content[:-TRAILER], id="of plain torch.save"),
        pytest.param(lambda content: bytes(len(content)), id="zeros of the right length"),
        pytest.param(lambda content: content[:4096] + bytes(4096) + content[8192:], id="a page of zeros"),
    ],
)
def test_what_a_crash_may_make_of_a_file_is_seen(saved: Path, spoil: Callable[[bytes], bytes]) -> None:
    saved.write_bytes(spoil(saved.read_bytes()))
    assert is_refused(saved)


def test_a_right_checksum_lets_nothing_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "evil",))

    buffer = io.BytesIO()
    torch.save({"identity": Evil(), "training": {}}, buffer)
    for content in (buffer.getvalue(), b"no archive"):
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(content + MARKER + hashlib.sha256(content).hexdigest().encode())
        assert is_refused(path)
    assert not (tmp_path / "evil").exists()


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size of every file of this process. Writing more raises OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("missing", [1, TRAILER, TRAILER + 1, 10_000])
def test_a_checkpoint_that_does_not_fit_leaves_the_old_one_and_nothing_else(
    saved: Path, training: Training, missing: int
) -> None:
    before = saved.read_bytes()
    with largest_file(len(before) - missing), pytest.raises(OSError, match="too large"):
        checkpoints.save(saved, training, "ba9876543210")
    assert contents(saved.parent) == {saved.name: before}


class Large:
    """A training with as many parameters as a DCGAN has."""

    def __init__(self, value: float) -> None:
        self._numbers = torch.full((2_000_000,), value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"numbers": self._numbers}


def test_an_interruption_at_any_moment_leaves_a_whole_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    started = time.perf_counter()
    checkpoints.save(path, Large(0), "0")
    duration = time.perf_counter() - started
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    interrupted = 0
    try:
        for number in range(1, 13):
            alarm = threading.Timer(duration * number / 12, os.kill, (os.getpid(), signal.SIGUSR1))
            try:
                alarm.start()
                checkpoints.save(path, Large(number), str(number))
                alarm.join()
                time.sleep(0.01)  # until Python has seen the signal
            except KeyboardInterrupt:
                interrupted += 1
            state = checkpoints.read(path)
            assert int(state["identity"]) in range(number + 1)
            assert (state["training"]["numbers"] == int(state["identity"])).all()
            assert list(tmp_path.iterdir()) == [path]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupted == 12


# --- which one is continued -----------------------------------------------------------------------------------------


def test_a_checkpoint_that_could_not_be_written_costs_no_more_than_the_time_since_the_last(
    new_trial: NewTrial, undisturbed: TrialStore
) -> None:
    trial = new_trial()
    run(trial, after=25)
    size = trial.checkpoint_file.stat().st_size
    for _ in range(2):  # however often
        with largest_file(size - 1):
            assert run(trial) is State.FAILED
        status = trial.status()
        assert status.error == "OSError: [Errno 27] File too large"
        assert status.attempts[-1].resumed_at == 25
        assert half_written(trial.path) == []
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 25
    assert_equal_to_the_bit(trial, undisturbed)


class Terminal:
    """What a user sees of a sweep with one trial."""

    def __init__(self, folder: Path) -> None:
        self.store = make_sweep(folder, ONE_TRIAL)
        (self.entry,) = self.store.entries()
        self.trial = self.store.trial(self.entry.trial_id)
        self.twin = TrialStore(folder / "twin")
        self.twin.create(self.trial.config())
        self._written = io.StringIO()
        self._watch: Watch | None = None

    def look(self) -> None:
        """Reads the store once, as the progress thread does every half second."""
        if self._watch is None:
            self._watch = Watch(self.store)
            self._watch.refresh()
            self._progress = Progress(self._watch, Console(file=self._written, width=80), lambda: 1)
        self._progress.update(self._watch.refresh())

    @property
    def told(self) -> str:
        return self._written.getvalue()


@contextlib.contextmanager
def before_the_configuration_is_read(trial: TrialStore, do: Callable[[], None]) -> Iterator[None]:
    """Calls ``do`` when a worker has begun an attempt but not yet built its training. The file becomes a pipe."""
    path = trial.path / "config.yaml"
    text = path.read_text()
    path.unlink()
    os.mkfifo(path)

    def feed() -> None:
        with path.open("w") as pipe:  # waits for the worker
            do()
            pipe.write(text)

    thread = threading.Thread(target=feed)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("looks", ["before the checkpoint is read", "at every epoch", "when the attempt is over"])
def test_falling_back_to_the_checkpoint_before_is_told_in_the_log_in_the_attempt_and_on_the_terminal(
    tmp_path: Path, looks: str
) -> None:
    terminal = Terminal(tmp_path)
    trial = terminal.trial
    run(trial, after=45)  # checkpoints after epochs 1 and 2 and here
    flip(trial.checkpoint_file)
    terminal.look()
    with contextlib.ExitStack() as stack:
        if looks == "before the checkpoint is read":
            stack.enter_context(before_the_configuration_is_read(trial, terminal.look))
        see = terminal.look if looks != "when the attempt is over" else lambda: None
        assert run_trial(trial, tmp_path / "cache", on_epoch=lambda record: see()) is State.DONE
    terminal.look()
    problem = "checkpoint.pt cannot be used: its checksum does not match, so it was damaged"
    attempt = trial.status().attempts[-1]
    assert (attempt.unreadable, attempt.resumed_at) == ([problem], 40)
    log = [line.split(" ", 2)[2] for line in trial.log_file.read_text().splitlines()]
    assert log[log.index(problem) + 1] == "begins at critic iteration 40"
    assert run(terminal.twin) is State.DONE
    assert_equal_to_the_bit(trial, terminal.twin)
    assert terminal.told.count(f"one seed=0: {problem}; continuing from the previous one") == 1


def test_without_any_readable_checkpoint_a_trial_says_that_it_begins_again(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    trial = terminal.trial
    run(trial, after=45)
    flip(trial.checkpoint_file)
    os.truncate(trial.previous_checkpoint_file, 1000)
    terminal.look()
    assert run_trial(trial, tmp_path / "cache", on_epoch=lambda record: terminal.look()) is State.DONE
    problems = [
        "checkpoint.pt cannot be used: its checksum does not match, so it was damaged",
        "checkpoint-previous.pt cannot be used: it has no checksum, so it was cut short",
    ]
    attempt = trial.status().attempts[-1]
    assert (attempt.unreadable, attempt.resumed_at) == (problems, 0)
    assert all(problem in trial.log_file.read_text() for problem in problems)
    assert "came out different" not in trial.log_file.read_text()
    assert run(terminal.twin) is State.DONE
    assert_equal_to_the_bit(trial, terminal.twin)
    assert all(problem in terminal.told for problem in problems)
    assert "continuing from the previous one" not in terminal.told  # there was none


# --- whose it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("budget: 50", "budget: 70", id="a longer budget"),
        pytest.param("seed: 0", "seed: 1", id="another seed"),
        pytest.param("times: 5", "times: 6", id="another evaluation"),
    ],
)
def test_a_configuration_edited_by_hand_never_continues_the_old_checkpoint(
    new_trial: NewTrial, undisturbed: TrialStore, old: str, new: str
) -> None:
    trial = new_trial()
    path = trial.path / "config.yaml"
    run(trial, after=25)
    text, before = path.read_text(), contents(trial.path, "status.json", "log.txt", "config.yaml")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert run(trial) is State.FAILED
    error = trial.status().error or ""
    assert "checkpoint.pt belongs to trial" in error
    assert error.endswith("restore config.yaml, or start the trial again with --restart")
    assert contents(trial.path, "status.json", "log.txt", "config.yaml") == before

    path.write_text(text)  # what it said
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 25
    assert_equal_to_the_bit(trial, undisturbed)


def test_the_checkpoint_before_is_asked_whose_it_is_too(new_trial: NewTrial) -> None:
    trial = new_trial()
    run(trial, after=45)
    flip(trial.checkpoint_file)
    path = trial.path / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert run(trial) is State.FAILED
    assert "checkpoint-previous.pt belongs to trial" in (trial.status().error or "")


def test_options_of_where_and_how_to_run_may_change_between_attempts(
    new_trial: NewTrial, undisturbed: TrialStore
) -> None:
    trial = new_trial()
    run(trial, after=25)
    changed = {"device": "auto", "checkpoint_seconds": 5.5, "checkpoint_epochs": None}
    assert trial.config().items() & changed.items() == set()
    trial.create(trial.config() | changed)  # what a sweep file that was run again does
    assert trial.config().items() >= changed.items()
    if torch.cuda.is_available():
        pytest.skip("device=auto takes the GPU here, where nothing is promised to the bit")
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 25
    assert_equal_to_the_bit(trial, undisturbed)


# --- when it is written ---------------------------------------------------------------------------------------------


def followed(trial: TrialStore, also: Callable[[int], None] = lambda iteration: None) -> list[int]:
    """Runs a trial. Returns the critic iterations of its checkpoints in order. ``also`` is called for each one."""
    found: list[int] = []
    inode = 0

    def look() -> bool:
        nonlocal inode
        names = {file.name for file in trial.path.glob("*.pt*")} | set(half_written(trial.path))
        assert names <= {"checkpoint.pt", "checkpoint-previous.pt", "best.pt"}
        if trial.checkpoint_file.exists() and trial.checkpoint_file.stat().st_ino != inode:
            inode = trial.checkpoint_file.stat().st_ino
            if found:
                assert iteration_of(trial.previous_checkpoint_file) == found[-1]
            found.append(iteration_of(trial.checkpoint_file))
            also(found[-1])
        return False

    assert run_trial(trial, trial.path.parent / "cache", should_stop=look) is State.DONE, trial.status().error
    look()
    return found


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        pytest.param(1, [20, 40, 50], id="every epoch"),
        pytest.param(2, [40, 50], id="every second"),
        pytest.param(7, [50], id="more than there are"),
        pytest.param(None, [50], id="switched off"),
    ],
)
def test_a_checkpoint_follows_every_so_many_epochs_and_the_end(
    new_trial: NewTrial, undisturbed: TrialStore, epochs: int | None, expected: list[int]
) -> None:
    trial = new_trial(checkpoint_epochs=epochs, checkpoint_seconds=None)
    assert followed(trial) == expected
    assert_equal_to_the_bit(trial, undisturbed)


def test_epochs_are_counted_from_the_last_checkpoint(new_trial: NewTrial) -> None:
    trial = new_trial(checkpoint_epochs=2, checkpoint_seconds=None, budget=100)
    run(trial, after=25)
    assert followed(trial) == [25, 60, 100]


def test_a_checkpoint_follows_so_many_seconds_in_the_middle_of_an_epoch_too(new_trial: NewTrial) -> None:
    long: dict[str, Any] = {"batch_size": 8, "budget": 170, "evaluation": {"times": 1}, "checkpoint_epochs": None}
    undisturbed = new_trial(**long, checkpoint_seconds=None)
    assert followed(undisturbed) == [170]
    assert TrialConfig.from_dict(undisturbed.config()).epoch_length == 162

    trial, killed = new_trial(**long, checkpoint_seconds=0.05), new_trial(**long)

    def copy(iteration: int) -> None:
        """Stops as if the worker had been killed right after the second checkpoint."""
        if not killed.checkpoint_file.exists() and trial.previous_checkpoint_file.exists():
            for name, content in contents(trial.path, "config.yaml").items():
                (killed.path / name).parent.mkdir(exist_ok=True)
                (killed.path / name).write_bytes(content)

    written = followed(trial, also=copy)
    assert len([iteration for iteration in written if iteration % 162]) >= 3
    assert_equal_to_the_bit(trial, undisturbed)
    assert run(killed) is State.DONE
    assert killed.status().attempts[-1].resumed_at == written[1]
    assert_equal_to_the_bit(killed, undisturbed)


def test_however_short_the_seconds_training_goes_on(new_trial: NewTrial) -> None:
    trial = new_trial(budget=3, checkpoint_seconds=1e-9, checkpoint_epochs=None)
    run(trial, after=20)
    assert iteration_of(trial.checkpoint_file) == 3


# --- and exactly so -------------------------------------------------------------------------------------------------

TRAINERS = sorted(file.stem for file in (Path(trainers.__file__).parent / "conf" / "trainer").glob("*.yaml"))
BUDGET = 24  # two epochs of 10 critic iterations and a short one


@functools.cache
def preset(trainer: str) -> dict[str, Any]:
    small = ["dataset=digits", "dataset.held_out=1477", "batch_size=32", f"budget={BUDGET}"]
    small += [f"network.{net}_widths=[16]" for net in ("generator", "critic")]
    small += ["critic_iterations=3"]  # so that it is stopped while a batch is used again
    return compose([f"trainer={trainer}", *small, "evaluation=none", "evaluation.times=2", "device=cpu"])


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_with_either_optimizer_stopped_wherever_equals_an_undisturbed_twin(
    tmp_path: Path, trainer: str, optimizer: str
) -> None:
    values = preset(trainer)
    values |= {net: {**values[net], "optimizer": optimizer} for net in ("critic", "generator")}
    trial, twin = TrialStore(tmp_path / "trial"), TrialStore(tmp_path / "twin")
    trial.create(TrialConfig.from_dict(values | {"checkpoint_epochs": 1}).to_dict())
    twin.create(TrialConfig.from_dict(values).to_dict())
    stops = sorted(random.Random(f"{trainer} {optimizer}").sample(range(BUDGET), 2))
    for begun, stop in itertools.pairwise([0, *stops]):
        assert run(trial, after=stop - begun) is State.RUNNING
        assert iteration_of(trial.checkpoint_file) == stop
    assert run(trial) is State.DONE
    assert run(twin) is State.DONE
    assert [attempt.resumed_at for attempt in trial.status().attempts] == [0, *stops]
    assert_equal_to_the_bit(trial, twin)


CHILD = """
import sys
from pathlib import Path
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial
path = Path(sys.argv[1])
run_trial(TrialStore(path), path.parent / "cache")
"""


def test_a_worker_that_was_killed_leaves_a_trial_that_equals_an_undisturbed_twin(new_trial: NewTrial) -> None:
    often = {"checkpoint_seconds": 0.001}  # so that the kill comes while a checkpoint is being written
    trial, twin = new_trial(**EVERYTHING, **often, budget=200), new_trial(**EVERYTHING, budget=200)
    root = Path(checkpoints.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", CHILD, str(trial.path)], cwd=root) as child:
        try:
            wait_until(lambda: len(trial.epochs()) >= 2)
        finally:
            child.kill()
    assert trial.status().state is State.RUNNING
    assert len(trial.epochs()) < 11
    assert set(half_written(trial.path)) <= {f".checkpoint.pt.{child.pid}", f".best.pt.{child.pid}"}
    trial.create(twin.config())  # less often
    assert run(trial) is State.DONE
    assert run(twin) is State.DONE
    assert trial.status().attempts[-1].resumed_at > 0
    assert "came out different" not in trial.log_file.read_text()
    assert_equal_to_the_bit(trial, twin)

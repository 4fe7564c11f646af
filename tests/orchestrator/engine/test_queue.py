"""The choice of the next trial from the store: order, retries, and what the end of a worker means."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.engine.early_stopping import Stopper
from orchestrator.engine.placement import Assignment, Node, Placement
from orchestrator.engine.queue import LONGEST_BACK_OFF, LONGEST_WAIT_FOR_FEWER, Death, Queue
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import EarlyStopping

KILLED = Death("it was killed")
NO_MEMORY = Death("out of memory on node a", out_of_memory=True)


class Driven:
    """A queue as an executor drives it, with its own clock."""

    def __init__(
        self, store: SweepStore, retries: int, monkeypatch: pytest.MonkeyPatch, max_failures: int | None = None
    ) -> None:
        self.store = store
        self.ids = [entry.trial_id for entry in store.entries()]
        self.now = 1000.0
        self.number = 0
        self.given: dict[int, str] = {}
        monkeypatch.setattr("orchestrator.engine.queue.time", SimpleNamespace(monotonic=lambda: self.now))
        self.queue = Queue(store, self.ids, retries=retries, max_failures=max_failures)

    def ask(self) -> str | None:
        """The next trial, "finished", or None if no trial may start now."""
        self.number += 1
        if self.queue.finished:
            assert self.queue.next() is None
            return "finished"
        if (assignment := self.queue.next()) is None:
            return None
        self.given[self.number] = assignment.trial_id
        return assignment.trial_id

    def end(self, state: State | None, *, died: bool | Death = False, asked: int | None = None) -> State:
        """Ends the worker of the last suggested trial, which may have written a state. Returns the state afterwards."""
        trial_id = self.given[asked or self.number]
        if state is not None:
            self.store.trial(trial_id).set_state(state, "out of paper" if state is State.FAILED else None)
        self.queue.ended(trial_id, died=KILLED if died is True else died or None)
        return self.store.trial(trial_id).status().state


def test_trials_come_in_order_and_then_nothing_until_they_have_ended(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 2, monkeypatch)
    assert [driven.ask() for _ in driven.ids] == driven.ids
    assert driven.ask() is None  # four are running: one of them may have to come again
    for asked in (1, 2, 3):
        driven.end(State.DONE, asked=asked)
        assert driven.ask() is None
    driven.end(State.DIVERGED, asked=4)
    assert driven.ask() == "finished"


@pytest.mark.parametrize(
    ("written", "died", "state", "again"),
    [
        pytest.param(State.DONE, False, State.DONE, False, id="done"),
        pytest.param(State.DIVERGED, False, State.DIVERGED, False, id="diverged"),
        pytest.param(State.STOPPED, False, State.STOPPED, False, id="stopped early"),
        pytest.param(State.FAILED, False, State.FAILED, True, id="raised"),
        pytest.param(State.RUNNING, True, State.LOST, True, id="killed while it ran"),
        pytest.param(None, True, State.LOST, True, id="killed before it began"),
        pytest.param(State.RUNNING, False, State.PENDING, False, id="stopped because it was told to"),
        pytest.param(State.DONE, True, State.DONE, False, id="killed after it was done"),
        pytest.param(State.FAILED, True, State.FAILED, True, id="killed after it had raised"),
    ],
)
def test_what_the_end_of_a_worker_means(
    store: SweepStore,
    monkeypatch: pytest.MonkeyPatch,
    written: State | None,
    died: bool,
    state: State,
    again: bool,
) -> None:
    driven = Driven(store, 1, monkeypatch)
    first = driven.ask()
    others = [driven.ask() for _ in driven.ids[1:]]
    assert driven.end(written, died=died, asked=1) is state
    if state is State.LOST:
        assert "the worker died" in (store.trial(driven.ids[0]).status().error or "")
    for asked in range(2, 2 + len(others)):
        driven.end(State.DONE, asked=asked)
    driven.now += 100
    assert driven.ask() == (first if again else "finished")


def test_a_retry_waits_and_lets_the_others_pass(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 1, monkeypatch)
    first = driven.ask()
    driven.end(State.FAILED)
    assert driven.ask() == driven.ids[1]
    driven.now += 1.0
    assert driven.ask() == driven.ids[2]  # those that have waited from the start come first
    assert driven.ask() == driven.ids[3]
    assert driven.ask() == first
    driven.end(State.DONE)
    assert driven.ask() is None


def test_retries_are_counted_and_wait_longer_each_time(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    retries = 8
    driven = Driven(store, retries, monkeypatch)
    for asked, _ in enumerate(driven.ids, start=1):
        driven.ask()
        if asked > 1:
            driven.end(State.DONE, asked=asked)
    tries, waits = 1, []
    driven.end(State.FAILED, asked=1)
    while (suggested := driven.ask()) != "finished":
        waited = 0.0
        while suggested is None:
            driven.now += 0.25
            waited += 0.25
            suggested = driven.ask()
        waits.append(waited)
        tries += 1
        driven.end(State.FAILED)
    assert tries == 1 + retries
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST_BACK_OFF, LONGEST_BACK_OFF]


def test_attempts_that_got_on_before_they_were_lost_use_up_no_retries(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 1, monkeypatch)
    first = driven.ask()
    assert first is not None
    for trial_id in driven.ids[1:]:
        assert driven.ask() == trial_id
        driven.end(State.DONE)
    attempts, asked = [], 1
    for begun, suggested in ((0, first), (20, first), (40, first), (40, "finished")):
        attempts.append(Attempt(started=float(len(attempts)), resumed_at=begun))
        store.trial(first).write_status(Status(State.RUNNING, list(attempts)))
        assert driven.end(None, died=True, asked=asked) is State.LOST
        driven.now += 100
        assert driven.ask() == suggested
        asked = driven.number


def test_a_trial_that_ran_out_of_memory_waits_longer_and_then_until_fewer_trials_run(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 3, monkeypatch)
    first, *_ = [driven.ask() for _ in driven.ids]
    assert driven.end(None, died=NO_MEMORY, asked=1) is State.LOST
    assert first is not None
    assert store.trial(first).status().error == (
        "the worker died: out of memory on node a. "
        "4 trials ran at once: fewer need less memory, with --max-concurrent 3"
    )
    driven.now += 100
    assert driven.ask() is None  # with it, as many as then would run
    driven.end(State.DONE, asked=2)
    assert driven.ask() == first
    driven.end(None, died=NO_MEMORY)  # three ran
    driven.now += 59
    driven.end(State.DONE, asked=3)
    driven.end(State.DONE, asked=4)
    assert driven.ask() is None  # nothing else runs, but memory needs its time
    driven.now += 1
    assert driven.ask() == first
    driven.end(None, died=NO_MEMORY)
    assert store.trial(first).status().error == (
        "the worker died: out of memory on node a. "
        "No other trial ran: this one needs a machine with more memory, or a smaller batch_size"
    )
    driven.now += 119
    assert driven.ask() is None
    driven.now += 1
    assert driven.ask() == first


def test_a_trial_that_ran_out_of_memory_does_not_wait_for_ever(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 1, monkeypatch)
    first, *_ = [driven.ask() for _ in driven.ids]
    driven.end(None, died=NO_MEMORY, asked=1)
    driven.now += 30 + LONGEST_WAIT_FOR_FEWER - 1
    assert driven.ask() is None
    driven.now += 1
    assert driven.ask() == first


def test_a_trial_that_a_node_refused_comes_again_first_and_has_lost_nothing(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 0, monkeypatch)
    told: list[str] = []
    two = [Node("id-a", "a", {"CPU": 1}), Node("id-b", "b", {"CPU": 1})]
    requests = dict.fromkeys(driven.ids, (("CPU", 1.0),))
    placement = Placement(requests, tell=told.append, look=lambda: two)
    driven.queue = Queue(store, driven.ids, retries=0, placement=placement)
    assert [driven.ask(), driven.ask(), driven.ask()] == [*driven.ids[:2], None]
    driven.queue.refused(driven.ids[0], "id-b", "has torch 9 there and 2 here")
    assert told == ["node b gets no trials: it has torch 9 there and 2 here"]
    assert driven.ask() is None  # one node is left, and busy
    driven.end(State.DONE, asked=2)
    assert driven.queue.next() == Assignment(driven.ids[0], kind=0, avoid=("id-b",), gpus=0.0)
    assert store.trial(driven.ids[0]).status() == Status()
    driven.queue.ended(driven.ids[0], died=KILLED)
    assert [driven.ask(), driven.ask()] == [driven.ids[2], None]


def test_when_no_node_is_left_trials_that_run_go_on_and_no_more_begin(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 2, monkeypatch)
    requests = dict.fromkeys(driven.ids, (("CPU", 1.0),))
    nodes = [Node("id-head", "head", {}), Node("id-a", "a", {"CPU": 2})]
    driven.queue = Queue(store, driven.ids, retries=2, placement=Placement(requests, look=lambda: nodes))
    assert [driven.ask(), driven.ask(), driven.ask()] == [*driven.ids[:2], None]
    driven.queue.refused(driven.ids[1], "id-a", "runs other code")
    assert driven.queue.stopped_because == "no node is left to begin trials on: node a runs other code"
    assert driven.ask() == "finished"
    assert driven.end(State.DONE, asked=1) is State.DONE
    assert [store.trial(trial_id).status() for trial_id in driven.ids[1:]] == [Status()] * 3


def test_trials_that_only_a_refused_node_can_run_are_waited_for_no_longer_than_others_run(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 0, monkeypatch)
    first, second = driven.ids[:2]
    kinds = {first: (("CPU", 1.0),), second: (("CPU", 1.0), ("GPU", 1.0))}
    nodes = [Node("id-a", "a", {"CPU": 1}), Node("id-b", "b", {"CPU": 1, "GPU": 1})]
    driven.queue = Queue(store, [first, second], retries=0, placement=Placement(kinds, look=lambda: nodes))
    assert [driven.ask(), driven.ask()] == [first, second]
    driven.queue.refused(second, "id-b", "runs other code")
    assert driven.ask() is None
    driven.end(State.DONE, asked=1)
    assert driven.ask() == "finished"
    assert driven.queue.stopped_because == "no node is left to begin trials on: node b runs other code"


def test_a_trial_without_room_lets_trials_with_room_pass(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 0, monkeypatch)
    gpu, cpu = (("CPU", 1.0), ("GPU", 1.0)), (("CPU", 1.0),)
    requests = dict(zip(driven.ids, (gpu, gpu, cpu, cpu), strict=True))
    nodes = [Node("id-a", "a", {"CPU": 2, "GPU": 1})]
    driven.queue = Queue(store, driven.ids, retries=0, placement=Placement(requests, look=lambda: nodes))
    assert [driven.ask(), driven.ask(), driven.ask()] == [driven.ids[0], driven.ids[2], None]
    driven.end(State.DONE, asked=2)
    assert [driven.ask(), driven.ask()] == [driven.ids[3], None]
    driven.end(State.DONE, asked=1)
    assert [driven.ask(), driven.ask()] == [driven.ids[1], None]


def test_without_retries_a_failure_is_the_end(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 0, monkeypatch)
    for trial_id in driven.ids:
        assert driven.ask() == trial_id
        assert driven.end(State.FAILED) is State.FAILED
    assert driven.ask() == "finished"


def test_the_stop_file_ends_everything_at_once(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 2, monkeypatch)
    driven.ask()
    store.stop_file.touch()
    assert driven.ask() == "finished"
    assert driven.end(State.RUNNING, asked=1) is State.PENDING
    assert driven.ask() == "finished"


def test_an_end_that_is_reported_twice_counts_once(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 2, monkeypatch)
    driven.ask()
    driven.end(State.DONE)
    driven.queue.ended(driven.ids[0], died=KILLED)
    driven.queue.ended(driven.ids[3], died=KILLED)  # which has not begun
    assert store.trial(driven.ids[0]).status().state is State.DONE


def test_as_many_trials_may_fail_for_good_as_the_file_says_and_then_all_stop(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 0, monkeypatch, max_failures=2)
    assert [driven.ask(), driven.ask(), driven.ask()] == driven.ids[:3]
    assert driven.end(State.FAILED, asked=1) is State.FAILED
    assert driven.queue.stopped_because is None
    assert not store.stop_file.exists()
    assert driven.end(None, died=True, asked=2) is State.LOST
    assert driven.queue.stopped_because == "2 trials have failed for good (max_failures: 2)"
    assert store.stop_file.exists()  # which the running ones look for
    assert driven.ask() == "finished"
    assert driven.end(State.RUNNING, asked=3) is State.PENDING


def test_an_attempt_that_is_followed_by_another_is_no_failure_yet(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 2, monkeypatch, max_failures=1)
    first = driven.ask()
    for asked, trial_id in enumerate(driven.ids[1:], start=2):
        assert driven.ask() == trial_id
        driven.end(State.DONE, asked=asked)
    driven.end(State.FAILED, asked=1)
    for _ in range(2):
        assert (driven.queue.stopped_because, store.stop_file.exists()) == (None, False)
        driven.now += 100
        assert driven.ask() == first
        driven.end(State.FAILED)
    assert driven.queue.stopped_because == "1 trials have failed for good (max_failures: 1)"
    assert store.stop_file.exists()


def test_what_diverged_or_was_stopped_has_not_failed(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 0, monkeypatch, max_failures=1)
    for state in (State.DIVERGED, State.DIVERGED, State.STOPPED, State.RUNNING):
        driven.ask()
        driven.end(state)
    assert driven.ask() == "finished"
    assert (driven.queue.stopped_because, store.stop_file.exists()) == (None, False)


def test_without_a_limit_every_trial_may_fail(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 0, monkeypatch)
    for _ in driven.ids:
        driven.ask()
        driven.end(State.FAILED)
    assert (driven.queue.stopped_because, store.stop_file.exists()) == (None, False)


@pytest.mark.parametrize(("number", "stops"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.ENOENT, False)])
def test_after_a_worker_s_full_disk_nothing_more_is_begun(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch, number: int, stops: bool
) -> None:
    driven = Driven(store, 1, monkeypatch)
    first = driven.ask()
    assert first is not None
    failed = Attempt(started=1.0, ended=2.0, state="FAILED", errno=number)
    store.trial(first).write_status(Status(State.FAILED, [failed], "OSError: out of paper"))
    driven.end(None)
    if not stops:
        assert driven.queue.stopped_because is None
        assert driven.ask() == driven.ids[1]
        return
    assert driven.queue.stopped_because == f"{store.path}: {os.strerror(number)}"
    driven.now += 100
    assert driven.ask() == "finished"  # neither the others nor this one again
    assert store.trial(first).status().error == "OSError: out of paper"


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory with the content of the folder. Skips the test where mounting is not allowed."""
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept)
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        if options == "full":
            with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        else:
            subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("options", "told"), [("full", errno.ENOSPC), ("ro", errno.EROFS)])
def test_a_state_that_cannot_be_written_ends_the_sweep_and_leaves_what_is_stored(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch, options: str, told: int
) -> None:
    driven = Driven(store, 2, monkeypatch)
    first = driven.ask()
    assert first is not None
    running = Status(State.RUNNING, [Attempt(started=1.0)])
    store.trial(first).write_status(running)
    with mounted(store.path, options):
        before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
        driven.queue.ended(driven.ids[0], died=KILLED)
        assert driven.queue.stopped_because == f"{store.path}: {os.strerror(told)}"
        assert driven.ask() == "finished"
        assert store.trial(first).status() == running
        assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("instead", ["nothing", "a file", "a folder in the place of its status"])
def test_where_one_trial_s_directory_has_gone_the_others_go_on(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    driven = Driven(store, 2, monkeypatch)
    first = driven.ask()
    assert first is not None
    trial = store.trial(store.entries()[0].trial_id).path
    shutil.rmtree(trial)
    if instead == "a file":
        trial.write_text("no folder")
    elif instead != "nothing":
        (trial / "status.json").mkdir(parents=True)
    driven.queue.ended(driven.ids[0], died=KILLED)
    assert driven.queue.stopped_because is None
    assert driven.ask() is not None


def test_a_directory_that_has_gone_ends_the_sweep_too(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 2, monkeypatch)
    driven.ask()
    shutil.rmtree(store.path / "trials")
    driven.queue.ended(driven.ids[0], died=KILLED)
    assert driven.queue.stopped_because == f"{store.path}: {os.strerror(errno.ENOENT)}"
    assert driven.ask() == "finished"


def test_an_early_stop_that_cannot_be_written_ends_the_sweep(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = Driven(store, 0, monkeypatch)
    stopper = Stopper(store, EarlyStopping("median", 1, "exact_w1", "min", minimum_trials=1))
    driven.queue = Queue(store, driven.ids, retries=0, stopper=stopper)
    driven.ask()
    driven.ask()
    store.trial(driven.ids[1]).early_stop_file.mkdir()  # in its way
    for number, value in ((1, 0.0), (2, 9.0)):
        assert driven.queue.stopped_because is None
        driven.queue.observe(driven.ids[number - 1], {"epoch": 1, "iteration": 17, "exact_w1": value})
    assert driven.queue.stopped_because == f"{store.path}: {os.strerror(errno.EISDIR)}"
    assert driven.ask() == "finished"

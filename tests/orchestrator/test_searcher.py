"""Which trial comes next, decided from the store: order, retries, and what a worker's end means."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.searcher import LONGEST_BACK_OFF, StoreSearcher
from orchestrator.store import State, SweepStore


class Driven:
    """A searcher as Tune would drive it, with a clock of its own."""

    def __init__(self, store: SweepStore, retries: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.ids = [entry.trial_id for entry in store.entries()]
        self.now = 1000.0
        self.number = 0
        self.given: dict[int, str] = {}
        monkeypatch.setattr("orchestrator.searcher.time", SimpleNamespace(monotonic=lambda: self.now))
        self.searcher = StoreSearcher(store, self.ids, retries=retries)

    def ask(self) -> str | None:
        """The trial that comes next, "finished", or None for not now."""
        self.number += 1
        suggested = self.searcher.suggest(f"tune{self.number}")
        if suggested == StoreSearcher.FINISHED:
            return "finished"
        if suggested is None:
            return None
        self.given[self.number] = suggested["trial_id"]
        return self.given[self.number]

    def end(self, state: State | None, *, died: bool = False, asked: int | None = None) -> State:
        """The last suggested trial's worker ends, having written a state or none; the state that stands after it."""
        asked = asked or self.number
        trial_id = self.given[asked]
        if state is not None:
            self.store.trial(trial_id).set_state(state, "out of paper" if state is State.FAILED else None)
        self.searcher.on_trial_complete(f"tune{asked}", error=died)
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


def test_an_end_that_was_told_already_changes_nothing(store: SweepStore, monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven(store, 2, monkeypatch)
    driven.ask()
    driven.end(State.DONE)
    driven.searcher.on_trial_complete("tune1", error=True)
    driven.searcher.on_trial_complete("never seen")
    assert store.trial(driven.ids[0]).status().state is State.DONE

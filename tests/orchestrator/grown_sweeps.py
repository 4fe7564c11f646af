"""Hand-made sweeps whose plans grow: real decisions, on numbers that a test chooses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from hand_made import POINTS, finish, plan_file, write_file

from orchestrator.decisions.growth import Growth
from orchestrator.store.plan_changes import check_meaning
from orchestrator.store.sweep import Entry, SweepStore

HEAD = f"name: g\nbase: {POINTS}\ncompare: {{metric: exact_w1, mode: min}}\n"
SEARCH = """\
grid: {penalty.weight: [1, 10]}
search:
  trials: 3
  sampler: random
  space: {critic.lr: "tag(log, interval(1e-4, 1e-2))"}
confirm: {best: 1, seeds: 2}
"""
RACE = """\
grid: {penalty.weight: [1, 10]}
seeds: {first: 2, most: 4}
confirm: {best: 1, seeds: 2}
"""

Value = Callable[[Entry], float]


def value_of(entry: Entry) -> float:
    """A low value for a low weight and a learning rate near 1e-3, and more of the seed: no race tells weights apart."""
    rate = float(entry.axes.get("critic.lr", 1e-3))
    return 1 + 1e-3 * float(entry.axes.get("penalty.weight", 1)) + abs(rate - 1e-3) + 0.01 * (entry.seed % 7)


def plan(folder: Path, text: str, *arguments: str) -> SweepStore:
    """Plans the sweep of a file in ``folder/runs``, as the command does, over what is there of it."""
    made = plan_file(write_file(folder, text), *arguments)
    store = SweepStore(folder / "runs", made.name)
    store.make()
    check_meaning(store, made)
    store.write_plan(made)
    return store


def run(store: SweepStore, number: int | None = None, value: Value = value_of) -> list[Entry]:
    """Ends the trials that have no result, at most ``number`` of them, and makes the decisions that this allows."""
    growth = Growth(store)
    known = {entry.trial_id: entry for entry in store.entries()}
    waiting = [each for each in known if not store.trial(each).status().state.is_result]
    todo = deque([*waiting, *(entry.trial_id for entry in growth.begin(waiting))])
    ended: list[Entry] = []
    while todo and (number is None or len(ended) < number):
        known |= {entry.trial_id: entry for entry in store.entries() if entry.trial_id not in known}
        entry = known[todo.popleft()]
        if not store.trial(entry.trial_id).status().state.is_result:
            finish(store, entry, {"exact_w1": value(entry)}, epochs=3)
            ended.append(entry)
        todo += [added.trial_id for added in growth.settled(entry.trial_id)]
    return ended


def grown(folder: Path, text: str, number: int | None = None) -> SweepStore:
    """A sweep that was planned and run, or begun."""
    store = plan(folder, text)
    run(store, number)
    return store

"""Hand-made sweeps whose plans grow: real decisions from numbers that a test chooses, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hand_made import POINTS, finish, make_sweep

from orchestrator.decisions.growth import Growth
from orchestrator.decisions.rule import decided_trial
from orchestrator.store.decision_log import Decision
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore

METRIC = "exact_w1"
SEARCH = f"""\
name: searched
description: two axes at tuned settings
base: {POINTS}
variants:
  wgan-gp:
    base: [trainer=wgan_gp]
    grid: {{critic_iterations: [1, 2], generator.lr: [1e-3, 1e-4]}}
    search:
      trials: 6
      sampler: random
      space:
        critic.lr: "tag(log, interval(1e-4, 1e-2))"
        penalty.weight: "choice(0.1, 1, 10)"
  wgan: {{base: [trainer=wgan]}}
seeds: 2
confirm: {{best: 1, seeds: 3}}
compare: {{metric: {METRIC}, mode: min}}
"""
RACE = f"""\
name: raced
description: a race
base: {POINTS}
variants:
  wgan-gp:
    base: [trainer=wgan_gp]
    grid: {{penalty.weight: [1, 10], critic_iterations: [1, 2]}}
  wgan: {{base: [trainer=wgan]}}
seeds: {{first: 3, most: 8}}
compare: {{metric: {METRIC}, mode: min}}
"""
Value = Callable[[Entry], float | None]
"""The value that a trial ends with; None for one that diverges."""


def end(store: SweepStore, entry: Entry, value: float | None) -> None:
    """Ends a trial with this value of the metric, or DIVERGED."""
    if value is None:
        finish(store, entry, {}, untrained={METRIC: 9.0}, state=State.DIVERGED, error="critic_loss is not finite")
    else:
        finish(store, entry, {METRIC: value}, untrained={METRIC: 99.0 + entry.seed % 7})


def grow(store: SweepStore, value: Value, *, until: Callable[[Entry], bool] = lambda entry: True) -> list[Entry]:
    """Ends the trials of a sweep one after the other, and makes all decisions. Returns the trials that did not end.

    ``until`` says which trials end.
    """
    growth, kept = Growth(store), list[Entry]()
    waiting = store.entries()
    waiting += growth.begin({entry.trial_id for entry in waiting})
    while waiting:
        entry = waiting.pop(0)
        if until(entry):
            end(store, entry, value(entry))
            waiting += growth.settled(entry.trial_id)
        else:
            kept.append(entry)
    return kept


def make_searched(folder: Path, value: Value, text: str = SEARCH, **options: Any) -> SweepStore:
    """A sweep that has been searched, and confirmed if its text says so."""
    store = make_sweep(folder, text)
    grow(store, value, **options)
    return store


def look(
    store: SweepStore,
    number: int,
    out: Mapping[str, str],
    *,
    seeds: int | None = None,
    ended: str | None = None,
    level: float = 0.99,
) -> list[Entry]:
    """Writes a look of a race by hand: ``out`` says of which cells, by their labels, why they are out.

    Those that go on have ``seeds`` seeds afterwards, and this returns the new trials.
    """
    cells: dict[str, list[Entry]] = {}
    for entry in store.entries():
        if not entry.stage:
            cells.setdefault(entry.label, []).append(entry)
    had = max(len(entries) for entries in cells.values())
    racing = {label: entries for label, entries in cells.items() if len(entries) == had}
    rests_on = [_seen(store, entries, out.get(label)) for label, entries in racing.items()]
    trials: list[tuple[Entry, dict[str, Any]]] = []
    for label, entries in racing.items():
        if label not in out:
            first = entries[0]
            config = store.trial(first.trial_id).config()
            for seed in range(had, seeds or had):
                trials.append(decided_trial(first.variant, first.axes, config, seed, _short(store)))
    about: dict[str, Any] = {"look": number, "level": level, "had": had, "ended": ended}
    about |= {} if seeds is None else {"seeds": seeds}
    decision = Decision("race", about, {"cells": rests_on}, tuple(entry for entry, _ in trials))
    store.decide([decision], {entry.trial_id: config for entry, config in trials})
    return [entry for entry, _ in trials]


def _short(store: SweepStore) -> Mapping[str, str]:
    grown = store.grown()
    assert grown is not None
    return grown.growing.short


def _seen(store: SweepStore, entries: Sequence[Entry], out: str | None) -> dict[str, Any]:
    from orchestrator.results.tables import value_of

    records = [store.trial(entry.trial_id).epochs() for entry in entries]
    value = value_of((each[-1][METRIC] for each in records if each and METRIC in each[-1]), None)
    numbers = {} if value is None else {"mean": value.mean, "deviation": value.deviation}
    count = 0 if value is None else value.count
    return {"variant": entries[0].variant, "axes": dict(entries[0].axes), "out": out, "count": count, **numbers}

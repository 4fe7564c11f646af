"""The store as data frames."""

from __future__ import annotations

import json

import numpy as np
from hand_made import finish

from orchestrator.results import epochs_frame, trials_frame
from orchestrator.store import State, SweepStore


def test_one_row_for_every_stored_epoch(store: SweepStore) -> None:
    for number, entry in enumerate(store.entries()):
        finish(store, entry, {"exact_w1": 0.5 + number}, epochs=1 + number)
    frame = epochs_frame(store)
    lines = [
        (entry, json.loads(line))
        for entry in store.entries()
        for line in store.trial(entry.trial_id).metrics_file.read_text().splitlines()
    ]
    assert len(frame) == len(lines) == 4 + 1 + 2 + 3 + 4
    for (_, row), (entry, record) in zip(frame.iterrows(), lines, strict=True):
        assert (row["trial_id"], row["cell"], row["variant"]) == (entry.trial_id, entry.label, "hand")
        assert (row["seed"], row["axis.penalty.weight"]) == (entry.seed, entry.axes["penalty.weight"])
        for name, value in record.items():
            assert row[name] == value
        assert np.isnan(row["exact_w1"]) == ("exact_w1" not in record)


def test_one_row_for_every_trial_with_the_last_value_of_every_metric(store: SweepStore) -> None:
    first, second, third, fourth = store.entries()
    finish(store, first, {"exact_w1": 0.5}, untrained={"exact_w1": 7.0}, floor={"exact_w1": 0.25}, epochs=3)
    finish(store, second, {"exact_w1": 0.75}, state=State.DIVERGED, error="not finite", commits=["aaaa", "bbbb"])
    store.trial(third.trial_id).set_state(State.FAILED, "out of paper")
    frame = trials_frame(store).set_index("trial_id")
    assert list(frame.index) == [entry.trial_id for entry in (first, second, third, fourth)]
    assert list(frame["state"]) == ["DONE", "DIVERGED", "FAILED", "PENDING"]
    assert list(frame["error"].fillna("")) == ["", "not finite", "out of paper", ""]
    assert list(frame["commits"]) == ["0123456789ab", "aaaa, bbbb", "", ""]
    row = frame.loc[first.trial_id]
    assert (row["exact_w1"], row["untrained.exact_w1"], row["floor.exact_w1"]) == (0.5, 7.0, 0.25)
    assert (row["epoch"], row["iteration"], row["critic_loss"]) == (3, 51, 0.5 / 3)
    assert row["training_seconds"] == 0.75  # three epochs of a quarter; evaluation apart
    assert np.isnan(frame.loc[fourth.trial_id, "exact_w1"])
    assert (frame["axis.penalty.weight"] == [entry.axes["penalty.weight"] for entry in store.entries()]).all()

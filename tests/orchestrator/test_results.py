"""The store as data frames."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hand_made import finish

from orchestrator.epochs import EpochLog
from orchestrator.errors import UserError
from orchestrator.results import At, epochs_frame, parse_at, trials_frame
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


def test_a_trial_as_it_was_when_a_metric_was_nearest_to_a_value(store: SweepStore) -> None:
    first, second, third, _ = store.entries()
    for entry, values in ((first, [8.0, 5.0, 3.0, 4.1]), (second, [2.0, 1.0])):
        store.trial(entry.trial_id).set_state(State.DONE)
        log = EpochLog(store.trial(entry.trial_id).metrics_file)
        log.append({"epoch": 0, "iteration": 0, "exact_w1": 4.4})
        for epoch, value in enumerate(values, start=1):
            record = {"epoch": epoch, "iteration": 10 * epoch, "epoch_seconds": 1.0, "exact_w1": value}
            log.append(record | ({"probed": -value} if epoch == 2 else {}))
    finish(store, third, {"other": 1.0})
    frame = trials_frame(store, At("exact_w1", 4.4)).set_index("trial_id")
    assert list(frame["exact_w1"][:2]) == [4.1, 2.0]
    frame = trials_frame(store, At("exact_w1", 4.6)).set_index("trial_id")
    assert list(frame["exact_w1"][:2]) == [5.0, 2.0]
    assert list(frame["iteration"][:2]) == [20, 10]
    assert list(frame["training_seconds"][:2]) == [2.0, 1.0]
    assert frame["probed"].iloc[0] == -5.0
    assert frame["other"].loc[third.trial_id] == 1.0  # which has no such metric


def test_where_to_look_is_last_or_a_metric_s_value(store: SweepStore) -> None:
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    assert parse_at(store, "last") is None
    assert parse_at(store, "exact_w1=0.25") == At("exact_w1", 0.25)
    for text in ("best", "exact_w1", "exact_w1=low", "=3"):
        with pytest.raises(UserError, match="expected last, or METRIC=VALUE|has logged"):
            parse_at(store, text)
    with pytest.raises(UserError, match="no trial of 'hand' has logged 'exact_w2'; did you mean 'exact_w1'"):
        parse_at(store, "exact_w2=1")

"""The store as data frames."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hand_made import finish

import orchestrator
from orchestrator.errors import UserError
from orchestrator.results.comparison import IDENTITY, comparison_table
from orchestrator.results.frames import LAST, At, epochs_frame, parse_at, trials_frame
from orchestrator.store.epochs import EpochLog
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore


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


def test_the_option_at_is_parsed() -> None:
    assert parse_at("last") == LAST
    assert parse_at("best") == At("best")
    assert parse_at("epoch=3") == At("epoch", 3)
    assert parse_at("seconds=1.5") == At("seconds", 1.5)
    assert parse_at("exact_w1=0.25") == At("exact_w1", 0.25)
    for text in ("first", "exact_w1", "exact_w1=low", "=3", "epoch=-1", "seconds=", "fid=nan", "last=3", "best=3", ""):
        with pytest.raises(UserError, match="expected last, best, epoch=K, seconds=S, or METRIC=VALUE") as raised:
            parse_at(text)
        assert f"--at {text}:" in str(raised.value)
    with pytest.raises(UserError, match=r"--at training_seconds=0.1: .* is a sum over epochs; write seconds=0.1$"):
        parse_at("training_seconds=0.1")


def test_only_the_training_seconds_are_no_epochs_own(store: SweepStore) -> None:
    """Every other metric that a table can show is stored in some epoch, where ``--at`` finds it."""
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5}, untrained={"exact_w1": 7.0}, floor={"exact_w1": 0.25})
    shown = {name for name in trials_frame(store) if name not in IDENTITY and "." not in name}
    assert shown - set(epochs_frame(store)) == {"training_seconds"}
    with pytest.raises(UserError, match="--at untrained.exact_w1=7: no trial of 'hand' has logged"):
        comparison_table(store, at=parse_at("untrained.exact_w1=7"))


@pytest.fixture
def four_evaluations(store: SweepStore) -> SweepStore:
    """Two trials of four and two epochs of a second. Every epoch is evaluated, and the best one is not the last."""
    for entry, values in zip(store.entries(), ([8.0, 2.0, 3.0, 4.0], [5.0, 6.0]), strict=False):
        trial = store.trial(entry.trial_id)
        trial.set_state(State.DONE)
        trial.write_references({"metrics": ["exact_w1"], "higher_is_better": [], "floor": {}, "info": {}})
        log = EpochLog(trial.metrics_file)
        log.append({"epoch": 0, "iteration": 0, "exact_w1": 9.0})
        for epoch, value in enumerate(values, start=1):
            log.append({"epoch": epoch, "iteration": 10 * epoch, "epoch_seconds": 1.0, "exact_w1": value})
    return store


@pytest.mark.parametrize(
    ("at", "values", "epochs", "short"),
    [
        pytest.param(LAST, [4.0, 6.0], [4, 2], [False, False], id="last"),
        pytest.param(At("best"), [2.0, 5.0], [2, 1], [False, False], id="best"),
        pytest.param(At("epoch", 1), [8.0, 5.0], [1, 1], [False, False], id="after an epoch"),
        pytest.param(At("epoch", 3), [3.0, 6.0], [3, 2], [False, True], id="after more than one has"),
        pytest.param(At("seconds", 2.5), [2.0, 6.0], [2, 2], [False, True], id="after some seconds"),
        pytest.param(At("seconds", 2.0), [2.0, 6.0], [2, 2], [False, False], id="after exactly so many"),
        pytest.param(At("seconds", 0.5), [np.nan, np.nan], [np.nan, np.nan], [False, False], id="before any"),
        pytest.param(At("exact_w1", 3.4), [3.0, 5.0], [3, 1], [False, False], id="nearest to a value"),
    ],
)
def test_a_trial_as_it_was_then(
    four_evaluations: SweepStore, at: At, values: list[float], epochs: list[float], short: list[bool]
) -> None:
    frame = trials_frame(four_evaluations, at)[:2]
    columns = frame.reindex(columns=["exact_w1", "epoch", "training_seconds"])
    np.testing.assert_array_equal(columns["exact_w1"], values)
    np.testing.assert_array_equal(columns["epoch"], epochs)
    np.testing.assert_array_equal(columns["training_seconds"], np.nan_to_num(epochs))
    assert list(frame["short"]) == short
    assert list(frame["untrained.exact_w1"]) == [9.0, 9.0]


def test_the_best_is_the_evaluation_whose_checkpoint_is_kept(four_evaluations: SweepStore) -> None:
    """For a metric of which high values are better; of equal epochs the last one is taken."""
    trial = four_evaluations.trial(four_evaluations.entries()[0].trial_id)
    trial.write_references({**trial.references(), "higher_is_better": ["exact_w1"]})
    assert trials_frame(four_evaluations, At("best"))["epoch"][0] == 1
    EpochLog(trial.metrics_file).append({"epoch": 5, "iteration": 50, "epoch_seconds": 1.0, "exact_w1": 8.0})
    assert trials_frame(four_evaluations, At("best"))["epoch"][0] == 5


def test_an_evaluation_that_gave_no_number_is_not_the_nearest_and_not_the_best(store: SweepStore) -> None:
    trial = store.trial(store.entries()[0].trial_id)
    trial.write_references({"metrics": ["exact_w1"], "higher_is_better": [], "floor": {}, "info": {}})
    log = EpochLog(trial.metrics_file)
    for epoch, value in enumerate([9.0, float("nan"), 4.0, float("-inf"), 5.0]):
        log.append({"epoch": epoch, "iteration": epoch, "exact_w1": value} | ({"epoch_seconds": 1.0} if epoch else {}))
    for at in (At("best"), At("exact_w1", 4.2)):
        assert trials_frame(store, at)["exact_w1"][0] == 4.0


def test_what_was_measured_again_takes_the_place_of_what_is_stored(four_evaluations: SweepStore) -> None:
    first, second, *_ = four_evaluations.entries()
    frame = trials_frame(four_evaluations, At("best"), {first.trial_id: {"exact_w1": 2.25}}).set_index("trial_id")
    assert frame.loc[first.trial_id, "exact_w1"] == 2.25
    assert np.isnan(frame.loc[second.trial_id, "exact_w1"])  # which has no checkpoint
    assert frame.loc[first.trial_id, "epoch"] == 2


def test_a_notebook_gets_one_row_a_trial_and_one_an_epoch_with_types(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for entry in store.entries()[:3]:
        finish(store, entry, {"exact_w1": 0.5, "count": 3}, epochs=2)
    monkeypatch.chdir(store.runs_dir.parent)
    trials, epochs = orchestrator.load("runs/hand")
    assert (len(trials), len(epochs)) == (4, 9)
    assert trials["state"].dtype.name == epochs["cell"].dtype.name == "category"
    assert list(trials["state"]) == ["DONE"] * 3 + ["PENDING"]
    assert [str(trials[name].dtype) for name in ("seed", "epoch", "iteration")] == ["UInt64", "Int64", "Int64"]
    assert {str(trials[name].dtype) for name in ("exact_w1", "count", "training_seconds")} == {"float64"}
    assert str(epochs["timestamp"].dtype).endswith("UTC]")
    assert abs((pd.Timestamp.now("UTC") - epochs["timestamp"]).max().total_seconds()) < 600
    assert str(trials["axis.penalty.weight"].dtype) == "int64"
    assert epochs.groupby("cell", observed=True)["exact_w1"].count().to_dict() == {
        "hand weight=1": 4,
        "hand weight=2": 2,
    }
    assert orchestrator.load(store.path).trials.equals(trials)


def test_of_a_sweep_that_has_not_begun_there_are_trials_and_no_epochs(store: SweepStore) -> None:
    trials, epochs = orchestrator.load(store.path)
    assert (len(trials), len(epochs)) == (4, 0)


def test_a_directory_that_is_no_sweep_is_told_with_the_nearest_name(store: SweepStore) -> None:
    with pytest.raises(UserError, match="there is no sweep called 'hnd' in .* did you mean 'hand'"):
        orchestrator.load(store.runs_dir / "hnd")

"""A sweep's directory: the only truth about what has happened."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hand_made import TWO_CELLS, finish, make_sweep, plan_file, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.store import EpochLog, State, Status, SweepStore, Tail, TrialStore, sweep_names, write_atomically


@pytest.fixture
def trial(tmp_path: Path) -> TrialStore:
    store = TrialStore(tmp_path / "0123456789ab")
    store.create({"seed": 1, "critic": {"lr": 1e-4}})
    return store


def test_a_new_trial_is_pending_and_keeps_its_configuration(trial: TrialStore) -> None:
    assert trial.status() == Status(State.PENDING)
    assert trial.config() == {"seed": 1, "critic": {"lr": 1e-4}}
    assert trial.epochs() == []
    assert trial.references() == {}
    assert trial.sample_files() == []


def test_making_a_trial_again_changes_nothing(trial: TrialStore) -> None:
    trial.set_state(State.DONE)
    trial.create({"seed": 2})
    assert trial.status().state is State.DONE
    assert trial.config()["seed"] == 1


@pytest.mark.parametrize("state", State)
def test_a_state_is_a_result_or_is_not(trial: TrialStore, state: State) -> None:
    trial.set_state(state, "why")
    assert trial.status().state is state
    assert trial.status().error == "why"
    assert state.is_result is (state in {State.DONE, State.STOPPED, State.DIVERGED})


def test_an_error_goes_with_a_result_and_stays_otherwise(trial: TrialStore) -> None:
    trial.set_state(State.FAILED, "out of paper")
    assert trial.set_state(State.PENDING).error == "out of paper"
    assert trial.set_state(State.DONE).error is None


def test_a_status_is_replaced_at_once(trial: TrialStore) -> None:
    """A reader sees an old status or a new one, never none or half of one."""
    ended = threading.Event()
    long = "x" * 20_000

    def write() -> None:
        for number in range(60):
            trial.write_status(Status(State.FAILED, [{"number": number}], long))
        ended.set()

    trial.write_status(Status(State.FAILED, [], long))
    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not ended.is_set():
        assert trial.status().error == long
        seen += 1
    writer.join()
    assert seen > 10
    assert [file.name for file in trial.path.iterdir() if file.name.startswith(".")] == []  # no temporary is left


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_epoch_is_a_line_with_its_time(trial: TrialStore) -> None:
    log = EpochLog(trial)
    assert log.append({"epoch": 0, "loss": 0.5}) == []
    (record,) = [json.loads(line) for line in trial.metrics_file.read_text().splitlines()]
    assert record.pop("timestamp") > 1.7e12  # in milliseconds
    assert record == {"epoch": 0, "loss": 0.5}


@pytest.mark.parametrize(
    ("again", "differing"),
    [
        pytest.param({"epoch": 1, "loss": 0.5, "epoch_seconds": 2.0}, [], id="equal apart from timings"),
        pytest.param({"epoch": 1, "loss": 0.25, "epoch_seconds": 1.0}, ["loss"], id="another value"),
        pytest.param({"epoch": 1, "epoch_seconds": 1.0}, ["loss"], id="a metric less"),
        pytest.param({"epoch": 1, "loss": 0.5, "fid": 3.0, "kid": 1.0}, ["fid", "kid"], id="two metrics more"),
        pytest.param({"epoch": 1, "loss": 0.5000000000000001}, ["loss"], id="another last bit"),
        pytest.param({"epoch": 1, "loss": float("nan")}, ["loss"], id="not a number"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True], ids=["same process", "after a crash"])
def test_an_epoch_that_comes_again_is_compared_and_dropped(
    trial: TrialStore, again: dict[str, Any], differing: list[str], reopened: bool
) -> None:
    log = EpochLog(trial)
    log.append({"epoch": 1, "loss": 0.5, "epoch_seconds": 1.0})
    before = trial.metrics_file.read_bytes()
    log = EpochLog(trial) if reopened else log
    assert log.append(again) == differing
    assert trial.metrics_file.read_bytes() == before


def test_not_a_number_equals_itself_when_it_comes_again(trial: TrialStore) -> None:
    EpochLog(trial).append({"epoch": 1, "loss": float("nan")})
    assert EpochLog(trial).append({"epoch": 1, "loss": float("nan")}) == []


def test_a_torn_last_line_is_cut_and_never_read(trial: TrialStore) -> None:
    EpochLog(trial).append({"epoch": 0, "loss": 1.0})
    whole = trial.metrics_file.read_bytes()
    with trial.metrics_file.open("ab") as file:
        file.write(b'{"epoch": 1, "loss": 0.')
    assert [record["epoch"] for record in trial.epochs()] == [0]
    log = EpochLog(trial)
    assert trial.metrics_file.read_bytes() == whole
    log.append({"epoch": 1, "loss": 0.25})
    assert [(record["epoch"], record["loss"]) for record in trial.epochs()] == [(0, 1.0), (1, 0.25)]


@settings(deadline=None, max_examples=50)
@given(
    losses=st.lists(st.floats(allow_nan=False), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_a_tail_returns_each_line_once_however_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], cuts: list[int]
) -> None:
    lines = [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    tail = Tail(path)
    read = list(tail.read())
    assert read == []  # before the file is there
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in itertools.pairwise(places):
        with path.open("ab") as file:
            file.write(content[start:end])
        read += tail.read()
        assert read == lines[: content[:end].count(b"\n")]
    assert list(tail.read()) == []


def test_a_plan_becomes_directories_with_relative_paths_alone(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    assert len(store.entries()) == 4
    assert sorted(path.name for path in (store.path / "trials").iterdir()) == sorted(
        entry.trial_id for entry in store.entries()
    )
    assert (store.path / "sweep.yaml").read_text() == TWO_CELLS
    for entry in store.entries():
        config = store.trial(entry.trial_id).config()
        assert config["seed"] == entry.seed
        assert config["penalty"]["weight"] == entry.axes["penalty.weight"]
        assert entry.epochs == 3  # 40 iterations of ⌊140 / 8⌋ = 17 an epoch
        assert entry.label == f"hand weight={entry.axes['penalty.weight']}"
        assert str(tmp_path) not in (store.trial(entry.trial_id).path / "status.json").read_text()


def test_a_moved_directory_still_works(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    moved = shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    there = SweepStore.open(Path(moved), "hand")
    assert there.entries() == SweepStore(Path(moved), "hand").entries()
    trial = there.trial(there.entries()[0].trial_id)
    assert trial.status().state is State.DONE
    assert [record["epoch"] for record in trial.epochs()] == [0, 1, 2]
    assert [file.name for file in trial.sample_files()] == ["epoch_000000.png", "epoch_000002.png"]
    assert sweep_names(Path(moved)) == ["hand"]


def test_a_plan_written_again_keeps_what_has_been_done(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    done = store.entries()[0]
    finish(store, done, {"exact_w1": 0.5})
    before = {path: path.read_bytes() for path in store.trial(done.trial_id).path.rglob("*") if path.is_file()}
    smaller = TWO_CELLS.replace("[1, 2]", "[2, 3]").replace("seeds: 2", "seeds: 1")
    plan = plan_file(write_file(tmp_path, smaller))
    store.write_plan(plan)
    assert [(entry.axes["penalty.weight"], entry.seed) for entry in store.entries()] == [(2, 0), (3, 0)]
    assert {path: path.read_bytes() for path in before} == before  # not in the plan any more, but there


def test_opening_a_sweep_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    with pytest.raises(UserError, match="did you mean 'hand'"):
        SweepStore.open(tmp_path / "runs", "hnad")


@pytest.mark.parametrize("state", State)
def test_only_a_trial_that_is_done_is_copied_from_another_sweep(tmp_path: Path, state: State) -> None:
    first = make_sweep(tmp_path)
    other = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: other"))
    entry = first.entries()[0]
    finish(first, entry, {"exact_w1": 0.5}, state=state)
    taken = other.copy_finished(entry)
    theirs, ours = first.trial(entry.trial_id), other.trial(entry.trial_id)
    if state is not State.DONE:
        assert taken is None
        assert ours.status() == Status()
        assert ours.epochs() == []
        return
    assert taken == "hand"
    assert ours.status().state is State.DONE
    assert ours.status().copied_from == "hand"
    assert ours.status().attempts == theirs.status().attempts
    assert ours.epochs() == theirs.epochs()
    assert [file.name for file in ours.sample_files()] == [file.name for file in theirs.sample_files()]
    assert theirs.status().copied_from is None
    assert sorted(path.name for path in (other.path / "trials").iterdir()) == sorted(
        each.trial_id for each in other.entries()
    )  # nothing half copied


def test_nothing_is_copied_where_nobody_has_the_trial(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    assert store.copy_finished(store.entries()[0]) is None  # not from itself
    assert store.copy_finished(store.entries()[1]) is None


def test_the_log_is_lines_with_a_time(trial: TrialStore) -> None:
    trial.log("one")
    trial.log("two\nthree")
    lines = trial.log_file.read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "two", "three"]

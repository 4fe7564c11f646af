"""A trial that is damaged has failed before it begins, and the others run."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import TWO_CELLS, finish, make_sweep

from orchestrator.driver.preparation import prepare
from orchestrator.remote.replica import Replica
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

EARLY = "early_stopping: {scheduler: asha, grace: 8, metric: exact_w1}\n"


def states(store: SweepStore) -> list[State]:
    return [store.trial(entry.trial_id).status().state for entry in store.entries()]


@pytest.mark.long
def test_the_others_run_and_the_damaged_one_is_named(tmp_path: Path, command_line: CommandLine) -> None:
    """With early stopping, which reads the epochs of all trials."""
    store = make_sweep(tmp_path, TWO_CELLS + EARLY)
    first, second, third, _ = (store.trial(entry.trial_id) for entry in store.entries())
    first.metrics_file.write_text('{"epoch": 0}\n')
    shutil.rmtree(second.path)
    second.path.write_text("no folder")
    (third.path / "config.yaml").unlink()
    (third.path / "config.yaml").mkdir()
    common = ["--offline", "--executor", "local", "--runs-dir", store.runs_dir]
    code, out, errors = command_line("resume", "hand", *common)
    assert code == 1, errors
    for place in (first.metrics_file, second.path, third.path / "config.yaml"):
        assert str(place) in out
    pending = State.PENDING
    assert states(store) == [pending, State.LOST, pending, State.DONE]
    second.path.unlink()
    (third.path / "config.yaml").rmdir()
    first.metrics_file.unlink()
    assert command_line("sweep", tmp_path / "sweep.yaml", *common)[0] == 0  # as the messages say
    assert all(state.is_result for state in states(store))


@pytest.mark.parametrize("name", ["attempts", "samples", "checkpoint.pt", "log.txt"])
def test_what_a_worker_would_write_through_a_link_is_an_obstacle(store: SweepStore, tmp_path: Path, name: str) -> None:
    trial = store.trial(store.entries()[0].trial_id)
    outside = tmp_path / "outside"
    outside.mkdir()
    (trial.path / name).symlink_to(outside)
    told: list[str] = []
    assert prepare(store, told.append) == [entry.trial_id for entry in store.entries()[1:]]
    assert [str(trial.path / name) in text for text in told] == [True]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("damage", ["metrics", "link", "plan", "folder"])
def test_a_trial_that_is_damaged_in_another_sweep_is_not_copied_from_there(tmp_path: Path, damage: str) -> None:
    done = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: done"))
    for entry in done.entries():
        finish(done, entry, {"exact_w1": 0.5})
    trial = done.trial(done.entries()[0].trial_id)
    if damage == "metrics":
        trial.metrics_file.write_text("{}\n")
    elif damage == "link":
        (trial.path / "link").symlink_to("/etc/hostname")
    elif damage == "plan":
        (done.path / "plan.json").write_text("{")
    else:
        shutil.rmtree(trial.path)
        trial.path.write_text("no folder")
    store = make_sweep(tmp_path)
    with (
        pytest.warns(UserWarning, match="not copied from there")
        if damage in ("metrics", "link")
        else contextlib.nullcontext()
    ):
        todo = prepare(store)
    assert todo == ([] if damage == "plan" else [store.entries()[0].trial_id])  # a plan is not needed for copying
    assert states(store)[1:] == [State.DONE] * 3


@pytest.mark.parametrize("damage", ["metrics", "link"])
def test_a_trial_whose_origin_is_damaged_waits_and_the_others_are_continued(tmp_path: Path, damage: str) -> None:
    done = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: done"))
    for entry in done.entries():
        finish(done, entry, {"exact_w1": 0.5})
        done.trial(entry.trial_id).checkpoint_file.write_bytes(b"a checkpoint")
    trial = done.trial(done.entries()[0].trial_id)
    place = trial.metrics_file if damage == "metrics" else trial.checkpoint_file
    if damage == "metrics":
        place.write_text("{}\n")
    else:
        place.rename(tmp_path / "elsewhere.pt")
        place.symlink_to(tmp_path / "elsewhere.pt")
    store = make_sweep(tmp_path, TWO_CELLS.replace("budget=40", "budget=80") + "continue_from: done\n")
    told: list[str] = []
    first, *others = store.entries()
    assert prepare(store, told.append) == [entry.trial_id for entry in others]
    (text,) = [text for text in told if str(place) in text]
    assert text.startswith(f"{first.label} seed=0 is skipped: the trial that it continues cannot be read")
    origins = [store.trial(entry.trial_id).status().continued_from for entry in store.entries()]
    assert [origin is not None for origin in origins] == [False, True, True, True]


def test_a_damaged_sweep_in_an_object_store_stops_no_other(tmp_path: Path) -> None:
    """Objects whose keys would lead out of this machine's copy are not read either."""
    made = make_sweep(tmp_path)
    bucket = tmp_path / "bucket"
    shutil.copytree(made.runs_dir, bucket)
    for name, content in (("cut", b"{"), ("odd", b'{"trials": [5]}'), ("binary", b"\xff"), ("deep", b"[" * 100_000)):
        (bucket / name).mkdir()
        (bucket / name / "plan.json").write_bytes(content)
    replica = Replica(f"file://{bucket}", tmp_path / "copy")
    manifest = tmp_path / "copy" / "hand" / ".objects.json"
    manifest.parent.mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_text("keep")
    manifest.write_text(json.dumps({"hand/../../precious": ["1", [0, 0]], "/etc/hostname": ["1", [0, 0]]}))
    store = SweepStore.open(replica, "hand")
    assert precious.exists()
    assert prepare(store) == [entry.trial_id for entry in made.entries()]

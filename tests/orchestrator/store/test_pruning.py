"""Pruning: what is deleted, what stays, and that the printed number of bytes is the number freed."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import TWO_CELLS, finish, make_sweep, plan_file, write_file
from small_trials import contents

from orchestrator.files import disk_usage
from orchestrator.screen.units import in_bytes
from orchestrator.store.pruning import prunable, prune, size_of
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore

RESULTS = [State.DONE, State.STOPPED, State.DIVERGED]
UNFINISHED = [State.PENDING, State.FAILED, State.LOST]
CHECKPOINTS = {"checkpoint.pt": 30_000, "checkpoint-previous.pt": 20_000, "best.pt": 10_000}


def furnish(store: SweepStore, trial: TrialStore, state: State) -> None:
    """Everything that a trial may have: checkpoints, a half-written one, an attempt put aside, early stopping."""
    entry = next(entry for entry in store.entries() if entry.trial_id == trial.trial_id)
    finish(store, entry, {"exact_w1": 0.5}, state=State.FAILED, error="why")
    (trial.path / "checkpoint.pt").write_bytes(bytes(5_000))
    trial.restart()
    finish(store, entry, {"exact_w1": 0.5}, state=state, error="why")
    for name, size in CHECKPOINTS.items():
        (trial.path / name).write_bytes(bytes(size))
    (trial.path / ".checkpoint.pt.4711").write_bytes(bytes(1_000))
    trial.early_stop_file.write_text("{}")


@pytest.fixture
def furnished(tmp_path: Path) -> SweepStore:
    """A trial in each state, one that is no longer in the plan, and an unfinished copy."""
    states = [*RESULTS, *UNFINISHED, State.DONE]
    one_cell = TWO_CELLS.replace("[1, 2]", "[1]")
    store = make_sweep(tmp_path, one_cell.replace("seeds: 2", f"seeds: {len(states)}"))
    for entry, state in zip(store.entries(), states, strict=True):
        furnish(store, store.trial(entry.trial_id), state)
    store.write_plan(plan_file(write_file(tmp_path, one_cell.replace("seeds: 2", f"seeds: {len(states) - 1}"))))
    incoming = store.path / "trials" / f".{store.entries()[0].trial_id}.incoming"
    incoming.mkdir()
    (incoming / "checkpoint.pt").write_bytes(bytes(700))
    return store


def gone(store: SweepStore, before: dict[str, bytes]) -> dict[str, set[str]]:
    """The deleted files, by trial directory. Asserts that the other files are unchanged."""
    now = contents(store.path / "trials")
    assert all(before[name] == content for name, content in now.items())
    found: dict[str, set[str]] = {}
    for name in before.keys() - now.keys():
        trial_id, _, file = name.partition("/")
        found.setdefault(trial_id, set()).add(file)
    return found


@pytest.mark.parametrize("removed", [False, True], ids=["", "--removed"])
@pytest.mark.parametrize("checkpoints", [False, True], ids=["", "--checkpoints"])
def test_metrics_samples_and_logs_stay_and_the_bytes_told_are_the_bytes_freed(
    furnished: SweepStore, command_line: CommandLine, checkpoints: bool, removed: bool
) -> None:
    before = contents(furnished.path / "trials")
    size = disk_usage([furnished.path])
    options = ["--checkpoints"] * checkpoints + ["--removed"] * removed
    common = ["prune", "hand", *options, "--runs-dir", furnished.runs_dir]

    code, out, errors = command_line(*common, "--dry-run")
    assert (code, errors) == (0, "")
    *listed, total = out.splitlines()
    assert gone(furnished, before) == {}
    named = [Path(line.split(maxsplit=2)[2]) for line in listed]
    assert all(path.exists() for path in named)

    told, out, _ = command_line(*common)
    freed = in_bytes(size - disk_usage([furnished.path]))
    assert (told, out) == (0, f"{freed} freed.\n")
    assert total == f"{freed} could be freed. Nothing was deleted."
    assert not any(path.exists() for path in named)

    always = {".checkpoint.pt.4711", "attempts/1/checkpoint.pt"}
    result = always | {"checkpoint-previous.pt"} | ({"checkpoint.pt", "best.pt"} if checkpoints else set())
    first, *_ = entries = furnished.entries()
    expected = {entry.trial_id: result if number < len(RESULTS) else always for number, entry in enumerate(entries)}
    expected[f".{first.trial_id}.incoming"] = {"checkpoint.pt"}
    (no_more,) = {name.partition("/")[0] for name in before} - expected.keys()
    all_of_it = {name.partition("/")[2] for name in before if name.startswith(no_more)}
    expected[no_more] = all_of_it if removed else result
    assert gone(furnished, before) == expected
    assert (furnished.path / "trials" / no_more).exists() is not removed
    for number, entry in enumerate(entries):
        trial = furnished.trial(entry.trial_id)
        assert len(trial.epochs()) == 3
        assert len(trial.sample_files()) == 2
        assert trial.log_file.exists()
        assert len(TrialStore(trial.path / "attempts" / "1").epochs()) == 3
        assert trial.status().state is [*RESULTS, *UNFINISHED][number]
        assert trial.best_file.exists() is (number >= len(RESULTS) or not checkpoints)

    assert command_line(*common)[1] == "0.0 kB freed.\n"  # the second time


def test_what_pruning_leaves_can_be_shown_exported_and_mirrored(
    furnished: SweepStore, tracking_uri: str, command_line: CommandLine
) -> None:
    common = ["--runs-dir", furnished.runs_dir]
    table = command_line("export", "hand", *common)
    prune(prunable(furnished, checkpoints=True, removed=True))
    assert command_line("export", "hand", *common) == table
    for command in ("status", "sync"):
        code, _, errors = command_line(command, "hand", *common)
        assert (code, errors) == (0, "")


def test_links_are_deleted_and_not_what_they_lead_to(furnished: SweepStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.pt"
    elsewhere.write_bytes(bytes(100))
    link = furnished.trial(furnished.entries()[0].trial_id).previous_checkpoint_file
    link.unlink()
    link.symlink_to(elsewhere)
    prune(prunable(furnished, checkpoints=False, removed=False))
    assert not os.path.lexists(link)
    assert elsewhere.exists()


def test_pruning_a_sweep_that_is_being_driven_is_refused(furnished: SweepStore, command_line: CommandLine) -> None:
    from orchestrator.store.lock import driver_lock

    before = contents(furnished.path / "trials")
    with driver_lock(furnished):
        code, _, errors = command_line("prune", "hand", "--runs-dir", furnished.runs_dir)
    assert code == 2
    assert "'hand' is already running" in errors
    assert contents(furnished.path / "trials") == before


def test_pruning_an_unknown_sweep_names_the_nearest(furnished: SweepStore, command_line: CommandLine) -> None:
    code, out, errors = command_line("prune", "hadn", "--runs-dir", furnished.runs_dir)
    assert (code, out) == (2, "")
    assert "did you mean 'hand'?" in errors


def reach_by_a_link(furnished: SweepStore, tmp_path: Path, what: str) -> Path:
    """Puts a folder with a trial's files outside of the runs directory, with a link to it. Returns the folder."""
    entry = furnished.entries()[0]
    trial = furnished.trial(entry.trial_id).path
    outside = tmp_path / "outside"
    if what == "attempts":
        outside.mkdir()
        (outside / "1").mkdir()
        (outside / "1" / "checkpoint.pt").write_bytes(bytes(10))
        shutil.rmtree(trial / "attempts", ignore_errors=True)
        (trial / "attempts").symlink_to(outside)
        return outside
    shutil.copytree(trial, outside)
    if what == "the trial":
        shutil.rmtree(trial)
        trial.symlink_to(outside)
    elif what == "trials":
        shutil.rmtree(outside)
        (furnished.path / "trials").rename(outside)
        (furnished.path / "trials").symlink_to(outside)
    else:  # a trial that is not in the plan, or half of a copy
        (trial.parent / what).symlink_to(outside)
    return outside


@pytest.mark.parametrize(
    "what", ["attempts", "the trial", "trials", "0123456789ab", ".0123456789ab.incoming", ".0123456789ab.replaced"]
)
def test_nothing_is_deleted_that_a_link_leads_to(furnished: SweepStore, tmp_path: Path, what: str) -> None:
    outside = reach_by_a_link(furnished, tmp_path, what)
    before = {path: path.is_file() and path.read_bytes() for path in outside.rglob("*")}
    assert before
    if what != "trials":  # of a running trial it writes the state
        furnished.mend()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prune(prunable(furnished, checkpoints=True, removed=True))
    assert {path: path.is_file() and path.read_bytes() for path in outside.rglob("*")} == before
    assert what.startswith(".") or any("is left alone" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("trial_id", ["../../../outside", "{outside}", "..", "", "0123456789AB"])
def test_no_trial_of_a_plan_leads_out_of_the_sweep(furnished: SweepStore, tmp_path: Path, trial_id: str) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(furnished.trial(furnished.entries()[0].trial_id).path, outside)
    before = sorted(outside.rglob("*"))
    plan = json.loads((furnished.path / "plan.json").read_text())
    plan["trials"][0]["trial_id"] = trial_id.format(outside=outside)
    (furnished.path / "plan.json").write_text(json.dumps(plan))
    with pytest.warns(UserWarning, match="not twelve hex digits, and is left out; run the sweep file again"):
        assert len(furnished.entries()) == len(plan["trials"]) - 1
    prune(prunable(furnished, checkpoints=True, removed=True))
    assert sorted(outside.rglob("*")) == before


def test_what_cannot_be_deleted_is_told_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    path.write_bytes(bytes(10))
    assert size_of(path) == 10
    busy = Path("/proc/self/status")  # nobody deletes that
    other = tmp_path / "other"
    other.write_bytes(bytes(5))
    freed, problems = prune([path, busy, other])
    assert freed == 15
    assert [problem.partition(" cannot be deleted: ")[0] for problem in problems] == ["/proc/self/status"]
    assert not path.exists()
    assert not other.exists()

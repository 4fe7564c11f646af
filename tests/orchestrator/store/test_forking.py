"""Longer budgets from finished trials: equal to the bit to trials that started from scratch; and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from hand_made import finish, make_sweep, plan_file, write_file
from mlflow_dump import dump, points_of
from small_trials import assert_equal_to_the_bit, assert_same_state, contents, run, without_timings

from orchestrator.driver.preparation import prepare
from orchestrator.errors import UserError
from orchestrator.store.forking import ancestors, tell_ancestors
from orchestrator.store.selection import Selection
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.mirror import Mirror

SWEEP = """\
name: {name}
base:
  - dataset=digits
  - evaluation=none
  - network.generator_widths=[16]
  - network.critic_widths=[16]
  - network.dropout=0.3
  - generator.ema=0.9
  - device=cpu
  - checkpoint_epochs=1
  - budget={budget}
  - evaluation.times={times}
grid: {{critic_iterations: [{grid}]}}
compare: {{metric: critic_loss, mode: min}}
"""
POINTS = """\
name: {name}
base:
  - dataset=mixture
  - batch_size=8
  - network.generator_widths=[8]
  - network.critic_widths=[8]
  - device=cpu
  - budget={budget}
  - evaluation.times={times}
grid: {{critic_iterations: [{grid}]}}
"""


def sweep(folder: Path, name: str, budget: int, times: int = 1, text: str = SWEEP, grid: str = "2") -> SweepStore:
    return make_sweep(folder, text.format(name=name, budget=budget, times=times, grid=grid))


def continued(folder: Path, name: str, origin: str, budget: int, times: int = 1, **changes: str) -> SweepStore:
    """A longer sweep that continues another."""
    text = changes.pop("text", SWEEP) + f"continue_from: {origin}\n"
    return sweep(folder, name, budget, times, text, **changes)


def trials(store: SweepStore) -> list[TrialStore]:
    return [store.trial(entry.trial_id) for entry in store.entries()]


def run_all(store: SweepStore) -> list[TrialStore]:
    """Prepares a sweep as a driver does, and runs its trials one after the other."""
    for trial_id in prepare(store):
        assert run(store.trial(trial_id)) is State.DONE, store.trial(trial_id).status().error
    return trials(store)


@dataclass
class Forked:
    """A finished sweep, a longer one that continued it, and the longer one's twin that started from scratch."""

    short: TrialStore
    long: TrialStore
    twin: TrialStore
    store: SweepStore
    before: dict[str, bytes]
    source: Path


def forked(folder: Path, short: tuple[int, int], long: tuple[int, int], text: str = SWEEP) -> Forked:
    """Budget and number of evaluations, of the shorter and of the longer sweep."""
    source = sweep(folder, "short", *short, text=text)
    (begun,) = run_all(source)
    before = contents(source.path)
    store = continued(folder, "long", "short", *long, text=text)
    (finished,) = run_all(store)
    (twin,) = run_all(sweep(folder / "twin", "long", *long, text=text))
    return Forked(begun, finished, twin, store, before, source.path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Forked:
    """From two epochs of 20 critic iterations to four and a half, evaluated every ten."""
    return forked(tmp_path_factory.mktemp("whole"), (40, 4), (90, 9))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Forked:
    """From an epoch and a half to three."""
    return forked(tmp_path_factory.mktemp("cut"), (30, 3), (60, 6))


def test_from_whole_epochs_everything_equals_an_undisturbed_trial_to_the_bit(whole: Forked) -> None:
    assert whole.long.trial_id == whole.twin.trial_id != whole.short.trial_id
    assert whole.long.status().attempts[0].resumed_at == 40
    assert len(whole.long.epochs()) == 6
    assert_equal_to_the_bit(whole.long, whole.twin)


def test_the_epochs_that_were_there_are_the_same_lines(whole: Forked) -> None:
    short = whole.short.epochs()
    assert whole.long.epochs()[: len(short)] == short  # timestamps and timings too


def test_an_epoch_that_the_shorter_budget_cut_is_the_only_one_that_differs(cut: Forked) -> None:
    assert cut.long.status().attempts[0].resumed_at == 30
    assert_same_state(cut.long.checkpoint_file, cut.twin.checkpoint_file)
    ours, theirs = without_timings(cut.long), without_timings(cut.twin)
    assert [record["epoch"] for record in ours] == [record["epoch"] for record in theirs] == [0, 1, 2, 3]
    assert [record["iteration"] for record in ours] == [0, 20, 40, 60]
    differing = [mine["epoch"] for mine, yours in zip(ours, theirs, strict=True) if mine != yours]
    assert differing == [2]
    assert ours[2].keys() == theirs[2].keys()  # averaged over its rest
    for name in ("iteration", "critic_gradient_norm"):  # as it ended
        assert ours[2][name] == theirs[2][name]
    assert [file.name for file in cut.long.sample_files()] == [file.name for file in cut.twin.sample_files()]
    for mine, yours in zip(cut.long.sample_files(), cut.twin.sample_files(), strict=True):
        assert mine.read_bytes() == yours.read_bytes()


def test_exact_metrics_and_the_best_checkpoint_are_the_undisturbed_trial_s(tmp_path: Path) -> None:
    """17 iterations an epoch."""
    points = forked(tmp_path, (34, 2), (68, 4), text=POINTS)
    assert_equal_to_the_bit(points.long, points.twin)
    assert all("exact_w1" in record for record in points.long.epochs())
    assert_same_state(points.long.best_file, points.twin.best_file)
    assert points.long.references() == points.twin.references()


@pytest.mark.parametrize("kind", ["whole", "cut"])
def test_the_source_is_told_and_untouched(kind: str, request: pytest.FixtureRequest, tracking_uri: str) -> None:
    known: Forked = request.getfixturevalue(kind)
    iteration = 40 if kind == "whole" else 30
    origin = {"sweep": "short", "trial_id": known.short.trial_id, "iteration": iteration}
    status = known.long.status()
    assert (status.state, status.continued_from, status.copied_from) == (State.DONE, origin, None)
    assert [attempt.resumed_at for attempt in status.attempts] == [iteration]
    assert contents(known.source) == known.before
    assert f"begins at critic iteration {iteration}" in known.long.log_file.read_text().splitlines()[1]

    Mirror(known.store, tracking_uri).finish()
    (run,) = [run for name, run in dump(tracking_uri, "long").items() if name != "long"]
    assert run["tags"]["continued_from"] == f"short {known.short.trial_id} at critic iteration {iteration}"
    assert run["params"]["budget"] == str(known.long.config()["budget"])
    assert {point[1] for point in points_of(run)} == {record["epoch"] for record in known.long.epochs()}


def test_a_fork_that_was_stopped_and_one_whose_newest_checkpoint_is_damaged_go_on(
    whole: Forked, tmp_path: Path
) -> None:
    shutil.copytree(whole.source, tmp_path / "runs" / "short")
    store = continued(tmp_path, "long", "short", 90, 9)
    (trial_id,) = prepare(store)
    trial = store.trial(trial_id)
    (trial.path / "checkpoint.pt").write_bytes(b"damaged on the way")
    run(trial, after=7)
    assert trial.status().attempts[0].resumed_at == 20
    assert prepare(store) == [trial_id]  # and is not forked again
    assert run(trial) is State.DONE
    assert len(trial.status().attempts) == 2
    assert trial.status().continued_from is not None
    assert_equal_to_the_bit(trial, whole.twin)


def test_a_trial_that_continued_another_can_be_continued(tmp_path: Path) -> None:
    run_all(sweep(tmp_path, "first", 20))
    run_all(continued(tmp_path, "second", "first", 40))
    (trial,) = run_all(continued(tmp_path, "third", "second", 60))
    assert trial.status().attempts[0].resumed_at == 40
    (twin,) = run_all(sweep(tmp_path / "twin", "third", 60))
    assert_same_state(trial.checkpoint_file, twin.checkpoint_file)


def test_what_was_finished_in_full_is_copied_rather_than_continued(whole: Forked, tmp_path: Path) -> None:
    for path in (whole.source, whole.store.path):
        shutil.copytree(path, tmp_path / "runs" / path.name)
    store = continued(tmp_path, "again", "short", 90, 9)
    assert prepare(store) == []
    (trial,) = trials(store)
    assert (trial.status().state, trial.status().copied_from) == (State.DONE, "long")


def test_trials_without_an_ancestor_begin_at_nothing_and_are_counted(whole: Forked, tmp_path: Path) -> None:
    shutil.copytree(whole.source, tmp_path / "runs" / "short")
    store = continued(tmp_path, "long", "short", 90, 9, grid="2, 3")
    told: list[str] = []
    tell_ancestors(store.runs, plan_file(store.path / "sweep.yaml"), told.append)
    assert told == ["1 trials continue finished trials of 'short'; 1 have no match there and start from scratch"]
    assert len(prepare(store)) == 2
    assert [trial.status().continued_from is not None for trial in trials(store)] == [True, False]


def test_a_restart_begins_a_fork_again_from_nothing(whole: Forked, tmp_path: Path) -> None:
    shutil.copytree(whole.source, tmp_path / "runs" / "short")
    store = continued(tmp_path, "long", "short", 90, 9)
    (trial_id,) = prepare(store)
    trial = store.trial(trial_id)
    run(trial, after=7)
    trial.set_state(State.FAILED, "out of paper")
    assert prepare(store, selection=Selection(restart=True)) == [trial_id]
    assert run(trial) is State.DONE
    assert trial.status().attempts[0].resumed_at == 0
    assert trial.status().continued_from is None
    assert_equal_to_the_bit(trial, whole.twin)


# --- which one, by hand-made sweeps ---------------------------------------------------------------------------------


def by_hand(folder: Path, budget: int, name: str = "short", state: State = State.DONE, **changes: Any) -> SweepStore:
    """A sweep whose trials have ended, with some file as checkpoint."""
    store = sweep(folder, name, budget, **changes)
    for entry in store.entries():
        finish(store, entry, {"critic_loss": 0.5}, state=state, error=None if state is State.DONE else "why")
        store.trial(entry.trial_id).checkpoint_file.touch()
    return store


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({}, True, id="a smaller budget"),
        pytest.param({"times": 7}, True, id="other evaluations too"),
        pytest.param({"grid": "3"}, False, id="another option too"),
        pytest.param({"state": State.STOPPED}, False, id="stopped early"),
        pytest.param({"state": State.DIVERGED}, False, id="diverged"),
        pytest.param({"state": State.FAILED}, False, id="failed"),
        pytest.param({"budget": 90}, False, id="as long"),
        pytest.param({"budget": 100}, False, id="longer"),
        pytest.param({"text": SWEEP.replace("checkpoint_epochs=1", "checkpoint_seconds=1")}, True, id="run otherwise"),
    ],
)
def test_a_trial_continues_one_that_is_done_and_differs_in_a_smaller_budget_alone(
    tmp_path: Path, changes: dict[str, Any], found: bool
) -> None:
    by_hand(tmp_path, **({"budget": 40} | changes))
    store = continued(tmp_path, "long", "short", 90)
    assert bool(ancestors(store)) is found
    if not found:
        with pytest.raises(UserError, match="no trial here can continue one of 'short'"):
            tell_ancestors(store.runs, plan_file(store.path / "sweep.yaml"), lambda text: None)


def test_the_longest_of_several_budgets_is_taken(tmp_path: Path) -> None:
    axis = SWEEP.replace("budget={budget}", "budget=1").replace("grid: {{", "grid: {{budget: [20, 60, 40], ")
    source = by_hand(tmp_path, 1, text=axis)
    store = continued(tmp_path, "long", "short", 90)
    (ancestor,) = ancestors(store).values()
    assert ancestor.trial.config()["budget"] == 60
    assert ancestor.trial.trial_id == source.entries()[1].trial_id


LONGER = SWEEP.format(name="long", budget=90, times=1, grid="2")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("shrot", "there is no sweep called 'shrot' in '{runs_dir}'; did you mean 'short'?"),
        ("long", "continue_from=long: a sweep cannot continue itself; name this one with --name"),
        ("../short", "continue_from: '../short' is not a name"),
        ("pruned", "continue_from: no trial here can continue one of 'pruned'. That takes a finished trial"),
        ("longer", "continue_from: no trial here can continue one of 'longer'. That takes a finished trial"),
    ],
)
@pytest.mark.parametrize("given", ["in the file", "on the command line"])
def test_what_cannot_be_continued_is_refused_in_one_paragraph_and_nothing_starts(
    tmp_path: Path, command_line: CommandLine, name: str, told: str, given: str
) -> None:
    short = by_hand(tmp_path, 40)
    pruned = by_hand(tmp_path, 40, name="pruned")
    by_hand(tmp_path, 100, name="longer")
    code, *_ = command_line("prune", "pruned", "--checkpoints", "--runs-dir", pruned.runs_dir)
    assert code == 0
    before = contents(short.runs_dir)
    in_file = given == "in the file"
    path = write_file(tmp_path, LONGER + (f"continue_from: {name}\n" if in_file else ""))
    arguments = [] if in_file else [f"continue_from={name}"]
    code, out, errors = command_line("sweep", path, *arguments, "--offline", "--runs-dir", short.runs_dir)
    assert code == 2
    assert told.format(runs_dir=short.runs_dir) in errors
    assert errors.startswith("orchestrator: ")
    assert errors.count("\n") == 1
    assert "starting" not in out
    now = contents(short.runs_dir)
    assert {file: content for file, content in now.items() if not file.startswith("long/")} == before
    assert not any(trial.status().attempts for trial in map(TrialStore, (short.runs_dir / "long").glob("trials/*")))


def test_a_sweep_that_was_refused_runs_when_what_it_continues_is_there(tmp_path: Path, whole: Forked) -> None:
    store = continued(tmp_path, "long", "short", 90, 9)
    with pytest.raises(UserError, match="no sweep called 'short'"):
        prepare(store)
    shutil.copytree(whole.source, tmp_path / "runs" / "short")
    (trial_id,) = prepare(store)
    assert store.trial(trial_id).status().continued_from is not None
    assert torch.load(store.trial(trial_id).checkpoint_file, weights_only=True)["identity"] == whole.short.trial_id


def test_continuing_can_be_told_on_the_command_line_and_needs_no_name_of_its_own(tmp_path: Path) -> None:
    path = write_file(tmp_path, LONGER)
    plan = plan_file(path, "continue_from=short")
    assert (plan.name, plan.continue_from) == ("long", "short")
    assert [trial.trial_id for trial in plan.trials] == [trial.trial_id for trial in plan_file(path).trials]


def test_a_sweep_that_cannot_continue_another_is_not_begun(tmp_path: Path, command_line: CommandLine) -> None:
    write_file(tmp_path, SWEEP.format(name="long", budget=90, times=1, grid="2"))
    for origin in ("nosuch", "short"):
        if origin == "short":
            by_hand(tmp_path, 40, state=State.FAILED)
            write_file(tmp_path, SWEEP.format(name="long", budget=90, times=1, grid="2"))
        words = [f"continue_from={origin}", "--offline", "--runs-dir", tmp_path / "runs"]
        code, _, errors = command_line("sweep", tmp_path / "sweep.yaml", *words)
        assert code == 2
        assert origin in errors
        assert not (tmp_path / "runs" / "long" / "plan.json").exists()

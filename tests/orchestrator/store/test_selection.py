"""Which trials ``orchestrator resume`` runs, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import TWO_CELLS, finish, make_sweep
from small_trials import contents

from orchestrator.driver.preparation import prepare
from orchestrator.store.selection import Selection, select
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore

STATES = [State.PENDING, State.RUNNING, State.DONE, State.STOPPED, State.DIVERGED, State.FAILED, State.LOST]


@pytest.fixture
def every_state(tmp_path: Path) -> dict[State, str]:
    """A sweep with a trial in each state, all but PENDING with epochs; their ids."""
    store = make_sweep(tmp_path, TWO_CELLS.replace("[1, 2]", "[1]").replace("seeds: 2", f"seeds: {len(STATES)}"))
    for entry, state in zip(store.entries(), STATES, strict=True):
        if state is not State.PENDING:
            finish(store, entry, {"exact_w1": 0.5}, state=state, error="why")
            store.trial(entry.trial_id).checkpoint_file.touch()
    return {state: entry.trial_id for entry, state in zip(store.entries(), STATES, strict=True)}


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    return SweepStore(tmp_path / "runs", "hand")


ALWAYS = {State.PENDING, State.FAILED, State.LOST, State.RUNNING}  # RUNNING without a driver is LOST


@pytest.mark.parametrize("restart", [False, True], ids=["going on", "from the start"])
@pytest.mark.parametrize(
    ("only", "retry_diverged", "taken"),
    [
        ([], False, ALWAYS),
        (["failed"], False, {State.FAILED}),
        (["LOST"], False, {State.LOST, State.RUNNING}),
        (["Pending"], False, {State.PENDING}),
        (["failed", "lost"], False, {State.FAILED, State.LOST, State.RUNNING}),
        ([], True, ALWAYS | {State.DIVERGED}),
        (["failed"], True, {State.FAILED, State.DIVERGED}),
    ],
    ids=["all", "failed", "lost", "pending", "failed and lost", "all and diverged", "failed and diverged"],
)
def test_what_is_to_run_is_what_has_no_result_and_was_asked_for(
    store: SweepStore,
    every_state: dict[State, str],
    only: list[str],
    retry_diverged: bool,
    taken: set[State],
    restart: bool,
) -> None:
    before = {state: contents(store.trial(trial_id).path) for state, trial_id in every_state.items()}
    selection = select(store, only, [], restart=restart, retry_diverged=retry_diverged)
    todo = prepare(store, selection=selection)
    assert todo == [trial_id for state, trial_id in every_state.items() if state in taken]
    for state, trial_id in every_state.items():
        trial = store.trial(trial_id)
        if restart and state in taken - {State.PENDING}:
            assert trial.status() == Status(restarts=1)
            assert trial.epochs() == []
            assert not trial.checkpoint_file.exists()
            assert len(TrialStore(trial.path / "attempts" / "1").epochs()) == 3
        elif state is State.RUNNING:
            assert trial.status().state is State.LOST
        elif state is State.DIVERGED and state in taken:
            assert trial.status().state is State.PENDING
            assert len(trial.epochs()) == 3
        else:
            assert contents(trial.path) == before[state]


@pytest.mark.parametrize("state", sorted(ALWAYS | {State.DIVERGED}))
def test_a_trial_is_named_by_its_id_or_the_first_digits(
    store: SweepStore, every_state: dict[State, str], state: State
) -> None:
    trial_id = every_state[state]
    others = {other[:length] for other in every_state.values() if other != trial_id for length in range(1, 13)}
    shortest = next(trial_id[:length] for length in range(1, 13) if trial_id[:length] not in others)
    for text in (trial_id, shortest):
        selection = select(store, [], [text], restart=False, retry_diverged=True)
        assert selection.trial_ids == {trial_id}
        assert prepare(store, selection=selection) == [trial_id]


def test_several_trials_and_states_are_those_that_fit_both(store: SweepStore, every_state: dict[State, str]) -> None:
    chosen = [every_state[state] for state in (State.FAILED, State.LOST, State.PENDING)]
    selection = select(store, ["failed", "pending"], chosen, restart=False, retry_diverged=False)
    assert selection == Selection(frozenset({State.FAILED, State.PENDING}), frozenset(chosen))
    assert prepare(store, selection=selection) == [every_state[State.PENDING], every_state[State.FAILED]]


def test_a_restart_begins_a_trial_again_whose_state_was_damaged(
    store: SweepStore, every_state: dict[State, str]
) -> None:
    trial = store.trial(every_state[State.FAILED])
    (trial.path / "status.json").write_text("{")
    selection = select(store, [], [trial.trial_id], restart=True, retry_diverged=False)
    assert prepare(store, selection=selection) == [trial.trial_id]
    assert not trial.checkpoint_file.exists()
    assert trial.epochs() == []


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(command_line: CommandLine, store: SweepStore, *arguments: str) -> str:
    """The message of a resume that is refused with exit code 2 and changes no file."""
    before = contents(store.runs_dir)
    code, out, errors = command_line("resume", *arguments, "--offline", "--runs-dir", store.runs_dir)
    assert (code, out) == (2, "")
    assert errors.startswith("orchestrator: ")
    assert errors.count("\n") == 1
    assert contents(store.runs_dir) == before
    return errors.removeprefix("orchestrator: ").rstrip()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hnad"], "there is no sweep called 'hnad' in '{runs_dir}'; did you mean 'hand'?"),
        (["hand", "--only", "faild"], "--only: 'faild' is not a state that can be resumed; did you mean 'failed'?"),
        (["hand", "--only", "LSOT"], "--only: 'LSOT' is not a state that can be resumed; did you mean 'lost'?"),
        (["hand", "--only", "done"], "--only: 'done' is not a state that can be resumed"),
        (["hand", "--only", "diverged"], "--only: 'diverged' is not a state that can be resumed"),
        (["hand", "--only", "failed", "--only", ""], "--only: '' is not a state that can be resumed"),
        (["hand", "--trial", "{failed}x"], "--trial {failed}x: this sweep has no such trial; did you mean '{failed}'?"),
        (["hand", "--trial", ""], "--trial : this sweep has no such trial"),
        (["hand", "--trial", "{done}"], "--trial {done}: the trial already has its result (DONE)"),
        (["hand", "--trial", "{stopped}"], "--trial {stopped}: the trial already has its result (STOPPED)"),
        (
            ["hand", "--trial", "{stopped}", "--restart"],
            "--trial {stopped}: the trial already has its result (STOPPED)",
        ),
        (
            ["hand", "--trial", "{diverged}"],
            "--trial {diverged}: the trial has diverged; add --retry-diverged to run it again",
        ),
        (["hand", "--trial", "{failed}", "--trial", "nothing"], "--trial nothing: this sweep has no such trial"),
    ],
    ids=str,
)
def test_what_cannot_be_resumed_is_refused_in_one_paragraph(
    store: SweepStore, every_state: dict[State, str], command_line: CommandLine, arguments: list[str], told: str
) -> None:
    known = {str(state).lower(): trial_id for state, trial_id in every_state.items()} | {"runs_dir": store.runs_dir}
    errors = refused(command_line, store, *(argument.format_map(known) for argument in arguments))
    assert errors.startswith(told.format_map(known))


def test_a_state_that_can_be_resumed_is_named_where_nothing_is_near(
    store: SweepStore, every_state: dict[State, str], command_line: CommandLine
) -> None:
    errors = refused(command_line, store, "hand", "--only", "xyz")
    assert all(state in errors for state in ("failed", "lost", "pending"))


def test_digits_that_several_trials_begin_with_are_refused_with_their_ids(
    tmp_path: Path, command_line: CommandLine
) -> None:
    """Of 17 trial ids two begin with the same of the 16 digits."""
    store = make_sweep(tmp_path, TWO_CELLS.replace("[1, 2]", "[1]").replace("seeds: 2", "seeds: 17"))
    ids = [entry.trial_id for entry in store.entries()]
    first, _ = next(pair for pair in itertools.combinations(ids, 2) if pair[0][0] == pair[1][0])
    told = refused(command_line, store, "hand", "--trial", first[0])
    matches = ", ".join(each for each in ids if each.startswith(first[0]))
    assert told == f"--trial {first[0]}: matches several trials: {matches}"


def test_where_there_are_too_many_trials_to_name_the_command_that_lists_them_is_told(
    tmp_path: Path, command_line: CommandLine
) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("[1, 2]", "[1]").replace("seeds: 2", "seeds: 21"))
    told = refused(command_line, store, "hand", "--trial", "nothing")
    listing = f"orchestrator status hand --runs-dir {store.runs_dir}"
    assert told == f"--trial nothing: this sweep has no such trial; {listing} lists them"


def test_offline_does_not_go_with_a_tracking_uri(
    store: SweepStore, every_state: dict[State, str], command_line: CommandLine
) -> None:
    told = refused(command_line, store, "hand", "--tracking-uri", "sqlite:///other.db")
    assert told == "--offline writes nothing to MLflow, so it cannot be combined with --tracking-uri"


def test_a_selection_that_nothing_fits_starts_nothing_and_says_what_is_left(
    store: SweepStore, every_state: dict[State, str], command_line: CommandLine
) -> None:
    arguments = ["hand", "--only", "pending", "--trial", every_state[State.FAILED]]
    code, out, errors = command_line("resume", *arguments, "--offline", "--runs-dir", store.runs_dir)
    assert (code, errors) == (1, "")
    assert "starting Ray" not in out
    assert out.splitlines()[-1].startswith("Some trials did not finish; go on with: orchestrator resume hand")

"""A sweep's directory, which is the only truth about what has happened."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hand_made import TWO_CELLS, finish, make_sweep, plan_file, write_file
from small_trials import assert_equal_to_the_bit, contents, create, run

from orchestrator.driver.preparation import prepare
from orchestrator.errors import UserError
from orchestrator.store.runs import sweep_names
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore

TINY = """\
name: tiny
base: [dataset=digits, evaluation=none, "network.generator_widths=[16]", "network.critic_widths=[16]", budget=50,
       device=cpu]
"""


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


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-20] + b"{"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\xfd"),
    "a list": lambda path: path.write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_configuration_is_said_and_planning_again_writes_it_anew(
    trial: TrialStore, damage: Callable[[Path], object]
) -> None:
    config = trial.config()
    damage(trial.path / "config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml: is missing or damaged; run the sweep file again"):
        trial.config()
    trial.create(config)
    assert trial.config() == config


def test_a_configuration_that_no_trial_can_have_is_left_out_of_the_sweeps(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS)
    first, second, third, fourth = (store.trial(entry.trial_id) for entry in store.entries())
    DAMAGES["torn"](first.path / "config.yaml")
    third.create({**third.config(), "budgt": 1})
    assert list(store.configs()) == [(trial.trial_id, trial.config()) for trial in (second, fourth)]
    assert [trial_id for trial_id, _ in store.configs([first.trial_id, fourth.trial_id])] == [fourth.trial_id]


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
            trial.write_status(Status(State.FAILED, [Attempt(pid=number)], long))
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


# --- what is damaged, and what was interrupted ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialStore, TrialStore]:
    """A trial that was stopped in its third epoch, and its undisturbed twin."""
    folder = tmp_path_factory.mktemp("small")
    stopped, twin = create(folder / "stopped"), create(folder / "twin")
    assert run(stopped, after=45) is State.RUNNING
    stopped.set_state(State.FAILED, "out of paper")
    assert run(twin) is State.DONE
    return stopped, twin


def copy_of(trial: TrialStore, path: Path) -> TrialStore:
    return TrialStore(Path(shutil.copytree(trial.path, path)))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut short"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda content: content[:50] + b"\xff" + content[51:], id="no text"),
        pytest.param(lambda content: b"null", id="nothing"),
        pytest.param(lambda content: b"{}", id="no state"),
        pytest.param(lambda content: content.replace(b'"FAILED"', b'"GAILED"', 1), id="an unknown state"),
        pytest.param(lambda content: content.replace(b'"restarts"', b'"ristarts"'), id="an unknown key"),
    ],
)
def test_a_damaged_status_is_lost_and_the_trial_goes_on_from_its_checkpoint(
    small: tuple[TrialStore, TrialStore], tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    stopped, twin = small
    trial = copy_of(stopped, tmp_path / "trial")
    path = trial.path / "status.json"
    path.write_bytes(spoil(path.read_bytes()))
    assert trial.status().state is State.LOST
    assert trial.status().error == "status.json was damaged"
    trial.create(trial.config())  # as the sweep file does when it is run again
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 45
    assert_equal_to_the_bit(trial, twin)


def test_no_flipped_bit_makes_a_status_unreadable(trial: TrialStore) -> None:
    """A flipped bit may change a letter of an error message; the test ignores that."""
    trial.write_status(Status(State.DONE, [Attempt(started=1.5, state="DONE")], "why", "other", {"sweep": "s"}, 1))
    path = trial.path / "status.json"
    content = bytearray(path.read_bytes())
    for position, bit in itertools.product(range(len(content)), range(8)):
        content[position] ^= 1 << bit
        path.write_bytes(content)
        assert isinstance(trial.status().state, State)
        content[position] ^= 1 << bit


def test_after_a_damaged_line_is_deleted_with_what_follows_the_trial_is_completed(
    small: tuple[TrialStore, TrialStore], tmp_path: Path
) -> None:
    stopped, twin = small
    trial = copy_of(stopped, tmp_path / "trial")
    lines = trial.metrics_file.read_bytes().splitlines(keepends=True)
    trial.metrics_file.write_bytes(b"".join([*lines[:2], lines[2][:-20] + b"\n"]))
    assert run(trial) is State.FAILED
    assert f"UserError: {trial.metrics_file}: a line is damaged" in (trial.status().error or "")
    trial.metrics_file.write_bytes(b"".join(lines[:2]))  # as it says
    assert run(trial) is State.DONE
    assert_equal_to_the_bit(trial, twin)


def test_epochs_of_a_finished_trial_that_were_deleted_are_computed_again(tmp_path: Path) -> None:
    """The error about a damaged line asks for it. Otherwise a table would show an earlier epoch as the last."""
    store = make_sweep(tmp_path, TINY)
    (trial_id,) = prepare(store)
    trial = store.trial(trial_id)
    assert run(trial) is State.DONE
    twin = copy_of(trial, tmp_path / "twin")
    assert prepare(store) == []
    lines = trial.metrics_file.read_bytes().splitlines(keepends=True)
    trial.metrics_file.write_bytes(b"".join(lines[:2]))
    told: list[str] = []
    assert prepare(store, told.append) == [trial_id]
    assert told == [f"{trial_id}: epochs that it had are missing; it has no result any more"]
    assert run(trial) is State.DONE
    assert_equal_to_the_bit(trial, twin)
    assert prepare(store) == []


def test_a_trial_whose_directory_was_deleted_is_left_out_and_told(store: SweepStore) -> None:
    gone, *others = store.entries()
    shutil.rmtree(store.trial(gone.trial_id).path)
    told: list[str] = []
    assert prepare(store, told.append) == [entry.trial_id for entry in others]
    (line,) = told
    assert str(store.trial(gone.trial_id).path) in line
    assert "run the sweep file again to create it" in line


@pytest.mark.parametrize("renames", range(6))
def test_a_restart_that_is_killed_half_way_leaves_a_trial_that_ends_alike(
    small: tuple[TrialStore, TrialStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    stopped, twin = small
    trial = copy_of(stopped, tmp_path / "trial")
    left = itertools.count(renames, -1)

    def rename(self: Path, target: Path) -> Path:
        if next(left) == 0:
            raise KeyboardInterrupt
        return original(self, target)

    original = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        if renames < 5:  # there are five things to put aside
            with pytest.raises(KeyboardInterrupt):
                trial.restart()
        else:
            trial.restart()
    before = [*trial.path.glob("attempts/*/*"), *trial.path.glob("[!a]*")]
    assert {path.name for path in before} >= {path.name for path in stopped.path.iterdir()}  # nothing is gone
    goes_on = trial.checkpoint_file.exists() or trial.previous_checkpoint_file.exists()
    assert goes_on is (renames < 2)
    assert run(trial) is State.DONE
    assert (trial.status().attempts[-1].resumed_at > 0) is goes_on
    assert not trial.log_file.exists() or "came out different" not in trial.log_file.read_text()
    assert_equal_to_the_bit(trial, twin)


def test_restarts_are_counted_and_each_keeps_what_it_put_aside(
    small: tuple[TrialStore, TrialStore], tmp_path: Path
) -> None:
    stopped, _ = small
    trial = copy_of(stopped, tmp_path / "trial")
    config = trial.config()
    trial.restart()
    trial.log("the second")
    trial.restart()
    assert (trial.status(), trial.config()) == (Status(restarts=2), config)
    assert sorted(path.name for path in trial.path.iterdir()) == ["attempts", "config.yaml", "status.json"]
    first, second = (TrialStore(trial.path / "attempts" / number) for number in "12")
    kept = contents(stopped.path, "config.yaml")
    assert contents(first.path) == kept
    assert second.log_file.read_text().endswith("the second\n")


def test_mending_makes_what_a_dead_driver_left_lost_or_stopped(store: SweepStore) -> None:
    running, told_to_stop, done, failed = (store.trial(entry.trial_id) for entry in store.entries())
    for trial in (running, told_to_stop):
        trial.set_state(State.RUNNING)
    for trial in (told_to_stop, done):
        trial.early_stop_file.write_text("{}")
    done.set_state(State.DONE)
    failed.set_state(State.FAILED, "out of paper")
    for _ in range(2):  # the second time there is nothing to do
        store.mend()
        assert running.status() == Status(State.LOST, error="the driver of an earlier run died")
        assert told_to_stop.status() == Status(State.STOPPED)
        assert done.status() == Status(State.DONE)
        assert failed.status() == Status(State.FAILED, error="out of paper")


def test_mending_a_directory_without_a_plan_does_nothing(tmp_path: Path) -> None:
    store = SweepStore(tmp_path, "never")
    store.mend()
    store.make()
    store.mend()
    assert [path.name for path in store.path.iterdir()] == ["driver.lock"]


def test_trials_that_left_the_plan_are_known_and_half_written_ones_are_none(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    before = store.entries()
    assert store.removed() == []
    store.write_plan(plan_file(write_file(tmp_path, TWO_CELLS.replace("[1, 2]", "[2]"))))
    gone = sorted(entry.trial_id for entry in before if entry.axes["penalty.weight"] == 1)
    for suffix in ("incoming", "replaced"):
        (store.path / "trials" / f".{before[0].trial_id}.{suffix}").mkdir()
    assert [trial.trial_id for trial in store.removed()] == gone
    store.write_plan(plan_file(write_file(tmp_path, TWO_CELLS)))
    assert store.removed() == []  # and are taken up again


@pytest.fixture
def begun(tmp_path: Path) -> tuple[SweepStore, SweepStore, Entry]:
    """A sweep that has finished a trial, and another sweep that has the same trial."""
    first, other = make_sweep(tmp_path), make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: other"))
    entry = first.entries()[0]
    finish(first, entry, {"exact_w1": 0.5})
    first.trial(entry.trial_id).checkpoint_file.write_bytes(b"a checkpoint")
    return first, other, entry


def take(first: SweepStore, other: SweepStore, entry: Entry, how: str) -> None:
    if how == "copied":
        other.copy_finished(entry)
    else:
        other.fork(entry, first.trial(entry.trial_id), sweep="hand", iteration=17, whole_epochs=1)


@pytest.mark.parametrize("how", ["copied", "forked"])
@pytest.mark.parametrize("left", ["half a copy", "both", "the old one put away", "the new one in place"])
def test_taking_a_trial_from_another_sweep_recovers_from_having_been_killed(
    begun: tuple[SweepStore, SweepStore, Entry], tmp_path: Path, how: str, left: str
) -> None:
    """At each step: copying, moving the old directory away, moving the new one to its place, deleting the old one."""
    first, other, entry = begun
    ours = other.trial(entry.trial_id).path
    incoming, replaced = (ours.with_name(f".{entry.trial_id}.{name}") for name in ("incoming", "replaced"))
    if left == "half a copy":
        incoming.mkdir()
        (incoming / "junk").touch()
    elif left == "both":
        shutil.copytree(first.trial(entry.trial_id).path, incoming)
        ours.rename(replaced)
    elif left == "the old one put away":
        ours.rename(replaced)
    else:
        shutil.copytree(ours, replaced)
        (replaced / "junk").touch()
    other.mend()
    assert other.trial(entry.trial_id).status().state is State.PENDING
    assert other.trial(entry.trial_id).config()["seed"] == entry.seed
    take(first, other, entry, how)
    expected = tmp_path / "expected"
    fresh = make_sweep(expected, TWO_CELLS.replace("name: hand", "name: other"))
    shutil.copytree(first.path, fresh.runs_dir / "hand")
    take(SweepStore(fresh.runs_dir, "hand"), fresh, entry, how)
    assert contents(other.path / "trials") == contents(fresh.path / "trials")
    assert not incoming.exists()
    assert not replaced.exists()


@pytest.mark.parametrize("how", ["copied", "forked"])
def test_a_trial_that_cannot_be_taken_whole_is_not_taken(begun: tuple[SweepStore, SweepStore, Entry], how: str) -> None:
    first, other, entry = begun
    before = contents(other.path)
    checkpoint = first.trial(entry.trial_id).checkpoint_file
    checkpoint.unlink()
    checkpoint.symlink_to("nowhere")  # what cannot be read
    if how == "copied":  # then the trial runs here
        with pytest.warns(UserWarning, match=r"checkpoint\.pt: is a link or no file; until then .* not copied"):
            take(first, other, entry, how)
    else:
        with pytest.raises(OSError, match="is a link or no file"):
            take(first, other, entry, how)
    assert {name: content for name, content in contents(other.path).items() if ".incoming" not in name} == before


@pytest.mark.parametrize("how", ["copied", "forked"])
def test_taking_a_trial_keeps_what_restarts_have_put_aside(
    begun: tuple[SweepStore, SweepStore, Entry], how: str
) -> None:
    """And the number of restarts, by which MLflow's run of the old attempt is deleted."""
    first, other, entry = begun
    trial = other.trial(entry.trial_id)
    trial.write_status(Status(State.FAILED, [Attempt(started=1.5)], "out of paper"))
    trial.log("the first attempt")
    trial.restart()
    take(first, other, entry, how)
    assert trial.status().restarts == 1
    assert (trial.path / "attempts" / "1" / "log.txt").read_text().endswith("the first attempt\n")

"""What surrounds a run: the lock, the signals, the choice of trials, and the verdict at the end."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from command_line import wait_until
from hand_made import TWO_CELLS, finish, make_sweep, plan_file, write_file
from mlflow_dump import dump
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.driver.preparation import prepare
from orchestrator.driver.resources import needed_resources
from orchestrator.driver.run import run_sweep
from orchestrator.driver.signals import signals
from orchestrator.engine.tune import check_address
from orchestrator.errors import Aborted, UserError
from orchestrator.store.selection import Selection
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.sweep.file import Resources
from orchestrator.tracking.address import default_uri
from orchestrator.tracking.mirror import VERDICT_TAG


def options(store: SweepStore) -> Options:
    return Options(default_uri(store.runs_dir))


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


@pytest.mark.parametrize("state", State)
def test_a_run_takes_the_trials_without_a_result(store: SweepStore, state: State) -> None:
    first, *others = store.entries()
    store.trial(first.trial_id).set_state(state, "why")
    todo = prepare(store)
    assert todo == [*([] if state.is_result else [first.trial_id]), *(entry.trial_id for entry in others)]
    after = store.trial(first.trial_id).status()
    assert after.state is (State.LOST if state is State.RUNNING else state)  # its driver died with it


def test_a_restart_trains_the_trials_without_a_result_from_scratch(store: SweepStore) -> None:
    done, failed, never, lost = store.entries()
    finish(store, done, {"exact_w1": 0.5})
    for entry, state in ((failed, State.FAILED), (lost, State.RUNNING)):
        finish(store, entry, {"exact_w1": 0.5}, state=state, error="out of paper")
    before = store.trial(failed.trial_id).epochs()
    assert prepare(store, selection=Selection(restart=True)) == [failed.trial_id, never.trial_id, lost.trial_id]
    assert store.trial(done.trial_id).status().state is State.DONE
    for entry in (failed, lost):
        trial = store.trial(entry.trial_id)
        assert (trial.status().state, trial.status().attempts, trial.epochs()) == (State.PENDING, [], [])
        assert trial.config()["seed"] == entry.seed
        assert trial.sample_files() == []
    old = TrialStore(store.trial(failed.trial_id).path / "attempts" / "1")
    assert old.epochs() == before
    assert (old.status().state, old.status().error) == (State.FAILED, "out of paper")


def test_a_trial_that_another_sweep_has_finished_is_copied_with_a_message(tmp_path: Path, tracking_uri: str) -> None:
    other = make_sweep(tmp_path)
    for entry in other.entries():
        finish(other, entry, {"exact_w1": 0.5})
    store = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: more").replace("[1, 2]", "[2, 3]"))
    told: list[str] = []
    todo = prepare(store, told.append)
    taken = [entry for entry in store.entries() if entry.axes["penalty.weight"] == 2]
    assert todo == [entry.trial_id for entry in store.entries() if entry not in taken]
    assert all(f"{entry.trial_id}: finished in sweep 'hand'" in "\n".join(told) for entry in taken)

    conclude(store, MirrorThread(store, tracking_uri), console(), options(store))
    assert len(dump(tracking_uri, "more")) == 1 + len(taken)  # runs of its own


def test_a_finished_sweep_starts_nothing(store: SweepStore, tracking_uri: str) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5 + entry.seed})
    before = {path: path.read_bytes() for path in (store.path / "trials").rglob("*") if path.is_file()}
    shown = console()
    assert run_sweep(store, Options(tracking_uri), shown) == 0
    assert {path: path.read_bytes() for path in (store.path / "trials").rglob("*") if path.is_file()} == before
    assert "starting" not in text_of(shown)
    assert "hand: 4 DONE" in text_of(shown)
    assert dump(tracking_uri, "hand")["hand"]["status"] == "FINISHED"


def test_the_verdict_is_the_first_line_after_the_table_and_a_tag_of_the_parent_run(
    store: SweepStore, tracking_uri: str
) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5 + entry.axes["penalty.weight"] + 0.01 * entry.seed})
    shown = console()
    assert conclude(store, MirrorThread(store, tracking_uri), shown, options(store)) == 0
    told = "hand weight=1 has the lowest exact_w1, 1.50 ± 0.01 over 2 seeds; the other cell is worse beyond chance."
    table, _, rest = text_of(shown).partition(told)
    assert table.splitlines()[-1].strip(" \n") == ""
    assert "real training images" in " ".join(table.split())  # the table's last row
    assert rest.splitlines()[1].startswith("bold: the best, with every other cell told apart from it")
    assert dump(tracking_uri, "hand")["hand"]["tags"][VERDICT_TAG] == told


def test_a_sweep_of_which_nothing_has_a_value_has_no_verdict(store: SweepStore, tracking_uri: str) -> None:
    for entry in store.entries():
        store.trial(entry.trial_id).set_state(State.FAILED, "why")
    assert conclude(store, MirrorThread(store, tracking_uri), console(), options(store)) == 1
    assert VERDICT_TAG not in dump(tracking_uri, "hand")["hand"]["tags"]


@pytest.mark.parametrize(
    ("states", "interrupted", "code", "counts"),
    [
        pytest.param(["DONE"] * 4, False, 0, "4 DONE", id="all done"),
        pytest.param(
            ["DONE", "DIVERGED", "STOPPED", "DONE"], False, 0, "1 DIVERGED, 2 DONE, 1 STOPPED", id="diverged: a result"
        ),
        pytest.param(["DONE", "FAILED", "DONE", "DONE"], False, 1, "1 FAILED, 3 DONE", id="one failed"),
        pytest.param(["LOST", "DONE", "DONE", "DONE"], False, 1, "1 LOST, 3 DONE", id="one lost"),
        pytest.param(["PENDING", "DONE", "DONE", "PENDING"], True, 130, "2 DONE, 2 PENDING", id="interrupted"),
        pytest.param(["DONE"] * 4, True, 0, "4 DONE", id="interrupted when all was done"),
    ],
)
def test_the_end_counts_the_states_and_says_how_to_go_on(
    store: SweepStore, tracking_uri: str, states: list[str], interrupted: bool, code: int, counts: str
) -> None:
    for entry, state in zip(store.entries(), states, strict=True):
        if state in ("DONE", "DIVERGED", "STOPPED"):
            finish(store, entry, {"exact_w1": 0.5}, state=State(state), error="why" if state == "DIVERGED" else None)
        else:
            store.trial(entry.trial_id).set_state(State(state), "why")
    shown = console()
    assert conclude(store, MirrorThread(store, tracking_uri), shown, options(store), interrupted=interrupted) == code
    lines = text_of(shown).splitlines()
    resume = f"orchestrator resume hand --runs-dir {store.runs_dir}"
    if code == 0:
        assert lines[-1] == f"hand: {counts}"
        assert resume not in text_of(shown)
    else:
        assert lines[-2] == f"hand: {counts}"
        assert lines[-1].endswith(resume)
    assert all((store.tables / f"hand.{suffix}").exists() for suffix in ("csv", "md", "tex"))


def test_a_runs_directory_with_a_space_and_brackets_is_quoted_in_commands(tmp_path: Path, tracking_uri: str) -> None:
    store = make_sweep(tmp_path / "my [old] runs")
    shown = console()
    assert conclude(store, MirrorThread(store, tracking_uri), shown, options(store)) == 1
    assert text_of(shown).splitlines()[-1].endswith(f"resume hand --runs-dir '{store.runs_dir}'")


def test_a_sweep_goes_on_while_mlflow_is_down(
    store: SweepStore, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5})
    mirroring = MirrorThread(store, f"http://127.0.0.1:{closed_port}")
    mirroring.start()
    shown = console()
    assert conclude(store, mirroring, shown, options(store)) == 0
    assert f"orchestrator sync hand --runs-dir {store.runs_dir}" in text_of(shown)
    assert "MLflow is behind" in text_of(shown)


def test_mlflow_is_kept_up_to_date_while_a_sweep_runs(store: SweepStore, tracking_uri: str) -> None:
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5})
    mirroring = MirrorThread(store, tracking_uri)
    mirroring.start()
    name = f"{entry.label} seed={entry.seed}"
    wait_until(lambda: dump_or_nothing(tracking_uri).get(name, {}).get("status") == "FINISHED")
    finish(store, store.entries()[1], {"exact_w1": 0.5})
    assert mirroring.finish() is None
    assert len(dump(tracking_uri, "hand")) == 3


def dump_or_nothing(uri: str) -> dict[str, dict[str, object]]:
    try:
        return dump(uri, "hand")
    except AssertionError:  # no experiment yet
        return {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_the_workers_to_stop_and_a_second_leaves_at_once(
    store: SweepStore, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def twice() -> None:
        with signals() as on_signal, on_signal.asking(store.stop_file):
            assert not on_signal.asked
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert on_signal.asked
            assert store.stop_file.exists()
            assert "write a checkpoint" in capfd.readouterr().err
            time.sleep(1 if number == signal.SIGTERM else 0)
            try:
                os.kill(os.getpid(), number)
                time.sleep(0.01)
            except Aborted:  # Ray makes another error of what a handler raises inside it
                raise SystemError from None

    before = signal.getsignal(number)
    with pytest.raises(Aborted):
        twice()
    assert signal.getsignal(number) is before


def test_a_second_signal_that_a_library_swallows_leaves_all_the_same(store: SweepStore) -> None:
    def swallowed() -> None:
        with signals() as on_signal, on_signal.asking(store.stop_file):
            for _ in range(2):
                with contextlib.suppress(Aborted):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)

    with pytest.raises(Aborted):
        swallowed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sigterm_to_the_process_and_one_to_its_group_are_one(store: SweepStore, number: signal.Signals) -> None:
    with signals() as on_signal, on_signal.asking(store.stop_file):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert on_signal.asked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_no_trial_runs_one_signal_leaves_at_once(number: signal.Signals) -> None:
    with signals(), pytest.raises(Aborted):
        os.kill(os.getpid(), number)
        time.sleep(0.01)


@pytest.mark.long
def test_a_signal_in_mlflow_s_last_pass_ends_it_and_says_how_to_go_on(store: SweepStore, tracking_uri: str) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5})
    mirroring, shown = MirrorThread(store, tracking_uri), console()
    with contextlib.closing(sqlite3.connect(store.runs_dir / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")  # so that the mirror waits when it writes
        soon = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))
        soon.start()
        assert conclude(store, mirroring, shown, options(store)) == 130
    where = f" --runs-dir {store.runs_dir}"
    assert text_of(shown).splitlines()[-3:] == [
        f"MLflow is behind (the last update was interrupted); update it with: orchestrator sync hand{where}",
        f"Curves, samples and generators in MLflow: orchestrator ui hand{where}",
        "hand: 4 DONE",
    ]


def test_gpus_are_not_asked_for_where_every_trial_is_told_to_use_the_cpu() -> None:
    assert needed_resources(Resources(1, 0.5), ["cpu", "cpu"], None) == Resources(1, 0)
    with pytest.raises(UserError, match="device=cpu"):
        needed_resources(Resources(1, 64), ["cpu", "auto"], None)
    assert needed_resources(Resources(1, 64), ["auto"], "host:6379") == Resources(
        1, 64
    )  # only the cluster knows its GPUs


@pytest.mark.parametrize("address", ["ray://host:10001", "http://host"])
def test_an_address_through_ray_client_is_refused_with_the_reason(address: str) -> None:
    with pytest.raises(UserError, match=r"host:port .* callbacks and signals would not run"):
        check_address(address)
    check_address(None)


def test_an_edited_file_trains_what_is_new_and_keeps_and_reports_what_is_gone(
    store: SweepStore, tmp_path: Path, tracking_uri: str
) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5 + entry.seed})
    gone = [entry for entry in store.entries() if entry.axes["penalty.weight"] == 2]
    before = {path: path.read_bytes() for path in (store.path / "trials").rglob("*") if path.is_file()}

    one_cell = plan_file(write_file(tmp_path, TWO_CELLS.replace("[1, 2]", "[1]")))
    shown = console()
    assert run_sweep(store, Options(tracking_uri), shown, one_cell) == 0
    assert "hand: 2 DONE" in text_of(shown)
    told = "2 trials are no longer in the sweep file and are kept as they are"
    assert told in text_of(shown)
    assert all(entry.trial_id in text_of(shown) for entry in gone)
    prune = f"orchestrator prune hand --removed --runs-dir {store.runs_dir}"
    assert prune in text_of(shown).replace("\n", " ")
    changes = "'hand' has a plan already: 2 of its 4 trials stay, 0 are added, 2 are removed from its plan and tables: "
    assert text_of(shown).startswith(f"{changes}hand weight=2")
    assert {path: path.read_bytes() for path in (store.path / "trials").rglob("*") if path.is_file()} == before

    more_seeds = plan_file(write_file(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3")))
    store.write_plan(more_seeds)
    assert store.removed() == []  # what was gone is there again, finished as it was
    new = [entry.trial_id for entry in store.entries() if entry.seed == 2]
    assert prepare(store) == new

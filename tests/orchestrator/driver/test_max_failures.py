"""A sweep in which trials end early in every way there is, on a real Ray and without MLflow.

Early stopping stops one, one raises and is one failure too many (``max_failures``), one that was running writes a
checkpoint, one never begins. Then the sweep goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Cluster, CommandLine, started, wait_until
from hand_made import make_sweep, write_file
from mlflow_dump import dump, expected_points, points_of

from orchestrator.driver.preparation import prepare
from orchestrator.engine.executor import run_trials
from orchestrator.engine.local import LocalExecutor
from orchestrator.store.lock import driver_lock
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import default_uri

pytestmark = pytest.mark.long

# A critic that does not learn keeps the gradients that it began with, 0.05; one that does comes near the penalty's 1.
EARLY = """\
name: early
base: [dataset=mixture, evaluation=none, batch_size=8, device=cpu]
variants:
  sound: {base: [budget=340]}
  quick: {base: [budget=170]}
  dull: {base: [budget=340, critic.lr=1e-7]}
  raises: {base: [budget=40]}
  duller: {base: [budget=340, critic.lr=1e-8]}
early_stopping: {scheduler: median, metric: critic_gradient_norm, mode: max, grace: 34, minimum_trials: 2}
retries: 0
max_failures: 1
"""
FAULT = ("name: mixture", "name: mixtrue")
TRAP = """\
from pathlib import Path
Path(__file__).with_name("imported").touch()
raise ImportError("MLflow was to be left alone")
"""


@dataclass
class Early:
    """The sweep after ``orchestrator sweep`` gave up: its output, the stored files, the modules it had imported."""

    folder: Path
    store: SweepStore
    trials: dict[str, TrialStore]
    code: int
    out: list[str]
    statuses: dict[str, Status]
    trap: Path

    def now(self) -> dict[str, Status]:
        return {name: trial.status() for name, trial in self.trials.items()}


def replace_in_config(trial: TrialStore, old: str, new: str) -> None:
    path = trial.path / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Early:
    """Two trials run at once. Workers are held (SIGSTOP), so that ``sound`` is half-way when ``raises`` begins."""
    folder = tmp_path_factory.mktemp("early")
    store = make_sweep(folder, EARLY)
    trials = {entry.variant: store.trial(entry.trial_id) for entry in store.entries()}
    replace_in_config(trials["raises"], *FAULT)
    trap = folder / "trap" / "mlflow"
    write_file(trap, TRAP, "__init__.py")
    arguments = ["resume", "early", "--offline", "--max-concurrent", 2, *cluster.arguments]
    paths = os.pathsep.join(filter(None, [str(trap.parent), os.environ.get("PYTHONPATH")]))
    with started(*arguments, cwd=folder, PYTHONPATH=paths, **cluster.environment) as running:
        begun = {"sound", "quick"}

        def both_are_held() -> bool:
            for name in [name for name in begun if len(trials[name].epochs()) > 3]:
                os.kill(trials[name].status().attempts[0].pid, signal.SIGSTOP)
                begun.remove(name)
            return not begun

        wait_until(both_are_held)
        os.kill(trials["quick"].status().attempts[0].pid, signal.SIGCONT)
        wait_until(store.stop_file.exists)
        os.kill(trials["sound"].status().attempts[0].pid, signal.SIGCONT)
        code, out, _ = running.end()
    statuses = {name: trial.status() for name, trial in trials.items()}
    return Early(folder, store, trials, code, out.splitlines(), statuses, trap)


def test_one_failure_too_many_ends_the_sweep_with_the_reason_and_the_way_on(early: Early, cluster: Cluster) -> None:
    assert early.code == 1
    options = f"{' '.join(cluster.arguments)} --offline --max-concurrent 2"
    assert early.out[-3:] == [
        "early: 1 FAILED, 1 DONE, 1 STOPPED, 2 PENDING",
        "Stopped early: 1 trials have failed for good (max_failures: 1)",
        f"Some trials did not finish; go on with: orchestrator resume early {options}",
    ]


def test_the_running_trials_have_a_checkpoint_and_are_pending(early: Early) -> None:
    status = early.statuses["sound"]
    assert status.state is State.PENDING
    assert [attempt.ended is not None for attempt in status.attempts] == [True]
    assert early.trials["sound"].checkpoint_file.exists()


def test_nothing_was_begun_after_the_failure(early: Early) -> None:
    assert early.statuses["raises"].state is State.FAILED
    assert "'mixtrue'" in (early.statuses["raises"].error or "")
    assert (early.statuses["duller"].state, early.statuses["duller"].attempts) == (State.PENDING, [])


def test_a_trial_that_was_not_promising_was_stopped_after_the_grace_with_a_checkpoint(early: Early) -> None:
    status, trial = early.statuses["dull"], early.trials["dull"]
    assert status.state is State.STOPPED
    assert [attempt.ended is not None for attempt in status.attempts] == [True]
    assert [record["iteration"] for record in trial.epochs()] == [0, 17, 34]
    assert trial.checkpoint_file.exists()


def test_offline_mlflow_is_neither_imported_nor_given_anything(early: Early) -> None:
    assert not (early.trap / "imported").exists()
    assert {path.name for path in early.store.runs_dir.iterdir()} <= {"early", "cache"}
    assert "Nothing was written to MLflow; update it with: orchestrator sync early" in early.out


@pytest.fixture(scope="module")
def resumed(early: Early) -> list[str]:
    """The fault is mended and another driver continues: the trials that it ran, in this process to save time."""
    store = early.store
    replace_in_config(early.trials["raises"], *reversed(FAULT))
    with driver_lock(store):  # it deletes the request to stop that the failure was
        todo = prepare(store)
        assert run_trials(store, todo, LocalExecutor(todo)) is None
    names = {trial.trial_id: name for name, trial in early.trials.items()}
    return [names[trial_id] for trial_id in todo]


def test_resuming_takes_what_has_no_result_and_goes_on_from_the_checkpoint(early: Early, resumed: list[str]) -> None:
    assert resumed == ["sound", "raises", "duller"]
    statuses = early.now()
    assert {name: statuses[name] for name in ("quick", "dull")} == {
        name: early.statuses[name] for name in ("quick", "dull")
    }
    assert [statuses[name].state for name in ("sound", "raises")] == [State.DONE, State.DONE]
    assert statuses["sound"].attempts[1].resumed_at >= 3 * 17
    assert [len(status.attempts) for status in statuses.values()] == [2, 1, 1, 2, 1]


def test_another_driver_decides_from_all_stored_epochs(early: Early, resumed: list[str]) -> None:
    assert early.now()["duller"].state is State.STOPPED
    assert [record["iteration"] for record in early.trials["duller"].epochs()] == [0, 17, 34]
    assert prepare(early.store) == []


def test_the_command_that_was_printed_brings_mlflow_up_to_date(
    early: Early,
    resumed: list[str],
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    empty_database: Path,
) -> None:
    monkeypatch.chdir(early.folder)
    shutil.copy(empty_database, "runs/mlflow.db")  # making its tables takes seconds
    assert command_line("sync", "early")[:2] == (0, "MLflow is up to date with 'early'.\n")
    runs = dump(default_uri(early.store.runs_dir), "early")
    assert len(runs) == 6
    for entry in early.store.entries():
        trial, run = early.store.trial(entry.trial_id), runs[f"{entry.label} seed={entry.seed}"]
        assert (run["status"], run["tags"]["state"]) == ("FINISHED", str(trial.status().state))
        assert points_of(run) == expected_points(trial)

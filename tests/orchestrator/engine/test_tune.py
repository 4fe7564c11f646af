"""A sweep on a real Ray in which one trial raises, one diverges and one loses its worker. The rest are unaffected."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import wait_until
from hand_made import make_sweep, one_cpu_each
from mlflow_dump import dump
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.driver.preparation import prepare
from orchestrator.engine.executor import run_trials
from orchestrator.engine.tune import TuneExecutor
from orchestrator.screen.progress import show_progress
from orchestrator.store.epochs import CLOCKS
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import default_uri
from orchestrator.trial.run import run_trial

pytestmark = pytest.mark.long

TROUBLE = """\
name: trouble
base: [dataset=digits, evaluation=none, "network.generator_widths=[16]", "network.critic_widths=[16]", device=cpu]
variants:
  raises: {base: [budget=40]}
  diverges: {base: [budget=60, critic.lr=1e30]}
  killed: {base: [budget=600, checkpoint_epochs=1]}
  sound: {base: [budget=80]}
retries: 1
"""


@dataclass
class Aftermath:
    """The sweep's files, what the command printed, and how it would have ended."""

    store: SweepStore
    shown: str
    code: int
    uri: str

    def entry(self, variant: str) -> Entry:
        return next(entry for entry in self.store.entries() if entry.variant == variant)

    def trial(self, variant: str) -> TrialStore:
        return self.store.trial(self.entry(variant).trial_id)

    def states(self, variant: str) -> list[State]:
        """The states of a trial's attempts, in order. An attempt that was killed wrote no end."""
        return [State(attempt.state or "LOST") for attempt in self.trial(variant).status().attempts]


def damage(trial: TrialStore) -> None:
    path = trial.path / "config.yaml"
    path.write_text(path.read_text().replace("name: digits", "name: digitz"))


def kill_once(trial: TrialStore) -> None:
    """Kills the worker of a trial as soon as there is a checkpoint to go on from."""
    with contextlib.suppress(TimeoutError):  # then the tests say what is missing
        wait_until(trial.previous_checkpoint_file.exists)
        os.kill(trial.status().attempts[-1].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def aftermath(
    ray_resources: dict[str, float], empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Aftermath:
    folder = tmp_path_factory.mktemp("trouble")
    store = make_sweep(folder, TROUBLE)
    shutil.copy(empty_database, store.runs_dir / "mlflow.db")
    uri = f"sqlite:///{store.runs_dir / 'mlflow.db'}"
    by_variant = {entry.variant: store.trial(entry.trial_id) for entry in store.entries()}
    damage(by_variant["raises"])
    console = Console(file=io.StringIO(), width=200)
    killer = threading.Thread(target=kill_once, args=[by_variant["killed"]])
    killer.start()
    mirroring = MirrorThread(store, uri)
    mirroring.start()
    with show_progress(store, console, lambda: 2):
        run_trials(
            store,
            prepare(store),
            TuneExecutor(one_cpu_each(store), secrets.token_hex(6)),
        )
    killer.join()
    code = conclude(store, mirroring, console, Options(default_uri(store.runs_dir)))
    assert isinstance(console.file, io.StringIO)
    return Aftermath(store, console.file.getvalue(), code, uri)


def test_a_trial_that_raises_is_tried_again_and_stays_failed(aftermath: Aftermath) -> None:
    status = aftermath.trial("raises").status()
    assert aftermath.states("raises") == [State.FAILED, State.FAILED]  # one retry
    assert [attempt.state for attempt in status.attempts] == ["FAILED", "FAILED"]
    assert "no dataset called 'digitz'" in (status.error or "")
    assert aftermath.trial("raises").log_file.read_text().count("Traceback") == 2


def test_a_trial_that_diverges_is_not_tried_again(aftermath: Aftermath) -> None:
    assert aftermath.states("diverges") == [State.DIVERGED]
    assert len(aftermath.trial("diverges").status().attempts) == 1


def test_all_other_trials_are_done(aftermath: Aftermath) -> None:
    assert aftermath.states("sound") == [State.DONE]
    assert [record["iteration"] for record in aftermath.trial("sound").epochs()] == [0, 20, 40, 60, 80]


def test_a_killed_worker_s_trial_is_lost_and_goes_on_from_its_checkpoint(aftermath: Aftermath) -> None:
    assert aftermath.states("killed") == [State.LOST, State.DONE]
    first, second = aftermath.trial("killed").status().attempts
    assert first.ended is None
    assert second.resumed_at >= 20
    assert second.state == "DONE"
    assert second.pid != first.pid


def test_what_was_killed_equals_an_undisturbed_twin(aftermath: Aftermath, tmp_path: Path) -> None:
    trial = aftermath.trial("killed")
    twin = TrialStore(tmp_path / "twin")
    twin.create(trial.config())
    assert run_trial(twin, tmp_path / "cache") is State.DONE
    ours, theirs = (
        [{name: value for name, value in record.items() if name not in CLOCKS} for record in each.epochs()]
        for each in (trial, twin)
    )
    assert len(ours) == 31
    assert ours == theirs


def test_everything_that_went_wrong_was_shown_and_the_end_says_how_to_go_on(aftermath: Aftermath) -> None:
    lines = aftermath.shown.splitlines()
    failures = [line for line in lines if line.startswith("FAILED raises seed=0: ConfigError: ")]
    assert len(failures) == 2
    assert all(line.endswith(f"(log: {aftermath.trial('raises').log_file})") for line in failures)
    killed = "LOST killed seed=0: the worker died: it was killed or crashed on node "
    assert sum(line.startswith(killed) for line in lines) == 1
    assert sum(line.startswith("DIVERGED diverges seed=0: ") for line in lines) == 1
    assert lines[-2] == "trouble: 1 FAILED, 1 DIVERGED, 2 DONE"
    assert lines[-1] == (
        f"Some trials did not finish; go on with: orchestrator resume trouble --runs-dir {aftermath.store.runs_dir}"
    )
    assert aftermath.code == 1


def test_mlflow_has_the_same_states_and_points(aftermath: Aftermath) -> None:
    runs = dump(aftermath.uri, "trouble")
    statuses = {name.partition(" ")[0]: (run["status"], run["tags"].get("attempt")) for name, run in runs.items()}
    assert statuses == {
        "trouble": ("KILLED", None),
        "raises": ("FAILED", "2"),
        "diverges": ("FAILED", "1"),
        "killed": ("FINISHED", "2"),
        "sound": ("FINISHED", "1"),
    }
    for name in ("killed seed=0", "sound seed=0"):
        records = aftermath.trial(name.partition(" ")[0]).epochs()
        points = runs[name]["metrics"]["iteration"]
        assert points == [(record["epoch"], record["timestamp"], record["iteration"]) for record in records]


def test_without_a_stop_only_failed_trials_are_left(aftermath: Aftermath) -> None:
    assert prepare(aftermath.store) == [aftermath.entry("raises").trial_id]


def test_workers_run_no_more_trials_at_once_than_fit(aftermath: Aftermath) -> None:
    spans = [
        (attempt.started, attempt.ended)
        for entry in aftermath.store.entries()
        for attempt in aftermath.store.trial(entry.trial_id).status().attempts
        if attempt.ended
    ]
    for started, _ in spans:
        assert sum(begin <= started < end for begin, end in spans if end) <= 2
    assert json.loads((aftermath.store.path / "plan.json").read_text())["retries"] == 1

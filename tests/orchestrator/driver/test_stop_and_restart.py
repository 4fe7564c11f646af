"""Stopping a sweep from elsewhere, beginning trials again, and the checkpoint of the best evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Cluster, CommandLine, orchestrator, started, wait_until
from hand_made import finish, write_file
from mlflow_dump import dump

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import quiet_client
from orchestrator.tracking.mirror import Mirror
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig

LONG = """\
name: long
base: [dataset=digits, evaluation=none, "network.generator_widths=[16]", "network.critic_widths=[16]", budget=1000000]
"""


@pytest.mark.long
def test_stop_lets_trials_write_a_checkpoint_and_waits_for_the_driver(tmp_path: Path, cluster: Cluster) -> None:
    path = write_file(tmp_path, LONG)
    with started("sweep", path, *cluster.arguments, cwd=tmp_path, **cluster.environment) as running:
        store = SweepStore(tmp_path / "runs", "long")
        (trial_id,) = [entry.trial_id for entry in _entries_when_there(store)]
        trial = store.trial(trial_id)
        wait_until(lambda: len(trial.epochs()) > 3)
        stopped = orchestrator("stop", "long", cwd=tmp_path)
        assert (stopped.returncode, stopped.stdout) == (0, "'long' has stopped.\n")
        assert trial.status().state is State.PENDING
        assert trial.checkpoint_file.exists()
        code, out, _ = running.end()
    assert code == 130
    assert out.splitlines()[-1] == f"Stopped; go on with: orchestrator resume long {' '.join(cluster.arguments)}"


def _entries_when_there(store: SweepStore) -> list:
    wait_until((store.path / "plan.json").exists)
    return store.entries()


def test_stop_says_that_no_driver_runs(store: SweepStore, command_line: CommandLine) -> None:
    code, _, errors = command_line("stop", store.name, "--runs-dir", store.runs_dir)
    assert (code, errors) == (2, "orchestrator: 'hand' is not running: there is nothing to stop\n")


def test_a_restart_moves_the_old_attempt_and_deletes_its_mlflow_run(store: SweepStore, tracking_uri: str) -> None:
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5}, state=State.FAILED, error="why", epochs=3)
    Mirror(store, tracking_uri).finish()
    before = dump(tracking_uri, store.name)
    trial = store.trial(entry.trial_id)
    old = trial.metrics_file.read_text()
    trial.restart()
    assert (trial.path / "attempts" / "1" / "metrics.jsonl").read_text() == old
    assert (trial.path / "attempts" / "1" / "status.json").exists()
    assert (trial.status().state, trial.status().attempts, trial.epochs()) == (State.PENDING, [], [])
    finish(store, entry, {"exact_w1": 0.25}, epochs=2)
    status = trial.status()
    status.restarts = 1
    trial.write_status(status)
    Mirror(store, tracking_uri).finish()
    after = dump(tracking_uri, store.name)
    assert after.keys() == before.keys()  # search_runs passes deleted runs by
    name = f"{entry.label} seed={entry.seed}"
    assert after[name]["id"] != before[name]["id"]
    assert [value for *_, value in after[name]["metrics"]["exact_w1"]] == [9.0, 0.25]


def test_a_mirror_cut_short_after_making_a_run_completes_it(store: SweepStore, tracking_uri: str) -> None:
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5})
    Mirror(store, tracking_uri).finish()
    whole = dump(tracking_uri, store.name, times=False)
    client = quiet_client(tracking_uri)
    experiment = client.get_experiment_by_name(store.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`orchestrator.kind` = 'trial'")
    kept = ("orchestrator.sweep", "orchestrator.trial_id", "orchestrator.kind", "orchestrator.restarts")
    tags = {k: v for k, v in run.data.tags.items() if k in kept or k in ("variant", "cell", "seed")}
    tags |= {key: run.data.tags[key] for key in ("mlflow.parentRunId", "mlflow.runName")}
    client.delete_run(run.info.run_id)
    client.create_run(experiment.experiment_id, tags=tags)  # as far as a killed driver may have come
    Mirror(store, tracking_uri).finish()
    assert dump(tracking_uri, store.name, times=False) == whole


def test_the_best_evaluation_has_a_checkpoint(store: SweepStore, tmp_path: Path) -> None:
    trial = store.trial(store.entries()[0].trial_id)
    assert run_trial(trial, tmp_path / "cache") is State.DONE
    length = TrialConfig.from_dict(trial.config()).epoch_length
    evaluated = [record for record in trial.epochs() if record["epoch"] and "exact_w1" in record]
    assert len(evaluated) > 1
    best = min(evaluated, key=lambda record: record["exact_w1"])
    state = torch.load(trial.best_file, weights_only=True)["training"]
    assert state["iteration"] == best["iteration"] <= best["epoch"] * length

"""Growing plans with the real parts: Ray, MLflow, kill -9, ``resume``, and an executor without Ray beside them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import orchestrator, wait_until
from driven_sweeps import new_sweep
from hand_made import POINTS
from mlflow_dump import dump
from pretended_growth import decided
from small_trials import assert_equal_to_the_bit

from orchestrator.store.states import State
from orchestrator.tracking.address import default_uri
from orchestrator.tracking.experiment import TRIAL_TAG

GROWN = f"""\
name: grown
base: {POINTS}
variants:
  wgan-gp:
    base: [trainer=wgan_gp]
    search:
      trials: 13
      parallel: 2
      space: {{critic.lr: "tag(log, interval(1e-4, 1e-1))", critic_iterations: "int(interval(1, 3))"}}
  wgan-lp:
    base: [trainer=wgan_lp]
seeds: 1
confirm: {{seeds: 2}}
compare: {{metric: exact_w1}}
"""


@pytest.mark.long
def test_a_growing_sweep_that_is_killed_has_the_trials_of_one_that_was_not(tmp_path: Path) -> None:
    """kill -9 of every process of the command: once in the search's first trials, once before its last proposals."""
    with new_sweep(tmp_path / "killed", GROWN) as sweep:
        running = sweep.start("sweep", "sweep.yaml")
        wait_until(lambda: sum(status.state is State.DONE for status in sweep.statuses()) >= 3)
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        running = sweep.start("resume", "grown")
        wait_until(lambda: len(decided(sweep.store)) >= 12)
        os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
        assert len(decided(sweep.store)) < 13 + 2
        code, out, err = sweep.start("resume", "grown").end()
        assert code == 0, out + err
        undisturbed = orchestrator(
            "sweep", "../killed/sweep.yaml", "--executor", "local", "--offline", cwd=_folder(tmp_path / "undisturbed")
        )
        assert undisturbed.returncode == 0, undisturbed.stderr
        with new_sweep(tmp_path / "undisturbed", GROWN) as twin:
            assert decided(sweep.store) == decided(twin.store)
            for entry in sweep.store.entries():
                one, other = sweep.store.trial(entry.trial_id), twin.store.trial(entry.trial_id)
                assert (one.status().state, other.status().state) == (State.DONE, State.DONE)
                assert_equal_to_the_bit(one, other)
        trials = [entry.trial_id for entry in sweep.store.entries()]
        runs = dump(default_uri(sweep.store.runs_dir), "grown").values()
        assert len(trials) == 13 + 1 + 2 * 2
        assert sorted(run["tags"][TRIAL_TAG] for run in runs if TRIAL_TAG in run["tags"]) == sorted(trials)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


STOPPING = f"""\
name: stopping
base: {POINTS.replace("budget=40", "budget=100")}
search:
  trials: 16
  space: {{critic.lr: "tag(log, interval(1e-5, 1e-1))"}}
seeds: 2
early_stopping: {{scheduler: asha, grace: 20, reduction_factor: 2}}
confirm: {{seeds: 2}}
compare: {{metric: exact_w1}}
"""


@pytest.mark.long
def test_early_stopping_goes_with_a_search(tmp_path: Path) -> None:
    """What was stopped is told to the sampler with the value and the step that it had, and is not confirmed."""
    with new_sweep(tmp_path, STOPPING) as sweep:
        ran = orchestrator("sweep", "sweep.yaml", "--executor", "local", "--offline", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        states = {entry.trial_id: sweep.store.trial(entry.trial_id).status().state for entry in sweep.store.entries()}
        assert set(states.values()) == {State.DONE, State.STOPPED}
        made = decided(sweep.store)
        seen = [outcome for each in made for outcome in each["rests_on"].get("seen", {}).values()]
        stopped = [outcome for outcome in seen if outcome[0] == "stopped"]
        assert stopped
        assert all(value > 0 and 20 <= step < 100 for _, value, step in stopped)
        [confirmed] = [each for each in made if each["kind"] == "confirm"]
        best = confirmed["rests_on"]["cells"][0]["axes"]
        searched = [entry for entry in sweep.store.entries() if entry.stage == "search"]
        assert {states[entry.trial_id] for entry in searched if entry.axes == best} == {State.DONE}

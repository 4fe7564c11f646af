"""A sweep on a cluster of several machines, while everything in it dies once: the result is that of one machine.

The machines are network namespaces and share nothing but the network: the runs directory is in an S3 server. The
servers are those of ``docker-compose.yml``, started by its scripts. One story is told once, and each test looks at a
part. Workers are held (SIGSTOP) where something has to happen before they go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import wait_until
from hand_made import write_file
from mlflow_dump import Dump, expected_files, expected_points, files_of, points_of
from network import Started
from small_trials import assert_equal_to_the_bit
from topology import Topology, topology, what_is_missing

from orchestrator.store.lock import read_driver
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(what_is_missing() is not None, reason=f"no machines here: {what_is_missing()}"),
]

NAME = "far"
RUNS = "s3://runs"
SWEEP = f"""\
name: {NAME}
base:
  - dataset=digits
  - "network.generator_widths=[16]"
  - "network.critic_widths=[16]"
  - budget=510
  - evaluation=none
  - evaluation.times=2
  - probes=[lipschitz]
  - device=cpu
  - checkpoint_epochs=3
seeds: 2
resources: {{cpus: 1}}
compare: {{metric: lipschitz_constant, mode: min}}
"""
"""Its metrics need neither POT nor scikit-learn, which would take every worker seconds to import."""
WRONG = "0" * 32
FETCH = "import s3fs, sys; s3fs.S3FileSystem().get('runs', sys.argv[1], recursive=True)"
DUMP = "import json, sys, mlflow_dump; json.dump(mlflow_dump.dump(*sys.argv[1:]), sys.stdout)"
Ended = tuple[int, str, str]
"""Exit code, standard output, standard error."""


@dataclass
class Story:
    """Observations on the way, and the result at the end."""

    topology: Topology
    arguments: list[object]
    refused: dict[str, Ended] = field(default_factory=dict)
    begun: bool = False
    """Whether the commands that were refused had made a sweep."""
    places: dict[int, str] = field(default_factory=dict)
    """The machine of each process."""
    lost: str = ""
    """The trial whose node died, and later its head."""
    statuses: dict[str, Status] = field(default_factory=dict)
    """The statuses of all trials when the head died."""
    points: list[int] = field(default_factory=list)
    """The number of points in MLflow when it died, and some time after it was back."""
    swept: Ended = (-1, "", "")
    resumed: Ended = (-1, "", "")
    runs: Dump = field(default_factory=dict)

    @property
    def store(self) -> SweepStore:
        """Everything that was in the object store at the end."""
        return SweepStore(self.topology.folder / "fetched", NAME)

    def drivers_copy(self) -> SweepStore | None:
        """The sweep as its driver sees it; None before it has planned."""
        caches = self.topology.home("head") / ".cache" / "orchestrator"
        found = list(caches.glob(f"*/*/{NAME}/plan.json"))
        return SweepStore(found[0].parents[1], NAME) if found else None

    def hold(self, *trial_ids: str, attempt: int) -> dict[str, int]:
        """Waits until each trial has a checkpoint of this attempt, and suspends its worker. Returns the workers."""
        held: dict[str, int] = {}

        def all_held() -> bool:
            for trial_id in [trial_id for trial_id in trial_ids if trial_id not in held]:
                trial = self._at_work(trial_id, attempt)
                if trial is not None and _has_left_a_checkpoint(trial):
                    held[trial_id] = trial.status().attempts[-1].pid
                    os.kill(held[trial_id], signal.SIGSTOP)
                    assert trial.status().state is State.RUNNING
            return len(held) == len(trial_ids)

        wait_until(all_held, pause=0.2)
        self.look_where()
        return held

    def look_where(self) -> None:
        """Notes on which machine each process runs."""
        for name, machine in self.topology.machines.items():
            self.places.update(dict.fromkeys(machine.processes(), name))

    def _at_work(self, trial_id: str, attempt: int) -> TrialStore | None:
        """A trial as the worker of an attempt sees it on its machine."""
        copies = f"homes/worker*/.cache/orchestrator/*/*/.workers/*/{NAME}/trials/{trial_id}"
        trials = map(TrialStore, self.topology.folder.glob(copies))
        return next((trial for trial in trials if len(trial.status().attempts) == attempt), None)


def _has_left_a_checkpoint(trial: TrialStore) -> bool:
    """Whether this attempt has a checkpoint in the object store. It has, once the epoch after it is there."""
    begun = trial.status().attempts[-1].resumed_at
    epochs = [record for record in trial.epochs() if begun is not None and record["iteration"] > begun]
    return len(epochs) > 3


def bring_up(top: Topology, story: Story) -> Started:
    """Starts everything. Processes that lack a password try to get in. Returns a node that still tries."""
    top.start_objects()
    head = top.start_head()
    top.start_database()
    top.start_mlflow()
    nodes = [head, top.start_worker("worker1", 1), top.start_worker("worker2", 1)]
    intruding_node = top.start_worker("objects", 1, RAY_AUTH_TOKEN=WRONG)
    top.make_buckets()
    for node in nodes:
        top.wait_for_node(node)
    intruders = {"a wrong token": top.orchestrator(*story.arguments, log="stranger", RAY_AUTH_TOKEN=WRONG)}
    top.wait_for_mlflow()
    no_password = {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": ""}
    intruders["no password"] = top.orchestrator(*story.arguments, log="nobody", **no_password)
    story.refused = {who: intruder.end() for who, intruder in intruders.items()}
    story.begun = story.drivers_copy() is not None
    return intruding_node


def lose_a_node_and_mlflow(top: Topology, story: Story, trials: dict[str, TrialStore]) -> None:
    """Two machines run a trial each. One machine and MLflow die; its trial continues and is suspended again."""
    held = story.hold(*trials, attempt=1)
    wait_until(lambda: top.points() > 0, pause=0.5)
    (story.lost,) = [trial_id for trial_id, pid in held.items() if story.places[pid] == "worker1"]
    (other,) = [trial_id for trial_id in trials if trial_id != story.lost]
    top.machines["worker1"].power_off()
    top.machines["mlflow"].power_off()
    story.points.append(top.points())
    top.start_mlflow()
    os.kill(held[other], signal.SIGCONT)
    story.hold(story.lost, attempt=2)
    wait_until(lambda: top.points() > story.points[0], pause=0.5)
    story.points.append(top.points())
    told = trials[story.lost]
    wait_until(
        lambda: len(told.status().attempts) == 2 and told.status().attempts[-1].resumed_at is not None, pause=0.1
    )
    story.statuses = {trial_id: trial.status() for trial_id, trial in trials.items()}


def restart_the_head(top: Topology, story: Story, store: SweepStore, driver: Started) -> None:
    """The driver ends by itself when it notices. So does the node, but the test does not wait: it starts it again."""
    drives = read_driver(store)
    assert drives is not None
    for pid in top.machines["head"].processes():
        if pid not in (driver.process.pid, drives.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    head = top.start_head()
    story.swept = driver.end()
    top.machines["worker2"].power_off()
    top.wait_for_node(head)
    top.wait_for_node(top.start_worker("worker2", 1))  # without a node for a trial the command would refuse to start


def play(top: Topology, story: Story) -> None:
    intruding_node = bring_up(top, story)
    driver = top.orchestrator(*story.arguments, log="sweep")
    wait_until(lambda: story.drivers_copy() is not None)
    store = story.drivers_copy()
    assert store is not None
    trials = {entry.trial_id: store.trial(entry.trial_id) for entry in store.entries()}
    story.refused["a node"] = intruding_node.end()
    lose_a_node_and_mlflow(top, story, trials)
    restart_the_head(top, story, store, driver)
    told = next(line for line in story.swept[1].splitlines() if "go on with: " in line)
    program, *arguments = shlex.split(told.partition("go on with: ")[2])
    assert program == "orchestrator"
    story.resumed = top.orchestrator(*arguments, log="resume").end()
    fetch = [sys.executable, "-c", FETCH, top.folder / "fetched"]
    top.start("head", fetch, "fetch", **top.object_environment()).succeed()
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    ask = [sys.executable, "-c", DUMP, top.tracking_uri, NAME]
    code, out, err = top.start("head", ask, "dump", PYTHONPATH=paths, **top.mlflow_environment()).end()
    assert code == 0, err
    story.runs = json.loads(out)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with topology() as top:
        path = write_file(top.folder, SWEEP)
        where = ["--runs-dir", RUNS, "--tracking-uri", top.tracking_uri, "--address", top.ray_address]
        told = Story(top, ["sweep", path, *where])
        try:
            play(top, told)
        except BaseException:
            for file in sorted(top.folder.glob("*.out")) + sorted(top.folder.glob("*.err")):
                print(f"--- {file.name}\n{file.read_text()[-3000:]}")
            raise
        yield told


def check_refusal(story: Story, who: str, *words: str) -> None:
    """Asserts exit code 2, one paragraph, and that nothing was started."""
    code, out, err = story.refused[who]
    assert (code, out) == (2, "")
    assert err.startswith("orchestrator: --")
    assert err.count("\n") == 1
    assert all(word in err for word in words)
    assert not story.begun


def test_a_driver_with_another_token_is_refused_at_once(story: Story) -> None:
    check_refusal(
        story, "a wrong token", f"--address {story.topology.ray_address}", "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN"
    )


def test_a_driver_without_mlflow_s_password_is_refused_at_once(story: Story) -> None:
    uri = f"--tracking-uri {story.topology.tracking_uri}"
    check_refusal(story, "no password", uri, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def test_a_node_with_another_token_does_not_join(story: Story) -> None:
    code, _, err = story.refused["a node"]
    assert code != 0
    assert "InvalidAuthToken" in err


def test_mlflow_answers_only_those_who_know_the_password_and_address_it_by_its_name(story: Story) -> None:
    top = story.topology
    experiments = f"{top.tracking_uri}/api/2.0/mlflow/experiments/search?max_results=1"
    admin = f"admin:{top.mlflow_password}"
    assert top.http_status(experiments, admin) == 200
    assert top.http_status(experiments) == 401
    assert top.http_status(experiments, "admin:password") == 401
    assert top.http_status(experiments, admin, host="elsewhere.example") == 403
    assert top.http_status(f"{top.tracking_uri}/", admin, host="elsewhere.example") == 403


def test_postgresql_answers_only_those_who_know_the_password(story: Story) -> None:
    ask = "SELECT count(*) > 0 FROM runs"
    assert story.topology.sql("mlflow", ask).end()[:2] == (0, "t\n")
    code, out, err = story.topology.sql("mlflow", ask, PGPASSWORD="mlflow").end()
    assert (code, out) == (2, "")
    assert "password authentication failed" in err


def test_a_trial_whose_node_died_goes_on_elsewhere_from_its_checkpoint(story: Story) -> None:
    status = story.statuses[story.lost]
    assert status.state is State.RUNNING
    first, second = status.attempts
    assert [story.places[first.pid], story.places[second.pid]] == ["worker1", "worker2"]
    assert first.ended is None
    assert second.resumed_at >= 60  # an interval, three epochs of twenty iterations, was in the object store
    (lost,) = [line for line in story.swept[1].splitlines() if line.startswith("LOST far seed=")]
    assert ": the worker died: its node is gone" in lost


def test_no_other_trial_was_touched(story: Story) -> None:
    (other,) = [status for trial_id, status in story.statuses.items() if trial_id != story.lost]
    assert (other.state, len(other.attempts)) == (State.DONE, 1)


def test_a_driver_tells_an_mlflow_that_was_restarted_what_it_missed(story: Story) -> None:
    before, after = story.points
    assert 0 < before < after


def test_a_driver_whose_head_was_restarted_ends_with_the_reason_and_the_resume_command(story: Story) -> None:
    code, out, err = story.swept
    address = story.topology.ray_address
    assert code == 1
    assert "Traceback" not in out + err
    *_, counts, why, way_on = out.splitlines()
    assert counts == "far: 1 LOST, 1 DONE"
    assert why == (
        f"Stopped early: the head of the Ray cluster at {address} was restarted and no longer knows this sweep"
    )
    options = shlex.join(["--runs-dir", RUNS, "--tracking-uri", story.topology.tracking_uri])
    assert way_on == f"Some trials did not finish; go on with: orchestrator resume far {options} --address {address}"


def test_the_command_that_was_printed_finishes_the_sweep(story: Story) -> None:
    code, out, err = story.resumed
    assert (code, out.splitlines()[-1]) == (0, "far: 2 DONE"), err
    _, second, third = story.store.trial(story.lost).status().attempts
    assert second.ended is None
    assert third.resumed_at > second.resumed_at


def test_every_trial_equals_to_the_bit_that_of_one_machine(story: Story, tmp_path: Path) -> None:
    for entry in story.store.entries():
        trial = story.store.trial(entry.trial_id)
        twin = TrialStore(tmp_path / trial.trial_id)
        twin.create(trial.config())
        assert run_trial(twin, tmp_path / "cache") is State.DONE
        assert_equal_to_the_bit(trial, twin)


def test_mlflow_has_one_run_a_trial_and_every_point_once(story: Story) -> None:
    assert len(story.runs) == 3
    for entry in story.store.entries():
        trial, run = story.store.trial(entry.trial_id), story.runs[f"{entry.label} seed={entry.seed}"]
        assert points_of(run) == expected_points(trial)
        assert (run["status"], run["tags"]["state"]) == ("FINISHED", "DONE")
        assert files_of(run) == expected_files(trial)
        assert [model["status"] for model in run["models"]] == ["READY"]
    assert story.runs["far"]["status"] == "FINISHED"

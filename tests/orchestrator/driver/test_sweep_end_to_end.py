"""The life of a sweep as a user sees it: started, interrupted, resumed, run again, enlarged.

Real processes, a real Ray, and a real MLflow on SQLite.
"""

from __future__ import annotations

import io
import re
import secrets
import shlex
import shutil
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import Cluster, marked, orchestrator, started, wait_until
from hand_made import one_cpu_each, plan_file, write_file
from mlflow_dump import dump, expected_files, expected_points, files_of, points_of
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.driver.preparation import prepare
from orchestrator.driver.run import run_sweep
from orchestrator.engine.executor import run_trials
from orchestrator.engine.tune import TuneExecutor
from orchestrator.screen.progress import show_progress
from orchestrator.store.epochs import CLOCKS
from orchestrator.store.lock import read_driver
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial

pytestmark = pytest.mark.long

LIFE = """\
name: life
description: a sweep that is begun, interrupted and resumed
base: [dataset=mixture, batch_size=8, budget=500, evaluation.times=4, device=cpu, checkpoint_seconds=1]
grid: {critic_iterations: [1, 2]}
compare: {metric: exact_w1, mode: min}
"""


@dataclass
class Run:
    """One command that has ended, and the content of the store at that moment."""

    code: int
    out: list[str]
    errors: str
    statuses: list[Status]
    epochs: list[int]
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Life:
    """The sweep and its commands so far."""

    folder: Path
    store: SweepStore

    def trials(self) -> list[TrialStore]:
        return [self.store.trial(entry.trial_id) for entry in self.store.entries()]

    def run(self, code: int, out: str, errors: str, **more: Any) -> Run:
        trials = self.trials()
        statuses, epochs = [trial.status() for trial in trials], [len(trial.epochs()) for trial in trials]
        return Run(code, out.splitlines(), errors, statuses, epochs, more)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'runs' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Life:
    folder = tmp_path_factory.mktemp("life")
    write_file(folder, LIFE)
    (folder / "runs").mkdir()
    shutil.copy(empty_database, folder / "runs" / "mlflow.db")
    return Life(folder, SweepStore(folder / "runs", "life"))


@pytest.fixture(scope="module")
def interrupted(life: Life) -> Run:
    """``orchestrator sweep``, one trial at a time, interrupted by Ctrl-C in the middle of the first."""
    with started("sweep", "sweep.yaml", "--max-concurrent", 1, cwd=life.folder) as running:
        wait_until((life.store.path / "plan.json").exists)
        second = orchestrator("resume", "life", cwd=life.folder)
        driver = read_driver(life.store)
        assert driver is not None
        wait_until(lambda: len(life.trials()[0].epochs()) > 3)
        temporary = {name for line in marked(running.mark).values() for name in re.findall(r"/tmp/ray-\w+", line)}
        running.signal_group(signal.SIGINT)
        ended = running.end()
        left = running.left_over(10)
        return life.run(*ended, second=second, pid=driver.pid, temporary=temporary, left=left)


@pytest.fixture(scope="module")
def resumed(life: Life, interrupted: Run, cluster: Cluster) -> Run:
    """The resume command that the interrupted command printed, run to the end on another Ray."""
    program, *arguments = shlex.split(interrupted.out[-1].partition("go on with: ")[2])
    assert program == "orchestrator"
    ran = orchestrator(*arguments, *cluster.arguments, cwd=life.folder, **cluster.environment)
    return life.run(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def enlarged(life: Life, resumed: Run, ray_resources: dict[str, float]) -> Run:
    """The sweep with a second seed in its file, on the Ray of this process."""
    before = {name: run["id"] for name, run in dump(life.uri, "life").items()}
    life.store.write_plan(plan_file(write_file(life.folder, LIFE + "seeds: 2\n")))
    console = Console(file=io.StringIO(), width=200)
    todo = prepare(life.store)
    mirroring = MirrorThread(life.store, life.uri)
    mirroring.start()
    with show_progress(life.store, console, lambda: 2):
        run_trials(life.store, todo, TuneExecutor(one_cpu_each(life.store), secrets.token_hex(6)))
    code = conclude(life.store, mirroring, console, Options(life.uri))
    assert isinstance(console.file, io.StringIO)
    return life.run(code, console.file.getvalue(), "", before=before, todo=todo)


def test_ctrl_c_ends_with_130_and_the_resume_command(interrupted: Run) -> None:
    assert interrupted.code == 130
    assert interrupted.out[-1] == "Stopped; go on with: orchestrator resume life --max-concurrent 1"
    assert interrupted.out[-2] == "life: 2 PENDING"
    assert "running trials write a checkpoint" in interrupted.errors
    assert "Traceback" not in interrupted.errors


def test_interrupted_trials_are_pending_with_a_checkpoint(life: Life, interrupted: Run) -> None:
    first, second = interrupted.statuses
    assert (first.state, second.state) == (State.PENDING, State.PENDING)
    assert len(first.attempts) == 1
    assert first.attempts[0].ended is not None
    assert life.trials()[0].checkpoint_file.exists()
    assert 3 < interrupted.epochs[0] < 31
    assert second.attempts == []  # --max-concurrent 1


def test_a_second_driver_was_refused_by_host_and_process(interrupted: Run) -> None:
    second = interrupted.more["second"]
    assert second.returncode == 2
    assert f"already running (process {interrupted.more['pid']} on {socket.gethostname()}" in second.stderr
    assert second.stdout == ""


def test_nothing_of_ray_is_left(interrupted: Run) -> None:
    assert interrupted.more["temporary"]  # there was one
    assert interrupted.more["left"] == []
    assert not any(Path(folder).exists() for folder in interrupted.more["temporary"])


def test_resuming_finishes_from_the_checkpoint(resumed: Run) -> None:
    assert resumed.code == 0, resumed.errors
    assert resumed.out[-1] == "life: 2 DONE"
    first, second = resumed.statuses
    assert first.attempts[0].resumed_at == 0
    assert all(attempt.resumed_at > 0 for attempt in first.attempts[1:] if attempt.resumed_at is not None)
    assert first.attempts[-1].state == "DONE"
    assert len(second.attempts) == 1
    assert resumed.epochs == [31, 31]  # epoch 0 and ⌈500 / 17⌉


def test_what_was_interrupted_equals_an_undisturbed_twin(life: Life, resumed: Run, tmp_path: Path) -> None:
    trial, twin = life.trials()[0], TrialStore(tmp_path / "twin")
    twin.create(trial.config())
    assert run_trial(twin, tmp_path / "cache") is State.DONE
    ours, theirs = (
        [{name: value for name, value in record.items() if name not in CLOCKS} for record in each.epochs()]
        for each in (trial, twin)
    )
    assert ours == theirs


def test_the_table_is_printed_and_written(life: Life, resumed: Run) -> None:
    for entry in life.store.entries()[:2]:
        assert any(entry.label in line for line in resumed.out)
    assert any("real training" in line for line in resumed.out)
    assert {path.name for path in life.store.tables.iterdir()} >= {"life.csv", "life.md", "life.tex"}


def test_a_new_seed_trains_only_the_new_trials(life: Life, enlarged: Run, resumed: Run) -> None:
    assert enlarged.code == 0
    assert enlarged.out[-1] == "life: 4 DONE"
    assert enlarged.more["todo"] == [entry.trial_id for entry in life.store.entries() if entry.seed == 1]
    assert enlarged.statuses[:2] == resumed.statuses
    assert [len(status.attempts) for status in enlarged.statuses[2:]] == [1, 1]


def test_mlflow_has_one_parent_one_run_a_trial_and_every_point_once(life: Life, enlarged: Run) -> None:
    runs = dump(life.uri, "life")
    assert len(runs) == 5
    assert {name: runs[name]["id"] for name in enlarged.more["before"]} == enlarged.more["before"]  # the same runs
    parent = runs.pop("life")
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["mlflow.note.content"] == "a sweep that is begun, interrupted and resumed"
    assert {"sweep.yaml", "life.csv", "life.md", "life.tex"} <= {path for path, _ in parent["artifacts"]}
    for entry in life.store.entries():
        trial, run = life.store.trial(entry.trial_id), runs[f"{entry.label} seed={entry.seed}"]
        assert run["status"] == "FINISHED"
        assert run["tags"]["mlflow.parentRunId"] == "life"
        assert run["tags"]["state"] == "DONE"
        assert run["tags"]["attempt"] == str(len(trial.status().attempts))
        assert run["params"]["critic_iterations"] == str(entry.axes["critic_iterations"])
        assert run["params"]["seed"] == str(entry.seed)
        assert points_of(run) == expected_points(trial)
        assert len(trial.sample_files()) == 5  # untrained, and four evaluations
        assert files_of(run) == expected_files(trial)
        assert [model["status"] for model in run["models"]] == ["READY"]


def test_running_it_again_trains_nothing(life: Life, enlarged: Run) -> None:
    before = dump(life.uri, "life")
    console = Console(file=io.StringIO(), width=200)
    assert run_sweep(life.store, Options(life.uri), console) == 0
    assert [trial.status() for trial in life.trials()] == enlarged.statuses
    assert dump(life.uri, "life") == before

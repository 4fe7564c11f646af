"""``docker/slurm/sweep.sbatch`` on a real Slurm: its own controller and two nodes, all of this machine.

The warning before the time limit is sent at once instead of being waited for: ``scancel --batch --signal=USR1`` is what
``#SBATCH --signal=B:USR1@…`` does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import own_slurm
import pytest
from command_line import PATIENCE, wait_until
from driven_sweeps import Sweep, new_sweep
from own_slurm import Slurm
from small_trials import assert_equal_to_the_bit

from orchestrator.store.states import State, Status
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial

SCRIPT = Path(__file__).parents[3] / "docker" / "slurm" / "sweep.sbatch"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a Ray takes seconds to start, on a busy machine a minute

LIMITED = """\
name: limited
base: [dataset=mixture, evaluation=none, evaluation.times=1, batch_size=8, budget=900, checkpoint_seconds=0.3,
       device=cpu]
grid: {critic_iterations: [4, 5]}
retries: 0
"""


@dataclass
class Process:
    """A process of a job, as /proc shows it."""

    pid: int
    environment: dict[str, str]
    arguments: list[str]


@dataclass
class Life:
    """Observations of two jobs."""

    sweep: Sweep
    slurm: Slurm
    rays: list[Process] = field(default_factory=list)
    """Ray's processes on every node, while each job ran."""
    in_files: list[Path] = field(default_factory=list)
    """Files that held a job's token at that time."""
    nodes: set[str] = field(default_factory=set)
    """The workers that each trained a trial at the same time."""
    cancelled: dict[str, str] = field(default_factory=dict)
    after_cancelling: list[Status] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """The second job after a trial was lost."""
    unfinished: list[Status] = field(default_factory=list)
    left: list[list[Process]] = field(default_factory=list)
    """What was there after each job."""

    def folders(self) -> set[Path]:
        """The folders of Ray, one for each node of each job."""
        found = [re.fullmatch("--temp-dir=(.+)", word) for process in self.rays for word in process.arguments]
        return {Path(match[1]) for match in found if match}

    def output(self) -> str:
        return "".join(file.read_text() for file in sorted(self.sweep.folder.glob("*.out")))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Two jobs of one sweep.

    The first runs on one node; it is warned, requeued, continued and cancelled. The second runs on two nodes, loses a
    worker and ends.
    """
    if reason := own_slurm.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with own_slurm.own_slurm(folder, nodes=2) as slurm, new_sweep(tmp_path_factory.mktemp("limited"), LIMITED) as sweep:
        seen = Life(sweep, slurm)
        first = _submit(seen, nodes=1)
        with _held_when_busy(seen, first, {0: 1}):
            _look_around(seen, first)
            slurm.command("scancel", "--batch", "--signal=USR1", first)
            _wait(seen, first, sweep.store.stop_file.exists)
        _wait(seen, first, lambda: slurm.job(first)["Restarts"] == "1")
        with _held_when_busy(seen, first, {0: 2}):
            slurm.command("scancel", first)
            _wait(seen, first, sweep.store.stop_file.exists)
        _wait(seen, first, lambda: _ended(slurm, first))
        seen.cancelled, seen.after_cancelling = slurm.job(first), sweep.statuses()
        seen.left.append(_processes(first))

        second = _submit(seen, nodes=2)
        with _held_when_busy(seen, second, {0: 3, 1: 1}):
            _look_around(seen, second)
            seen.nodes = {_node_of(seen, number) for number in (0, 1)}
            os.kill(sweep.statuses()[1].attempts[-1].pid, signal.SIGKILL)
        _wait(seen, second, lambda: _ended(slurm, second))
        seen.failed, seen.unfinished = slurm.job(second), sweep.statuses()
        seen.left.append(_processes(second))
        yield seen


def _submit(seen: Life, *, nodes: int) -> str:
    options = ["--parsable", f"--nodes={nodes}", "--cpus-per-task=1", "--time=60"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return seen.slurm.command("sbatch", *options, SCRIPT, "sweep.yaml", cwd=seen.sweep.folder, PATH=path)


def _wait(seen: Life, job: str, condition: Callable[[], object]) -> None:
    def holds() -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):  # Slurm is busy: ask again
            return bool(condition())
        return False

    try:
        wait_until(holds, pause=0.1)
    except TimeoutError:
        pytest.fail(f"still not so after {PATIENCE} s\n{seen.slurm.job(job)}\n{seen.output()}")


@contextlib.contextmanager
def _held_when_busy(seen: Life, job: str, attempts: dict[int, int]) -> Iterator[None]:
    """Suspends each of these trials as soon as it has trained for a while in this attempt.

    Returns when all are suspended. They stay suspended until the end of the context.
    """
    held: dict[int, int] = {}

    def is_busy(trial: TrialStore, attempt: int) -> bool:
        status, epochs = trial.status(), trial.epochs()
        if len(status.attempts) != attempt or status.attempts[-1].resumed_at is None or not epochs:
            return False
        return status.state is State.RUNNING and epochs[-1]["iteration"] > status.attempts[-1].resumed_at + 50

    def all_are_held() -> bool:
        for number in attempts.keys() - held.keys():
            trial = seen.sweep.trials()[number]
            if is_busy(trial, attempts[number]):
                held[number] = trial.status().attempts[-1].pid
                os.kill(held[number], signal.SIGSTOP)
        return held.keys() == attempts.keys()

    _wait(seen, job, (seen.sweep.store.path / "plan.json").exists)
    _wait(seen, job, all_are_held)
    yield
    for worker in held.values():
        with contextlib.suppress(ProcessLookupError):  # killed in the meantime
            os.kill(worker, signal.SIGCONT)


def _look_around(seen: Life, job: str) -> None:
    rays = [process for process in _processes(job) if "ORCHESTRATOR_SLURM" in process.environment]
    seen.rays += rays
    seen.in_files += _files_with(rays[0].environment["RAY_AUTH_TOKEN"], seen)


def _ended(slurm: Slurm, job: str) -> bool:
    return slurm.job(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def _processes(job: str) -> list[Process]:
    """Every process of a job, on every node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone in the meantime
            words = [word.decode().partition("=") for word in (folder / "environ").read_bytes().split(b"\0")]
            variables = {name: value for name, _, value in words}
            if variables.get("SLURM_JOB_ID") == job:
                arguments = (folder / "cmdline").read_bytes().decode().split("\0")
                found.append(Process(int(folder.name), variables, arguments))
    return found


def _node_of(seen: Life, number: int) -> str:
    worker = seen.sweep.statuses()[number].attempts[-1].pid
    return next(each.environment["SLURMD_NODENAME"] for each in seen.rays if each.pid == worker)


def _files_with(token: str, seen: Life) -> list[Path]:
    """The files of Slurm, of the sweep and of Ray, and the command lines, that contain a token."""
    files = [file for folder in (seen.slurm.folder, seen.sweep.folder, *seen.folders()) for file in folder.rglob("*")]
    found = []
    for file in [*files, *Path("/proc").glob("[0-9]*/cmdline")]:
        with contextlib.suppress(OSError):  # gone in the meantime, or a socket
            if (file.is_file() or file.name == "cmdline") and token.encode() in file.read_bytes():
                found.append(file)
    return found


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say_of_the_script() -> None:
    checked = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_every_node_of_the_allocation_trains(life: Life) -> None:
    assert life.nodes == {"node1", "node2"}


def test_ray_takes_what_slurm_gave_the_job_on_each_node(life: Life) -> None:
    starts = [each.arguments for each in life.rays if "start" in each.arguments]
    assert len(starts) == 3
    assert all({"--num-cpus=1", "--num-gpus=1"} <= set(arguments) for arguments in starts)


def test_the_token_stands_in_no_file_and_no_process_list(life: Life) -> None:
    assert {each.environment["RAY_AUTH_MODE"] for each in life.rays} == {"token"}
    tokens = {(each.environment["SLURM_JOB_ID"], each.environment["RAY_AUTH_TOKEN"]) for each in life.rays}
    assert len(tokens) == len({token for _, token in tokens}) == 2  # each job has its own
    assert {len(token) for _, token in tokens} == {64}
    assert life.in_files == []


def test_on_the_warning_trials_write_checkpoints_and_the_job_is_requeued(life: Life) -> None:
    assert life.after_cancelling[0].attempts[0].ended is not None
    assert life.output().count("requeues this job") == 1


def test_the_next_run_goes_on_from_the_checkpoints(life: Life) -> None:
    _, second, third = life.unfinished[0].attempts
    assert 0 < second.resumed_at < third.resumed_at


def test_cancelling_lets_trials_write_checkpoints_and_is_the_end(life: Life) -> None:
    stopped, _ = life.after_cancelling
    assert (stopped.state, len(stopped.attempts), stopped.attempts[-1].ended is not None) == (State.PENDING, 2, True)
    assert (life.cancelled["JobState"], life.cancelled["Restarts"]) == ("CANCELLED", "1")
    assert life.output().count("limited: 2 PENDING") == 2


def test_a_trial_that_did_not_finish_ends_the_job_with_1_and_no_further_run(life: Life) -> None:
    assert [status.state for status in life.unfinished] == [State.DONE, State.LOST]
    assert (life.failed["JobState"], life.failed["ExitCode"], life.failed["Restarts"]) == ("FAILED", "1:0", "0")


def test_nothing_of_ray_is_left_on_any_node(life: Life) -> None:
    assert life.left == [[], []]
    assert len(life.folders()) == 3
    assert not any(folder.exists() for folder in life.folders())


def test_what_was_warned_requeued_and_cancelled_equals_an_undisturbed_twin(life: Life, tmp_path: Path) -> None:
    trial, _ = life.sweep.trials()
    twin = TrialStore(tmp_path / "twin")
    twin.create(trial.config())
    assert run_trial(twin, tmp_path / "cache") is State.DONE
    assert_equal_to_the_bit(trial, twin)

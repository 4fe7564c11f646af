"""A sweep whose driver is asked to end, or to end at once: a real Ray, real processes, real signals.

``test_killed_at_random`` has drivers that are killed.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from command_line import wait_until
from driven_sweeps import Sweep, folders_of, new_sweep

from orchestrator.store.lock import marked_processes
from orchestrator.store.states import State, Status

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a Ray takes seconds to start, on a busy machine a minute

DEAD = """\
name: dead
base: [dataset=mixture, evaluation=none, batch_size=8, budget=2000, device=cpu, checkpoint_seconds=0.3]
grid: {critic_iterations: [1, 2]}
"""


@dataclass
class Waited:
    """What ``orchestrator stop`` said while it waited, how it ended, and what it said then."""

    told: list[str]
    code: int
    out: str


@dataclass
class Ended:
    """How a command ended, and what existed at that moment."""

    code: int
    out: list[str]
    errors: str
    statuses: list[Status]
    left: list[str]
    folders: list[Path]
    unmarked: set[int] = field(default_factory=set)
    """Descendants without the driver's mark."""
    waited: Waited | None = None


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with new_sweep(tmp_path_factory.mktemp("dead"), DEAD) as sweep:
        yield sweep


@pytest.fixture(scope="module")
def terminated(dead: Sweep) -> Ended:
    """``orchestrator sweep``. Every process gets SIGTERM, and the command's own process twice, as job managers do."""
    running = dead.start_and_wait_until_busy("sweep", "sweep.yaml", "--offline")
    driver = dead.driver()
    unmarked = running.descendants() - set(marked_processes(driver.mark)) - {driver.pid}
    running.signal_all(signal.SIGTERM)
    code, out, errors = running.end()
    statuses, left = dead.statuses(), running.left_over(0)
    return Ended(code, out.splitlines(), errors, statuses, left, folders_of(driver), unmarked)


@pytest.fixture(scope="module")
def aborted(dead: Sweep, terminated: Ended) -> Ended:
    """A worker hangs, so that the driver cannot finish after the first Ctrl-C. The second signal does not wait for it.

    It is the one that ``orchestrator stop``, which waits meanwhile, says to be the way out.

    That what was disturbed ends as an undisturbed twin is ``test_killed_at_random``'s to show.
    """
    running = dead.start_and_wait_until_busy("resume", "dead", "--offline")
    driver = dead.driver()
    dead.hang(0)
    running.signal_group(signal.SIGINT)
    wait_until(dead.store.stop_file.exists)
    stopping = dead.start("stop", "dead")
    assert stopping.process.stdout is not None
    told = [stopping.process.stdout.readline() for _ in range(3)]
    way_out = told[-1].rpartition(": ")[2].split()
    assert way_out == ["kill", "-INT", str(driver.pid)]
    subprocess.run(way_out, check=True)
    code, out, errors = running.end()
    waited = Waited(told, *stopping.end()[:2])
    folders, left = folders_of(driver), running.left_over(0)
    return Ended(code, out.splitlines(), errors, dead.statuses(), left, folders, waited=waited)


def test_every_process_of_a_driver_s_ray_bears_its_mark(terminated: Ended) -> None:
    assert terminated.unmarked == set()


def test_sigterm_to_every_process_lets_trials_write_a_checkpoint_and_leaves_nothing(
    dead: Sweep, terminated: Ended
) -> None:
    assert terminated.code == 130
    assert terminated.out[-1] == "Stopped; go on with: orchestrator resume dead --offline"
    assert "Traceback" not in terminated.errors
    assert [status.state for status in terminated.statuses] == [State.PENDING, State.PENDING]
    assert all(status.attempts[-1].ended is not None for status in terminated.statuses)
    assert terminated.left == []
    assert terminated.folders == []


def test_a_second_ctrl_c_waits_for_nobody_and_leaves_nothing(aborted: Ended) -> None:
    assert aborted.code == 130
    assert "Traceback" not in aborted.errors
    assert aborted.left == []
    assert aborted.folders == []


def test_a_stop_that_waits_names_the_trial_that_hangs_and_the_way_out(dead: Sweep, aborted: Ended) -> None:
    waited, (trial, _), (hanging, _) = aborted.waited, dead.trials(), aborted.statuses
    assert waited is not None
    first, line, last = waited.told
    attempt = hanging.attempts[-1]
    assert first.startswith("waiting for the driver of 'dead' (process ")
    assert first.endswith("): 1 trial still runs\n")
    name = rf"  dead critic_iterations=1 seed=0 \(process {attempt.pid} on {re.escape(attempt.host)}\)"
    log = re.escape(str(trial.log_file.relative_to(dead.folder)))
    assert re.fullmatch(rf"{name}: last heard of \d+s ago \(log: {log}\)\n", line)
    assert last.startswith(
        "Ctrl-C ends only this waiting. If a trial hangs, this ends the sweep at once and loses only "
    )
    assert (waited.code, waited.out.splitlines()[-1]) == (0, "'dead' has stopped.")


def test_after_a_second_ctrl_c_no_trial_is_said_to_be_running(aborted: Ended) -> None:
    hanging, _ = aborted.statuses
    assert hanging.attempts[-1].ended is None
    assert (hanging.state, hanging.error) == (State.LOST, "the driver left at once")
    assert State.RUNNING not in [status.state for status in aborted.statuses]

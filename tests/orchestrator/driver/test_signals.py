"""A sweep whose driver is asked to end, or to end at once: a real Ray, real processes, real signals.

``test_killed_at_random`` has drivers that are killed.
"""

from __future__ import annotations

import signal
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
    """A worker hangs, so that the driver cannot finish after the first Ctrl-C. The second one does not wait for it.

    That what was disturbed ends as an undisturbed twin is ``test_killed_at_random``'s to show.
    """
    running = dead.start_and_wait_until_busy("resume", "dead", "--offline")
    driver = dead.driver()
    dead.hang(0)
    running.signal_group(signal.SIGINT)
    wait_until(dead.store.stop_file.exists)
    running.signal_group(signal.SIGINT)
    code, out, errors = running.end()
    return Ended(code, out.splitlines(), errors, dead.statuses(), running.left_over(0), folders_of(driver))


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


def test_after_a_second_ctrl_c_no_trial_is_said_to_be_running(aborted: Ended) -> None:
    hanging, _ = aborted.statuses
    assert hanging.attempts[-1].ended is None
    assert (hanging.state, hanging.error) == (State.LOST, "the driver left at once")
    assert State.RUNNING not in [status.state for status in aborted.statuses]

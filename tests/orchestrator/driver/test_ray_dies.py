"""A sweep whose local Ray dies or stands still. Its processes are really killed and suspended."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Running, marked, wait_until
from driven_sweeps import folders_of, new_sweep

from orchestrator.store.lock import Driver
from orchestrator.store.states import State, Status

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a Ray takes seconds to start, on a busy machine a minute

DEAD = """\
name: dead
base: [dataset=mixture, evaluation=none, batch_size=8, budget=100000, device=cpu, checkpoint_seconds=0.3]
grid: {critic_iterations: [1, 2]}
"""
KNOWN = "known to somebody else"
RESUME = "orchestrator resume dead --offline"


@dataclass
class Ended:
    """How a command ended, and what existed at that moment."""

    code: int
    out: list[str]
    errors: str
    seconds: float
    statuses: list[Status]
    left: list[str]
    folders: list[Path]


@dataclass
class Life:
    """What other users see of the running Ray, and how three commands ended."""

    strangers: list[tuple[int, str]]
    modes: list[int]
    head_s_environment: list[str]
    agent: Ended
    head: Ended
    still: Ended


def process(mark: str, name: str) -> int:
    """The id of the one process of Ray's whose program or title ends with ``name``."""
    (pid,) = (pid for pid, line in marked(mark).items() if line.split()[0].endswith(name))
    return pid


def as_stranger(*command: object) -> tuple[int, str]:
    """Runs a command as another user."""
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.rpartition(": ")[2].strip()


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with new_sweep(tmp_path_factory.mktemp("dead"), DEAD) as sweep:
        sweep.changes = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": KNOWN}

        def end(running: Running, driver: Driver, began: float) -> Ended:
            code, out, errors = running.end()
            seconds, left = time.monotonic() - began, running.left_over(0)
            return Ended(code, out.splitlines(), errors, seconds, sweep.statuses(), left, folders_of(driver))

        running = sweep.start_and_wait_until_busy("sweep", "sweep.yaml", "--offline")
        driver = sweep.driver()
        ray, _ = folders_of(driver)
        (socket,) = ray.glob("s/session_2*/sockets/raylet")
        strangers = [as_stranger("ls", ray), as_stranger("touch", ray / "s" / "link"), as_stranger("cat", socket)]
        environ = Path(f"/proc/{process(running.mark, 'gcs_server')}/environ").read_text().split("\0")
        modes = [stat.S_IMODE(ray.stat().st_mode), stat.S_IMODE((ray / "s").stat().st_mode)]
        began = time.monotonic()
        os.kill(process(running.mark, "RuntimeEnvAgent"), signal.SIGKILL)
        agent = end(running, driver, began)

        running = sweep.start_and_wait_until_busy("resume", "dead", "--offline")
        driver, began = sweep.driver(), time.monotonic()
        os.kill(process(running.mark, "gcs_server"), signal.SIGKILL)
        head = end(running, driver, began)

        running = sweep.start_and_wait_until_busy("resume", "dead", "--offline")
        driver, began = sweep.driver(), time.monotonic()
        os.kill(process(running.mark, "gcs_server"), signal.SIGSTOP)
        running.signal_group(signal.SIGINT)
        wait_until(sweep.store.stop_file.exists)
        time.sleep(0.5)  # nobody presses faster, and two signals of one moment count as one
        running.signal_group(signal.SIGINT)
        still = end(running, driver, began)
        yield Life(strangers, modes, environ, agent, head, still)


def test_another_user_neither_sees_nor_changes_nor_calls_what_is_ray_s(life: Life) -> None:
    assert life.modes == [0o700, 0o777]  # Ray opens its own folder to everybody: it lies in ours
    assert life.strangers == [(2, "Permission denied"), (1, "Permission denied"), (1, "Permission denied")]


def test_the_local_ray_asks_for_a_token_of_its_own_whatever_the_environment_says(life: Life) -> None:
    assert "RAY_AUTH_MODE=token" in life.head_s_environment
    (token,) = (line for line in life.head_s_environment if line.startswith("RAY_AUTH_TOKEN="))
    assert len(token.removeprefix("RAY_AUTH_TOKEN=")) == 32
    assert KNOWN not in token


def assert_concluded(ended: Ended, why: str) -> None:
    assert ended.code == 1
    assert ended.out[-2:] == [f"Stopped early: {why}", f"Some trials did not finish; go on with: {RESUME}"]
    assert [status.state for status in ended.statuses] == [State.LOST, State.LOST]
    assert (ended.left, ended.folders) == ([], [])
    assert "Traceback" not in ended.errors


def test_where_an_agent_of_ray_s_is_killed_the_sweep_is_concluded(life: Life) -> None:
    reasons = {
        "Ray ended the driver (exit code 1), because a process of Ray's had died",
        "the local Ray has lost its process raylet, which was killed or has died",
    }
    (why,) = reasons & {line.removeprefix("Stopped early: ") for line in life.agent.out}
    assert_concluded(life.agent, why)


def test_where_ray_s_head_is_killed_the_sweep_is_concluded_before_ray_gives_up(life: Life) -> None:
    assert_concluded(life.head, "the local Ray has lost its process gcs_server, which was killed or has died")
    assert life.head.seconds < 60  # when Ray itself gives up


def test_where_ray_stands_still_a_second_ctrl_c_leaves_and_nothing_is_left(life: Life) -> None:
    assert (life.still.code, life.still.out[-1]) == (130, f"Left at once; go on with: {RESUME}")
    assert State.RUNNING not in [status.state for status in life.still.statuses]
    assert (life.still.left, life.still.folders) == ([], [])
    assert life.still.seconds < 30

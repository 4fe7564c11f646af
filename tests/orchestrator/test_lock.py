"""One driver a sweep, and what dead drivers have left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from command_line import CommandLine

from orchestrator.errors import UserError
from orchestrator.lock import driver_lock, stop_driver
from orchestrator.store import SweepStore

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.lock import driver_lock
from orchestrator.store import SweepStore
store = SweepStore(Path(sys.argv[1]), "hand")
with driver_lock(store):
    print("held", flush=True)
    for _ in range(1000):
        time.sleep(0.1)
        if store.stop_file.exists():
            time.sleep(0.5)  # the time it takes to write a checkpoint
            (store.path / "written").touch()
            break
"""


def test_a_second_driver_is_refused_by_name_and_let_in_when_the_first_is_gone(store: SweepStore) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.runs_dir)], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            told = f"driven already, by process {first.pid} on {socket.gethostname()}"
            with pytest.raises(UserError, match=told), driver_lock(store):
                pass
        finally:
            first.kill()
    with driver_lock(store):  # a lock dies with its process
        assert str(os.getpid()) in store.driver_file.read_text()
    with driver_lock(store):
        pass


def test_stopping_waits_until_the_driver_has_ended(store: SweepStore, command_line: CommandLine) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.runs_dir)], stdout=subprocess.PIPE, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "held\n"
            code, out, _ = command_line("stop", "hand", "--runs-dir", store.runs_dir)
            assert (code, out) == (0, "'hand' has stopped.\n")
            assert (store.path / "written").exists()
        finally:
            driver.kill()
    with pytest.raises(UserError, match="nobody is driving 'hand'"):
        stop_driver(store)


def test_a_lock_is_released_by_an_error(store: SweepStore) -> None:
    with pytest.raises(ValueError, match="odd"), driver_lock(store):
        raise ValueError("odd")
    with driver_lock(store):
        pass

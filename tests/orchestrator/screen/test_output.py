"""What cannot be printed ends no command, and is told once."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from command_line import PATIENCE, PROGRAM, environment
from hand_made import make_sweep, write_file
from mlflow_dump import dump

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

TOLD = "orchestrator: standard output cannot be written: No space left on device\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    make_sweep(folder)
    return folder


def run(*words: str, cwd: Path, shell: str) -> tuple[int, str, str]:
    """Runs a command with redirections of the shell."""
    command = ["sh", "-c", f'"$@" {shell}', "sh", str(PROGRAM), *words]
    ran = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("words", ["--help", "status", "status hand --json", "prune hand --dry-run"])
def test_a_full_disk_is_told_instead_of_a_traceback(words: str, folder: Path) -> None:
    assert run(*words.split(), cwd=folder, shell="> /dev/full") == (1, "", TOLD)


def test_a_sweep_goes_on_where_its_output_cannot_be_written(tmp_path: Path) -> None:
    file = write_file(tmp_path, "name: small\nbase: [dataset=mixture, network=mlp, evaluation=none, budget=2]\n")
    words = "sweep", str(file), "--executor", "local", "--offline"
    assert run(*words, cwd=tmp_path, shell="> /dev/full") == (1, "", TOLD)
    store = SweepStore.open(tmp_path / "runs", "small")
    assert [store.trial(entry.trial_id).status().state for entry in store.entries()] == [State.DONE]


def test_an_error_that_cannot_be_told_keeps_its_exit_code(folder: Path) -> None:
    assert run("export", "unheard-of", cwd=folder, shell="2> /dev/full") == (2, "", "")


@pytest.mark.parametrize("shell", [">&-", "| head -c 1 > /dev/null"], ids=["closed", "a pipe that is closed early"])
def test_closed_output_is_no_traceback(shell: str, folder: Path) -> None:
    assert run("status", cwd=folder, shell=shell) == (0, "", "")


SMALL = """\
name: small
base: [dataset=mixture, network=mlp, batch_size=32, budget=8, device=cpu]
"""
SWEEP = ["sweep", "sweep.yaml", "--executor", "local"]


def assert_whole(folder: Path, uri: str) -> None:
    """That a sweep of one trial has its result, its tables, and every point in MLflow."""
    store = SweepStore.open(folder / "runs", "small")
    trial = store.trial(store.entries()[0].trial_id)
    assert trial.status().state is State.DONE
    assert {path.suffix for path in store.tables.iterdir()} == {".csv", ".md", ".tex"}
    (points,) = (run["metrics"]["exact_w1"] for name, run in dump(uri, "small").items() if name != "small")
    evaluated = [(each["epoch"], each["timestamp"], each["exact_w1"]) for each in trial.epochs() if "exact_w1" in each]
    assert points == evaluated
    assert len(points) > 1


@pytest.mark.parametrize("terminal", [False, True], ids=["a pipe", "a terminal"])
def test_a_sweep_whose_reader_leaves_before_the_end_loses_neither_tables_nor_points(
    tmp_path: Path, tracking_uri: str, terminal: bool
) -> None:
    """The reader leaves when the last trial is done, so the driver itself prints next."""
    write_file(tmp_path, SMALL)
    reader, writer = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", str(PROGRAM), *SWEEP],  # as nohup does
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        start_new_session=True,
    )
    os.close(writer)
    shown = b""
    while b"DONE" not in shown:
        shown += os.read(reader, 4096)
    os.close(reader)
    assert process.wait(PATIENCE) == 1  # part of what was printed is lost
    assert_whole(tmp_path, tracking_uri)


def test_a_sweep_without_room_for_output_and_errors_loses_neither_tables_nor_points(
    tmp_path: Path, tracking_uri: str
) -> None:
    write_file(tmp_path, SMALL)
    assert run(*SWEEP, cwd=tmp_path, shell="> /dev/full 2> /dev/full") == (1, "", "")
    assert_whole(tmp_path, tracking_uri)

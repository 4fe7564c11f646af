"""What cannot be printed ends no command, and is told once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from command_line import PATIENCE, PROGRAM, environment
from hand_made import make_sweep, write_file

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

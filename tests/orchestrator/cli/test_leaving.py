"""A command with a finished result ends, whatever a library leaves running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import environment, orchestrator

COMMAND = """\
import sys, threading, time
from orchestrator import cli

def wait_for_ever():
    threading.Event().wait()

{left_behind}
cli.SECONDS_TO_LEAVE = {seconds}
sys.argv = ["orchestrator", {word!r}]
cli.program()
"""
LEFT_BEHIND = {
    "a thread": "threading.Thread(target=wait_for_ever).start()",
    "an exit handler": "import atexit; atexit.register(wait_for_ever)",
    "nothing": "",
}


def run(left_behind: str, seconds: float, word: str = "--help") -> subprocess.CompletedProcess[str]:
    program = COMMAND.format(left_behind=LEFT_BEHIND[left_behind], seconds=seconds, word=word)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("left_behind", ["a thread", "an exit handler"])
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("unheard-of", 2)])
def test_what_waits_for_ever_is_ended_named_and_the_exit_code_stands(left_behind: str, word: str, code: int) -> None:
    seconds = 2.0  # by then it has come to where it waits
    ended = run(left_behind, seconds, word)
    assert ended.returncode == code
    assert ("Usage" in ended.stdout) == (code == 0)  # nothing that was printed is lost
    assert "did not end within 2 s" in ended.stderr
    assert "in wait_for_ever" in ended.stderr


def test_nobody_waits_for_the_last_resort() -> None:
    ended = run("nothing", 600)  # is given a minute itself
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_that_lacks_a_character_ends_nothing(tmp_path: Path, encoding: str) -> None:
    ended = orchestrator("sweep", "--help", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "[OVERRIDE]?" in ended.stdout

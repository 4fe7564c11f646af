"""MLflow's pages on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from command_line import CommandLine, started, wait_until

from orchestrator.store import SweepStore
from orchestrator.tracking import Mirror


def page(address: str) -> str:
    """What a browser gets; nothing while nobody answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as got:
        return got.read().decode()
    return ""


@pytest.mark.long
def test_the_pages_are_there_until_they_are_interrupted(
    store: SweepStore, tracking_uri: str, closed_port: int, tmp_path: Path
) -> None:
    Mirror(store, tracking_uri).finish()
    address = f"http://127.0.0.1:{closed_port}"
    with started("ui", "--port", closed_port, cwd=tmp_path) as running:
        wait_until(lambda: page(f"{address}/health") == "OK")
        assert "<title>MLflow</title>" in page(address)
        os.kill(running.process.pid, signal.SIGINT)
        _, out, _ = running.end()
        assert running.left_over(10) == []
    assert out.startswith(f"all sweeps: {address}/#/experiments")  # the line to click on


def test_a_server_elsewhere_has_pages_of_its_own(tmp_path: Path, command_line: CommandLine) -> None:
    code, out, _ = command_line("ui", "--tracking-uri", "http://somewhere:5000", "--runs-dir", tmp_path)
    assert (code, out) == (0, "all sweeps: http://somewhere:5000/#/experiments?workflowType=machine_learning\n")


def test_a_server_elsewhere_has_a_port_of_its_own(tmp_path: Path, command_line: CommandLine) -> None:
    arguments = ["--tracking-uri", "http://somewhere:5000", "--port", "5001", "--runs-dir", tmp_path]
    code, out, errors = command_line("ui", *arguments)
    assert (code, out) == (2, "")
    assert "--port 5001: http://somewhere:5000 is a server already" in errors


def test_a_sweep_that_mlflow_does_not_know(
    store: SweepStore, tracking_uri: str, tmp_path: Path, command_line: CommandLine
) -> None:
    code, _, errors = command_line("ui", "hand", "--runs-dir", tmp_path / "runs")
    told = "MLflow knows no sweep called 'hand'; 'orchestrator sync hand' shows it to MLflow"
    assert (code, errors) == (2, f"orchestrator: {told}\n")
    Mirror(store, tracking_uri).finish()
    code, _, errors = command_line("ui", "hnad", "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert "did you mean 'hand'?" in errors

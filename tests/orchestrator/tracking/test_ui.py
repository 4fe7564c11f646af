"""``orchestrator ui``: MLflow's pages on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from command_line import CommandLine, started, wait_until
from traps import Traps

from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.mirror import Mirror


def page(address: str) -> str:
    """The page that a browser gets; empty while no server answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as got:
        return got.read().decode()
    return ""


@pytest.mark.long
def test_the_pages_are_there_until_they_are_interrupted(
    store: SweepStore, tracking_uri: str, closed_port: int, tmp_path: Path
) -> None:
    """Neither MLflow's server nor uvicorn below it executes what lies in the working directory."""
    Mirror(store, tracking_uri).finish()
    traps = Traps(tmp_path)
    address = f"http://127.0.0.1:{closed_port}"
    with started("ui", "--port", closed_port, cwd=tmp_path) as running:
        wait_until(lambda: page(f"{address}/health") == "OK")
        assert "<title>MLflow</title>" in page(address)
        os.kill(running.process.pid, signal.SIGINT)
        _, out, _ = running.end()
        assert running.left_over(10) == []
    assert traps.executed == ""
    assert out.startswith(f"all sweeps: {address}/#/experiments")  # the line to click on


def test_a_server_elsewhere_has_pages_of_its_own(tmp_path: Path, command_line: CommandLine) -> None:
    code, out, _ = command_line("ui", "--tracking-uri", "http://somewhere:5000", "--runs-dir", tmp_path)
    assert (code, out) == (0, "all sweeps: http://somewhere:5000/#/experiments?workflowType=machine_learning\n")


def test_a_server_elsewhere_has_a_port_of_its_own(tmp_path: Path, command_line: CommandLine) -> None:
    arguments = ["--tracking-uri", "http://somewhere:5000", "--port", "5001", "--runs-dir", tmp_path]
    code, out, errors = command_line("ui", *arguments)
    assert (code, out) == (2, "")
    assert "--port 5001: http://somewhere:5000 is a server with a port of its own" in errors


def test_a_sweep_that_mlflow_does_not_know(
    store: SweepStore, tracking_uri: str, tmp_path: Path, command_line: CommandLine
) -> None:
    code, _, errors = command_line("ui", "hand", "--runs-dir", tmp_path / "runs")
    told = f"MLflow has no sweep called 'hand'; add it with: orchestrator sync hand --runs-dir {tmp_path / 'runs'}"
    assert (code, errors) == (2, f"orchestrator: {told}\n")
    Mirror(store, tracking_uri).finish()
    code, _, errors = command_line("ui", "hnad", "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert "did you mean 'hand'?" in errors


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that would become MLflow's server fails instead."""
    monkeypatch.setattr(os, "execv", lambda *command: pytest.fail(f"becomes {command}"))


@pytest.mark.usefixtures("no_server", "tracking_uri")
@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_there_is_not(tmp_path: Path, command_line: CommandLine, port: int) -> None:
    code, out, errors = command_line("ui", "--port", port, "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert "'--port'" in errors


@pytest.mark.usefixtures("no_server", "tracking_uri")
def test_a_port_at_which_somebody_listens(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        told = f"orchestrator: --port {port}: another program listens there; choose another port\n"
        assert command_line("ui", "--port", port, "--runs-dir", tmp_path / "runs") == (2, "", told)
        monkeypatch.setattr("orchestrator.tracking.ui.DEFAULT_PORT", port)
        assert command_line("ui", "--runs-dir", tmp_path / "runs") == (2, "", told)


@pytest.mark.usefixtures("tracking_uri")
def test_a_port_that_a_server_has_just_left(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "execv", lambda *command: became.append(command))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            listener.accept()[0].close()  # the side that closes first keeps the port for a minute
            assert client.recv(1) == b""
    code, out, _ = command_line("ui", "--port", port, "--runs-dir", tmp_path / "runs")
    assert (code, len(became)) == (0, 1)
    assert out.startswith(f"all sweeps: http://127.0.0.1:{port}/")


@pytest.mark.usefixtures("no_server")
def test_an_address_that_mlflow_does_not_know(tmp_path: Path, command_line: CommandLine) -> None:
    code, out, errors = command_line("ui", "--tracking-uri", "foo", "--runs-dir", tmp_path)
    assert (code, out) == (2, "")
    assert errors.startswith("orchestrator: --tracking-uri foo: expected sqlite:///FILE")
    assert errors.count("\n") == 1

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
    with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5) as got:
        return got.read().decode()
    return ""


@pytest.mark.long
def test_the_pages_are_there_until_they_are_interrupted(
    store: SweepStore, tracking_uri: str, closed_port: int, tmp_path: Path
) -> None:
    Mirror(store, tracking_uri).finish()
    address = f"http://127.0.0.1:{closed_port}"
    with started("ui", "--port", closed_port, cwd=tmp_path) as running:
        wait_until(lambda: page(f"{address}/health") == "OK", 100)
        assert "<title>MLflow</title>" in page(address)
        os.kill(running.process.pid, signal.SIGINT)
        _, out, _ = running.end()
        assert running.left_over(10) == []
    assert out.startswith(address)  # the line to click on


def test_a_server_elsewhere_has_pages_of_its_own(tmp_path: Path, command_line: CommandLine) -> None:
    code, out, _ = command_line("ui", "--tracking-uri", "http://somewhere:5000", "--runs-dir", tmp_path)
    assert (code, out) == (0, "http://somewhere:5000 is a running MLflow server: open it in a browser.\n")

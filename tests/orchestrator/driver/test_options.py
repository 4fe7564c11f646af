"""The options of commands that messages suggest."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from orchestrator.driver.options import Options, as_arguments, resume_command
from orchestrator.store.runs import runs_argument
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import default_uri


@pytest.mark.parametrize(
    ("runs", "argument"),
    [
        pytest.param(Path("runs"), "", id="the default"),
        pytest.param("runs", "", id="the default, as text"),
        pytest.param(Path("/data/my runs"), " --runs-dir '/data/my runs'", id="a space"),
        pytest.param("s3://bucket/runs", " --runs-dir s3://bucket/runs", id="an object store"),
    ],
)
def test_the_runs_directory(runs: Path | str, argument: str) -> None:
    assert runs_argument(runs) == argument


def test_the_tracking_uri_stands_there_unless_it_is_the_default() -> None:
    store = SweepStore(Path("my runs"), "s")
    assert as_arguments(store, Options(default_uri(store.runs))) == " --runs-dir 'my runs'"
    uri = "sqlite:////elsewhere/it's.db"
    assert shlex.split(as_arguments(store, Options(uri))) == ["--runs-dir", "my runs", "--tracking-uri", uri]
    odd = SweepStore(Path("a%20b"), "s")  # where there is no default
    assert shlex.split(as_arguments(odd, Options(uri))) == ["--runs-dir", "a%20b", "--tracking-uri", uri]
    words = shlex.split(resume_command(store, Options(None, "host:1")))
    assert words == ["orchestrator", "resume", "s", "--runs-dir", "my runs", "--address", "host:1", "--offline"]

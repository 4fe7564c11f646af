"""The scripts that become the cluster's processes, as shell programs. The cluster that they make is tested as a whole
elsewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import typer
from repository import BIN, ROOT, run

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docker/*.sh"), ROOT / "docker/make-secrets"]
)
NEEDED = {
    "mlflow.sh": {
        "PGHOST": "postgres",
        "PGUSER": "mlflow",
        "PGPASSWORD": "x",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "x",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost",
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
    },
    "ray-head.sh": {"RAY_AUTH_TOKEN": "x"},
    "ray-worker.sh": {"RAY_AUTH_TOKEN": "x", "RAY_HEAD_ADDRESS": "head:6379"},
    "driver.sh": {
        "RUNS_DIR": "s3://runs",
        "RAY_AUTH_TOKEN": "x",
        "RAY_HEAD_ADDRESS": "head:6379",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    },
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    done = run(BIN / "shellcheck", ROOT / script)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_would_say_something(tmp_path: Path) -> None:
    careless = tmp_path / "careless.sh"
    careless.write_text("#!/bin/sh\nrm -r $1\n")
    assert run(BIN / "shellcheck", careless).returncode == 1


@pytest.mark.parametrize(("script", "name"), [(script, name) for script, names in NEEDED.items() for name in names])
def test_nothing_starts_while_a_variable_is_missing_or_empty(script: str, name: str, tmp_path: Path) -> None:
    """The PATH has no program to start: that would end with 127."""
    arguments = ["sweep", "file.yaml"] if script == "driver.sh" else []
    done = run("/bin/sh", ROOT / "docker" / script, *arguments, env=NEEDED[script] | {name: "", "PATH": str(tmp_path)})
    assert done.returncode == 2
    assert f"{name}:" in done.stderr


def options(script: str, program: str) -> set[str]:
    """The options that a script gives to a program, read from its text with continued lines joined."""
    text = (ROOT / "docker" / script).read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if re.match(rf"\s*(exec )?{program}\b", line)]
    return set(re.findall(r"(?<=\s)--[a-z-]+", line))


def test_every_option_of_ray_start_is_one_of_this_version() -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for script in ("ray-head.sh", "ray-worker.sh", "driver.sh"):
        given = options(script, "ray start")
        assert given, script
        assert given <= known, script


def test_the_driver_gives_each_command_options_that_it_has() -> None:
    from orchestrator.cli import app

    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    assert {"--address", "--tracking-uri", "--runs-dir"} <= known["sweep"] & known["resume"]
    assert {"--tracking-uri", "--runs-dir"} <= known["sync"]
    assert all("--runs-dir" in options for options in known.values())


def test_make_buckets_makes_those_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    make_buckets = runpy.run_path(str(ROOT / "docker" / "make_buckets.py"))["make_buckets"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        assert make_buckets(["mlflow"]) == ["mlflow"]
        assert make_buckets(["runs", "mlflow"]) == ["runs"]
        assert make_buckets(["runs", "mlflow"]) == []
    finally:
        server.stop()

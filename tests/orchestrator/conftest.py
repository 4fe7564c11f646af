"""Fixtures that the tests of ``orchestrator`` share: sweep files, one Ray, an empty MLflow database, commands."""

from __future__ import annotations

import copy
import itertools
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import EAGER_WORKERS, Cluster, CommandLine, free_port
from hand_made import Planner, make_sweep, plan_file, write_file
from small_trials import NewTrial, create, run

from orchestrator.engine.tune import prepare_environment
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.sweep import presets as composition
from orchestrator.sweep.plan import Plan

os.environ.update(EAGER_WORKERS)
prepare_environment(local=True)  # before a test module imports Ray, which reads it then and never again


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Composes each set of overrides only once per test run, because Hydra takes 0.15 s per configuration.

    ``test_composing`` calls Hydra every time.
    """
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    def compose(overrides: list[str]) -> dict[str, Any]:
        key = tuple(map(composition.with_full_path, overrides))
        if key not in known:
            known[key] = composition.compose(overrides)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.sweep.cells.compose", compose)
        yield


@pytest.fixture
def plan_of(tmp_path: Path) -> Planner:
    """``plan_of(text, "scale=small", name="other")``: the plan of a sweep file with this text."""

    def plan(text: str, *arguments: str, name: str | None = None) -> Plan:
        return plan_file(write_file(tmp_path, text), *arguments, name=name)

    return plan


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs directory of a planned sweep of two cells and two seeds. Tests copy it."""
    return make_sweep(tmp_path_factory.mktemp("planned")).runs_dir


@pytest.fixture
def store(planned_once: Path, tmp_path: Path) -> SweepStore:
    """The sweep ``hand`` of two cells and two seeds, of which nothing has run."""
    shutil.copytree(planned_once, tmp_path / "runs", dirs_exist_ok=True)
    return SweepStore(tmp_path / "runs", "hand")


@pytest.fixture
def new_trial(tmp_path: Path) -> NewTrial:
    """``new_trial(critic={"lr": 1})`` makes a small trial with these changes that has not run."""
    numbers = itertools.count()
    return lambda **changes: create(tmp_path / str(next(numbers)), **changes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    """The small trial without changes, run in one go."""
    trial = create(tmp_path_factory.mktemp("undisturbed") / "trial")
    assert run(trial) is State.DONE
    return trial


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """``command_line("status", "--json")`` runs a command in this process; see ``CommandLine``."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from orchestrator.cli import main

        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def ray_resources() -> Iterator[dict[str, float]]:
    """The resources of the Ray that all tests of this process share."""
    import ray

    from orchestrator.engine.tune import ray_session

    with ray_session(None, secrets.token_hex(6)):
        yield ray.cluster_resources()


@pytest.fixture(scope="session")
def cluster(ray_resources: dict[str, float]) -> Cluster:
    """The arguments and environment with which a command joins the shared Ray."""
    import ray

    token = {key: os.environ[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    return Cluster(["--address", ray.get_runtime_context().gcs_address], token)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with empty tables. Tests copy it, because making the tables takes seconds."""
    from orchestrator.tracking.address import quiet_client

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    quiet_client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(empty_database: Path, tmp_path: Path) -> str:
    """The URI of an MLflow database for this test alone, in its runs directory."""
    (tmp_path / "runs").mkdir(exist_ok=True)
    shutil.copy(empty_database, tmp_path / "runs" / "mlflow.db")
    return f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"


@pytest.fixture
def closed_port() -> int:
    """A port of this machine at which no process listens."""
    return free_port()

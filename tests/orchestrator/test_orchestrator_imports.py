"""Commands that start nothing are instant, and the two packages depend in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import POINTS, write_file

import orchestrator
import trainers

HEAVY = ["torch", "torchvision", "torch_fidelity", "ray", "mlflow", "pandas", "matplotlib", "jinja2", "sklearn", "ot"]
RUN = """
import sys
from orchestrator.cli import main
sys.argv = ["orchestrator", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print("code", ended.code or 0)
print("heavy", *(name for name in %r if name in sys.modules))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(["sweep", "--help"], id="help of a command"),
        pytest.param(["sweep", "sweep.yaml", "--dry-run"], id="dry run"),
        pytest.param(["status"], id="status"),
        pytest.param(["plot", "--help"], id="help of plot"),
    ],
)
def test_commands_that_start_nothing_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    write_file(tmp_path, f"name: s\nbase: {POINTS}\ngrid: {{penalty.weight: [1, 2]}}\n")
    program = [sys.executable, "-c", RUN % HEAVY, *arguments]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines()[-2:] == ["code 0", "heavy"], ran.stdout + ran.stderr
    assert not (tmp_path / "runs").exists()


def imported(package: Path) -> dict[str, set[str]]:
    """The packages that each module imports, wherever in it."""
    found: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        names = found.setdefault(str(file.relative_to(package.parent)), set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return found


def test_trainers_know_nothing_of_the_orchestrator_and_its_engines() -> None:
    for file, names in imported(Path(trainers.__file__).parent).items():
        assert not names & {"orchestrator", "ray", "mlflow", "hydra", "omegaconf", "typer", "rich"}, file


def test_each_engine_is_known_to_few() -> None:
    modules = imported(Path(orchestrator.__file__).parent)
    users = {
        engine: {Path(file).stem for file, names in modules.items() if engine in names}
        for engine in ("ray", "mlflow", "typer", "hydra", "fsspec")
    }
    assert users["ray"] == {"early_stopping", "executor", "forgetting", "head", "placement", "searcher"}
    assert users["fsspec"] == {"object_store"}
    assert users["mlflow"] == {"generators", "mlflow_app", "tracking", "tracking_uri"}
    assert users["typer"] == {"cli"}
    assert users["hydra"] == {"composition", "sweep_file"}

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
from orchestrator.errors import UserError

PACKAGE = Path(orchestrator.__file__).parent

HEAVY = [
    "torch",
    "torchvision",
    "torch_fidelity",
    "ray",
    "mlflow",
    "pandas",
    "matplotlib",
    "jinja2",
    "sklearn",
    "scipy",
    "ot",
    "optuna",
]
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


ELSEWHERE = """
import sys
sys.platform, sys.modules["fcntl"] = "darwin", None
from orchestrator.cli import main
sys.argv = ["orchestrator", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("command", ["status", "sweep"])
def test_another_platform_gets_a_paragraph(tmp_path: Path, command: str) -> None:
    program = [sys.executable, "-c", ELSEWHERE, command, "x"]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("orchestrator: this system is 'darwin', and orchestrator runs on Linux only")
    assert ran.stderr.count("\n") == 1


def test_a_notebook_on_another_platform_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(UserError, match="runs on Linux only"):
        orchestrator.load("runs/x")


ORDER = (
    ("cli",),
    ("driver",),
    ("engine",),
    ("decisions",),
    ("results",),
    ("screen", "trial", "tracking"),
    ("store",),
    ("sweep", "remote"),
    ("errors", "files", "leaving", "threads"),
    ("printing",),
)
"""Folders and modules of ``orchestrator``. Each may import what stands below it; no line imports its own line."""


def imported(package: Path) -> dict[str, set[str]]:
    """The modules that each module imports: at its top, inside functions, and for annotations alone."""
    found: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        names = found.setdefault(str(file.relative_to(package)), set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
                names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == package.name}
    return found


def users(package: Path, engine: str) -> set[str]:
    """The modules of a package that import another distribution's."""
    return {file for file, names in imported(package).items() if engine in {name.partition(".")[0] for name in names}}


def room_of(name: str) -> str:
    """``sweep`` of ``orchestrator.sweep.plan`` and of ``sweep/plan.py``; empty for the package itself."""
    return name.removeprefix("orchestrator").strip(".").replace("/", ".").partition(".")[0]


def test_trainers_know_nothing_of_the_orchestrator_and_its_engines() -> None:
    package = Path(trainers.__file__).parent
    for other in ("orchestrator", "ray", "mlflow", "hydra", "omegaconf", "typer", "rich"):
        assert not users(package, other), other


def test_folders_import_in_one_direction() -> None:
    level = {room: index for index, line in enumerate(ORDER) for room in line}
    wrong = []
    for file, names in imported(PACKAGE).items():
        if file in ("__init__.py", "__main__.py"):  # the doors for notebooks and for python -m
            continue
        here = room_of(file.removesuffix(".py"))
        for there in {room_of(name) for name in names if name.startswith("orchestrator.")} - {here}:
            if level[there] <= level[here]:
                wrong.append(f"{file} imports {there}")
    assert not wrong


def test_every_module_stands_in_the_order() -> None:
    rooms = {room_of(str(file.relative_to(PACKAGE)).removesuffix(".py")) for file in PACKAGE.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} <= {room for line in ORDER for room in line}


def test_each_engine_is_known_to_few() -> None:
    assert {Path(file).parts[0] for file in users(PACKAGE, "ray")} == {"engine"}
    assert {Path(file).parts[0] for file in users(PACKAGE, "mlflow")} == {"tracking"}
    assert {Path(file).parts[0] for file in users(PACKAGE, "typer")} == {"cli"}
    assert users(PACKAGE, "optuna") == {"decisions/study.py", "results/importance.py"}
    assert users(PACKAGE, "fsspec") == {"remote/object_store.py"}
    assert users(PACKAGE, "hydra") == {"sweep/presets.py", "sweep/syntax.py"}

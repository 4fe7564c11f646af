"""``trainers`` knows torch and nothing of Ray, MLflow, Hydra or the orchestrator."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import trainers

PACKAGE = Path(trainers.__file__).parent
FORBIDDEN = {"ray", "mlflow", "hydra", "omegaconf", "orchestrator"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def modules_after(code: str) -> set[str]:
    """The top-level modules that a new interpreter has imported after ``code``."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


def test_no_module_imports_what_belongs_to_the_orchestrator() -> None:
    loaded = modules_after(
        "import importlib, pkgutil, trainers\n"
        "names = [m.name for m in pkgutil.walk_packages(trainers.__path__, 'trainers.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "assert {'trainers.training', 'trainers.evaluation.fidelity'} <= set(names), names"
    )
    assert {"torch", "torch_fidelity", "ot"} <= loaded
    assert not loaded & FORBIDDEN


@pytest.mark.parametrize("source", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES])
def test_no_source_names_what_belongs_to_the_orchestrator(source: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            imported.add((node.module or "").partition(".")[0])
    assert not imported & FORBIDDEN


def test_a_configuration_is_read_without_torch() -> None:
    loaded = modules_after(
        "from trainers.config import TrialConfig\n"
        "import trainers.objectives, trainers.penalties, trainers.networks, trainers.datasets, trainers.evaluation\n"
        "import trainers.opponents, trainers.probes, trainers.metrics\n"
        "config = TrialConfig.from_dict({'dataset': {'name': 'digits'}, 'network': {'name': 'dcgan',"
        " 'generator_widths': [8], 'critic_widths': [8]}, 'objective': {'name': 'soft_c_transform', 'p': 2},"
        " 'penalty': {'name': 'wasserstein'}, 'evaluation': {'name': 'classifier'}, 'critic': {}, 'generator': {},"
        " 'opponent': 'noise', 'probes': ['transport_map']})\n"
        "config.identity, config.epochs"
    )
    assert "trainers" in loaded
    assert not loaded & {"torch", "numpy", "sklearn", "torch_fidelity", "ot", *FORBIDDEN}

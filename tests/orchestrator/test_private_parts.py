"""Private parts of Ray and MLflow are used in one module each, which says what to do where they are missing."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hand_made import POINTS, write_file
from packaging.requirements import Requirement

import orchestrator
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking import mlflow_private
from orchestrator.tracking.views import view_tags

PACKAGE = Path(orchestrator.__file__).parent
OURS = {PACKAGE / "engine" / "ray_private.py", PACKAGE / "tracking" / "mlflow_private.py"}
PUBLIC = {
    "mlflow",
    "mlflow.entities",
    "mlflow.exceptions",
    "mlflow.models",
    "mlflow.types",
    "ray",
    "ray.exceptions",
    "ray.tune",
    "ray.tune.schedulers",
    "ray.tune.search",
    "ray.util.scheduling_strategies",
}
"""The modules that Ray and MLflow document."""
KNOWN = {"mlflow.note.content", "mlflow.parentRunId", "mlflow.runName", "mlflow.source.git.commit", "mlflow.db"}
"""The tags that MLflow documents, of those that we set; and a file of ours."""
UNDOCUMENTED = {"bundle_label_selector", "get_all_node_info", "init_local_path", "log_outputs", "stop_trial"}
"""What has no underscore and is private all the same."""
REQUIREMENTS = [
    Requirement(line)
    for project in [tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]]
    for line in [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
]


def reaches(source: str) -> Iterator[str]:
    """What a module takes of private parts of other packages."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value, name) if name.startswith("_") and not name.startswith("__"):
                if ast.unparse(value) not in ("self", "cls") and ast.unparse(node) != "os._exit":
                    yield ast.unparse(node)
            case ast.Attribute(_, name) | ast.keyword(name) if name in UNDOCUMENTED:
                yield name
            case ast.Call(ast.Name("getattr" | "setattr" | "delattr"), [_, name, *_]):
                if not isinstance(name, ast.Constant) or str(name.value).startswith("_"):
                    yield ast.unparse(node)
            case ast.Dict(keys):
                yield from (str(key.value) for key in keys if isinstance(key, ast.Constant) and is_key(str(key.value)))
            case ast.Constant(str(text)) if re.fullmatch(r"mlflow\.[\w.]+", text) and text not in KNOWN:
                yield text
            case ast.Import(names):
                yield from (name.name for name in names if not is_public(name.name))
            case ast.ImportFrom(str(module), names) if not is_public(module):
                yield module
            case ast.ImportFrom(str(module), names):
                yield from (f"{module}.{name.name}" for name in names if name.name.startswith("_"))


def is_key(name: str) -> bool:
    """Whether it is an argument that is not documented."""
    return name.startswith("_") or name in UNDOCUMENTED


def is_public(module: str) -> bool:
    """Whether anybody may import it."""
    return module in PUBLIC or module.partition(".")[0] not in ("ray", "mlflow")


def test_no_other_module_touches_private_parts_of_ray_and_mlflow() -> None:
    files = {file for folder in ("engine", "tracking") for file in (PACKAGE / folder).glob("*.py")}
    assert files > OURS  # no other folder knows Ray or MLflow: test_orchestrator_imports.py
    found = {str(file.relative_to(PACKAGE)): list(reaches(file.read_text())) for file in files - OURS}
    assert {file: parts for file, parts in found.items() if parts} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import ray._private.worker",
        "from ray import _raylet",
        "from ray._raylet import GcsClient",
        "from ray.tune.progress_reporter import TrialProgressCallback",
        "controller._trials.clear()",
        "getattr(controller, '_live_trials')",
        "ray.init(**{'_temp_dir': 'here'})",
        "controller.stop_trial(trial)",
        "PlacementGroupFactory([], bundle_label_selector=[])",
        "from mlflow.server import app",
        "import mlflow.utils.mlflow_tags",
        "client.set_tag(run, 'mlflow.loggedImages', 'True')",
    ],
)
def test_a_private_part_is_noticed(source: str) -> None:
    assert list(reaches(source))


@pytest.mark.parametrize("name", ["hydra-core", "mlflow", "omegaconf", "ray", "torch-fidelity"])
def test_a_library_whose_private_parts_are_used_has_an_upper_bound(name: str) -> None:
    asked = [requirement.specifier for requirement in REQUIREMENTS if requirement.name == name]
    assert asked
    for specifier in asked:
        assert specifier.contains(importlib.metadata.version(name))
        assert not specifier.contains("99")


def test_the_versions_that_an_error_names_are_those_that_are_installed() -> None:
    from orchestrator.engine import ray_private

    for name, versions in (("ray", ray_private.VERSIONS), ("mlflow", mlflow_private.VERSIONS)):
        asked = {requirement.specifier for requirement in REQUIREMENTS if requirement.name == name}
        assert asked == {Requirement(f"{name}{versions}").specifier}


RAY_WITHOUT = """
import sys
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
del Trial.is_finished
TuneController.__init__ = lambda self: setattr(self, "_trials", [])
from orchestrator.cli import main
sys.argv = ["orchestrator", "sweep", "sweep.yaml", "--offline"]
main()
"""


def test_a_ray_that_lacks_something_is_one_paragraph(tmp_path: Path) -> None:
    write_file(tmp_path, f"name: s\nbase: {POINTS}\n")
    program = [sys.executable, "-c", RAY_WITHOUT]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 2, ran.stderr
    (told,) = ran.stderr.splitlines()
    assert told.startswith(f"orchestrator: ray {importlib.metadata.version('ray')} is installed here and lacks")
    assert "ray.tune.experiment:Trial.is_finished" in told
    assert "TuneController.__init__ with _live_trials" in told
    assert "with _trials," not in told
    assert told.endswith("install one of them with python -m pip install 'ray>=2.59,<2.61'")


@pytest.mark.parametrize("arguments", [["ui"], ["sync", "hand"]])
def test_an_mlflow_that_lacks_something_is_one_paragraph(
    arguments: list[str], store: SweepStore, tracking_uri: str, tmp_path: Path
) -> None:
    for name, texts in mlflow_private.NEEDED.items():
        file = write_file((tmp_path / "other" / "mlflow" / name).parent, "\n".join(texts), Path(name).name)
        if name == "tracking/client.py":
            file.write_text(file.read_text().replace("def log_outputs", "def put_outputs"))
    write_file(tmp_path / "other" / "mlflow", "raise AssertionError('is imported')", "__init__.py")
    program = [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments]
    path = {"PYTHONPATH": f"{tmp_path / 'other'}:{PACKAGE.parent}"}
    ran = subprocess.run(
        program, cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 2, ran.stderr
    version = importlib.metadata.version("mlflow")
    assert ran.stderr == (
        f"orchestrator: mlflow {version} is installed here and lacks what orchestrator uses of it (def log_outputs( in "
        "mlflow/tracking/client.py). The versions that work are mlflow>=3.17,<3.19: install one of them with python -m "
        "pip install 'mlflow>=3.17,<3.19'\n"
    )


def test_mlflows_pages_speak_of_what_we_write_for_them(store: SweepStore) -> None:
    import mlflow

    scripts = (Path(mlflow.__file__).parent / "server" / "js" / "build").rglob("*.js")
    pages = "".join(script.read_text(encoding="utf-8") for script in scripts)
    wanted = {mlflow_private.PICTURES_TAG, mlflow_private.VIEW_TAG, *mlflow_private.OWN_SECTIONS, "workflowType"}
    wanted |= {"machine_learning", "compareRunsMode", "CHART", "viewStateShareKey", "LINE", "IMAGE", "SHOW_ALL"}
    wanted |= {"average", "time-relative"}
    wanted |= {key.removesuffix("_v1") for key in mlflow_private.REMEMBERED}  # the pages add the version
    for view in view_tags(store.plan()).values():
        wanted |= keys_of(json.loads(view)) | keys_of(json.loads(json.loads(view)["state"]))
    assert len(wanted) > 40
    assert {name for name in wanted if name not in pages} == set()


def keys_of(value: Any) -> set[str]:
    """The names of all fields."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()

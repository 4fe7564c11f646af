"""Modules that tell when they are executed, and copies of our packages that tests may change."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import orchestrator

ROOT = Path(orchestrator.__file__).parents[1]
EVERY_NAME = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()} - {"orchestrator", "trainers"}
"""The modules of Python and of every installed package."""
TRAP = """\
import sys
with open({told!r}, "a") as told:
    print({name!r}, *sys.orig_argv, file=told)
raise ImportError("a module {name} was imported that only lies there")
"""
TELLING = "print(__name__, file=open({told!r}, 'a'))\n"


class Traps:
    """Modules in a folder with the names of other ones. ``executed`` is the text that they wrote when executed."""

    def __init__(self, folder: Path, names: Iterable[str] = EVERY_NAME) -> None:
        self.folder, self._told = folder, folder / "executed.txt"
        folder.mkdir(exist_ok=True)
        for name in filter(str.isidentifier, names):
            (folder / f"{name}.py").write_text(TRAP.format(told=str(self._told), name=name))

    def add_changed(self, *packages: str) -> None:
        """Adds copies of our packages. Their code does something else: they write that they were executed."""
        for name in packages:
            file = copy_packages(self.folder, name) / name / "__init__.py"
            file.write_text(file.read_text() + TELLING.format(told=str(self._told)))

    @property
    def executed(self) -> str:
        return self._told.read_text() if self._told.exists() else ""


def copy_packages(folder: Path, *names: str) -> Path:
    """Copies our packages, or those with these names, into a folder as a wheel installs them. Returns the folder."""
    for name in names or ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def imports_first(folder: Path, site: Path) -> dict[str, str]:
    """The environment of a Python that has imported a copy of our packages before anything asks for ours."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport orchestrator, trainers\nsys.path.pop(0)\n"
    )
    return {"PYTHONPATH": str(site)}

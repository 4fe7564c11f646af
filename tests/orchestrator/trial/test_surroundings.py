"""The version of the code that an attempt records."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator

ROOT = Path(orchestrator.__file__).parents[1]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages outside a checkout, as a wheel installs them."""
    for name in ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(("installed", "commit"), [("0.7.2", "wheel 0.7.2"), (None, "unknown")])
def test_outside_a_checkout_the_commit_is_the_package_s_version(installed: str | None, commit: str, copy: Path) -> None:
    if installed:
        (copy / f"orchestrator-{installed}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: orchestrator\nVersion: {installed}\n"
        (copy / f"orchestrator-{installed}.dist-info" / "METADATA").write_text(metadata)
    program = (
        "import sys; from pathlib import Path\n"
        "sys.path[:] = [sys.argv[1], *(p for p in sys.path if not [*Path(p or '.').glob('orchestrator*-info')])]\n"
        "from orchestrator.trial.surroundings import git_commit\n"
        "print(git_commit())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORCHESTRATOR_COMMIT"}
    command = [sys.executable, "-P", "-S", "-c", program, str(copy)]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == f"{commit}\n", ran.stderr


def test_another_python_is_told(copy: Path) -> None:
    program = "import sys; sys.version_info = (3, 10, 13); sys.version = '3.10.13 (main)'; import orchestrator"
    ran = subprocess.run([sys.executable, "-c", program], cwd=copy, capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: orchestrator needs Python 3.11 or 3.12, and this is Python 3.10.13"
    )

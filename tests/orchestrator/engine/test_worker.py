"""A worker runs the driver's code, from where the driver has it, or says what differs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ray import cloudpickle
from traps import ROOT, Traps, copy_packages, imports_first

from orchestrator.engine.placement import what_we_run
from orchestrator.engine.worker import comparison

WORKER = """\
import pickle, sys
why_not, path, what = pickle.load(sys.stdin.buffer)
print(why_not(path, what))
"""
OUR_PATH = [entry for entry in sys.path if entry]


def told_by_worker(path: Sequence[str] | None, **changes: str) -> str:
    """What another process says when it is to run this process's code. It gets the function as Ray sends it."""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", WORKER],
        input=cloudpickle.dumps((comparison(), path, what_we_run())),
        cwd="/",
        env=os.environ | changes,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode().strip()


def test_copies_that_come_first_in_a_worker_s_path_are_passed_over(tmp_path: Path) -> None:
    traps = Traps(tmp_path / "first", [])
    traps.add_changed("orchestrator", "trainers")
    path = [str(traps.folder), *OUR_PATH]
    assert (told_by_worker(path, PYTHONPATH=str(traps.folder)), traps.executed) == ("None", "")


def test_on_one_machine_a_worker_with_an_equal_copy_elsewhere_is_refused_too(tmp_path: Path) -> None:
    copied = copy_packages(tmp_path / "copy")
    changes = imports_first(copied, tmp_path / "site")
    assert told_by_worker(None, **changes) == "None"  # a cluster's node has the code where Ray puts it
    assert told_by_worker(OUR_PATH, **changes) == (
        f"runs other code than this command: its Python imports '{copied / 'orchestrator'}' and not "
        f"'{ROOT / 'orchestrator'}'. Take that copy away, or what makes Python import it"
    )


def test_a_node_with_other_code_names_the_file(tmp_path: Path) -> None:
    copied = copy_packages(tmp_path / "copy")
    with (copied / "trainers" / "steps.py").open("a") as file:
        file.write("\n# another word\n")
    changes = imports_first(copied, tmp_path / "site")
    told = f"runs other code than this command: trainers/steps.py (differs) in {copied / 'trainers'}"
    assert told_by_worker(None, **changes) == told


@pytest.mark.parametrize(
    ("module", "content", "told"),
    [
        ("trial/code.py", "", "ImportError: cannot import name 'code'"),
        ("engine/placement.py", "half a line that is no Python", "SyntaxError: invalid syntax"),
    ],
)
def test_code_that_cannot_compare_itself_is_refused(module: str, content: str, told: str, tmp_path: Path) -> None:
    """An older version, or a file that somebody is just editing."""
    file = copy_packages(tmp_path / "copy") / "orchestrator" / module
    if content:
        file.write_text(content)
    else:
        file.unlink()
    said = told_by_worker(None, **imports_first(tmp_path / "copy", tmp_path / "site"))
    assert said.startswith(f"cannot run this command's code: {told}")

"""Which code a process runs, and how that of two processes differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hand_made import write_file
from traps import ROOT

from orchestrator.trial import code

SMALL = {"orchestrator/run.py": "a", "trainers/conf/x.yaml": "b", "trainers/steps.py": "c"}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two packages that stand for ours."""
    for name, text in SMALL.items():
        write_file((tmp_path / name).parent, text, Path(name).name)
    monkeypatch.setattr(code, "folders", lambda: {name: str(tmp_path / name) for name in ("orchestrator", "trainers")})
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    code.files.cache_clear()
    code.digest.cache_clear()


def test_our_code_is_every_file_that_we_install() -> None:
    names = set(code.files())
    assert {"orchestrator/__main__.py", "trainers/steps.py", "trainers/conf/config.yaml"} < names
    assert "orchestrator/results/report.html.jinja" in names
    there = [file for name in ("orchestrator", "trainers") for file in (ROOT / name).rglob("*") if file.is_file()]
    assert names == {str(file.relative_to(ROOT)) for file in there if file.suffix != ".pyc"}


def test_bytecode_and_what_editors_leave_is_no_code(packages: Path) -> None:
    assert set(code.files()) == set(SMALL)
    before = code.digest()
    for name in ("__pycache__/steps.py", ".ipynb_checkpoints/steps.py", ".#steps.py", "steps.py~", "notes.txt"):
        write_file((packages / "trainers" / name).parent, "x", Path(name).name)
    (packages / "trainers" / ".#steps.yaml").symlink_to("nobody@nowhere")
    forget()
    assert (set(code.files()), code.digest()) == (set(SMALL), before)


def test_code_is_read_once_and_any_change_of_it_changes_the_digest(packages: Path) -> None:
    before = code.digest()
    assert len(before) == 12
    (packages / "trainers" / "steps.py").write_text("d")
    assert code.digest() == before  # this process has begun with what there was
    forget()
    changed = code.digest()
    (packages / "trainers" / "steps.py").rename(packages / "trainers" / "stops.py")
    forget()
    assert len({before, changed, code.digest()}) == 3


def test_a_file_that_cannot_be_read_differs_from_one_that_can(packages: Path) -> None:
    theirs = code.this_code()
    (packages / "trainers" / "steps.py").unlink()
    (packages / "trainers" / "steps.py").symlink_to("nowhere")
    forget()
    told = f"runs other code than this command: trainers/steps.py (differs) in {packages / 'trainers'}"
    assert code.difference(theirs, same_files=False) == told


@pytest.mark.usefixtures("packages")
def test_a_difference_names_the_first_files_and_the_number_of_the_rest(packages: Path) -> None:
    theirs = code.this_code()
    assert code.difference(theirs, same_files=True) is None
    theirs["files"] = {"orchestrator/a.py": "a", **theirs["files"], "trainers/steps.py": "x", "trainers/x.py": "x"}
    del theirs["files"]["orchestrator/run.py"]
    told = (
        "runs other code than this command: orchestrator/a.py (missing), orchestrator/run.py (not in this command's "
        "code), trainers/steps.py (differs) and 1 more file in "
        f"{packages / 'orchestrator'}, {packages / 'trainers'}"
    )
    assert code.difference(theirs, same_files=False) == told
    advice = ". The code was edited after this command began: undo that, or let the rest run with the new code"
    assert code.difference(theirs, same_files=True) == told + advice

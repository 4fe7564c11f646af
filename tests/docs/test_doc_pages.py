"""What README and the pages of ``docs`` promise of themselves: what they name exists, and they are easy to read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?:orchestrator|trainers|bench|docker|tests|sweeps)/[\w./-]+")
DOTTED = re.compile(r"(?:orchestrator|trainers|bench)(?:\.\w+)+")
NO_MODULES = {
    "orchestrator.kind",
    "orchestrator.place",
    "orchestrator.verdict",
    "orchestrator.env",
    "orchestrator.stage",
    "orchestrator.proposal",
}  # tags in MLflow, a file of secrets
"""Words with a dot that are no module of ours."""


def names_in(module: Path) -> set[str]:
    """What a module defines or imports at its top level."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name inside one."""
    place = ROOT
    for number, part in enumerate(words := dotted.split(".")):
        if (place / part).is_dir():
            place /= part
            continue
        module = place / f"{part}.py"
        inside, rest = (module, words[number + 1 :]) if module.exists() else (place / "__init__.py", words[number:])
        return inside.exists() and set(rest) <= names_in(inside)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_narrow(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 120] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = [word for code in CODE.findall(page.read_text()) for word in code.split() if FILE.fullmatch(word)]
    assert [word for word in named if not (ROOT / word).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_a_page_mentions_are_there(page: Path) -> None:
    named = [code for code in CODE.findall(page.read_text()) if DOTTED.fullmatch(code)]
    assert [name for name in named if name not in NO_MODULES and not is_there(name)] == []


def test_names_that_are_not_there_are_noticed() -> None:
    assert is_there("trainers.training.Training")
    assert is_there("orchestrator.load")
    assert not is_there("trainers.training.Trainer")
    assert not is_there("trainers.trains")


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = {page for section in config["nav"] for pages in section.values() for page in pages}
    assert named == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}

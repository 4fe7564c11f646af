"""Each promise of ``docs/reliability.md`` is shown by tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
FAULTS, _ = PAGE.split("\n## How it works\n")
SHOWN_BY = {fault.split("\n", 1)[0]: fault.partition("\nShown by:\n")[2] for fault in FAULTS.split("\n### ")[1:]}
LINE = re.compile(r"^- `(tests/[\w/]+\.py)`(?:: ((?:.|\n  )+))?", re.MULTILINE)
TESTS = [(path, " ".join(name.split())) for shown in SHOWN_BY.values() for path, name in LINE.findall(shown)]


def test_every_promise_names_its_tests() -> None:
    assert len(SHOWN_BY) > 25
    assert [fault for fault, shown in SHOWN_BY.items() if not LINE.search(shown)] == []


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    module = (ROOT / path).read_text()
    assert not name or f"def test_{name.replace(' ', '_')}(" in module

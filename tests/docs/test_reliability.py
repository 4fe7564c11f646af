"""Each promise of ``docs/reliability.md`` is shown by tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_, TABLE, *_ = re.split("^## .+\n", (ROOT / "docs" / "reliability.md").read_text(), flags=re.MULTILINE)
ROWS = [line.strip("| ").split(" | ") for line in TABLE.strip().splitlines()[2:]]
TESTS = [told for row in ROWS for told in re.findall(r"`(test_\w+)`(?:: ([^<]+))?", row[2])]


def test_every_promise_names_its_tests() -> None:
    assert len(ROWS) > 25
    assert all("`test_" in shown_by for _, _, shown_by in ROWS)


@pytest.mark.parametrize(("module", "name"), TESTS)
def test_a_test_that_is_named_is_there(module: str, name: str) -> None:
    (file,) = (ROOT / "tests").rglob(f"{module}.py")
    assert not name or f"def test_{name.strip().replace(' ', '_')}(" in file.read_text()

"""The sweep files that come with the program: each plans, in full and at every scale, and says where it is from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import plan_file

from orchestrator.sweep_file import read_sweep_file

FOLDER = Path(__file__).parents[2] / "sweeps"
FILES = sorted(FOLDER.rglob("*.yaml"))
SCALED = [(path, scale) for path in FILES for scale in (None, *read_sweep_file(path).scale)]


@pytest.mark.parametrize(("path", "scale"), SCALED, ids=[f"{path.stem} {scale or 'in full'}" for path, scale in SCALED])
def test_every_sweep_file_plans(path: Path, scale: str | None) -> None:
    plan = plan_file(path, *([f"scale={scale}"] if scale else []))
    assert plan.name == (f"{path.stem}-{scale}" if scale else path.stem)
    assert plan.sweep_file.description
    if scale:
        whole = plan_file(path)
        work, all_work = (sum(trial.config.budget for trial in each.trials) for each in (plan, whole))
        assert work < all_work


@pytest.mark.parametrize("path", sorted((FOLDER / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_paper_s_file_begins_with_the_paper_and_what_to_expect(path: Path) -> None:
    head = path.read_text().partition("name:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert any(word in head for word in ("Mallasto et al.", "Dukler et al.", "papers leave open"))
    assert "xpect" in head or "By the paper" in head

"""A distribution from outside, installed for a test: penalties with their presets and entry points."""

from __future__ import annotations

from pathlib import Path

CLASS = """\
from dataclasses import dataclass
from typing import ClassVar

from trainers.parts import number
from trainers.penalties import Penalty


@dataclass(frozen=True, kw_only=True)
class Quiet(Penalty):
    name: ClassVar[str] = "quiet"
    weight: float = number(0.5, at_least=0)

    def __call__(self, critic, pair):
        return self.weight * pair.phi("real").mean().square()

"""


def install(folder: Path) -> Path:
    """Writes the distribution into ``folder`` and returns the folder, which has to be put on the path."""
    package = folder / "foreign_penalties"
    (package / "conf" / "penalty").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "penalties.py").write_text(CLASS)
    (package / "conf" / "penalty" / "quiet.yaml").write_text("name: quiet\nweight: 0.25\n")
    information = folder / "foreign_penalties-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-penalties\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[trainers.penalties]\nquiet = foreign_penalties.penalties:Quiet\n")
    return folder

"""Names of sweeps, variants and scales; the label of a cell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
MAX_LENGTH = 200
"""A file's name has at most 255 bytes, and some names of files are longer than the sweep's."""
RESERVED = ("cache", "mlflow-artifacts", "mlflow.db", "train")
"""What else the runs directory keeps beside the sweeps."""

MLFLOWS_OWN = "Default"
"""The experiment that every MLflow has. A sweep of this name would be written into it."""


def cell_label(variant: str, setting: str) -> str:
    """A cell in words: ``qp-wgan q=1 p=2``."""
    return f"{variant} {setting}".strip()


@dataclass(frozen=True)
class Planned:
    """What a plan says of a trial: its cell (variant and axis values) and its seed.

    ``setting`` shows the cell's axis values: ``q=1 p=2``.
    """

    trial_id: str
    variant: str
    setting: str
    axes: Mapping[str, Any]
    seed: int

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return cell_label(self.variant, self.setting)


def check_sweep_name(name: Any, error: Any) -> str:
    """Returns a name that a new sweep may have. Raises ``error(problem)`` for any other name."""
    if name == MLFLOWS_OWN:
        raise error(f"'{name}' is taken by MLflow's own experiment; choose another name")
    return check_name(name, error)


def check_name(name: Any, error: Any) -> str:
    """Returns a name that is valid as a folder directly below the runs directory.

    Raises ``error(problem)`` for any other name.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise error(f"'{name}' is not a name; use letters, digits, '.', '_' and '-', without '..'")
    if len(name) > MAX_LENGTH:
        raise error(f"'{name[:20]}…' has {len(name)} letters; a name has at most {MAX_LENGTH}")
    if name in RESERVED:
        raise error(f"'{name}' is taken by another folder or file of the runs directory; choose another name")
    return name

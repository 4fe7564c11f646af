"""Names of sweeps, variants and scales."""

from __future__ import annotations

import re
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
RESERVED = ("cache", "mlflow-artifacts", "mlflow.db", "train")
"""What else the runs directory keeps beside the sweeps."""


def check_name(name: Any, error: Any) -> str:
    """A name that is one folder below the runs directory and nothing else."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise error(f"'{name}' is not a name: letters, digits, '.', '_' and '-', no slash and no '..'")
    if name in RESERVED:
        raise error(f"'{name}' is taken: the runs directory keeps something else under that name")
    return name

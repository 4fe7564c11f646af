"""The files under test, and the two things that several tests do with them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SCHEMAS = Path(__file__).parent / "schemas"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SECRETS = [
    "POSTGRES_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "RAY_AUTH_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
]
SECRET_NAME = re.compile("PASSWORD|SECRET|TOKEN|KEY")


def compose_file() -> dict[str, Any]:
    """The compose file as it stands, its interpolations unresolved."""
    return yaml.load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"), yaml.CSafeLoader)


def pins(file: str) -> dict[str, str]:
    """A file of pins: version by normalised name."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    return {normalised(name): version for name, version in pinned}


def normalised(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run(*command: object, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and keeps what it says."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120, **changes)

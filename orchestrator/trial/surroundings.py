"""Records where and with which code an attempt runs."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from orchestrator.store.states import Attempt
from orchestrator.trial import code

COMMIT = "ORCHESTRATOR_COMMIT"
"""The environment variable that tells workers of a cluster the commit of the code that was sent to them."""
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages ``orchestrator`` and ``trainers``."""
PACKAGES = ("torch", "torch-fidelity", "POT", "scikit-learn", "numpy", "ray", "mlflow")
"""The packages that results may depend on."""


def begin_attempt() -> Attempt:
    """An attempt that begins now, in this process."""
    return Attempt(
        started=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        commit=git_commit(),
        code=code.digest(),
        versions=versions(),
    )


def device_name(device: Any) -> str:
    """The GPU's name, or the processor's architecture."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


@functools.cache
def git_commit() -> str:
    """The commit of the running code, with ``-dirty`` if files were changed.

    Outside a checkout it is the version of the installed package, such as ``wheel 0.1.0``, else ``unknown``.
    """
    if told := os.environ.get(COMMIT):
        return told

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "orchestrator/trial/surroundings.py")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "trainers")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"wheel {importlib.metadata.version('orchestrator')}"
        return "unknown"


@functools.cache
def versions() -> dict[str, str]:
    """The versions of Python and of the installed :data:`PACKAGES`."""
    installed = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **installed}

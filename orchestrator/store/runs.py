"""A runs directory: a folder, or this machine's copy of one in an object store."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.remote.replica import Replica, open_replica

Runs = Path | Replica


def cache_dir(runs_dir: Path) -> Path:
    """What all trials below a runs directory share: images, classifiers, reference features."""
    return runs_dir / "cache"


def sweep_names(runs: Runs) -> list[str]:
    """Every sweep below a runs directory."""
    if isinstance(runs, Path):
        return sorted(file.parent.name for file in runs.glob("*/plan.json"))
    return [name for name in runs.names() if name != "cache" and runs.exists(f"{name}/plan.json")]


def runs_at(text: str, *, asking: bool = True) -> Runs:
    """A runs directory, on a disk or, with ``://``, in an object store.

    Raises :class:`UserError` for one that cannot be reached, or, not ``asking``, cannot be at all.
    """
    return open_replica(text, asking=asking) if "://" in text else _folder(text)


def folder_at(text: str) -> Path:
    """A runs directory on a disk. Raises :class:`UserError` for one in an object store, or where a file stands."""
    if "://" in text:
        raise UserError(f"--runs-dir {text}: this command wants a folder")
    return _folder(text)


def _folder(text: str) -> Path:
    """A folder that is there or can be made. Raises :class:`UserError` if a file stands there or on the way."""
    folder = Path(text)
    there = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)
    if there is not None and not os.path.isdir(there):
        raise UserError(f"--runs-dir {text}: '{there}' is a file, not a folder")
    return folder


def folder_of(runs: Runs) -> Path:
    """The folder in which its files are, or are on this machine."""
    return runs if isinstance(runs, Path) else runs.copy


def location(runs: Runs) -> str:
    """A runs directory as one gives it to ``--runs-dir``."""
    return str(runs) if isinstance(runs, Path) else runs.url

"""A runs directory: a folder, or this machine's copy of one in an object store."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.remote.copies import open_replica
from orchestrator.remote.replica import Replica
from trainers.paths import full_path

Runs = Path | Replica


def cache_dir(runs_dir: Path) -> Path:
    """The folder that all trials below a runs directory share: images, classifiers, reference features."""
    return runs_dir / "cache"


def sweep_names(runs: Runs) -> list[str]:
    """The names of all sweeps below a runs directory."""
    if isinstance(runs, Path):
        return sorted(folder.name for folder in runs.glob("*") if has_plan(folder))
    return [name for name in runs.names() if name != "cache" and runs.exists(f"{name}/plan.json")]


def has_plan(folder: Path) -> bool:
    """Whether a folder is a sweep's: it has a ``plan.json``, be it a damaged one, or it is not known what it has."""
    try:
        os.lstat(folder / "plan.json")
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def runs_at(text: str, *, asking: bool = True) -> Runs:
    """A runs directory: a folder or, if ``text`` contains ``://``, a URL in an object store.

    With ``asking`` the object store is contacted. Raises :class:`UserError` if it cannot be reached, if the URL is of
    an unknown kind, or if a file stands where the folder should be.
    """
    return open_replica(text, asking=asking) if "://" in text else _folder(text)


def folder_at(text: str) -> Path:
    """A runs directory on a disk. Raises :class:`UserError` for the URL of an object store and for a file."""
    if "://" in text:
        raise UserError(f"--runs-dir {text}: this command needs a folder on this machine")
    return _folder(text)


def _folder(text: str) -> Path:
    """A folder that exists or can be made.

    ``~`` and variables are replaced. Raises :class:`UserError` if the path is empty, and if it or one of its parents is
    a file.
    """
    try:
        folder = Path(full_path(text))
    except ValueError as error:
        raise UserError(f"--runs-dir: {error}") from None
    there = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)
    if there is not None and not os.path.isdir(there):
        raise UserError(f"--runs-dir {text}: '{there}' is a file, not a folder")
    return folder


def folder_of(runs: Runs) -> Path:
    """The folder that holds the files on this machine: the runs directory itself, or the copy of an object store."""
    return runs if isinstance(runs, Path) else runs.copy


def runs_argument(runs: Runs | str) -> str:
    """The option with which a command finds a runs directory, with a space before it. Empty for the default."""
    where = runs if isinstance(runs, str) else location(runs)
    return "" if where == "runs" else f" --runs-dir {shlex.quote(where)}"


def location(runs: Runs) -> str:
    """A runs directory in the form that ``--runs-dir`` takes."""
    return str(runs) if isinstance(runs, Path) else runs.url

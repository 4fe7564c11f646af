"""Which code a process runs: the files of our two packages, with their hashes."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orchestrator
import trainers
from orchestrator.errors import UserError

PACKAGES = (orchestrator, trainers)
SUFFIXES = (".jinja", ".py", ".yaml")
NAMED = 3
"""How many files a message names."""


@functools.cache
def files() -> dict[str, str]:
    """The SHA-256 of every file of our packages, by path: ``{"trainers/steps.py": "9f86d0…"}``.

    The files are read once in each process. So this is the code with which the process began, even if files are edited
    later. Hidden files and folders, which editors make, are no code.
    """
    found = {}
    for name, folder in folders().items():
        for where, inner, names in os.walk(folder):
            inner[:] = [each for each in inner if each != "__pycache__" and not each.startswith(".")]
            for each in names:
                if each.endswith(SUFFIXES) and not each.startswith("."):
                    file = Path(where, each)
                    found[f"{name}/{file.relative_to(folder).as_posix()}"] = _hash(file)
    return dict(sorted(found.items()))


def folders() -> dict[str, str]:
    """Where our packages lie that this process has imported: ``{"orchestrator": "/…/orchestrator", …}``."""
    return {package.__name__: str(Path(str(package.__file__)).resolve().parent) for package in PACKAGES}


@functools.cache
def digest() -> str:
    """Twelve hex digits that tell this process's code from any other: the beginning of a SHA-256 over :func:`files`."""
    lines = "".join(f"{name} {value}\n" for name, value in files().items())
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:12]


def this_code() -> dict[str, Any]:
    """The code of this process, for :func:`difference` in another one. Plain values, because Ray sends them."""
    return {"folders": folders(), "files": files()}


def difference(theirs: Mapping[str, Any], *, same_files: bool) -> str | None:
    """How the code of this process differs from ``theirs``, the driver's, in words. None if it is the same.

    With ``same_files`` the packages must also lie in the same folders, as on one machine. Then the text ends with what
    to do.
    """
    here, there = folders(), theirs["folders"]
    for name in there:
        if same_files and here[name] != there[name]:
            return (
                f"runs other code than this command: its Python imports '{here[name]}' and not '{there[name]}'. Take "
                "that copy away, or what makes Python import it"
            )
    ours, wanted = files(), theirs["files"]
    if not (differing := sorted(name for name in ours.keys() | wanted.keys() if ours.get(name) != wanted.get(name))):
        return None
    named = [f"{name} ({_how(name, ours, wanted)})" for name in differing[:NAMED]]
    left = len(differing) - NAMED
    more = f" and {left} more file{'s' if left > 1 else ''}" if left > 0 else ""
    where = ", ".join(dict.fromkeys(here[name.partition("/")[0]] for name in differing))
    told = f"runs other code than this command: {', '.join(named)}{more} in {where}"
    if not same_files:
        return told
    return f"{told}. The code was edited after this command began: undo that, or let the rest run with the new code"


def _hash(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:  # it was just renamed, or belongs to another user
        return "unreadable"


def _how(name: str, ours: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    if name not in ours:
        return "missing"
    return "differs" if name in wanted else "not in this command's code"


def check_one_copy() -> None:
    """Raises :class:`UserError` if our two packages come from different places: two versions would be mixed."""
    ours, theirs = (Path(folder) for folder in folders().values())
    if ours.parent != theirs.parent:
        raise UserError(
            f"two copies of this program would be mixed: Python imports the package 'orchestrator' from "
            f"'{ours.parent}' and 'trainers' from '{theirs.parent}', and one installation has both in one folder. Take "
            "the folder that you do not mean out of PYTHONPATH"
        )

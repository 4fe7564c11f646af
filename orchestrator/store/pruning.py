"""Pruning: deletes files that nothing needs again, to free disk space."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from orchestrator.files import disk_usage, remove
from orchestrator.store.entry import TRIAL_ID
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore

INCOMING = re.compile(rf"\.{TRIAL_ID.pattern}\.incoming")


def prunable(store: SweepStore, *, checkpoints: bool, removed: bool) -> list[Path]:
    """The files and folders that can be deleted. Metrics, samples and logs of the plan's trials always stay.

    Always deleted: the last-but-one checkpoint of every trial that has its result, the checkpoints of attempts that a
    restart has put aside, and files that a killed process left half-written. ``checkpoints`` adds the last and the best
    checkpoint of trials that have their result; then ``continue_from`` cannot use these trials any more, and their
    weights are gone. ``removed`` adds the trials that are no longer in the plan.
    """
    dropped = {trial.path for trial in store.removed()}
    found = [path for path in (store.path / "trials").glob(".*.incoming") if INCOMING.fullmatch(path.name)]
    for entry in store.entries():
        found += _of_trial(store.trial(entry.trial_id), checkpoints)
    for path in sorted(dropped):
        found += [path] if removed else _of_trial(TrialStore(path), checkpoints)
    return [path for path in found if _is_inside(path, store.path)]


def prune(paths: list[Path]) -> tuple[int, list[str]]:
    """Deletes files and folders. Returns the number of bytes freed, and a sentence for each that cannot be deleted."""
    freed, problems = 0, []
    for path in paths:
        try:
            size = size_of(path)
            remove(path)
            freed += size
        except OSError as error:
            problems.append(f"{path} cannot be deleted: {error.strerror}")
    return freed, problems


def size_of(path: Path) -> int:
    """The size in bytes of a file, of a link itself, or of all files in a folder."""
    return disk_usage([path]) if path.is_dir() and not path.is_symlink() else path.lstat().st_size


def _is_inside(path: Path, sweep: Path) -> bool:
    """Whether a path is reached without a link below the sweep's directory. Otherwise warns: it may be anywhere."""
    there = os.path.realpath(path.parent)
    if there == os.path.join(os.path.realpath(sweep), path.parent.relative_to(sweep)):
        return True
    warnings.warn(f"{path}: is left alone, because a link leads to it: it is in {there}", stacklevel=2)
    return False


def _of_trial(trial: TrialStore, checkpoints: bool) -> Iterator[Path]:
    yield from trial.path.glob(".*.pt.*")  # half-written checkpoints
    yield from trial.path.glob("attempts/*/*.pt")
    if trial.status().state.is_result:
        others = [trial.checkpoint_file, trial.best_file] if checkpoints else []
        yield from (file for file in [trial.previous_checkpoint_file, *others] if file.exists())

"""Pruning: deletes files that nothing needs again, to free disk space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.files import disk_usage
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore


def prunable(store: SweepStore, *, checkpoints: bool, removed: bool) -> list[Path]:
    """The files and folders that can be deleted. Metrics, samples and logs of the plan's trials always stay.

    Always deleted: the last-but-one checkpoint of every trial that has its result, the checkpoints of attempts that a
    restart has put aside, and files that a killed process left half-written. ``checkpoints`` adds the last and the best
    checkpoint of trials that have their result; then ``continue_from`` cannot use these trials any more, and their
    weights are gone. ``removed`` adds the trials that are no longer in the plan.
    """
    dropped = {trial.path for trial in store.removed()}
    found = list((store.path / "trials").glob(".*.incoming"))
    for entry in store.entries():
        found += _of_trial(store.trial(entry.trial_id), checkpoints)
    for path in sorted(dropped):
        found += [path] if removed else _of_trial(TrialStore(path), checkpoints)
    return found


def prune(paths: list[Path]) -> int:
    """Deletes files and folders. Returns the number of bytes freed. Raises :class:`UserError`."""
    freed = 0
    for path in paths:
        size = size_of(path)
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise UserError(f"{path} cannot be deleted: {error.strerror}") from None
        freed += size
    return freed


def size_of(path: Path) -> int:
    """The size in bytes of a file, or of all files in a folder."""
    return disk_usage([path]) if path.is_dir() else path.stat().st_size


def _of_trial(trial: TrialStore, checkpoints: bool) -> Iterator[Path]:
    yield from trial.path.glob(".*.pt.*")  # half-written checkpoints
    yield from trial.path.glob("attempts/*/*.pt")
    if trial.status().state.is_result:
        others = [trial.checkpoint_file, trial.best_file] if checkpoints else []
        yield from (file for file in [trial.previous_checkpoint_file, *others] if file.exists())

"""A trial's checkpoints: written atomically, verified before use, loaded without executing code.

A checkpoint is what ``torch.save`` writes, followed by ``sha256:`` and the digest of all bytes before. ``torch.load``
can still read the file, because a zip archive is read from its end backwards.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from orchestrator.files import replacing
from orchestrator.store.epochs import EpochLog
from orchestrator.store.trial import TrialStore

MARKER = b"sha256:"
TRAILER = len(MARKER) + hashlib.sha256().digest_size * 2


class Unreadable(Exception):
    """A file that is not a complete checkpoint."""


class OtherConfiguration(RuntimeError):
    """A checkpoint of a trial with another configuration, which is never continued."""


def save(path: Path, training: Any, identity: str) -> None:
    """Writes a ``Training`` with its configuration's identity. If it raises OSError, the old file is unchanged."""
    import torch

    buffer = io.BytesIO()
    torch.save({"identity": identity, "training": training.state_dict()}, buffer)
    content = buffer.getbuffer()
    with replacing(path) as file:
        file.write(content)
        file.write(MARKER + hashlib.sha256(content).hexdigest().encode())


def read(path: Path) -> dict[str, Any]:
    """A verified checkpoint, with the keys ``identity`` and ``training``. Raises :class:`Unreadable`."""
    import torch

    whole = memoryview(path.read_bytes())
    content, trailer = whole[:-TRAILER], bytes(whole[-TRAILER:])
    if not trailer.startswith(MARKER):
        raise Unreadable("it has no checksum, so it was cut short")
    if trailer != MARKER + hashlib.sha256(content).hexdigest().encode():
        raise Unreadable("its checksum does not match, so it was damaged")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file that something else wrote
        raise Unreadable(f"torch cannot read it ({type(error).__name__})") from None


def checksum(path: Path) -> str:
    """The digest at the end of a checkpoint. It is not verified."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TRAILER))
        return file.read()[len(MARKER) :].decode(errors="replace")


def belongs(trial: TrialStore, state: dict[str, Any], identity: str) -> bool:
    """Whether a checkpoint is one of this configuration, or of the trial that this one was forked from."""
    origin = (trial.status().continued_from or {}).get("trial_id")
    return state["identity"] in (identity, origin)


def save_latest(trial: TrialStore, training: Any, identity: str) -> None:
    """Writes the newest checkpoint and keeps the one before it."""
    if trial.checkpoint_file.exists():
        os.replace(trial.checkpoint_file, trial.previous_checkpoint_file)
    save(trial.checkpoint_file, training, identity)


def resume(trial: TrialStore, log: EpochLog, training: Any, identity: str) -> list[str]:
    """Loads the newest usable checkpoint, if there is one. Returns a sentence for each newer one that was skipped.

    A checkpoint that is ahead of the stored epochs is skipped, because the epochs between would be missing. Raises
    :class:`OtherConfiguration` for a checkpoint that does not belong to this trial (see :func:`belongs`).
    """
    problems: list[str] = []
    for file in (trial.checkpoint_file, trial.previous_checkpoint_file):
        if not file.exists():
            continue
        try:
            state = read(file)
        except Unreadable as problem:
            problems.append(f"{file.name} cannot be used: {problem}")
            continue
        if not belongs(trial, state, identity):
            raise OtherConfiguration(
                f"{file.name} belongs to trial {state['identity']}, but config.yaml describes trial {identity}: "
                "restore config.yaml, or start the trial again with --restart"
            )
        if not log.has_all(_epochs_before(state["training"], training.config.epoch_length)):
            problems.append(f"{file.name} cannot be used: an epoch before it is not stored")
            continue
        training.load_state_dict(state["training"])
        break
    return problems


def _epochs_before(state: dict[str, Any], epoch_length: int) -> int:
    """The number of epochs that are stored before training goes on from this state.

    An epoch whose evaluation was stopped has been trained and is not stored yet.
    """
    return (state["iteration"] - ("put_back" in state)) // epoch_length

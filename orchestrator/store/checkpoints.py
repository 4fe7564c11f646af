"""A trial's checkpoints: written whole or not at all, verified before they are believed, loaded without running code.

A checkpoint is what ``torch.save`` writes, followed by ``sha256:`` and the digest of all bytes before: since a zip
archive is read from its end backwards, ``torch.load`` reads the file as it is.
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
    """A file that is no whole checkpoint."""


class OtherConfiguration(RuntimeError):
    """A checkpoint of a trial with another configuration: it is never continued."""


def save(path: Path, training: Any, identity: str) -> None:
    """Writes a ``Training`` with the identity of its configuration. Raises OSError, and leaves the old file then."""
    import torch

    buffer = io.BytesIO()
    torch.save({"identity": identity, "training": training.state_dict()}, buffer)
    content = buffer.getbuffer()
    with replacing(path) as file:
        file.write(content)
        file.write(MARKER + hashlib.sha256(content).hexdigest().encode())


def read(path: Path) -> dict[str, Any]:
    """``identity`` and ``training``, verified. Raises :class:`Unreadable`."""
    import torch

    whole = memoryview(path.read_bytes())
    content, trailer = whole[:-TRAILER], bytes(whole[-TRAILER:])
    if not trailer.startswith(MARKER):
        raise Unreadable("it has no checksum: it was cut short")
    if trailer != MARKER + hashlib.sha256(content).hexdigest().encode():
        raise Unreadable("its checksum does not fit: it was damaged")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises for a file that was made by something else
        raise Unreadable(f"torch does not read it ({type(error).__name__})") from None


def checksum(path: Path) -> str:
    """The digest that a checkpoint ends with; not verified."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TRAILER))
        return file.read()[len(MARKER) :].decode(errors="replace")


def belongs(trial: TrialStore, state: dict[str, Any], identity: str) -> bool:
    """Whether a checkpoint is that of the configuration, or of the trial that this one was forked from."""
    origin = (trial.status().continued_from or {}).get("trial_id")
    return state["identity"] in (identity, origin)


def save_latest(trial: TrialStore, training: Any, identity: str) -> None:
    """The newest checkpoint; the one before is kept."""
    if trial.checkpoint_file.exists():
        os.replace(trial.checkpoint_file, trial.previous_checkpoint_file)
    save(trial.checkpoint_file, training, identity)


def resume(trial: TrialStore, log: EpochLog, training: Any, identity: str) -> list[str]:
    """Loads the newest readable checkpoint, if there is one. Returns what was wrong with newer ones, in words.

    One that is ahead of the stored epochs is not used: the epochs between would be missing.

    Raises :class:`OtherConfiguration` for the checkpoint of a trial that is neither this one nor the one it was
    forked from.
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
                f"{file.name} belongs to trial {state['identity']} and the configuration is {identity}'s: "
                "put config.yaml back as it was, or begin again with --restart"
            )
        if not log.has_all(state["training"]["iteration"] // training.config.epoch_length):
            problems.append(f"{file.name} cannot be used: an epoch before it is not stored")
            continue
        training.load_state_dict(state["training"])
        break
    return problems

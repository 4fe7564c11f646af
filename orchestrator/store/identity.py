"""Which store this is: a sweep's directory keeps its identity when it is moved, and a copy gets one of its own.

``store.json`` in the sweep's directory holds a random id and every place where the directory has been. It is written
when a sweep is first mirrored into MLflow; directories of older versions get it then.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.files import parse_json, write_atomically
from orchestrator.store.runs import Runs
from orchestrator.store.sweep import SweepStore

FILE = "store.json"


@dataclass(frozen=True)
class Identity:
    """The id of a store, the places where it has been (the present one last), and the ids of stores it is a copy of."""

    id: str
    places: tuple[str, ...]
    copy_of: tuple[str, ...] = ()


def identify(store: SweepStore, *, anew: bool = False) -> Identity:
    """The identity of a store, which is written if it is new or if the store has moved. Only a driver may call it.

    A store is a copy, and gets a new identity, if the directory that it says it was in still has the same id. A copy
    that cannot know this, because the other directory is on another machine, is found out in MLflow: ``anew`` then
    makes a new identity. Raises OSError if the file cannot be written.
    """
    file, here = store.path / FILE, _place(store)
    known = None if not file.exists() else _parse(file.read_bytes())
    if known is None:
        identity = Identity(secrets.token_hex(4), (here,))
    elif anew or _has_original(store, known):
        identity = Identity(secrets.token_hex(4), (here,), (*known.copy_of, known.id))
    elif known.places[-1] != here:
        identity = Identity(known.id, (*(place for place in known.places if place != here), here), known.copy_of)
    else:
        return known
    write_atomically(file, json.dumps(asdict(identity), indent=1))
    store.keep(file)
    return identity


def known_identity(runs: Runs, name: str) -> Identity | None:
    """The identity of a sweep's store; None if it has none yet. Raises OSError if an object store cannot be reached."""
    if isinstance(runs, Path):
        file = runs / name / FILE
        return _parse(file.read_bytes()) if file.exists() else None
    content = runs.read(f"{name}/{FILE}")
    return None if content is None else _parse(content)


def _place(store: SweepStore) -> str:
    """Where a store is: ``host:/path``, or its URL in an object store."""
    if store.replica is not None:
        return f"{store.replica.url}/{store.name}"
    return f"{socket.gethostname()}:{store.path.resolve()}"


def _has_original(store: SweepStore, known: Identity) -> bool:
    """Whether the directory in which a store was last is another one, and still has the store's id."""
    last = Path(known.places[-1].partition(":")[2]) / FILE
    if store.replica is not None or not last.exists():
        return False
    here, there = (store.path / FILE).stat(), last.stat()
    if (here.st_ino, here.st_mtime_ns) == (there.st_ino, there.st_mtime_ns):
        return False  # one file, perhaps of a file system that is mounted twice
    original = _parse(last.read_bytes())
    return original is not None and original.id == known.id


def _parse(content: bytes) -> Identity | None:
    """The content of ``store.json``; None if it is damaged."""
    try:
        values = parse_json(content)
        known = Identity(values["id"], tuple(values["places"]), tuple(values["copy_of"]))
        texts = (known.id, *known.places, *known.copy_of)
        return known if known.places and all(isinstance(text, str) for text in texts) else None
    except (ValueError, TypeError, KeyError):
        return None

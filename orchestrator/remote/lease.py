"""One driver a sweep where the runs directory is in an object store, which knows no locks.

``drivers/000001`` and so on, below the sweep, tell who drives it: the last one counts, written anew as a heartbeat.
A number is taken by writing an object that is not there yet, which one process alone can. The last one always stays, so
that a driver that slept while another took the sweep over sees, whenever it wakes, that it is not the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from orchestrator.remote.object_store import ObjectStore

STALE_SECONDS = 60.0


class Held(Exception):
    """Somebody drives the sweep; ``holder`` tells who."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__(holder)
        self.holder = holder


class Lease:
    """What :func:`take` gives."""

    def __init__(self, store: ObjectStore, folder: str, number: int, driver: dict[str, Any]) -> None:
        self._store = store
        self._folder = folder
        self._key = _key(folder, number)
        self._driver = driver

    def beat(self) -> bool:
        """A heartbeat. False if another driver has taken the sweep since; raises OSError if nobody can say."""
        if _last(self._store, self._folder) != self._key:
            return False
        self._store.write(self._key, json.dumps(self._driver).encode())
        return True

    def release(self) -> None:
        """The sweep is anybody's again."""
        if _last(self._store, self._folder) == self._key:
            self._store.write(self._key, json.dumps({**self._driver, "released": True}).encode())


def take(store: ObjectStore, name: str, driver: dict[str, Any], is_dead: Callable[[dict[str, Any]], bool]) -> Lease:
    """The sweep for this driver. Raises :class:`Held` while another lives, and OSError.

    ``is_dead`` says of a holder that its process is known to have ended; of others the heartbeat tells.
    """
    folder = f"{name}/drivers"
    while True:
        last = _last(store, folder)
        if last is not None and (held := holder(store, name)) is not None and not is_dead(held):
            raise Held(held)
        number = int(last.rpartition("/")[2]) + 1 if last is not None else 1
        if store.create(_key(folder, number), json.dumps(driver).encode()):
            if last is not None:
                store.delete(last)
            return Lease(store, folder, number, driver)


def holder(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """Who drives a sweep, by its last heartbeat; None if nobody does. Raises OSError."""
    last = _last(store, f"{name}/drivers")
    content = None if last is None else store.read(last)
    if last is None or content is None:
        return None
    try:
        told = json.loads(content)
        alive = isinstance(told, dict) and not told.get("released") and store.age(last) < STALE_SECONDS
    except (ValueError, FileNotFoundError):  # damaged, or taken over just now
        return None
    return told if alive else None


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}"


def _last(store: ObjectStore, folder: str) -> str | None:
    numbers = [name for name in store.names(folder) if name.isdigit()]
    return f"{folder}/{numbers[-1]}" if numbers else None

"""One driver per sweep in an object store, which has no file locks.

The objects ``<sweep>/drivers/000001``, ``000002`` and so on name the drivers of a sweep. The highest number is the
current driver; it rewrites its object as a heartbeat. A driver takes the sweep by creating the next number, and the
object store lets only one process create an object. The highest number is never deleted: a driver that was suspended
while another one took over finds, when it wakes, that its number is no longer the highest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from orchestrator.remote.object_store import ObjectStore

STALE_SECONDS = 60.0


class Held(Exception):
    """Another driver holds the lease; ``holder`` describes it."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__(holder)
        self.holder = holder


class Lease:
    """A driver's hold on a sweep; made by :func:`take`."""

    def __init__(self, store: ObjectStore, folder: str, number: int, driver: dict[str, Any]) -> None:
        self._store = store
        self._folder = folder
        self._key = _key(folder, number)
        self._driver = driver

    def beat(self) -> bool:
        """Writes a heartbeat. Returns False if another driver has taken the sweep.

        Raises OSError if the object store cannot be reached.
        """
        if _last(self._store, self._folder) != self._key:
            return False
        self._store.write(self._key, json.dumps(self._driver).encode())
        return True

    def release(self) -> None:
        """Frees the sweep for other drivers."""
        if _last(self._store, self._folder) == self._key:
            self._store.write(self._key, json.dumps({**self._driver, "released": True}).encode())


def take(store: ObjectStore, name: str, driver: dict[str, Any], is_dead: Callable[[dict[str, Any]], bool]) -> Lease:
    """Takes the sweep for this driver. Raises :class:`Held` while another driver is alive, and OSError.

    ``is_dead`` returns True for a holder whose process is known to have ended. Any other holder is alive as long as its
    heartbeat is fresh.
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
    """The driver of a sweep; None if there is none or its last heartbeat is stale. Raises OSError."""
    last = _last(store, f"{name}/drivers")
    content = None if last is None else store.read(last)
    if last is None or content is None:
        return None
    try:
        told = json.loads(content)
        whole = isinstance(told, dict) and {"host", "machine", "pid", "started"} <= told.keys()
        alive = whole and not told.get("released") and store.age(last) < STALE_SECONDS
    except (ValueError, FileNotFoundError):  # the object is damaged, or another driver has just taken over
        return None
    return told if alive else None


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}"


def _last(store: ObjectStore, folder: str) -> str | None:
    numbers = [name for name in store.names(folder) if name.isdigit()]
    return f"{folder}/{numbers[-1]}" if numbers else None

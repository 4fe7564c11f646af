"""Asks the driver of a sweep to stop, and waits until it has ended.

A request to stop is the file ``stop`` in the sweep's directory, or the object of that name. A driver deletes the
request that an earlier driver left, and only then writes its own name into ``driver.json``. A request is written once a
driver that lives has its name there. So no request is lost, and none is left for the next driver. While the command
waits, it writes a request again that is missing: drivers of earlier versions deleted it later, and in an object store a
driver has its name a moment before it deletes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.errors import UserError
from orchestrator.remote.lease import holder
from orchestrator.store.lock import Driver, driver_from, end_leftovers, is_alive, read_driver, try_lock
from orchestrator.store.runs import runs_argument
from orchestrator.store.sweep import SweepStore

PAUSE_SECONDS = 0.2
PAUSE_OF_OBJECT_STORE = 2.0
REMIND_SECONDS = 10.0
"""After how long the user is told what is waited for. Then after twice as long each time."""

Remind = Callable[[Driver | None], None]
"""Tells the user what is waited for: a driver, or None while the driver that is starting has no name yet."""


def stop_driver(
    store: SweepStore, tell: Callable[[str], None] = lambda text: None, remind: Remind = lambda driver: None
) -> bool:
    """Asks the driver of a sweep to stop and waits until it has ended. Cleans up after a dead driver.

    ``remind`` is called after :data:`REMIND_SECONDS`, and then less and less often. Returns False if Ctrl-C has ended
    the waiting. Raises :class:`UserError` if the sweep has no driver.
    """
    try:
        if (driver := _driver_here(store, remind)) is not None:
            return _stop_here(store, driver, tell, remind)
    except OSError as error:
        raise UserError(f"the sweep's directory '{store.path}' cannot be written: {error.strerror}") from None
    left = end_leftovers(store.runs_dir, tell)
    try:
        driver = _driver_elsewhere(store)
    except OSError as error:
        raise UserError(f"the object store with '{store.name}' cannot be read: {error}") from None
    if driver is not None:
        return _stop_elsewhere(store, driver, tell, remind)
    if store.name not in left:
        raise UserError(f"'{store.name}' is not running: there is nothing to stop")
    return True


def _driver_here(store: SweepStore, remind: Remind) -> Driver | None:
    """The driver that has this runs directory, once its name is in ``driver.json``. None if there is none."""
    store.lock_file.touch()
    found: Driver | None = None
    with store.lock_file.open("a") as file:

        def is_starting() -> bool:
            nonlocal found
            free = try_lock(file.fileno())
            driver = read_driver(store)
            found = driver if driver is not None and is_alive(store, driver) else None
            return found is None and not free

        _wait_while(is_starting, PAUSE_SECONDS, lambda: remind(None))
    return found


def _stop_here(store: SweepStore, driver: Driver, tell: Callable[[str], None], remind: Remind) -> bool:
    def goes_on() -> bool:
        if not (read_driver(store) == driver and is_alive(store, driver)):
            return False
        if not store.stop_file.exists():
            store.stop_file.touch()
        return True

    with store.lock_file.open("a") as file:  # the next command must find it free

        def releases() -> bool:
            return not try_lock(file.fileno()) and read_driver(store) is None

        return all(
            _wait_for_end(store, waits, PAUSE_SECONDS, tell, lambda: remind(driver)) for waits in (goes_on, releases)
        )


def _driver_elsewhere(store: SweepStore) -> Driver | None:
    """The driver of another machine that holds the lease of a sweep in an object store."""
    held = None if store.replica is None else holder(store.replica, store.name)
    return None if held is None else driver_from(held)


def _stop_elsewhere(store: SweepStore, driver: Driver, tell: Callable[[str], None], remind: Remind) -> bool:
    replica = store.replica
    assert replica is not None
    key = replica.key(store.stop_file)

    def goes_on() -> bool:
        try:
            if _driver_elsewhere(store) != driver:
                return False
            if not replica.exists(key):
                replica.write(key, b"")
        except OSError:  # the object store may answer again
            pass
        return True

    return _wait_for_end(store, goes_on, PAUSE_OF_OBJECT_STORE, tell, lambda: remind(driver))


def _wait_for_end(
    store: SweepStore,
    goes_on: Callable[[], bool],
    pause: float,
    tell: Callable[[str], None],
    remind: Callable[[], None],
) -> bool:
    """Waits while a driver that was asked to stop goes on. After Ctrl-C says what that means, and returns False."""
    asked = False
    try:
        asked = goes_on()
        _wait_while(goes_on, pause, remind)
    except KeyboardInterrupt:
        if not asked:
            raise
        again = f"orchestrator stop {store.name}{runs_argument(store.runs)}"
        tell(f"\nOnly the waiting was interrupted: '{store.name}' goes on stopping. To wait again: {again}")
        return False
    return True


def _wait_while(waits: Callable[[], bool], pause: float, remind: Callable[[], None]) -> None:
    began, due = time.monotonic(), REMIND_SECONDS
    while waits():
        time.sleep(pause)
        if time.monotonic() - began >= due:
            remind()
            due *= 2

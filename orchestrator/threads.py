"""A thread beside a piece of work."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def in_background(
    work: Callable[[threading.Event], None], name: str, *, patience: float | None = None
) -> Iterator[None]:
    """Runs ``work(ended)`` in a daemon thread. At the end sets ``ended`` and waits for the thread.

    ``patience`` is the longest wait in seconds; None waits until the thread has ended.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience)

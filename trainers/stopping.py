"""Stops long work in the middle: an evaluation, the training of a classifier, the decoding of a folder.

Such work is called through objects that know nothing of stopping, third-party ones too. So whoever starts it says by
:func:`stoppable` how to find out whether to stop, and the work calls :func:`stop_if_asked` between its steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

Step = TypeVar("Step")


class Stopped(Exception):
    """The work was asked to stop. What it had made so far is discarded."""


def _never() -> bool:
    return False


_should_stop: ContextVar[Callable[[], bool]] = ContextVar("should_stop", default=_never)


@contextlib.contextmanager
def stoppable(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Within the context, work in this thread raises :class:`Stopped` at its next step once ``should_stop()`` is true.

    A context inside another one adds its reason to stop to the outer one's.
    """
    outer = _should_stop.get()
    token = _should_stop.set(lambda: should_stop() or outer())
    try:
        yield
    finally:
        _should_stop.reset(token)


def asked_to_stop() -> bool:
    """Whether the work of this thread is asked to stop."""
    return _should_stop.get()()


def stop_if_asked() -> None:
    """Raises :class:`Stopped` if the work of this thread is asked to stop."""
    if asked_to_stop():
        raise Stopped


def between(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps of some work. Raises :class:`Stopped` between two of them if the work is asked to stop."""
    for number, step in enumerate(steps):
        if number:
            stop_if_asked()
        yield step

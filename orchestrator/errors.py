"""Errors that a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Bad input. The message is one short paragraph: where, what was expected, the nearest valid name."""


class Aborted(BaseException):
    """A second signal: leave at once."""


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A dataset that cannot be read, or kept in the cache, as a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        where = f" '{error.filename}':" if error.filename else ""
        raise UserError(f"the dataset cannot be read or kept:{where} {error.strerror or error}") from None

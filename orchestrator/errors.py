"""Exceptions that commands turn into messages for the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """An error that the user can act on. The message is one short paragraph: where, what was expected, what helps."""


class Aborted(BaseException):
    """Raised by a second signal, to leave at once."""


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raises OSErrors of a dataset that cannot be read, or kept in the cache, as :class:`UserError`."""
    try:
        yield
    except OSError as error:
        where = f" '{error.filename}':" if error.filename else ""
        raise UserError(f"the dataset cannot be read, or kept in the cache:{where} {error.strerror or error}") from None

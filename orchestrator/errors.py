"""Errors that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. The message is one short paragraph: where, what was expected, the nearest valid name."""


class Aborted(BaseException):
    """A second signal: leave at once."""

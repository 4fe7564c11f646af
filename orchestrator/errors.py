"""Exceptions that commands turn into messages for the user."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
import warnings
from collections.abc import Iterator, Sequence

from orchestrator.printing import printable


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


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Shows each Python warning once, as one line on stderr without a file, a line number and source code."""
    told = set[str]()

    def show(message: Warning | str) -> None:
        text = " ".join(str(message).split())
        if text not in told:
            told.add(text)
            print(f"note: {printable(text)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: show(message)
        yield


def unsuitable(library: str, versions: str, missing: Sequence[str]) -> UserError:
    """An error for a library that lacks private parts which we use; ``versions`` are those that have them."""
    return UserError(
        f"{library} {importlib.metadata.version(library)} is installed here and lacks what orchestrator uses of it "
        f"({', '.join(missing)}). The versions that work are {library}{versions}: install one of them with "
        f"python -m pip install '{library}{versions}'"
    )


def check_platform() -> None:
    """Raises :class:`UserError` on a system other than Linux, before a missing module would."""
    if sys.platform != "linux":
        raise UserError(
            f"this system is '{sys.platform}', and orchestrator runs on Linux only: it needs Linux's file locks and "
            "/proc to keep a sweep safe. Run it in a Linux container or virtual machine, with Python 3.11 or 3.12"
        )

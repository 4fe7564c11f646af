"""Text from files and from other programs, in a form that cannot control a terminal."""

from __future__ import annotations

import re

CONTROLS = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they turn the order of letters around
    "\u2028\u2029\ud800-\udfff"  # other line breaks, and halves of letters, which no encoding has
    "]"
)
BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")


def printable(text: object) -> str:
    r"""The text with its control characters written as ``\x1b`` and ``\u202e``, so that a terminal only shows them.

    Tabs and newlines stay.
    """
    return CONTROLS.sub(lambda found: _escaped(ord(found[0])), str(text))


def one_line(text: str) -> str:
    """The same as :func:`printable`, with a space for each line break: for formats in which a line is a row."""
    return printable(BREAKS.sub(" ", text))


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

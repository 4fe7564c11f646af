"""Turns the roles of our docstrings (``:class:`Penalty```) into links and code that Markdown shows."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?([\w.]+)`")
LITERAL = re.compile(r"(?<!`)``(?!`)(.+?)``(?!`)", re.DOTALL)
BLOCK = re.compile(r"::[ \t]*$", re.MULTILINE)


def to_markdown(text: str) -> str:
    """The docstring with ``:role:`name``` and ````name```` as code, and ``::`` before a block as a colon."""
    text = ROLE.sub(lambda found: f"`{found[1]}`", text)
    text = LITERAL.sub(r"`\1`", text)
    return BLOCK.sub(":", text)


class RstRoles(griffe.Extension):
    """Changes every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Griffe calls this for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

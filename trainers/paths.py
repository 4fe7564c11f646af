"""Paths that a user gives."""

from __future__ import annotations

import os
import re


def full_path(text: str) -> str:
    """A path with ``~`` and variables such as ``$HOME`` or ``${HOME}`` replaced. A relative path stays relative.

    Raises ValueError if the path is empty, and if a variable or a user does not exist. A path that exists just as it is
    written is taken as it is.
    """
    if not text.strip():
        raise ValueError("the path is empty; is it a variable that is not set?")
    whole = os.path.expandvars(os.path.expanduser(text))
    if not whole.strip():
        raise ValueError(f"'{text}' is empty: the variable has no value")
    if os.path.exists(whole):
        return whole
    if unset := re.match(r"[^$]*\$(?:(\w+)|\{(\w+)\})", whole):
        raise ValueError(f"'{text}': the variable {unset[1] or unset[2]} is not set")
    if whole.startswith("~"):
        user = whole[1:].partition("/")[0]
        raise ValueError(f"'{text}': there is no user '{user}' here; write ./{text} for a file of this name")
    return whole

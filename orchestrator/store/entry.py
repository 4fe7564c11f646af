"""A trial of a plan, as the store holds it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from orchestrator.sweep.names import Planned

TRIAL_ID = re.compile("[0-9a-f]{12}")
"""A trial's id, which is the name of its directory. Nothing else in a file becomes a part of a trial's path."""
Stage = Literal["", "search", "confirm"]
"""Which decision a trial comes from. Empty: none, or a race, which gives seeds to planned cells."""


@dataclass(frozen=True)
class Entry(Planned):
    """A trial of the plan, as ``plan.json`` or ``decisions.jsonl`` holds it.

    ``proposal`` is the number of a search's proposal. ``searched`` names the axes whose values a search chose.
    """

    epochs: int
    stage: Stage = ""
    proposal: int | None = None
    searched: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The trial as the files hold it: what only decided trials need is left out of the others."""
        return {key: value for key, value in asdict(self).items() if key in NEEDED or value not in ("", None, [])}


def known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a dataclass has a field for."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}


def entry_from(values: Mapping[str, Any]) -> Entry:
    """The trial of whole values. Keys that only a newer version knows are ignored."""
    return Entry(**known(Entry, values))


def problem_of(values: Any) -> str | None:
    """Why a value is no trial of a plan."""
    if not isinstance(values, dict):
        return "is no trial"
    for key, fits in {**NEEDED, **{key: fits for key, fits in GROWN.items() if key in values}}.items():
        if key not in values:
            return f"lacks '{key}'"
        if not fits(values[key]):
            return f"has a '{key}' that cannot be used: {values[key]!r:.40}"
    if not TRIAL_ID.fullmatch(values["trial_id"]):
        return f"has the trial_id {values['trial_id']!r:.60}, not twelve hex digits,"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


NEEDED: dict[str, Callable[[Any], bool]] = {
    "trial_id": _is_text,
    "variant": _is_text,
    "setting": _is_text,
    "axes": lambda value: isinstance(value, dict),
    "seed": _is_count,
    "epochs": _is_count,
}
"""Of each key that a trial of a plan must have: a test of its value."""
GROWN: dict[str, Callable[[Any], bool]] = {
    "stage": lambda value: value in get_args(Stage),
    "proposal": lambda value: value is None or _is_count(value),
    "searched": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}
"""Of each key that only decided trials need: a test of its value."""

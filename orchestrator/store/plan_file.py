"""``plan.json``: the plan of a sweep and its trials, as far as the file can be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import is_number, parse_json
from orchestrator.sweep.file import EarlyStopping, Resources
from orchestrator.sweep.names import Planned

TRIAL_ID = re.compile("[0-9a-f]{12}")
"""A trial's id, which is the name of its directory. Nothing else in a file becomes a part of a trial's path."""


@dataclass(frozen=True)
class Entry(Planned):
    """A trial of the plan, as ``plan.json`` holds it."""

    epochs: int


def read_plan(file: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of ``plan.json``, and a sentence for each part that is left out of it.

    ``trials`` has only whole trials. A key that is missing has the value that a sweep file without this key gives it.
    Raises :class:`UserError` if the file cannot be read, and if it is damaged beyond that.
    """
    try:
        plan, problems = parse_plan(file.read_bytes(), file.parent.name)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}; {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{file}: is damaged ({error}); {AGAIN}") from None
    return plan, [f"{file}: {problem}; {AGAIN}" for problem in problems]


AGAIN = "run the sweep file again to write it anew"


def parse_plan(content: bytes, name: str) -> tuple[dict[str, Any], list[str]]:
    """The plan of the sweep ``name`` and what is left out, as :func:`read_plan`. Raises ValueError."""
    plan = parse_json(content)
    if not isinstance(plan, dict):
        raise ValueError("it holds no plan")
    if not isinstance(plan.get("trials"), list):
        raise ValueError("it has no list 'trials'")
    if not _is_compare(plan.get("compare")):
        raise ValueError("it has no 'compare' with a metric and a mode")
    problems = []
    for key, (default, fits) in {"name": (name, _is_text), **OPTIONAL}.items():
        if key not in plan:
            plan[key] = default
            problems.append(f"lacks '{key}'")
        elif not fits(plan[key]):
            raise ValueError(f"its '{key}' cannot be used")
    whole: dict[str, Any] = {}
    for number, values in enumerate(plan["trials"], start=1):
        if problem := _problem_of(values) or ("is there twice" if values["trial_id"] in whole else None):
            problems.append(f"trial number {number} {problem} and is left out")
        else:
            whole[values["trial_id"]] = values
    return {**plan, "trials": list(whole.values())}, problems


def entries_of(plan: Mapping[str, Any]) -> list[Entry]:
    """The trials of a plan. Keys that only a newer version knows are ignored."""
    return [Entry(**known(Entry, values)) for values in plan["trials"]]


def known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a dataclass has a field for."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_compare(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("metric")) and value.get("mode") in ("min", "max")


def _is_paper(value: Any) -> bool:
    if value is None or not isinstance(value, dict):
        return value is None
    rows = value.get("rows")
    return (
        _is_text(value.get("source"))
        and isinstance(rows, dict)
        and all(isinstance(row, dict) and all(map(is_number, row.values())) for row in rows.values())
    )


def _is_resources(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    made = Resources(**known(Resources, value))
    custom = made.custom
    numbers = [made.cpus, made.gpus, *(custom.values() if isinstance(custom, dict) else [None])]
    return all(map(is_number, numbers))


def _is_early_stopping(value: Any) -> bool:
    if value is None or not isinstance(value, dict):
        return value is None
    try:
        made = EarlyStopping(**known(EarlyStopping, value))
    except TypeError:
        return False
    numbers = (made.grace, made.reduction_factor, made.minimum_trials)
    return made.scheduler in ("asha", "median") and _is_compare(value) and all(map(is_number, numbers))


OPTIONAL: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "description": ("", _is_text),
    "overrides": ([], lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "resources": ({}, _is_resources),
    "retries": (2, _is_whole),
    "max_failures": (None, lambda value: value is None or _is_whole(value)),
    "early_stopping": (None, _is_early_stopping),
    "continue_from": (None, lambda value: value is None or _is_text(value)),
    "paper": (None, _is_paper),
}
"""Of each key that a plan may lack: the value that it has then, and a test of its value."""

OF_TRIALS: dict[str, Callable[[Any], bool]] = {
    "trial_id": _is_text,
    "variant": _is_text,
    "setting": _is_text,
    "axes": lambda value: isinstance(value, dict),
    "seed": lambda value: _is_whole(value) and 0 <= value < 2**63,
    "epochs": lambda value: _is_whole(value) and 0 <= value < 2**63,
}
"""Of each key that a trial of a plan must have: a test of its value."""


def _problem_of(values: Any) -> str | None:
    """Why a value is no trial of a plan."""
    if not isinstance(values, dict):
        return "is no trial"
    for key, fits in OF_TRIALS.items():
        if key not in values:
            return f"lacks '{key}'"
        if not fits(values[key]):
            return f"has a '{key}' that cannot be used: {values[key]!r:.40}"
    if not TRIAL_ID.fullmatch(values["trial_id"]):
        return f"has the trial_id {values['trial_id']!r:.60}, not twelve hex digits,"
    return None

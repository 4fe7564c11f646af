"""``plan.json`` and ``decisions.jsonl``: the plan of a sweep and its trials, as far as the files can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import is_number, parse_json
from orchestrator.store import decision_log
from orchestrator.store.decision_log import Decision, parse_decisions
from orchestrator.store.entry import Entry, entry_from, known, problem_of
from orchestrator.sweep.file import EarlyStopping, Resources
from orchestrator.sweep.growing import Growing, growing_from


@dataclass(frozen=True)
class GrownPlan:
    """What may grow a plan, and what has been decided. ``problems`` say what is damaged of the decisions.

    ``planned`` are the trials that no decision made.
    """

    growing: Growing
    planned: tuple[Entry, ...]
    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class StoredPlan:
    """``plan.json`` with ``decisions.jsonl``, as far as they can be read.

    ``values`` is the content of ``plan.json``, whose ``trials`` are whole ones, those that were decided included.
    ``entries`` are the same trials, ``problems`` has a sentence for each part that is left out, and ``grown`` is None
    if nothing may grow the plan.
    """

    values: Mapping[str, Any]
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]
    grown: GrownPlan | None


Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp_of(file: Path) -> Stamp:
    """What differs when one of the two files has changed."""
    stamps: list[tuple[int, int, int] | None] = []
    for each in (file, file.with_name(decision_log.FILE)):
        try:
            there = each.stat()
            stamps.append((there.st_ino, there.st_mtime_ns, there.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


def read_plan(file: Path) -> StoredPlan:
    """The plan in ``plan.json``, with what has been decided.

    A key that is missing has the value that a sweep file without this key gives it. Raises :class:`UserError` if a file
    cannot be read, and if ``plan.json`` is damaged beyond that.
    """
    log = file.with_name(decision_log.FILE)
    try:
        plan, problems = parse_plan(file.read_bytes(), file.parent.name)
        content = log.read_bytes() if plan["growing"] and log.exists() else b""
    except OSError as error:
        raise UserError(f"{error.filename or file}: cannot be read: {error.strerror}; {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{file}: is damaged ({error}); {AGAIN}") from None
    planned, growing, told, grown = entries_of(plan), growing_from(plan["growing"]), list[str](), None
    entries = {entry.trial_id: entry for entry in planned}
    if growing is not None:
        decisions, told = parse_decisions(content, growing, planned)
        for decision in decisions:
            for entry in decision.trials:
                entries.setdefault(entry.trial_id, entry)
        plan["trials"] += [entry.to_dict() for entry in list(entries.values())[len(planned) :]]
        grown = GrownPlan(growing, tuple(planned), tuple(decisions), tuple(told))
    left_out = [
        *(f"{file}: {problem}; {AGAIN}" for problem in problems),
        *(f"{log}: {problem}; {decision_log.AGAIN}" for problem in told),
    ]
    return StoredPlan(plan, tuple(entries.values()), tuple(left_out), grown)


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
    plan.setdefault("growing", None)  # plans of older versions lack it
    for key, (default, fits) in {"name": (name, _is_text), **OPTIONAL}.items():
        if key not in plan:
            plan[key] = default
            problems.append(f"lacks '{key}'")
        elif not fits(plan[key]):
            raise ValueError(f"its '{key}' cannot be used")
    whole: dict[str, Any] = {}
    for number, values in enumerate(plan["trials"], start=1):
        if problem := problem_of(values) or ("is there twice" if values["trial_id"] in whole else None):
            problems.append(f"trial number {number} {problem} and is left out")
        else:
            whole[values["trial_id"]] = values
    return {**plan, "trials": list(whole.values())}, problems


def entries_of(plan: Mapping[str, Any]) -> list[Entry]:
    """The trials of a plan."""
    return list(map(entry_from, plan["trials"]))


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


def _is_growing(value: Any) -> bool:
    try:
        growing_from(value)
    except ValueError:
        return False
    return True


OPTIONAL: dict[str, tuple[Any, Callable[[Any], bool]]] = {
    "description": ("", _is_text),
    "overrides": ([], lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "resources": ({}, _is_resources),
    "retries": (2, _is_whole),
    "max_failures": (None, lambda value: value is None or _is_whole(value)),
    "early_stopping": (None, _is_early_stopping),
    "continue_from": (None, lambda value: value is None or _is_text(value)),
    "paper": (None, _is_paper),
    "growing": (None, _is_growing),
}
"""Of each key that a plan may lack: the value that it has then, and a test of its value."""

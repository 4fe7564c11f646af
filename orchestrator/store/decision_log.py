"""``decisions.jsonl``: what made a plan grow, a line a decision. The driver appends; every command may read.

A line has what was decided (``about``), what it rests on (``rests_on``), and the trials that it adds. A decision is
written before its trials begin, and never changes afterwards.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import is_number, parse_json
from orchestrator.store.entry import Entry, entry_from, problem_of
from orchestrator.sweep.growing import Growing
from orchestrator.sweep.names import Planned
from orchestrator.sweep.setting import setting_text
from orchestrator.sweep.space import key_of

FILE = "decisions.jsonl"
AGAIN = "delete this line and all that follow, then resume: the decisions are made again from the same results"


@dataclass(frozen=True)
class Decision:
    """A decision of this kind: what it is about, what it rests on, and the trials that it adds."""

    kind: str
    about: dict[str, Any]
    rests_on: dict[str, Any]
    trials: tuple[Entry, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The decision as its line holds it, without the time."""
        return {
            "kind": self.kind,
            "about": self.about,
            "rests_on": self.rests_on,
            "trials": [entry.to_dict() for entry in self.trials],
        }

    def cell(self) -> tuple[str, dict[str, Any]]:
        """The variant and the axes that it is about."""
        return self.about["variant"], self.about["axes"]


def append(file: Path, decisions: Sequence[Decision]) -> None:
    """Stores decisions. A torn last line is cut first. Raises OSError."""
    stamp = int(time.time() * 1000)
    lines = [json.dumps({**each.to_dict(), "timestamp": stamp}) + "\n" for each in decisions]
    with file.open("a+b") as log:
        log.seek(0)
        content = log.read() if _is_torn(log) else b""
        if content:
            log.truncate(content.rfind(b"\n") + 1)
        log.write("".join(lines).encode())
        log.flush()
        os.fsync(log.fileno())


def _is_torn(log: Any) -> bool:
    size = log.seek(0, os.SEEK_END)
    if size == 0:
        return False
    log.seek(size - 1)
    torn = log.read(1) != b"\n"
    log.seek(0)
    return bool(torn)


CellKey = tuple[str, Hashable]


def cell_key(variant: str, axes: Mapping[str, Any]) -> CellKey:
    """A key that equal cells share, whatever the order of their axes and however their numbers are written."""
    return variant, key_of(dict(axes))


def parse_decisions(
    content: bytes, growing: Growing | None, planned: Iterable[Planned]
) -> tuple[list[Decision], list[str]]:
    """The decisions of whole lines that belong to this plan, and a sentence for the first damaged line.

    ``planned`` are the trials of the plan that no decision made. Cells are written as the plan writes them: a sweep
    file may have another order of axes by now, or 1.0 for 1. What follows a damaged line is left out, because it rests
    on what the line said.
    """
    if growing is None:
        growing = Growing((0,), {})
    cells = {cell_key(each.variant, each.axes): each.axes for each in planned}
    searched = {cell_key(group.variant, group.axes): group.axes for group in growing.groups}
    written, variants = cells | searched, {variant for variant, _ in cells}
    found: list[Decision] = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
        decision = _decision(line)
        if isinstance(decision, str):
            return found, [f"line {number} {decision} ({line[:40]!r}…), so that it and what follows is left out"]
        if _belongs(decision, growing, searched, variants):
            found.append(_as_planned(decision, growing.short, written))
    return found, []


def _decision(line: bytes) -> Decision | str:
    """The decision of a line, or what is wrong with the line."""
    try:
        values = parse_json(line)
        kind, about, rests_on, trials = (values[key] for key in ("kind", "about", "rests_on", "trials"))
        if isinstance(kind, str) and kind not in FITTING:
            return f"is a decision of a kind that this version does not know, '{kind:.20}'"
        whole = isinstance(about, dict) and isinstance(rests_on, dict) and isinstance(trials, list)
        if not whole or any(problem_of(each) for each in trials) or not FITTING[kind](about, rests_on):
            return "is damaged"
        return Decision(kind, about, rests_on, tuple(map(entry_from, trials)))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "is damaged"


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_cell(values: Mapping[str, Any]) -> bool:
    return isinstance(values["variant"], str) and isinstance(values["axes"], dict)


def _is_search(about: Mapping[str, Any], rests_on: Mapping[str, Any]) -> bool:
    seen = rests_on["seen"].items()
    outcomes = all(number.isdecimal() and isinstance(outcome[0], str) and len(outcome) == 3 for number, outcome in seen)
    proposed = "exhausted" in about or isinstance(about["setting"], dict)
    return (
        _is_cell(about) and _is_count(about["proposal"]) and _is_count(rests_on["proposals"]) and outcomes and proposed
    )


def _is_race(about: Mapping[str, Any], rests_on: Mapping[str, Any]) -> bool:
    numbers = all(map(_is_count, (about["look"], about["had"], about.get("seeds", 0)))) and is_number(about["level"])
    ended = about["ended"] is None or isinstance(about["ended"], str)
    cells = all(_is_cell(each) and (each["out"] is None or isinstance(each["out"], str)) for each in rests_on["cells"])
    return numbers and ended and cells


def _is_confirm(about: Mapping[str, Any], rests_on: Mapping[str, Any]) -> bool:
    counts = all(_is_count(about[name]) for name in ("of", "best", "seeds"))
    return _is_cell(about) and counts and all(isinstance(each["axes"], dict) for each in rests_on["cells"])


FITTING: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "search": _is_search,
    "race": _is_race,
    "confirm": _is_confirm,
}
"""Of each kind of decision: a test of what it is about and what it rests on."""


Cells = Mapping[CellKey, Mapping[str, Any]]
"""The axes of cells by :func:`cell_key`."""


def _belongs(decision: Decision, growing: Growing, searched: Cells, variants: Collection[str]) -> bool:
    """Whether the plan still has what a decision is about. A search or a variant may have left the sweep file."""
    if decision.kind == "race":
        return growing.race is not None
    variant, axes = decision.cell()
    if decision.kind == "search" or cell_key(variant, axes) in searched:
        return cell_key(variant, axes) in searched and (decision.kind == "search" or growing.confirm is not None)
    return growing.confirm is not None and not axes and variant in variants


def _as_planned(decision: Decision, short: Mapping[str, str], cells: Cells) -> Decision:
    """The decision with its cells written as the plan writes them."""

    def same(values: Mapping[str, Any]) -> dict[str, Any]:
        key = cell_key(values["variant"], values["axes"])
        return {**values, "axes": dict(cells.get(key, values["axes"]))}

    def trial(entry: Entry) -> Entry:
        chosen = {name: value for name, value in entry.axes.items() if name in entry.searched}
        rest = {name: value for name, value in entry.axes.items() if name not in entry.searched}
        axes = {**cells.get(cell_key(entry.variant, rest), rest), **chosen}
        return replace(entry, axes=axes, setting=setting_text(axes, short))

    about, rests_on = decision.about, decision.rests_on
    if decision.kind == "race":
        rests_on = {**rests_on, "cells": [same(each) for each in rests_on["cells"]]}
    else:
        about = same(about)
    return replace(decision, about=about, rests_on=rests_on, trials=tuple(map(trial, decision.trials)))


class DecisionTail:
    """Reads the decisions that were made since the last call; the first call reads all.

    ``planned`` are the trials of the plan that no decision made.
    """

    def __init__(self, file: Path, growing: Growing | None, planned: Sequence[Planned]) -> None:
        self._file, self._growing, self._planned = file, growing, planned
        self._offset = 0

    def read(self) -> list[Decision]:
        """The new decisions, up to a damaged line. None from a file that cannot be read."""
        if self._growing is None:
            return []
        try:
            if self._file.stat().st_size <= self._offset:
                return []
            with self._file.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return []
        self._offset += content.rfind(b"\n") + 1
        return parse_decisions(content, self._growing, self._planned)[0]


def check_undamaged(file: Path, problems: Sequence[str]) -> None:
    """Raises :class:`UserError` for a damaged file: what was decided is not known, so that nothing can be decided."""
    if problems:
        raise UserError(f"{file}: {problems[0]}; {AGAIN}")

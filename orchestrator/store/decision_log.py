"""``decisions.jsonl``: what made a plan grow, a line a decision. The driver appends; every command may read.

A line has what was decided (``about``), what it rests on (``rests_on``), and the trials that it adds. A decision is
written before its trials begin, and never changes afterwards.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import parse_json
from orchestrator.store.entry import Entry, entry_from, problem_of
from orchestrator.sweep.growing import Growing
from orchestrator.sweep.setting import setting_text

FILE = "decisions.jsonl"
KINDS = ("search", "race", "confirm")
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


def parse_decisions(content: bytes, growing: Growing | None) -> tuple[list[Decision], list[str]]:
    """The decisions of whole lines that belong to this plan, and a sentence for the first damaged line.

    What follows a damaged line is left out, because it rests on what the line said.
    """
    found: list[Decision] = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        decision = _decision(line)
        if decision is None:
            return found, [f"line {number} is damaged ({line[:40]!r}…), so that it and what follows is left out"]
        if growing is not None and _belongs(decision, growing):
            entries = (replace(each, setting=setting_text(each.axes, growing.short)) for each in decision.trials)
            found.append(replace(decision, trials=tuple(entries)))
    return found, []


def _decision(line: bytes) -> Decision | None:
    """The decision of a line; None if it holds none."""
    try:
        values = parse_json(line)
        kind, about, rests_on, trials = (values[key] for key in ("kind", "about", "rests_on", "trials"))
        whole = isinstance(about, dict) and isinstance(rests_on, dict) and isinstance(trials, list)
        if not whole or kind not in KINDS or any(problem_of(each) for each in trials):
            return None
        if kind != "race" and not (isinstance(about["variant"], str) and isinstance(about["axes"], dict)):
            return None
        return Decision(kind, about, rests_on, tuple(map(entry_from, trials)))
    except (ValueError, TypeError, KeyError):
        return None


def _belongs(decision: Decision, growing: Growing) -> bool:
    """Whether the plan still has what a decision is about. A search or a variant may have left the sweep file."""
    if decision.kind == "race":
        return growing.race is not None
    groups = [(group.variant, group.axes) for group in growing.groups]
    if decision.kind == "search":
        return decision.cell() in groups
    variant, axes = decision.cell()
    return growing.confirm is not None and ((variant, axes) in groups or not axes)


class DecisionTail:
    """Reads the trials that were decided since the last call; the first call reads all."""

    def __init__(self, file: Path, growing: Growing | None) -> None:
        self._file, self._growing = file, growing
        self._offset = 0

    def read(self) -> list[Entry]:
        """The new trials. None from a file that is damaged or cannot be read."""
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
        return [entry for decision in parse_decisions(content, self._growing)[0] for entry in decision.trials]


def check_undamaged(file: Path, problems: Sequence[str]) -> None:
    """Raises :class:`UserError` for a damaged file: what was decided is not known, so that nothing can be decided."""
    if problems:
        raise UserError(f"{file}: {problems[0]}; {AGAIN}")

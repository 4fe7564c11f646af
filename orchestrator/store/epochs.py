"""``metrics.jsonl``: one line per epoch. The trial's worker appends; every command may read."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from trainers.evaluation import Evaluation
from trainers.metrics import TIMING

POSITION = ("epoch", "iteration", "timestamp")
"""What a line says beside its metrics: where its epoch stands."""
CLOCKS = TIMING | {"timestamp"}
"""Fields that may differ between two runs of the same epoch."""
NUMBERS = frozenset({int, float})
HIGHEST = 2**43
"""Upper bound of whole numbers in a line. As a timestamp it is in the year 2248."""
LINE_BYTES = 2**16
"""Upper bound of the length of one epoch's line."""


class EpochLog:
    """The writing side of ``metrics.jsonl``. A line is appended and flushed, and never changes afterwards.

    A torn last line is cut. An epoch that is computed again after a crash is compared with the stored one and dropped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored = {record["epoch"]: record for record in Tail(path).read()}
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)

    def has_all(self, last: int) -> bool:
        """Whether every epoch from the untrained one to ``last`` is stored."""
        return all(epoch in self._stored for epoch in range(last + 1))

    def is_best(self, record: Mapping[str, Any], evaluation: Evaluation) -> bool:
        """Whether no stored epoch has a better value of the evaluation's first metric. Epoch 0 does not count."""
        if not evaluation.metrics:
            return False
        metric = evaluation.metrics[0].name
        sign = -1 if evaluation.metrics[0].direction == "max" else 1
        others = [sign * stored[metric] for epoch, stored in self._stored.items() if epoch and metric in stored]
        return math.isfinite(record[metric]) and not any(other < sign * record[metric] for other in others)

    def append(self, record: Mapping[str, Any]) -> list[str]:
        """Stores an epoch with a timestamp in milliseconds.

        Returns the fields, apart from timings, in which the epoch differs from one that is already stored. The list is
        empty for a new epoch, and whenever resuming is exact.
        """
        if (stored := self._stored.get(record["epoch"])) is not None:
            return _differences(record, stored)
        stamped = {**record, "timestamp": int(time.time() * 1000)}
        with self.path.open("a") as file:
            file.write(json.dumps(stamped) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._stored[record["epoch"]] = stamped
        return []


class Tail:
    """Reads the complete lines that were added to a ``metrics.jsonl`` since the last call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._last: dict[str, Any] = {}

    def read(self) -> Iterator[dict[str, Any]]:
        """The new epochs, in order. An epoch that is there twice with the same numbers is returned once.

        Raises :class:`UserError` for a file that cannot be read, for a line that does not hold an epoch, and for an
        epoch that is there twice with different numbers or stands behind a later one.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read: {error.strerror}; {way_on(error)}") from None
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        lines = content[:whole].splitlines()
        records = _epochs(lines)
        for index, line in enumerate(lines):
            record = records[index] if records is not None else _epoch(line)
            if record is None:
                raise self._damaged(f"a line is damaged ({line[:40]!r}…)")
            if self._last and record["epoch"] <= self._last["epoch"]:
                if _differences(record, self._last):
                    what = "twice, with different numbers" if record["epoch"] == self._last["epoch"] else "too late"
                    raise self._damaged(f"epoch {record['epoch']} is there {what}")
                continue
            self._last = record
            yield record

    def _damaged(self, problem: str) -> UserError:
        return UserError(f"{self._path}: {problem}: delete this line and all that follow, then resume")


def way_on(error: OSError) -> str:
    """What helps with a file that cannot be read."""
    if isinstance(error, PermissionError):
        return "give this user the right to read it"
    return "delete or move what is in its place, then resume"


def _epochs(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """The epochs of all lines, parsed at once in two thirds of the time; None if a line does not hold an epoch."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    return records if len(records) == len(lines) and all(map(_is_epoch, records)) else None


def _epoch(line: bytes) -> dict[str, Any] | None:
    """The epoch of a line; None if the line does not hold one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if _is_epoch(record) else None


def _is_epoch(record: Any) -> bool:
    """Whether a value has the numbers of an epoch, and nothing but numbers. A metric may be NaN or infinite."""
    return (
        isinstance(record, dict)
        and set(map(type, record.values())) <= NUMBERS
        and all(type(record.get(name)) is int and 0 <= record[name] <= HIGHEST for name in POSITION)
        and all(abs(value) <= HIGHEST for value in record.values() if type(value) is int)
    )


def _differences(record: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields, apart from timings, in which two records differ."""
    names = sorted((set(record) | set(other)) - CLOCKS)
    return [name for name in names if repr(record.get(name)) != repr(other.get(name))]


def last_epoch(path: Path) -> int | None:
    """The number of the last complete epoch of a ``metrics.jsonl``.

    −1 if there is no epoch, None if the last line is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LINE_BYTES))
            lines = file.read().rpartition(b"\n")[0].splitlines()
    except FileNotFoundError:
        return -1
    if not lines:
        return -1
    record = _epoch(lines[-1])
    return None if record is None else int(record["epoch"])

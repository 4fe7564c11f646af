"""The states of a trial, its attempts, and ``status.json``, which holds both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from orchestrator.files import is_number, parse_json

STATUS_FILE = "status.json"
DAMAGED = f"{STATUS_FILE} was damaged"
"""The error of a trial whose ``status.json`` is damaged."""


class State(StrEnum):
    """The state of a trial."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    LOST = "LOST"

    @property
    def is_result(self) -> bool:
        """Whether the trial has a result, good or bad, so that nothing is left to run."""
        return self in (State.DONE, State.STOPPED, State.DIVERGED)


@dataclass
class Attempt:
    """One run of a trial by one worker: when, where and with which code. Values that are not known yet are None.

    ``code`` is a digest of the files of our packages: it tells code apart that has the same ``commit``.
    ``started`` and ``ended`` are seconds since 1970; ``ended`` is None for an attempt that runs or was killed.
    ``resumed_at`` is the critic iteration at which it began, ``unreadable`` says which checkpoints it could not use.
    ``state``, ``error`` and ``errno`` are those of its end. ``last_epoch`` is the last epoch it stored, if it is DONE.
    ``extra`` keeps values that another version wrote and this one does not know.
    """

    started: float = 0.0
    host: str = ""
    pid: int = 0
    commit: str = "unknown"
    code: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    device: str | None = None
    resumed_at: int | None = None
    errno: int | None = None
    ended: float | None = None
    state: str | None = None
    error: str | None = None
    last_epoch: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The attempt as ``status.json`` holds it, without the values that are not known yet."""
        values = asdict(self)
        extra = values.pop("extra")
        always = {"error"} if self.ended is not None else set()
        return {name: value for name, value in values.items() if value not in (None, []) or name in always} | extra


def attempt_from(values: Mapping[str, Any]) -> Attempt:
    """Reads what :meth:`Attempt.to_dict` or an older version wrote; a missing or null value takes its default."""
    known = {each.name for each in fields(Attempt)} - {"extra"}
    told = {name: value for name, value in values.items() if name in known and value is not None}
    return Attempt(**told, extra={name: value for name, value in values.items() if name not in known})


@dataclass
class Status:
    """``status.json``: the state, every attempt, and the last line of the last attempt's error.

    ``copied_from`` is the sweep that trained this trial. ``continued_from`` names the finished trial whose checkpoint
    this longer trial began with: ``sweep``, ``trial_id``, ``iteration``. ``restarts`` counts ``resume --restart``.
    """

    state: State = State.PENDING
    attempts: list[Attempt] = field(default_factory=list)
    error: str | None = None
    copied_from: str | None = None
    continued_from: dict[str, Any] | None = None
    restarts: int = 0

    @property
    def is_unreadable(self) -> bool:
        """Whether this stands for a ``status.json`` that is damaged or cannot be read."""
        return self.state is State.LOST and (self.error or "").startswith(STATUS_FILE) and not self.attempts

    @property
    def commits(self) -> list[str]:
        """The commits of all attempts, each once."""
        return list(dict.fromkeys(attempt.commit for attempt in self.attempts))

    @property
    def codes(self) -> list[str]:
        """The digests of the code of all attempts, each once."""
        return list(dict.fromkeys(attempt.code for attempt in self.attempts if attempt.code is not None))

    @property
    def devices(self) -> list[str]:
        """The devices of the attempts, except those that ended before they had one."""
        return [attempt.device for attempt in self.attempts if attempt.device is not None]

    def to_json(self) -> str:
        """The text of ``status.json``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps({**values, "attempts": [attempt.to_dict() for attempt in self.attempts]}, indent=1)


def status_from(content: bytes) -> Status:
    """Reads ``status.json``. A damaged file is LOST: the trial's checkpoint and its epochs are in other files."""
    try:
        values = parse_json(content)
        attempts = [attempt_from(each) for each in values.get("attempts", [])]
        status = Status(**{**values, "state": State(values["state"]), "attempts": attempts})
        return status if _is_whole(status) else Status(State.LOST, error=DAMAGED)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Status(State.LOST, error=DAMAGED)


def _is_whole(status: Status) -> bool:
    """Whether every value is of its kind."""
    origin = status.continued_from
    return (
        _is_text(status.error, status.copied_from)
        and _is_count(status.restarts)
        and (origin is None or (_is_text(origin["sweep"], origin["trial_id"]) and _is_count(origin["iteration"])))
        and all(map(_is_whole_attempt, status.attempts))
    )


def _is_whole_attempt(attempt: Attempt) -> bool:
    counts = (attempt.pid, attempt.resumed_at, attempt.errno, attempt.last_epoch)
    return (
        is_number(attempt.started)
        and (attempt.ended is None or is_number(attempt.ended))
        and all(each is None or _is_count(each) for each in counts)
        and _is_text(attempt.host, attempt.commit, attempt.code, attempt.device, attempt.state, attempt.error)
        and _is_text(*attempt.unreadable)
        and _is_text(*attempt.versions.keys(), *attempt.versions.values())
    )


def _is_text(*values: Any) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

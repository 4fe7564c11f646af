"""How a sweep is run, and the command that continues it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.store.runs import runs_argument
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import is_default, uri_argument
from trainers.parts import nearest

EXECUTORS = ("ray", "local")


@dataclass(frozen=True)
class Options:
    """How to run a sweep. Without a tracking URI (``--offline``) nothing is written to MLflow until a later ``sync``.

    Raises :class:`UserError` for options that contradict each other.
    """

    tracking_uri: str | None
    address: str | None = None
    max_concurrent: int | None = None
    feature_weights: Path | None = None
    """For trials that are planned already. A new plan contains its own weights."""
    executor: str = "ray"
    """``ray``: Ray Tune. ``local``: trials one after the other in this process."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(f"--executor: there is no executor '{self.executor}'{nearest(self.executor, EXECUTORS)}")
        if self.executor == "local" and self.address is not None:
            raise UserError("--executor local runs trials in this process, so it cannot be combined with --address")
        if self.executor == "local" and self.max_concurrent is not None:
            raise UserError("--executor local runs one trial at a time, so it cannot be combined with --max-concurrent")


def as_arguments(store: SweepStore, options: Options) -> str:
    """The options with which another command finds this sweep and its MLflow, as text, without a password."""
    words = runs_argument(store.runs)
    uri = options.tracking_uri
    if uri is not None and not is_default(uri, store.runs):
        words += uri_argument(uri)
    return words


def resume_command(store: SweepStore, options: Options) -> str:
    """The command that continues this sweep, without a password."""
    words = f"orchestrator resume {store.name}{as_arguments(store, options)}"
    words += f" --address {shlex.quote(options.address)}" if options.address else ""
    words += " --offline" if options.tracking_uri is None else ""
    words += f" --executor {options.executor}" if options.executor != "ray" else ""
    return words + (f" --max-concurrent {options.max_concurrent}" if options.max_concurrent else "")

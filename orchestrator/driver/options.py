"""How a sweep is run, and the commands that go on with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.store.runs import location
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import default_uri
from trainers.parts import nearest

EXECUTORS = ("ray", "local")


@dataclass(frozen=True)
class Options:
    """How, not what, to run. Without a tracking URI (``--offline``) MLflow waits for a later ``sync``.

    Raises :class:`UserError` for options that do not go together.
    """

    tracking_uri: str | None
    address: str | None = None
    max_concurrent: int | None = None
    feature_weights: Path | None = None
    """For trials that are planned already; a new plan brings its own weights."""
    executor: str = "ray"
    """``ray``: Ray Tune. ``local``: trials one after the other in this process."""

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(f"--executor: there is no executor '{self.executor}'{nearest(self.executor, EXECUTORS)}")
        if self.executor == "local" and self.address is not None:
            raise UserError("--executor local runs trials in this process: it does not go with --address")
        if self.executor == "local" and self.max_concurrent is not None:
            raise UserError("--executor local runs one trial at a time: it does not go with --max-concurrent")


def as_arguments(store: SweepStore, options: Options) -> str:
    """The options that a command needs to find this sweep and its MLflow again."""
    words = "" if store.runs == Path("runs") else f" --runs-dir {shlex.quote(location(store.runs))}"
    if options.tracking_uri is not None and (store.replica or options.tracking_uri != default_uri(store.runs)):
        words += f" --tracking-uri {shlex.quote(str(options.tracking_uri))}"
    return words


def resume_command(store: SweepStore, options: Options) -> str:
    """The command that goes on where this one ends."""
    words = f"orchestrator resume {store.name}{as_arguments(store, options)}"
    words += f" --address {options.address}" if options.address else ""
    words += " --offline" if options.tracking_uri is None else ""
    words += f" --executor {options.executor}" if options.executor != "ray" else ""
    return words + (f" --max-concurrent {options.max_concurrent}" if options.max_concurrent else "")

"""A sweep's directory: the only truth about what has happened.

    runs/<sweep>/sweep.yaml, plan.json, driver.lock, stop, tables/
    runs/<sweep>/trials/<trial_id>/config.yaml, status.json, metrics.jsonl, references.json, checkpoint.pt,
                                   checkpoint-previous.pt, best.pt, samples/, log.txt, attempts/

Paths inside are relative, so a moved directory still works. A worker writes RUNNING, DONE, DIVERGED and FAILED; the
driver PENDING, STOPPED and LOST, and only after the worker has ended. Nothing here is executable when read back.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UserError
from orchestrator.plan import Plan
from orchestrator.sweep_file import check_name
from trainers.evaluation import Evaluation
from trainers.parts import nearest

TIMING = frozenset({"timestamp", "epoch_seconds", "evaluation_seconds", "images_per_second", "peak_memory_mb"})
"""What differs between two runs of one epoch."""


class State(StrEnum):
    """What has become of a trial."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"
    DIVERGED = "DIVERGED"
    FAILED = "FAILED"
    LOST = "LOST"

    @property
    def is_result(self) -> bool:
        """Whether nothing is left to do: a result, if not always a good one."""
        return self in (State.DONE, State.STOPPED, State.DIVERGED)


@dataclass
class Status:
    """``status.json``. ``attempts`` tell when, where and with which code; ``error`` is the last one's last line."""

    state: State = State.PENDING
    attempts: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    copied_from: str | None = None
    restarts: int = 0


class TrialStore:
    """One trial's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trial_id = path.name
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoint_file = path / "checkpoint.pt"
        self.previous_checkpoint_file = path / "checkpoint-previous.pt"
        self.best_file = path / "best.pt"
        self.samples = path / "samples"
        self.log_file = path / "log.txt"

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the directory of a trial that is new; one without a result takes the runtime options it is given."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "status.json").exists():
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            self.write_status(Status())
        elif not self.status().state.is_result and self.config() != config:
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return yaml.safe_load((self.path / "config.yaml").read_text())

    def status(self) -> Status:
        """The state; PENDING where nothing has been written yet."""
        try:
            values = json.loads((self.path / "status.json").read_text())
        except FileNotFoundError:
            return Status()
        return Status(**{**values, "state": State(values["state"])})

    def write_status(self, status: Status) -> None:
        """Replaces the state at once: a reader sees the old one or the new one."""
        write_atomically(self.path / "status.json", json.dumps(asdict(status), indent=1))

    def set_state(self, state: State, error: str | None = None) -> Status:
        """Changes the state and, if given, the error."""
        status = self.status()
        status.state = state
        status.error = error or (None if state.is_result else status.error)
        self.write_status(status)
        return status

    def epochs(self) -> list[dict[str, Any]]:
        """Every stored epoch, in order."""
        return list(self.tail().read())

    def tail(self) -> Tail:
        """A reader that returns each stored epoch once."""
        return Tail(self.metrics_file)

    def references(self) -> dict[str, Any]:
        """The floor, which metrics are better high, and what they depend on. Empty before the trial starts."""
        try:
            return json.loads((self.path / "references.json").read_text())
        except FileNotFoundError:
            return {}

    def write_references(self, references: Mapping[str, Any]) -> None:
        """Replaces ``references.json``."""
        write_atomically(self.path / "references.json", json.dumps(references, indent=1))

    def sample_files(self) -> list[Path]:
        """The sample grids, oldest first."""
        return sorted(self.samples.glob("epoch_*.png"))

    def restart(self) -> None:
        """Begins again from nothing: what the attempts so far have left moves to ``attempts/N``."""
        status = self.status()
        old = self.path / "attempts" / str(status.restarts + 1)
        old.mkdir(parents=True, exist_ok=True)
        for item in list(self.path.iterdir()):
            if item.name not in ("attempts", "config.yaml"):
                item.rename(old / item.name)
        self.write_status(Status(restarts=status.restarts + 1))

    def log(self, text: str) -> None:
        """Adds a line, or several, to ``log.txt``."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with self.log_file.open("a") as file:
            file.write(f"{stamp} {text}\n")


class EpochLog:
    """The writing side of ``metrics.jsonl``: one line an epoch, appended and flushed, final once written.

    A torn last line is cut. An epoch that comes again after a crash is compared with the stored one and dropped;
    ``append`` returns what differed beyond the timings, which is nothing where resumption is exact.
    """

    def __init__(self, trial: TrialStore) -> None:
        self.path = trial.metrics_file
        self._stored = {record["epoch"]: record for record in trial.tail().read()}
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)

    def is_best(self, record: Mapping[str, Any], evaluation: Evaluation) -> bool:
        """Whether no stored epoch after the first has a better value of the evaluation's first metric."""
        if not evaluation.metrics:
            return False
        metric = evaluation.metrics[0]
        sign = -1 if metric in evaluation.higher_is_better else 1
        others = [sign * stored[metric] for epoch, stored in self._stored.items() if epoch and metric in stored]
        return all(sign * record[metric] <= other for other in others)

    def append(self, record: Mapping[str, Any]) -> list[str]:
        """Stores an epoch, timestamped in milliseconds. Returns the names of metrics that differ from a stored one."""
        if (stored := self._stored.get(record["epoch"])) is not None:
            names = sorted((set(record) | set(stored)) - TIMING)
            return [name for name in names if repr(stored.get(name)) != repr(record.get(name))]
        stamped = {**record, "timestamp": int(time.time() * 1000)}
        with self.path.open("a") as file:
            file.write(json.dumps(stamped) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._stored[record["epoch"]] = stamped
        return []


class Tail:
    """Reads the whole lines that have been added to a ``metrics.jsonl`` since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The new epochs, in order."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        for line in content[:whole].splitlines():
            yield json.loads(line)


@dataclass(frozen=True)
class Entry:
    """A trial of the plan, as ``plan.json`` has it."""

    trial_id: str
    variant: str
    setting: str
    axes: Mapping[str, Any]
    seed: int
    epochs: int

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return f"{self.variant} {self.setting}".strip()


class SweepStore:
    """One sweep's directory below the runs directory."""

    def __init__(self, runs_dir: Path, name: str) -> None:
        self.runs_dir = runs_dir
        self.name = name
        self.path = runs_dir / name
        self.stop_file = self.path / "stop"
        self.lock_file = self.path / "driver.lock"
        self.tables = self.path / "tables"
        self.cache_dir = runs_dir / "cache"

    @classmethod
    def open(cls, runs_dir: Path, name: str) -> SweepStore:
        """A sweep that is there. Raises :class:`UserError`, with the nearest name, if it is not."""
        check_name(name, UserError)
        store = cls(runs_dir, name)
        if not (store.path / "plan.json").exists():
            known = sweep_names(runs_dir)
            there = nearest(name, known) if known else f"; there are no sweeps in '{runs_dir}'"
            raise UserError(f"there is no sweep called '{name}' in '{runs_dir}'{there}")
        return store

    def make(self) -> None:
        """Makes the directory. Raises :class:`UserError` if the runs directory cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_file.touch()
        except OSError as error:
            raise UserError(f"the runs directory '{self.runs_dir}' cannot be written: {error.strerror}") from None

    def write_plan(self, plan: Plan) -> None:
        """Makes the directories of a plan's trials; what is there already stays.

        Trials that are not in the plan any more keep their directories. Raises :class:`UserError` if something is in
        the way.
        """
        file = plan.sweep_file
        trials = [
            Entry(trial.trial_id, trial.variant, trial.setting, trial.axes, trial.seed, trial.config.epochs)
            for trial in plan.trials
        ]
        content = {
            "name": plan.name,
            "description": file.description,
            "file": str(file.document.path),
            "overrides": list(plan.overrides),
            "compare": asdict(plan.compare),
            "resources": asdict(file.resources),
            "retries": file.retries,
            "trials": [asdict(entry) for entry in trials],
        }
        try:
            write_atomically(self.path / "sweep.yaml", file.document.text)
            for trial in plan.trials:
                self.trial(trial.trial_id).create(trial.config.to_dict())
            write_atomically(self.path / "plan.json", json.dumps(content, indent=1))
        except OSError as error:
            raise UserError(f"the sweep's directory '{self.path}' cannot be written: {error.strerror}") from None

    def plan(self) -> dict[str, Any]:
        """``plan.json``: name, description, overrides, compare, resources, retries."""
        try:
            return json.loads((self.path / "plan.json").read_text())
        except json.JSONDecodeError:
            raise UserError(
                f"{self.path / 'plan.json'}: is damaged; run the sweep file again to write it anew"
            ) from None

    def entries(self) -> list[Entry]:
        """The trials of the plan, in its order."""
        return [Entry(**values) for values in self.plan()["trials"]]

    def trial(self, trial_id: str) -> TrialStore:
        """The directory of one trial, there or not."""
        return TrialStore(self.path / "trials" / trial_id)

    def copy_finished(self, entry: Entry) -> str | None:
        """Takes a copy of the same trial if another sweep has finished it. Returns that sweep's name."""
        for plan_file in sorted(self.runs_dir.glob("*/plan.json")):
            other = TrialStore(plan_file.parent / "trials" / entry.trial_id)
            if plan_file.parent == self.path or other.status().state is not State.DONE:
                continue
            ours = self.trial(entry.trial_id)
            incoming = ours.path.with_name(f".{entry.trial_id}.incoming")
            shutil.rmtree(incoming, ignore_errors=True)
            shutil.copytree(other.path, incoming)
            status = other.status()
            status.copied_from = plan_file.parent.name
            TrialStore(incoming).write_status(status)
            shutil.rmtree(ours.path, ignore_errors=True)
            incoming.rename(ours.path)
            return plan_file.parent.name
        return None


def sweep_names(runs_dir: Path) -> list[str]:
    """Every sweep below a runs directory."""
    return sorted(file.parent.name for file in runs_dir.glob("*/plan.json"))


def write_atomically(path: Path, text: str) -> None:
    """Writes to a temporary file beside, then renames."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)

"""One trial's directory, and the states that a trial can be in. ``store.sweep`` lists the files."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UserError
from orchestrator.files import write_atomically
from orchestrator.remote.replica import Replica
from orchestrator.store.epochs import Tail, last_epoch, way_on
from orchestrator.store.references import references_from
from orchestrator.store.states import STATUS_FILE, State, Status, status_from
from orchestrator.store.yaml_file import read_yaml

CHECKPOINT_FILES = ("checkpoint.pt", "checkpoint-previous.pt", "best.pt")
PUBLISH_SECONDS = 2.0
"""Shortest time between two uploads of epochs. They may wait, because only a checkpoint needs them stored."""


def epoch_of(file: Path) -> int | None:
    """The epoch in the name of a picture, or of a file of curves: ``epoch_000003_lipschitz.png``. None without one."""
    digits = file.stem.removeprefix("epoch_")[:6]
    return int(digits) if len(digits) == 6 and digits.isascii() and digits.isdigit() else None


class TrialStore:
    """One trial's directory."""

    def __init__(self, path: Path, replica: Replica | None = None) -> None:
        self.path = path
        self.trial_id = path.name
        self._replica = replica
        self._published = 0.0
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoint_file = path / "checkpoint.pt"
        self.previous_checkpoint_file = path / "checkpoint-previous.pt"
        self.best_file = path / "best.pt"
        self.samples = path / "samples"
        self.probes = path / "probes"
        self.log_file = path / "log.txt"
        self.early_stop_file = path / "early_stop.json"

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the directory of a new trial. A trial without a result takes over the runtime options of ``config``.

        A configuration that is missing or damaged is written again. Raises OSError.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        is_new = not (self.path / "status.json").exists()
        there = None if is_new else self._config()
        if there is None or (there != config and not self.status().state.is_result):
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        if is_new:
            self.write_status(Status())

    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises :class:`UserError` if the file is missing or damaged."""
        if (config := self._config()) is None:
            again = "run the sweep file again to write it anew"
            raise UserError(f"{self.path / 'config.yaml'}: is missing or damaged; {again}")
        return config

    def _config(self) -> dict[str, Any] | None:
        try:
            config = read_yaml((self.path / "config.yaml").read_bytes())
        except (OSError, ValueError, yaml.YAMLError):
            return None
        return config if isinstance(config, dict) else None

    def status(self) -> Status:
        """The status; PENDING if there is no ``status.json`` yet, LOST if the file is damaged or cannot be read."""
        try:
            return status_from((self.path / "status.json").read_bytes())
        except FileNotFoundError:
            if not self.path.is_symlink() or self.path.exists():
                return Status()
            return Status(State.LOST, error=f"{STATUS_FILE} cannot be read: the trial's folder is a link to nothing")
        except OSError as error:
            return Status(State.LOST, error=f"{STATUS_FILE} cannot be read: {error.strerror}")

    def problem(self) -> str | None:
        """Why the trial's results cannot be read: which file, what is wrong, and what helps. None if they can.

        A trial that has not run, and one whose directory is missing, has nothing that cannot be read. A damaged
        ``status.json`` is none either: such a trial is LOST and goes on.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            return f"{self.path}: is not a folder; delete or move it, then run the sweep file again"
        try:
            (self.path / "status.json").read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"{self.path / 'status.json'}: cannot be read: {error.strerror}; {way_on(error)}"
        try:
            for _ in self.tail().read():
                pass
        except UserError as error:
            return str(error)
        return None

    def obstacle(self) -> str | None:
        """Why the trial cannot run here, apart from its own errors: what cannot be read, or written. None if it can."""
        if (problem := self.problem()) is not None:
            return problem
        for folder in (self.path / "attempts", self.samples, self.probes):
            if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
                return f"{folder}: is not a folder of this trial; delete or move it, then resume"
        for file in (self.path / "config.yaml", self.checkpoint_file, self.previous_checkpoint_file, self.log_file):
            if os.path.lexists(file) and not file.is_file():
                return f"{file}: is not a file; delete or move it, then run the sweep file again"
        if self.path.exists() and not os.access(self.path, os.W_OK | os.X_OK, effective_ids=True):
            return f"{self.path}: cannot be written; give this user the right to write there, then resume"
        return None

    def write_status(self, status: Status) -> None:
        """Replaces the status atomically: a reader sees the old one or the new one."""
        write_atomically(self.path / "status.json", status.to_json())
        self.publish()

    def publish(self, *, must: bool = True) -> None:
        """Uploads the trial's files to the object store, if there is one.

        With ``must`` the upload is repeated while the object store cannot be reached, and OSError is raised after
        minutes. Without it the upload waits for the next call.
        """
        if self._replica is not None:
            self._published = time.monotonic()
            if not self._replica.push(self._replica.key(self.path), must=must):
                self.log("the object store cannot be reached: trying again later")

    def publish_due(self) -> bool:
        """Whether to upload a new epoch now. Otherwise the next epoch or the next checkpoint takes it along."""
        return self._replica is None or time.monotonic() - self._published >= PUBLISH_SECONDS

    @contextlib.contextmanager
    def at_hand(self, file: Path) -> Iterator[Path]:
        """Within the context, one of the trial's checkpoints is on this machine, even if it is in an object store.

        The checkpoint may not exist.
        """
        with contextlib.nullcontext() if self._replica is None else self._replica.at_hand(file):
            yield file

    def has(self, file: Path) -> bool:
        """Whether the trial has this file, in its directory or in the object store."""
        return file.exists() if self._replica is None else self._replica.has(file)

    def others_status(self) -> Status:
        """The status in the object store; this machine's copy of it while the object store cannot be reached."""
        if self._replica is not None:
            with contextlib.suppress(OSError):
                content = self._replica.read(self._replica.key(self.path / "status.json"))
                return Status() if content is None else status_from(content)
        return self.status()

    def set_state(self, state: State, error: str | None = None) -> Status:
        """Changes the state and, if given, the error. A state that is a result clears an old error."""
        status = self.status()
        status.state = state
        status.error = error or (None if state.is_result else status.error)
        self.write_status(status)
        return status

    def lacks_epochs(self) -> bool:
        """Whether the last epochs that the last attempt stored are now missing."""
        attempts = self.status().attempts
        had = attempts[-1].last_epoch if attempts else None
        return had is not None and (last := last_epoch(self.metrics_file)) is not None and last < had

    def epochs(self) -> list[dict[str, Any]]:
        """Every stored epoch, in order."""
        return list(self.tail().read())

    def tail(self) -> Tail:
        """A reader that returns each stored epoch once."""
        return Tail(self.metrics_file)

    def references(self) -> dict[str, Any]:
        """The content of ``references.json``: the floor, which metrics are better high, and what they depend on.

        Empty before the trial starts. Empty with a warning if the file is damaged.
        """
        file = self.path / "references.json"
        try:
            return references_from(file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            warnings.warn(f"{file}: is damaged and left out ({why}); delete it", stacklevel=2)
            return {}

    def write_references(self, references: Mapping[str, Any]) -> None:
        """Replaces ``references.json``."""
        write_atomically(self.path / "references.json", json.dumps(references, indent=1))

    def sample_files(self) -> list[Path]:
        """The sample grids and the pictures of probes, oldest first."""
        return sorted(file for file in self.samples.glob("epoch_*.png") if epoch_of(file) is not None)

    def write_curves(self, epoch: int, curves: Mapping[Any, Mapping[str, list[float]]]) -> None:
        """Replaces the curves of an epoch's probes, ``probes/epoch_N.json``. Does nothing without curves."""
        if curves:
            self.probes.mkdir(exist_ok=True)
            write_atomically(self.probes / f"epoch_{epoch:06d}.json", json.dumps(curves))

    def restart(self) -> None:
        """Resets the trial: the files of its attempts so far move to ``attempts/N``.

        Checkpoints move first and the status last. If a restart is killed half-way, the trial starts from scratch too.
        """
        if self._replica is not None:
            names = [file.name for file in (self.checkpoint_file, self.previous_checkpoint_file, self.best_file)]
            self._replica.pull(self._replica.key(self.path), checkpoints=names)
        number = 1
        while (self.path / "attempts" / str(number)).exists():
            number += 1
        old = self.path / "attempts" / str(number)
        old.mkdir(parents=True)
        first = [self.checkpoint_file.name, self.previous_checkpoint_file.name]
        rest = [item.name for item in self.path.iterdir() if item.name not in ("attempts", "config.yaml", *first)]
        for name in [*first, *(name for name in rest if name != "status.json")]:
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).rename(old / name)
        shutil.copyfile(self.path / "status.json", old / "status.json")
        self.write_status(Status(restarts=number))

    def log(self, text: str) -> None:
        """Adds one or more lines to ``log.txt``. Ignores a line that cannot be written, for example on a full disk."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError), self.log_file.open("a") as file:
            file.write(f"{stamp} {text}\n")

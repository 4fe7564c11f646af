"""One trial's directory, and the states that a trial can be in. ``store.sweep`` lists the files."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UserError
from orchestrator.files import write_atomically
from orchestrator.remote.replica import Replica
from orchestrator.store.epochs import Tail, last_epoch
from orchestrator.store.states import State, Status, status_from

CHECKPOINT_FILES = ("checkpoint.pt", "checkpoint-previous.pt", "best.pt")
PUBLISH_SECONDS = 2.0
"""Shortest time between two uploads of epochs. They may wait, because only a checkpoint needs them stored."""
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is available


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
        """Makes the directory of a new trial. A trial without a result takes over the runtime options of ``config``."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "status.json").exists():
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
            self.write_status(Status())
        elif not self.status().state.is_result and self._config() != config:
            write_atomically(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def config(self) -> dict[str, Any]:
        """The resolved configuration. Raises :class:`UserError` if the file is missing or damaged."""
        if (config := self._config()) is None:
            again = "run the sweep file again to write it anew"
            raise UserError(f"{self.path / 'config.yaml'}: is missing or damaged; {again}")
        return config

    def _config(self) -> dict[str, Any] | None:
        try:
            config = yaml.load((self.path / "config.yaml").read_text(), Loader=SAFE_LOADER)
        except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
            return None
        return config if isinstance(config, dict) else None

    def status(self) -> Status:
        """The status; PENDING if there is no ``status.json`` yet, LOST if the file is damaged."""
        try:
            return status_from((self.path / "status.json").read_bytes())
        except FileNotFoundError:
            return Status()

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
        """Holds one of the trial's checkpoints on this machine; an object store's checkpoints are not copied otherwise.

        The file may not exist.
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

        Empty before the trial starts, and if the file is damaged.
        """
        try:
            values = json.loads((self.path / "references.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def write_references(self, references: Mapping[str, Any]) -> None:
        """Replaces ``references.json``."""
        write_atomically(self.path / "references.json", json.dumps(references, indent=1))

    def sample_files(self) -> list[Path]:
        """The sample grids and the pictures of probes, oldest first."""
        return sorted(self.samples.glob("epoch_*.png"))

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

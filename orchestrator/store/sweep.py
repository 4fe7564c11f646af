"""A sweep's directory: the only truth about what has happened.

    runs/<sweep>/sweep.yaml, plan.json, decisions.jsonl, store.json, driver.lock, driver.json, stop, tables/, figures/,
                 <sweep>.html
    runs/<sweep>/trials/<trial_id>/config.yaml, status.json, metrics.jsonl, references.json, checkpoint.pt, best.pt,
                                   checkpoint-previous.pt, samples/, probes/, log.txt, early_stop.json, attempts/

Paths inside are relative, so a moved directory still works. If the runs directory is in an object store, the files are
this machine's copy (see ``remote.replica``) and are uploaded as soon as they are written. A worker writes RUNNING,
DONE, DIVERGED and FAILED. The driver writes PENDING, STOPPED and LOST, and only after the worker has ended. Reading a
file never executes code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.files import reason, remove, write_atomically
from orchestrator.remote.news import exchange_news
from orchestrator.remote.replica import FORK_ORDER
from orchestrator.store import decision_log
from orchestrator.store.decision_log import Decision, DecisionTail
from orchestrator.store.entry import TRIAL_ID, Entry
from orchestrator.store.folders import copy_plain, is_of_one_trial
from orchestrator.store.plan_file import GrownPlan, Stamp, StoredPlan, entries_of, parse_plan, read_plan, stamp_of
from orchestrator.store.runs import Runs, cache_dir, folder_of, has_plan, location, sweep_names
from orchestrator.store.states import State, Status
from orchestrator.store.trial import CHECKPOINT_FILES, TrialStore, epoch_of
from orchestrator.sweep.names import check_name
from trainers.config import TrialConfig
from trainers.parts import ConfigError, nearest

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan


__all__ = ["Entry", "SweepStore"]


class SweepStore:
    """One sweep's directory below the runs directory."""

    def __init__(self, runs: Runs, name: str) -> None:
        self.runs = runs
        self.replica = None if isinstance(runs, Path) else runs
        self.runs_dir = runs_dir = folder_of(runs)
        self.name = name
        self.path = runs_dir / name
        self.at_work: set[str] = set()
        """The trials that workers run now. Only the workers write into their directories."""
        self.left_out: dict[str, str] = {}
        """Why trials are left out of :meth:`entries`, see ``store.readable``."""
        self._elsewhere: dict[str, list[str]] | None = None
        self._read: tuple[Stamp, StoredPlan] | None = None
        self.stop_file = self.path / "stop"
        self.lock_file = self.path / "driver.lock"
        self.driver_file = self.path / "driver.json"
        self.decisions_file = self.path / decision_log.FILE
        self.tables = self.path / "tables"
        self.cache_dir = cache_dir(runs_dir)

    @classmethod
    def open(cls, runs: Runs, name: str, checkpoints: Collection[str] = ()) -> SweepStore:
        """Opens a sweep that exists.

        In an object store this machine's copy is synchronised first, with checkpoints of the names ``checkpoints``.
        Raises :class:`UserError`, with the nearest name, if there is no such sweep.
        """
        check_name(name, UserError)
        store = cls(runs, name)
        store.pull(checkpoints)
        if not has_plan(store.path):
            known = sweep_names(runs)
            there = nearest(name, known) if known else f"; there are no sweeps in '{location(runs)}'"
            raise UserError(f"there is no sweep called '{name}' in '{location(runs)}'{there}")
        return store

    def pull(self, checkpoints: Collection[str] = ()) -> None:
        """Synchronises this machine's copy with the object store, if there is one.

        Does nothing while a driver on this machine keeps the copy up to date. Raises :class:`UserError` if the object
        store cannot be reached.
        """
        if self.replica is not None:
            try:
                self.replica.pull_unless_driven(self.name, checkpoints)
            except OSError as error:
                raise UserError(f"{self.replica.url}/{self.name} cannot be read: {error}") from None

    def publish(self) -> None:
        """Uploads what this process has written to the object store, if there is one. Raises OSError."""
        if self.replica is not None:
            self.replica.push(self.name)

    def make(self) -> None:
        """Makes the directory. Raises :class:`UserError` if the runs directory cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_file.touch()
        except OSError as error:
            raise UserError(f"the runs directory '{self.runs_dir}' cannot be written: {error.strerror}") from None

    def write_plan(self, plan: Plan) -> None:
        """Writes the plan and makes the directories of its trials. Existing directories stay.

        Trials that are no longer in the plan keep their directories. What was decided stays decided. Raises
        :class:`UserError` if the sweep's directory cannot be written.
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
            "paper": None if plan.paper is None else asdict(plan.paper),
            "resources": asdict(file.resources),
            "retries": file.retries,
            "max_failures": file.max_failures,
            "early_stopping": None if plan.early_stopping is None else asdict(plan.early_stopping),
            "continue_from": plan.continue_from,
            "growing": None if plan.growing is None else plan.growing.to_dict(),
            "trials": [entry.to_dict() for entry in trials],
        }
        try:
            write_atomically(self.path / "sweep.yaml", file.document.text)
            for trial in plan.trials:
                self._create(TrialStore(self.path / "trials" / trial.trial_id), trial.config.to_dict())
            write_atomically(self.path / "plan.json", json.dumps(content, indent=1))
            self.publish()
        except OSError as error:
            raise UserError(f"the sweep's directory '{self.path}' cannot be written: {reason(error)}") from None

    def _create(self, trial: TrialStore, config: Mapping[str, Any]) -> None:
        """Makes the directory of a trial. If only this trial's is broken, that is told when it is to run."""
        try:
            trial.create(config)
        except OSError as error:
            if not is_of_one_trial(error) or not (self.path / "trials").is_dir():
                raise

    def plan(self) -> Mapping[str, Any]:
        """The content of ``plan.json``: everything of the sweep file that a resumed sweep needs. Nobody may change it.

        Warns of each part that is left out of it. Raises :class:`UserError` if the file is damaged.
        """
        return self._told().values

    def _told(self) -> StoredPlan:
        stored = self._stored()
        for problem in stored.problems:
            warnings.warn(problem, stacklevel=3)
        return stored

    def _stored(self) -> StoredPlan:
        """The plan with what was decided, read again only if a file has changed. Raises :class:`UserError`."""
        file = self.path / "plan.json"
        stamp, kept = stamp_of(file), self._read
        if kept is None or kept[0] != stamp:
            kept = self._read = (stamp, read_plan(file))
        return kept[1]

    def grown(self) -> GrownPlan | None:
        """What may grow the plan, and what has been decided. None if nothing may. Raises :class:`UserError`."""
        return self._stored().grown

    def decision_tail(self) -> DecisionTail:
        """A reader that returns each decision once."""
        grown = self._told().grown
        return DecisionTail(self.decisions_file, grown.growing if grown else None, grown.planned if grown else ())

    def decide(self, decisions: Sequence[Decision], configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Makes the directories of decided trials, by their ids, and then writes the decisions. Raises OSError."""
        for trial_id, config in configs.items():
            self._create(self.trial(trial_id), config)
        decision_log.append(self.decisions_file, decisions)
        self.keep(self.decisions_file)

    def entries(self) -> list[Entry]:
        """The trials of the plan, in its order, without those that are left out."""
        return [entry for entry in self.planned() if entry.trial_id not in self.left_out]

    def planned(self) -> list[Entry]:
        """The trials of the plan, in its order."""
        return list(self._told().entries)

    def plan_problems(self) -> list[str]:
        """What is left out of the plan. Unless it is empty, nobody knows which trials are no longer in the plan."""
        return list(self._stored().problems)

    def trial(self, trial_id: str) -> TrialStore:
        """The directory of one trial, which may not exist."""
        return TrialStore(self.path / "trials" / trial_id, self.replica)

    def begins(self, trial_id: str) -> None:
        """Notes that a worker now runs this trial."""
        self.at_work.add(trial_id)

    def has_ended(self, trial_id: str) -> TrialStore:
        """Notes that a trial's worker has ended, and returns the trial with everything that the worker wrote.

        Raises OSError if the object store cannot be reached for minutes.
        """
        self.at_work.discard(trial_id)
        trial, replica = self.trial(trial_id), self.replica
        if replica is not None:
            replica.patiently(lambda: replica.pull(replica.key(trial.path)))
        return trial

    @contextlib.contextmanager
    def exchanging_news(self) -> Iterator[None]:
        """Within the context, this machine's copy receives what workers write into an object store.

        Requests to stop are passed on to the workers.
        """
        with contextlib.nullcontext() if self.replica is None else exchange_news(self.replica, self.name, self.at_work):
            yield

    @contextlib.contextmanager
    def outline(self) -> Iterator[SweepStore]:
        """The sweep, for a command that deletes files.

        In an object store it is a temporary outline: its files have the real sizes, but their content may be missing.
        Files that are deleted in the outline are deleted in the object store at the end.
        """
        if self.replica is None:
            yield self
            return
        with self.replica.outline(self.name) as folder:
            yield SweepStore(folder, self.name)

    def keep(self, made: Path) -> None:
        """Uploads a file or folder that a command has made inside the sweep's directory. Raises OSError."""
        if self.replica is not None and made.is_relative_to(self.path):
            self.replica.push(self.replica.key(made))

    def asked_to_stop(self) -> bool:
        """Whether the sweep's driver is asked to stop, on this machine or through the object store."""
        if self.stop_file.exists() or self.replica is None:
            return self.stop_file.exists()
        with contextlib.suppress(OSError):
            return self.replica.exists(self.replica.key(self.stop_file))
        return False

    def configs(self, trial_ids: Iterable[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Trial id and configuration of these trials, or of all in the plan.

        Skips invalid configurations; those trials fail on their own.
        """
        for trial_id in [entry.trial_id for entry in self.entries()] if trial_ids is None else trial_ids:
            with contextlib.suppress(UserError, ConfigError):
                config = self.trial(trial_id).config()
                TrialConfig.from_dict(config)
                yield trial_id, config

    def has_results(self) -> bool:
        """Whether any trial has ended, with a result or without."""
        waiting = (State.PENDING, State.RUNNING)
        return any(self.trial(entry.trial_id).status().state not in waiting for entry in self.entries())

    def removed(self) -> list[TrialStore]:
        """The trials that have a directory but are no longer in the plan; none while the plan is damaged.

        Warns of what is in ``trials`` and is no trial's directory. It is left alone.
        """
        stored = self._stored()
        planned = {entry.trial_id for entry in stored.entries}
        found = []
        for folder in sorted((self.path / "trials").glob("[!.]*")):
            if folder.name in planned:
                continue
            if TRIAL_ID.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                found.append(TrialStore(folder))
            else:
                warnings.warn(f"{folder}: is no trial's folder and is left alone; delete or move it", stacklevel=2)
        return [] if stored.problems else found

    def copy_finished(self, entry: Entry) -> str | None:
        """Copies the same trial from another sweep that has finished it. Returns that sweep's name, or None.

        A trial that cannot be read there is not copied, with a warning.
        """
        for name in self._others_with(entry.trial_id):
            other = SweepStore(self.runs, name).trial(entry.trial_id)
            if other.others_status().state is not State.DONE:
                continue
            if self.replica is not None:
                self.replica.pull(self.replica.key(other.path), checkpoints=CHECKPOINT_FILES)
            if (problem := other.problem()) is not None:
                warnings.warn(f"{problem}; until then it is not copied from there", stacklevel=2)
                continue
            status = other.status()
            status.copied_from = name
            status.restarts = self.trial(entry.trial_id).status().restarts
            try:
                with self._incoming(entry) as folder:
                    copy_plain(other.path, folder, "attempts")
                    TrialStore(folder).write_status(status)
            except OSError as error:
                if not is_of_one_trial(error):
                    raise
                warnings.warn(
                    f"{error.filename or other.path}: {reason(error)}; until then the trial is not copied from there",
                    stacklevel=2,
                )
                continue
            self.trial(entry.trial_id).publish()
            return name
        return None

    def _others_with(self, trial_id: str) -> list[str]:
        """The names of other sweeps that may have this trial."""
        if self.replica is None:
            return [file.parent.name for file in sorted(self.runs_dir.glob("*/plan.json")) if file.parent != self.path]
        if self._elsewhere is None:
            self._elsewhere = {}
            for name in sweep_names(self.runs):
                if name != self.name:
                    with contextlib.suppress(ValueError):  # a damaged sweep has nothing to copy
                        for planned in entries_of(parse_plan(self.replica.read(f"{name}/plan.json") or b"", name)[0]):
                            self._elsewhere.setdefault(planned.trial_id, []).append(name)
        return self._elsewhere.get(trial_id, [])

    def fork(self, entry: Entry, source: TrialStore, *, sweep: str, iteration: int, whole_epochs: int) -> None:
        """Begins a trial with the checkpoints, epochs and samples of a finished trial of a smaller budget.

        ``iteration`` is the critic iteration at which the finished trial ended. ``whole_epochs`` is the number of its
        epochs to copy. An epoch that the smaller budget cut short is not copied; the longer trial averages it over its
        remaining iterations.
        """
        if self.replica is not None:
            self.replica.pull(self.replica.key(source.path), checkpoints=CHECKPOINT_FILES)
        with self._incoming(entry) as folder:
            copy_plain(source.path, folder, "status.json", "config.yaml", "log.txt", "attempts", "early_stop.json")
            begun = TrialStore(folder)
            shutil.copyfile(self.trial(entry.trial_id).path / "config.yaml", folder / "config.yaml")
            kept = [record for record in source.epochs() if record["epoch"] <= whole_epochs]
            write_atomically(begun.metrics_file, "".join(json.dumps(record) + "\n" for record in kept))
            for file in [*begun.sample_files(), *begun.probes.glob("epoch_*.json")]:
                if (epoch_of(file) or 0) > whole_epochs:
                    file.unlink()
            origin = {"sweep": sweep, "trial_id": source.trial_id, "iteration": iteration}
            begun.write_status(Status(continued_from=origin, restarts=self.trial(entry.trial_id).status().restarts))
        if self.replica is not None:
            self.replica.push(self.replica.key(self.trial(entry.trial_id).path), FORK_ORDER)

    @contextlib.contextmanager
    def _incoming(self, entry: Entry) -> Iterator[Path]:
        """A folder that becomes the trial's directory when it is complete."""
        ours = self.trial(entry.trial_id).path
        incoming, replaced = (ours.with_name(f".{entry.trial_id}.{name}") for name in ("incoming", "replaced"))
        with contextlib.suppress(FileNotFoundError):
            remove(incoming)
        yield incoming
        if (ours / "attempts").exists():
            copy_plain(ours / "attempts", incoming / "attempts")
        if os.path.lexists(ours):
            ours.rename(replaced)
        incoming.rename(ours)
        with contextlib.suppress(OSError):
            remove(replaced)

    def mend(self, why: str = "the driver of an earlier run died") -> None:
        """Repairs what the last driver left half-done when it died or left at once. Its workers must have ended.

        A trial whose directory was being replaced keeps the old directory or gets the new one. A trial that was RUNNING
        becomes LOST, with the error ``why``; it becomes STOPPED if early stopping had already decided so.
        """
        for replaced in (self.path / "trials").glob(".*.replaced"):
            trial_id = replaced.name.removeprefix(".").removesuffix(".replaced")
            if not TRIAL_ID.fullmatch(trial_id):
                continue
            ours = replaced.with_name(trial_id)
            if not os.path.lexists(ours):
                replaced.rename(ours)
                continue
            with contextlib.suppress(OSError):  # the next command tries again
                remove(replaced)
        entries = []
        with contextlib.suppress(UserError):  # a plan that is missing or damaged is written anew before trials run
            entries = self.entries()
        for entry in entries:
            trial = self.trial(entry.trial_id)
            state = trial.status().state
            try:
                if not state.is_result and trial.early_stop_file.exists():
                    trial.set_state(State.STOPPED)
                elif state is State.RUNNING:
                    trial.set_state(State.LOST, why)
            except OSError as error:
                if not is_of_one_trial(error):
                    raise

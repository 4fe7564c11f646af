"""Mirrors the store into MLflow, idempotently.

A sweep is one experiment with one parent run; a trial is a child run. A run is looked up by its (store, sweep,
trial_id) tags before it is created. If an answer of the server got lost and a run exists twice, one of the two is
deleted. A point is logged with its stored timestamp, so that logging it twice leaves one point. Only the driver writes.

Pictures are named so that MLflow's charts can step through them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.errors import UserError
from orchestrator.store.epochs import Tail
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import quiet_client, shown, without_secrets
from orchestrator.tracking.database import why_unusable
from orchestrator.tracking.experiment import PARENT_TAG, STORE_TAG, SWEEP_TAG, TRIAL_TAG, SweepExperiment
from orchestrator.tracking.gaps import CONFIGURATION, flat, lacking_files, lacking_points, points
from orchestrator.tracking.generators import GeneratorProcess, NotSaved
from orchestrator.tracking.mlflow_private import PICTURES_TAG
from orchestrator.tracking.models import GENERATOR, log_generator, models_of
from orchestrator.tracking.pictures import log_picture, picture_name
from orchestrator.tracking.views import NOTE_TAG, describe, note_of
from trainers.metrics import TRAINING_SECONDS

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

T = TypeVar("T")

MIRRORED_TAG = "orchestrator.mirrored_epochs"
RESTARTS_TAG = "orchestrator.restarts"
DESCRIBED_TAG = "orchestrator.described"
LEVEL_TAG = "orchestrator.level"
STAGE_TAG = "orchestrator.stage"
PROPOSAL_TAG = "orchestrator.proposal"
VERDICT_TAG = "orchestrator.verdict"
NAME_TAG = "mlflow.runName"
RUN_STATUS = {
    State.PENDING: "SCHEDULED",
    State.RUNNING: "RUNNING",
    State.DONE: "FINISHED",
    State.STOPPED: "FINISHED",
    State.DIVERGED: "FAILED",
    State.FAILED: "FAILED",
    State.LOST: "KILLED",
}
MAX_METRICS, MAX_PARAMS, MAX_PARAM_LENGTH = 1000, 100, 6000  # MLflow's limits for one request
MOST_FAILURES = 2
"""After so many generators in a row that could not be saved no further one is tried."""


@dataclass
class _Mirrored:
    """How much of one trial MLflow already has."""

    entry: Entry
    tail: Tail
    run_id: str | None = None
    described: bool = False
    epochs: int = 0
    level: str = ""  # the state, number of attempts and number of pictures that MLflow has
    generator: bool = False  # whether MLflow has the model, or a tag that says why there is none
    seconds: float = 0.0  # of training, up to the last epoch read
    pending: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    """Why the trial's epochs cannot be read. Those before the damage are mirrored."""

    def read(self) -> None:
        """Adds new epochs to ``pending``, each with the seconds of training so far."""
        try:
            for record in self.tail.read():
                self.seconds += record.get("epoch_seconds", 0.0)
                self.pending.append({**record, TRAINING_SECONDS.name: self.seconds})
        except UserError as error:
            self.problem = str(error)


def level(store: SweepStore, uri: str, verdict: str = "") -> tuple[str | None, list[str]]:
    """Updates MLflow from the store of one sweep.

    What MLflow has is compared with the store, point by point. Returns what the user should know (:meth:`Mirror.note`)
    and what could not be mirrored (:meth:`Mirror.problems`). ``verdict`` is that of :meth:`Mirror.finish`. Raises
    :class:`UserError` if that fails for any other reason.
    """
    try:
        mirror = Mirror(store, uri)
        mirror.fill_gaps()
        mirror.finish(verdict=verdict)
        return mirror.note(), mirror.problems()
    except UserError:
        raise
    except Exception as error:  # MLflow and its database raise many types
        where = f"MLflow at {shown(uri)} cannot be updated with the sweep '{store.name}'"
        raise UserError(f"{where}: {told(error, uri)}") from None


def told(error: Exception, uri: str) -> str:
    """What went wrong in MLflow, in one line and without the password in its tracking URI."""
    if known := why_unusable(uri, error):
        return known
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return without_secrets(message.splitlines()[0], uri)


class Mirror:
    """Updates MLflow from the store of one sweep. :meth:`sync` may be called at any time, any number of times."""

    def __init__(self, store: SweepStore, uri: str) -> None:
        self._store = store
        self._client = quiet_client(uri)
        self._found = SweepExperiment(self._client, store, uri)
        self._experiment = self._found.id
        self._pictures: dict[Path, str] = {}
        self._decided = store.decision_tail()
        self._trials = [_Mirrored(entry, store.trial(entry.trial_id).tail()) for entry in store.planned()]
        runs = self._find_runs()
        if None in runs:
            self._parent = runs[None].info.run_id
            self._client.update_run(self._parent, status="RUNNING")
        else:
            self._parent = self._create_parent()
        describe(self._client, self._experiment, store.plan(), runs.get(None))
        planned = {trial.entry.trial_id for trial in self._trials}
        gone = [run for trial_id, run in runs.items() if trial_id is not None and trial_id not in planned]
        for run in [] if store.plan_problems() else gone:  # of a damaged plan nobody knows which trials it had
            self._delete_run(run.info.run_id)  # the plan does not have the trial any more
        for trial in self._trials:
            run = runs.get(trial.entry.trial_id)
            restarts = store.trial(trial.entry.trial_id).status().restarts
            restarted = run is not None and int(run.data.tags.get(RESTARTS_TAG, 0)) < restarts
            if run is not None and (restarted or self._lost_epochs(trial, run)):
                self._delete_run(run.info.run_id)  # what it has is put aside, or no longer stored
                run = None
            if run is not None:
                self._level_tags(trial.entry, run)
                trial.run_id = run.info.run_id
                trial.described = DESCRIBED_TAG in run.data.tags
                trial.level = run.data.tags.get(LEVEL_TAG, "")
                trial.generator = run.data.tags.get(GENERATOR, "").startswith("runs:")
                trial.epochs = int(run.data.tags.get(MIRRORED_TAG, 0))
                trial.read()
                del trial.pending[: trial.epochs]

    def _lost_epochs(self, trial: _Mirrored, run: Run) -> bool:
        """Whether MLflow has epochs that are no longer stored. Computed again, they have other times: other points."""
        stored = _Mirrored(trial.entry, self._store.trial(trial.entry.trial_id).tail())
        stored.read()
        return stored.problem is None and len(stored.pending) < int(run.data.tags.get(MIRRORED_TAG, 0))

    def sync(self) -> None:
        """Logs what the store has and MLflow lacks. Raises MLflow's own errors; the next call continues."""
        known = {trial.entry.trial_id for trial in self._trials}
        for entry in (entry for decision in self._decided.read() for entry in decision.trials):
            if entry.trial_id not in known:
                known.add(entry.trial_id)
                self._trials.append(_Mirrored(entry, self._store.trial(entry.trial_id).tail()))
        for trial in self._trials:
            status = self._store.trial(trial.entry.trial_id).status()
            if status.attempts:
                self._sync_trial(trial, status)

    def fill_gaps(self) -> None:
        """Logs what MLflow lacks of what its tags say it has: points, parameters, pictures, the configuration.

        It costs one request for each metric of each trial, and two for the files. While a sweep runs nothing is asked:
        its driver knows what it has logged.
        """
        runs = self._find_runs()
        for trial in self._trials:
            run = runs.get(trial.entry.trial_id)
            if run is None:
                continue
            store = self._store.trial(trial.entry.trial_id)
            stored = _Mirrored(trial.entry, store.tail())
            stored.read()
            metrics = lacking_points(self._client, run, points(stored.pending[: trial.epochs]))
            params: list[tuple[str, Any]] = []
            with contextlib.suppress(UserError):  # a damaged configuration: the trial reports it itself
                params = [(key, value) for key, value in flat(store.config()) if key not in run.data.params]
            if metrics or params:
                self._log(run.info.run_id, params, metrics, {})
            files = {("", CONFIGURATION): store.path / CONFIGURATION}
            for picture in store.sample_files()[: _pictures_of(trial.level)]:
                folder, name, _ = picture_name(picture, store.trial_id)
                files[folder, name] = picture
            for folder, name in lacking_files(self._client, run, files):
                if folder:
                    self._log_picture(run.info.run_id, store.trial_id, files[folder, name])
                elif files[folder, name].exists():
                    self._client.log_artifact(run.info.run_id, str(files[folder, name]))

    def finish(self, *, generators: bool = True, verdict: str = "") -> None:
        """Ends a driver's run: logs tables and status of the parent run, and the generators of trials that have ended.

        ``verdict`` becomes a tag of the parent run. The caller makes it, because it comes from the sweep's results. The
        first generator takes seconds, because a process for generators has to load torch and its tracer.
        """
        self.sync()
        runs = self._find_runs()
        plan = self._store.plan()
        if plan["growing"] is not None:  # decided trials may have more epochs, which a view begins with
            describe(self._client, self._experiment, plan, runs.get(None))
        statuses = self._statuses()
        decisions = [self._store.decisions_file] if self._store.decisions_file.exists() else []
        for file in [self._store.path / "sweep.yaml", *decisions, *sorted(self._store.tables.glob("*"))]:
            self._client.log_artifact(self._parent, str(file))
        if verdict:
            self._client.set_tag(self._parent, VERDICT_TAG, verdict)
        done = all(status.state.is_result for status in statuses)
        ended = [int(attempt.ended * 1000) for attempt in _attempts(statuses) if attempt.ended]
        self._client.set_terminated(self._parent, "FINISHED" if done else "KILLED", max(ended, default=None))
        if generators:
            self._sync_generators()

    def _statuses(self) -> list[Status]:
        return [self._store.trial(trial.entry.trial_id).status() for trial in self._trials]

    def note(self) -> str | None:
        """What the user should know: MLflow has a sweep of this name that belongs to another store."""
        return self._found.note()

    def problems(self) -> list[str]:
        """What could not be mirrored because it cannot be read, each with its file and what helps."""
        told = [trial.problem for trial in self._trials if trial.problem]
        for trial in (self._store.trial(trial.entry.trial_id) for trial in self._trials):
            if (status := trial.status()).is_unreadable:
                told.append(f"{trial.path}: {status.error}")
        return told + list(self._pictures.values())

    def _level_tags(self, entry: Entry, run: Run) -> None:
        """Sets what the plan says of a trial that MLflow has: a variant may have been renamed since."""
        trial = self._store.trial(entry.trial_id)
        status = trial.status()
        tags = _names(entry)
        if run.data.tags.get(LEVEL_TAG) == _level_of(status, trial):
            tags |= _tags(status, trial.references())
        if run.info.run_name != tags[NAME_TAG]:
            self._client.update_run(run.info.run_id, name=tags[NAME_TAG])
        for key in {STAGE_TAG, PROPOSAL_TAG} & run.data.tags.keys() - tags.keys():  # it is an ordinary trial by now
            self._client.delete_tag(run.info.run_id, key)
        for key, value in tags.items():
            if key != NAME_TAG and run.data.tags.get(key) != value:
                self._client.set_tag(run.info.run_id, key, value)

    def _find_runs(self) -> dict[str | None, Any]:
        """The trials' runs by trial id, and the parent run under None. Deletes runs that exist twice.

        MLflow's client repeats a request that gets no answer, and the server may have made a run each time. The run
        that has been used is kept.
        """
        runs = self._found.runs()
        children = Counter(run.data.tags.get(PARENT_TAG) for run in runs)
        runs.sort(key=lambda run: (children[run.info.run_id], MIRRORED_TAG in run.data.tags), reverse=True)
        found: dict[str | None, Any] = {}
        for run in runs:
            trial_id = run.data.tags.get(TRIAL_TAG)
            if trial_id in found:
                self._delete_run(run.info.run_id)
            else:
                found[trial_id] = run
        return found

    def _delete_run(self, run_id: str) -> None:
        for model in models_of(self._client, self._experiment, run_id):
            self._client.delete_logged_model(model.model_id)
        self._client.delete_run(run_id)

    def _create_parent(self) -> str:
        plan = self._store.plan()
        tags = {
            STORE_TAG: self._found.identity.id,
            SWEEP_TAG: self._store.name,
            "orchestrator.kind": "sweep",
            NAME_TAG: self._store.name,
            NOTE_TAG: note_of(plan),
        }
        started = [int(attempt.started * 1000) for attempt in _attempts(self._statuses())]
        return self._client.create_run(self._experiment, min(started, default=None), tags).info.run_id

    def _sync_trial(self, trial: _Mirrored, status: Status) -> None:
        store = self._store.trial(trial.entry.trial_id)
        trial.read()
        pictures = store.sample_files()
        level = _level_of(status, store)
        if not trial.pending and trial.level == level:
            return
        if trial.run_id is None:
            trial.run_id = self._create_run(trial.entry, status)
        tags = {MIRRORED_TAG: str(trial.epochs + len(trial.pending))}
        params: list[tuple[str, Any]] = []
        if not trial.described:
            with contextlib.suppress(UserError):  # a damaged configuration: the trial reports it itself
                params = list(flat(store.config()))
                self._client.log_artifact(trial.run_id, str(store.path / CONFIGURATION))
            tags[DESCRIBED_TAG] = "true"
        if trial.level != level:
            for picture in pictures[_pictures_of(trial.level) :]:
                self._log_picture(trial.run_id, store.trial_id, picture)
            ended = status.attempts[-1].ended
            if status.state is State.RUNNING or not ended:
                self._client.update_run(trial.run_id, status=RUN_STATUS[status.state])
            else:
                self._client.set_terminated(trial.run_id, RUN_STATUS[status.state], int(ended * 1000))
            tags |= {**_tags(status, store.references()), LEVEL_TAG: level}
            if pictures:
                tags[PICTURES_TAG] = "True"
        self._log(trial.run_id, params, points(trial.pending), tags)
        trial.epochs += len(trial.pending)
        trial.pending, trial.described, trial.level = [], True, level

    def _log_picture(self, run_id: str, trial_id: str, picture: Path) -> None:
        if problem := log_picture(self._client, run_id, trial_id, picture):
            self._pictures[picture] = problem

    def _sync_generators(self) -> None:
        """Logs the generators that MLflow lacks. An error of one trial costs no other trial's generator.

        After two failures in a row the rest is left to the next call: the cause is probably not the trial's. Raises
        :class:`UserError` with the first failure.
        """
        lacking = [trial for trial in self._trials if self._lacks_generator(trial)]
        failures: list[str] = []
        in_a_row = 0
        with GeneratorProcess() as process:
            for trial in lacking:
                assert trial.run_id is not None
                store = self._store.trial(trial.entry.trial_id)
                try:
                    where = log_generator(self._client, self._experiment, trial.run_id, store, process)
                except (NotSaved, OSError, UserError) as error:
                    failures.append(f"{trial.entry.trial_id}: {error}")
                    in_a_row += 1
                    if in_a_row == MOST_FAILURES:
                        break
                    continue
                in_a_row = 0
                self._client.set_tag(trial.run_id, GENERATOR, where)
                trial.generator = True
        if failures:
            missing = sum(not trial.generator for trial in lacking)
            raise UserError(f"{missing} of {len(lacking)} generators could not be saved; {failures[0]}")

    def _lacks_generator(self, trial: _Mirrored) -> bool:
        if trial.run_id is None or trial.generator or trial.problem:
            return False
        return self._store.trial(trial.entry.trial_id).status().state in (State.DONE, State.STOPPED)

    def _log(
        self,
        run_id: str,
        params: Sequence[tuple[str, Any]],
        metrics: Sequence[Metric],
        tags: Mapping[str, str],
    ) -> None:
        """Logs in one request if MLflow's limits allow it. The tags come last, because they record what was logged."""
        from mlflow.entities import Param, RunTag

        options = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in params]
        *more_points, last_points = list(_chunks(metrics, MAX_METRICS)) or [[]]
        *more_options, last_options = list(_chunks(options, MAX_PARAMS)) or [[]]
        for some_options in more_options:
            self._client.log_batch(run_id, params=some_options)
        for some_points in more_points:
            self._client.log_batch(run_id, metrics=some_points)
        if len(last_points) + len(last_options) + len(tags) > MAX_METRICS:
            self._client.log_batch(run_id, metrics=last_points)
            last_points = []
        run_tags = [RunTag(key, value) for key, value in tags.items()]
        self._client.log_batch(run_id, params=last_options, metrics=last_points, tags=run_tags)

    def _create_run(self, entry: Entry, status: Status) -> str:
        tags = {
            STORE_TAG: self._found.identity.id,
            SWEEP_TAG: self._store.name,
            TRIAL_TAG: entry.trial_id,
            "orchestrator.kind": "trial",
            PARENT_TAG: self._parent,
            **_names(entry),
            RESTARTS_TAG: str(status.restarts),
        }
        started = int(status.attempts[0].started * 1000)
        return self._client.create_run(self._experiment, start_time=started, tags=tags).info.run_id


def _names(entry: Entry) -> dict[str, str]:
    """The tags that say what the plan calls a trial."""
    tags = {
        NAME_TAG: f"{entry.label} seed={entry.seed}",
        "variant": entry.variant,
        "cell": entry.label,
        "seed": str(entry.seed),
    }
    if entry.stage:
        tags[STAGE_TAG] = entry.stage
    if entry.proposal is not None:
        tags[PROPOSAL_TAG] = str(entry.proposal)
    return tags


def _level_of(status: Status, trial: TrialStore) -> str:
    """How far a trial is: its state, number of attempts and number of pictures."""
    return f"{status.state} {len(status.attempts)} {len(trial.sample_files())}"


def _pictures_of(level: str) -> int:
    """The number of pictures in the text of :func:`_level_of`; 0 for an empty one."""
    return int(level.rsplit(maxsplit=1)[-1]) if level else 0


def _attempts(statuses: Sequence[Status]) -> list[Attempt]:
    return [attempt for status in statuses for attempt in status.attempts]


def _tags(status: Status, references: Mapping[str, Any]) -> dict[str, str]:
    last = status.attempts[-1]
    tags = {
        "state": str(status.state),
        "attempt": str(len(status.attempts)),
        "git_commit": ", ".join(status.commits),
        "code": ", ".join(status.codes),
        "mlflow.source.git.commit": last.commit,
        "host": last.host,
        "device": last.device or "",
        "error": status.error or "",
        "copied_from": status.copied_from or "",
        "continued_from": "{sweep} {trial_id} at critic iteration {iteration}".format_map(status.continued_from)
        if status.continued_from
        else "",
    }
    tags |= {f"version.{name}": version for name, version in last.versions.items()}
    tags |= {f"evaluation.{name}": str(value) for name, value in references.get("info", {}).items()}
    overwrites = {"error"} if len(status.attempts) > 1 else set()  # an empty error replaces that of an earlier attempt
    return {key: value for key, value in tags.items() if value or key in overwrites}


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])

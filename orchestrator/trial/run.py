"""Runs one trial from its last checkpoint to its end. Knows nothing of Ray or MLflow."""

from __future__ import annotations

import gc
import os
import re
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store import checkpoints
from orchestrator.store.epochs import EpochLog, last_epoch
from orchestrator.store.references import as_stored
from orchestrator.store.states import State, Status
from orchestrator.store.trial import TrialStore
from orchestrator.trial.gpu_memory import free_memory, limit_gpu_memory, out_of_memory
from orchestrator.trial.surroundings import begin_attempt, device_name
from trainers.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from trainers.training import Evaluated, Training

TRIAL_ID = re.compile("[0-9a-f]{12}")
"""The name of a sweep's trial directory: its configuration's identity."""


class Superseded(Exception):
    """Another attempt at this trial has begun: this worker was taken for lost and must not write any more."""


class OtherExtractor(RuntimeError):
    """The trial's stored epochs were measured with another feature extractor, so new ones could not be compared."""


def run_trial(
    trial: TrialStore,
    cache_dir: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    gpus: float | None = None,
) -> State:
    """Runs a trial from its last checkpoint to its end, or until ``should_stop()``.

    Returns the state it wrote: DONE, DIVERGED or FAILED, with the error in ``status.json`` and ``log.txt``. Returns
    RUNNING if the trial was stopped, with a checkpoint to continue from if anything was trained, or if another attempt
    has taken its place.
    Raises OSError if the state cannot be written, but no error of the trial itself. ``on_epoch`` is called with every
    stored epoch. If ``gpus`` is a fraction, the trial may take only that fraction of the GPU's memory.
    """
    from trainers.training import Diverged

    status = trial.status()
    attempt = begin_attempt()
    status.state, status.error = State.RUNNING, None
    status.attempts.append(attempt)
    trial.write_status(status)
    trial.log(f"attempt {len(status.attempts)} on {attempt.host}, process {os.getpid()}")
    gc.freeze()  # so that the collection at the end looks only at this trial's objects
    try:
        limit_gpu_memory(gpus)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, category, *_: trial.log(f"{category.__name__}: {message}")
            finished = _prepared_and_run(trial, status, cache_dir, on_epoch, should_stop)
        state = State.DONE if finished else State.RUNNING
    except Diverged as error:
        state, status.error = State.DIVERGED, str(error)
    except Superseded:
        return State.RUNNING
    except Stopped:  # while it prepared: nothing has changed
        state = State.RUNNING
    except Exception as error:
        trial.log(traceback.format_exc())
        state, status.error = State.FAILED, out_of_memory(error, gpus) or last_line(error)
        if isinstance(error, OSError):
            attempt.errno = error.errno
    finally:
        free_memory()
    if not is_current(trial, status):
        return State.RUNNING
    status.state = state
    attempt.ended, attempt.state, attempt.error = time.time(), str(state), status.error
    if state is State.DONE:
        attempt.last_epoch = last_epoch(trial.metrics_file)
    trial.write_status(status)
    trial.log(f"{state if state is not State.RUNNING else 'stopped'}{': ' + status.error if status.error else ''}")
    return state


def _prepared_and_run(
    trial: TrialStore,
    status: Status,
    cache_dir: Path,
    on_epoch: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> bool:
    """Whether the end was reached. Raises Stopped if the trial is stopped while it prepares."""
    with stoppable(should_stop):
        run = _Run(trial, status, cache_dir, on_epoch)
    return run.to_the_end(should_stop)


class _Run:
    """A trial's training, which stores its epochs and checkpoints."""

    def __init__(
        self, trial: TrialStore, status: Status, cache_dir: Path, on_epoch: Callable[[dict[str, Any]], None]
    ) -> None:
        """Builds the training and loads the newest readable checkpoint."""
        from trainers.config import TrialConfig, identity_of
        from trainers.training import Training

        values = trial.config()
        self.config, self.identity = TrialConfig.from_dict(values), identity_of(values)
        if TRIAL_ID.fullmatch(trial.trial_id) and self.identity != trial.trial_id:
            raise checkpoints.OtherConfiguration(
                f"config.yaml is that of trial {self.identity}: put it back as it was, or run the sweep's file again"
            )
        self.trial, self.status, self.on_epoch = trial, status, on_epoch
        trial.samples.mkdir(exist_ok=True)
        self.log = EpochLog(trial.metrics_file)
        self.training = Training(self.config, cache_dir=cache_dir)
        self._resume()
        _write_references(trial, self.training)
        self._note_checkpoint()

    def to_the_end(self, should_stop: Callable[[], bool]) -> bool:
        """Trains to the end, or until ``should_stop()`` with a checkpoint. Returns whether the end was reached.

        An evaluation that is stopped is abandoned, and its epoch is not stored: the next attempt repeats the
        evaluation. The untrained generator's evaluation needs no checkpoint.
        """
        training = self.training
        if training.iteration == 0:  # epoch 0: the untrained generator, every chart's first point
            try:
                self._store_epoch({}, self._evaluated(should_stop))
            except Stopped:
                return False
        while not training.finished:
            means = training.run_epoch(lambda: self._checkpoint_due() or should_stop())
            if means is None:
                self._save_checkpoint()
                if should_stop():
                    return False
                continue
            try:
                evaluated = self._evaluated(should_stop) if training.evaluation_due else None
            except Stopped:
                training.put_back(means)
                self._save_checkpoint()
                return False
            self._store_epoch(means, evaluated)
            every, epochs = self.config.checkpoint_epochs, training.epoch - self._saved_epoch
            if training.finished or (every and epochs >= every) or self._checkpoint_due():
                self._save_checkpoint()
        return True

    def _resume(self) -> None:
        """Loads the newest readable checkpoint. Notes in the attempt and the log why newer ones cannot be read."""
        attempt = self.status.attempts[-1]
        attempt.unreadable = checkpoints.resume(self.trial, self.log, self.training, self.identity)
        attempt.device, attempt.resumed_at = device_name(self.training.device), self.training.iteration
        check_current(self.trial, self.status)
        self.trial.write_status(self.status)
        for problem in attempt.unreadable:
            self.trial.log(problem)
        self.trial.log(f"begins at critic iteration {self.training.iteration}")

    def _evaluated(self, should_stop: Callable[[], bool]) -> Evaluated:
        return self.training.evaluate(should_stop=should_stop)

    def _store_epoch(self, means: Mapping[str, Any], evaluated: Evaluated | None) -> None:
        training, trial = self.training, self.trial
        record = {"epoch": training.epoch, "iteration": training.iteration, **means}
        if evaluated is not None:
            record |= evaluated.metrics
        if due := trial.publish_due():
            check_current(trial, self.status)
        if differing := self.log.append(record):
            trial.log(f"epoch {training.epoch} came out different after resuming: {', '.join(differing)}")
        if evaluated is not None:
            _write_pictures(trial, training.epoch, evaluated)
            if training.iteration and self.log.is_best(record, self.config.evaluation):
                checkpoints.save(trial.best_file, training, self.identity)
        if due:
            trial.publish(must=False)
        self.on_epoch(record)

    def _checkpoint_due(self) -> bool:
        """Whether ``checkpoint_seconds`` have passed. At least one iteration must lie between two checkpoints."""
        seconds = self.config.checkpoint_seconds
        moved = self.training.iteration > self._saved_iteration
        return seconds is not None and moved and time.monotonic() - self._saved_at >= seconds

    def _save_checkpoint(self) -> None:
        check_current(self.trial, self.status)
        checkpoints.save_latest(self.trial, self.training, self.identity)
        self.trial.publish(must=False)
        self._note_checkpoint()

    def _note_checkpoint(self) -> None:
        self._saved_at = time.monotonic()
        self._saved_epoch, self._saved_iteration = self.training.epoch, self.training.iteration


def _write_pictures(trial: TrialStore, epoch: int, evaluated: Any) -> None:
    """Writes samples and the probes' pictures, in the order in which the mirror reads them."""
    from trainers.evaluation.pictures import save_rows, save_samples
    from trainers.probes.pictures import save_curves

    start = f"epoch_{epoch:06d}"
    save_samples(evaluated.samples, trial.samples / f"{start}.png")
    trial.write_curves(epoch, evaluated.curves)
    for name in sorted(evaluated.curves):
        if name in evaluated.pictures:
            save_rows(evaluated.pictures[name], trial.samples / f"{start}_{name}.png")
        elif evaluated.curves[name]:
            save_curves(evaluated.axes[name], evaluated.curves[name], trial.samples / f"{start}_{name}.png")


def _write_references(trial: TrialStore, training: Training) -> None:
    """Writes ``references.json``, once. Raises :class:`OtherExtractor` if the stored epochs had another extractor."""
    config, evaluator = training.config, training.evaluator
    if not config.metrics:
        return
    if references := trial.references():
        before = references.get("info", {}).get("extractor")
        now = evaluator.info.get("extractor") if evaluator else None
        if before != now:
            raise OtherExtractor(
                f"the epochs so far were measured with {before} and this attempt has {now}: give the same weights "
                "(--feature-weights FILE), or begin again with --restart"
            )
        return
    trial.write_references(
        {
            "floor": evaluator.floor() if evaluator else {},
            **as_stored(config.metrics),
            "info": evaluator.info if evaluator else {},
        }
    )


def check_current(trial: TrialStore, status: Status) -> None:
    """Raises :class:`Superseded` if the trial's last attempt is not this one."""
    if not is_current(trial, status):
        raise Superseded


def is_current(trial: TrialStore, status: Status) -> bool:
    """Whether the trial's last attempt is this worker's."""
    attempts = trial.others_status().attempts
    return len(attempts) == len(status.attempts) and attempts[-1].started == status.attempts[-1].started


def last_line(error: Exception) -> str:
    """An error in one line: ``ValueError: the last line of its message``."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"

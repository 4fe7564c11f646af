"""What runs on a worker: one trial, from the store and back into it. Knows nothing of Ray or MLflow."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator.remote.news import asked_to_stop
from orchestrator.remote.replica import Replica, scratch
from orchestrator.store import checkpoints
from orchestrator.store.epochs import EpochLog, last_epoch
from orchestrator.store.references import as_stored
from orchestrator.store.runs import Runs, cache_dir, runs_at
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import CHECKPOINTS, State, Status, TrialStore

COMMIT = "ORCHESTRATOR_COMMIT"
"""The environment variable that tells workers of a cluster the commit of the code that came to them."""
TRIAL_ID = re.compile("[0-9a-f]{12}")
"""What the directory of a sweep's trial is called: its configuration's identity."""


class Superseded(Exception):
    """Another attempt at this trial has begun: this worker had been given up for lost, and must not write any more."""


class OtherExtractor(RuntimeError):
    """A trial is not measured by two feature extractors: its epochs could not be compared."""


@contextlib.contextmanager
def trial_at_hand(runs: Runs, sweep: str, trial_id: str) -> Iterator[tuple[TrialStore, Path, Callable[[], bool]]]:
    """A trial to work on, the cache, and whether one is asked to stop.

    Of a runs directory in an object store the trial is a copy that only this worker has, and the cache is this
    machine's, which the machines share through the store.
    """
    if isinstance(runs, Path):
        store = SweepStore(runs, sweep)
        trial = store.trial(trial_id)
        yield trial, store.cache_dir, lambda: store.stop_file.exists() or trial.early_stop_file.exists()
        return
    cache = cache_dir(runs.copy)
    share = functools.partial(_share, runs, cache)
    with scratch(runs) as ours:
        store = SweepStore(ours, sweep)
        trial = store.trial(trial_id)
        ours.patiently(lambda: ours.pull(ours.key(trial.path), checkpoints=CHECKPOINTS))
        share()
        with asked_to_stop(ours, store.stop_file, trial.early_stop_file) as asked:
            yield trial, cache, asked.is_set
        share()


def fill_cache(runs: str, config: dict[str, Any]) -> None:
    """Makes, in an object store, what trials share: all of them are then measured by the same extractor."""
    from trainers.config import TrialConfig
    from trainers.training import Training

    replica = runs_at(runs, asking=False)
    assert not isinstance(replica, Path)
    cache = cache_dir(replica.copy)
    _share(replica, cache)
    if evaluator := Training(TrialConfig.from_dict(config), cache_dir=cache).evaluator:
        evaluator.floor()
    _share(replica, cache)


def _share(replica: Replica, cache: Path) -> None:
    """What is missing in either, after minutes without the store, is made again."""
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cache}.lock"), contextlib.suppress(OSError):
        replica.patiently(lambda: replica.share(cache))


def run_trial(
    trial: TrialStore,
    cache_dir: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
    gpus: float | None = None,
) -> State:
    """Runs a trial from its last checkpoint to its end, or until ``should_stop()``.

    Returns the state it wrote: DONE, DIVERGED or FAILED, the error in ``status.json`` and ``log.txt``; RUNNING if it
    was stopped, with a checkpoint to go on from, or if another attempt has taken its place. Raises OSError if the
    state cannot be written, and nothing else for what goes wrong inside the trial.
    ``on_epoch`` sees every stored epoch. With a fraction of a GPU as ``gpus`` it may take no more of its memory.
    """
    from trainers.training import Diverged

    status = trial.status()
    status.state, status.error = State.RUNNING, None
    status.attempts.append({"started": time.time(), **surroundings()})
    trial.write_status(status)
    trial.log(f"attempt {len(status.attempts)} on {status.attempts[-1]['host']}, process {os.getpid()}")
    gc.freeze()  # what is there already: the collection at the end then looks at what this trial has made alone
    try:
        limit_gpu_memory(gpus)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, category, *_: trial.log(f"{category.__name__}: {message}")
            finished = _train(trial, status, cache_dir, should_stop, on_epoch)
        state = State.DONE if finished else State.RUNNING
    except Diverged as error:
        state, status.error = State.DIVERGED, str(error)
    except Superseded:
        return State.RUNNING
    except Exception as error:
        trial.log(traceback.format_exc())
        state, status.error = State.FAILED, out_of_memory(error, gpus) or last_line(error)
        if isinstance(error, OSError):
            status.attempts[-1]["errno"] = error.errno
    finally:
        _free_memory()
    if not is_in_place(trial, status):
        return State.RUNNING
    status.state = state
    status.attempts[-1] |= {"ended": time.time(), "state": str(state), "error": status.error}
    if state is State.DONE:
        status.attempts[-1]["last_epoch"] = last_epoch(trial.metrics_file)
    trial.write_status(status)
    trial.log(f"{state if state is not State.RUNNING else 'stopped'}{': ' + status.error if status.error else ''}")
    return state


def _train(
    trial: TrialStore,
    status: Status,
    cache_dir: Path,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[dict[str, Any]], None],
) -> bool:
    """Returns whether the trial reached its end."""
    from trainers.config import TrialConfig, identity_of
    from trainers.training import Training

    values = trial.config()
    config, identity = TrialConfig.from_dict(values), identity_of(values)
    if TRIAL_ID.fullmatch(trial.trial_id) and identity != trial.trial_id:
        raise checkpoints.OtherConfiguration(
            f"config.yaml is that of trial {identity}: put it back as it was, or run the sweep's file again"
        )
    trial.samples.mkdir(exist_ok=True)
    log = EpochLog(trial.metrics_file)
    training = Training(config, cache_dir=cache_dir)
    _resume(trial, log, status, training, identity)
    _write_references(trial, training)

    def store(record: dict[str, Any], evaluate: bool) -> None:
        record = {"epoch": training.epoch, "iteration": training.iteration, **record}
        evaluated = training.evaluate() if evaluate else None
        if evaluated is not None:
            record |= evaluated.metrics
        if due := trial.publish_due():
            check_place(trial, status)
        if differing := log.append(record):
            trial.log(f"epoch {training.epoch} came out different after resuming: {', '.join(differing)}")
        if evaluated is not None:
            _write_pictures(trial, training.epoch, evaluated)
            if training.iteration and log.is_best(record, config.evaluation):
                checkpoints.save(trial.best_file, training, identity)
        if due:
            trial.publish(must=False)
        on_epoch(record)

    saved_at, saved_epoch, saved_iteration = time.monotonic(), training.epoch, training.iteration

    def save() -> None:
        nonlocal saved_at, saved_epoch, saved_iteration
        check_place(trial, status)
        checkpoints.save_latest(trial, training, identity)
        trial.publish(must=False)
        saved_at, saved_epoch, saved_iteration = time.monotonic(), training.epoch, training.iteration

    def is_due() -> bool:  # however short the time, an iteration lies between two
        seconds = config.checkpoint_seconds
        return seconds is not None and training.iteration > saved_iteration and time.monotonic() - saved_at >= seconds

    if training.iteration == 0:
        store({}, evaluate=True)  # epoch 0: the untrained generator, every chart's first point
    while not training.finished:
        means = training.run_epoch(lambda: is_due() or should_stop())
        if means is None:
            save()
            if should_stop():
                return False
            continue
        store(means, evaluate=training.evaluation_due)
        epochs = training.epoch - saved_epoch
        if training.finished or (config.checkpoint_epochs and epochs >= config.checkpoint_epochs) or is_due():
            save()
    return True


def _write_pictures(trial: TrialStore, epoch: int, evaluated: Any) -> None:
    """Samples, and what probes draw, in the order in which the mirror reads them."""
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


def _resume(trial: TrialStore, log: EpochLog, status: Status, training: Any, identity: str) -> None:
    """From the newest readable checkpoint; the attempt and the log tell what was wrong with newer ones."""
    attempt = status.attempts[-1]
    if problems := checkpoints.resume(trial, log, training, identity):
        attempt["unreadable"] = problems
    attempt |= {"device": device_name(training.device), "resumed_at": training.iteration}
    check_place(trial, status)
    trial.write_status(status)
    for problem in problems:
        trial.log(problem)
    trial.log(f"begins at critic iteration {training.iteration}")


def _write_references(trial: TrialStore, training: Any) -> None:
    config, evaluator = training.config, training.evaluator
    if not config.metrics:
        return
    if references := trial.references():
        before, now = references["info"].get("extractor"), evaluator.info.get("extractor") if evaluator else None
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


def check_place(trial: TrialStore, status: Status) -> None:
    """Raises :class:`Superseded` if the trial's last attempt is not this one."""
    if not is_in_place(trial, status):
        raise Superseded


def is_in_place(trial: TrialStore, status: Status) -> bool:
    """Whether the trial's last attempt is this worker's."""
    attempts = trial.others_status().attempts
    return len(attempts) == len(status.attempts) and attempts[-1]["started"] == status.attempts[-1]["started"]


def last_line(error: Exception) -> str:
    """What went wrong, in one line: ``ValueError: the last line of its message``."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"


def memory_share(gpus: float | None) -> float:
    """Of a GPU's memory, the part that a trial may take: its fraction of the GPU, or all where it shares none."""
    return gpus if gpus is not None and 0 < gpus < 1 else 1.0


def limit_gpu_memory(gpus: float | None) -> None:
    """Keeps a trial to its part of the GPU's memory, from now on: the worker's trial before may have had another."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(memory_share(gpus))


def out_of_memory(error: Exception, gpus: float | None) -> str | None:
    """What to do about a GPU without room, in words; None for any other error."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError):
        return None
    share = memory_share(gpus)
    had = f"its share of the GPU's memory ({share:g})" if share < 1 else "the GPU's memory"
    more = "give it more (resources.gpus) and run the sweep's file again, or " if share < 1 else ""
    return f"OutOfMemoryError: {had} is not enough: {more}make batch_size smaller"


def _free_memory() -> None:
    """A worker process serves many trials."""
    import torch

    gc.collect()
    gc.unfreeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_name(device: Any) -> str:
    """The GPU's name, or the processor's architecture."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def surroundings() -> dict[str, Any]:
    """Where and with which code an attempt runs."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "commit": git_commit(), "versions": versions()}


@functools.cache
def git_commit() -> str:
    """The commit of the running code, ``-dirty`` if it was changed since; ``unknown`` outside a checkout."""
    if told := os.environ.get(COMMIT):
        return told
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "orchestrator/trial/run.py")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "orchestrator", "trainers")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a number may depend on."""
    names = ("torch", "torch-fidelity", "POT", "scikit-learn", "numpy", "ray", "mlflow")
    installed = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **installed}

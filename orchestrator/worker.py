"""What runs on a worker: one trial, from the store and back into it. Knows nothing of Ray or MLflow."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.store import EpochLog, State, Status, TrialStore


def run_trial(
    trial: TrialStore,
    cache_dir: Path,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> State:
    """Runs a trial from its last checkpoint to its end, or until ``should_stop()``.

    Returns the state it wrote: DONE, DIVERGED or FAILED, the error in ``status.json`` and ``log.txt``; RUNNING if it
    was stopped, with a checkpoint to go on from. Never raises for what goes wrong inside the trial.
    ``on_epoch`` sees every stored epoch.
    """
    from trainers.training import Diverged

    status = trial.status()
    status.state, status.error = State.RUNNING, None
    status.attempts.append({"started": time.time(), **surroundings()})
    trial.write_status(status)
    trial.log(f"attempt {len(status.attempts)} on {status.attempts[-1]['host']}, process {os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, category, *_: trial.log(f"{category.__name__}: {message}")
            finished = _train(trial, status, cache_dir, should_stop, on_epoch)
        state = State.DONE if finished else State.RUNNING
    except Diverged as error:
        state, status.error = State.DIVERGED, str(error)
    except Exception as error:
        trial.log(traceback.format_exc())
        state, status.error = State.FAILED, last_line(error)
    _free_memory()
    status.state = state
    status.attempts[-1] |= {"ended": time.time(), "state": str(state), "error": status.error}
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
    from trainers.config import TrialConfig
    from trainers.evaluation.pictures import save_samples
    from trainers.training import Training

    config = TrialConfig.from_dict(trial.config())
    trial.samples.mkdir(exist_ok=True)
    log = EpochLog(trial)
    training = Training(config, cache_dir=cache_dir)
    status.attempts[-1]["device"] = device_name(training.device)
    status.attempts[-1]["resumed_at"] = _load_checkpoint(trial, training)
    trial.write_status(status)
    if training.evaluator is not None and not trial.references():
        references = {
            "floor": training.evaluator.floor(),
            "metrics": list(config.evaluation.metrics),
            "higher_is_better": sorted(config.evaluation.higher_is_better),
            "info": training.evaluator.info,
        }
        trial.write_references(references)

    def store(record: dict[str, Any], evaluate: bool) -> None:
        record = {"epoch": training.epoch, "iteration": training.iteration, **record}
        if evaluate:
            metrics, samples = training.evaluate()
            record |= metrics
            save_samples(samples, trial.samples / f"epoch_{training.epoch:06d}.png")
            if training.iteration and log.is_best(record, config.evaluation):
                _save(trial, training, trial.best_file)
        if differing := log.append(record):
            trial.log(f"epoch {training.epoch} came out different after resuming: {', '.join(differing)}")
        on_epoch(record)

    if training.iteration == 0:
        store({}, evaluate=True)  # epoch 0: the untrained generator, every chart's first point
    saved = time.monotonic()
    while not training.finished:
        means = training.run_epoch(should_stop)
        if means is None:
            _save_checkpoint(trial, training)
            return False
        store(means, evaluate=training.evaluation_due)
        if training.finished or time.monotonic() - saved >= config.checkpoint_seconds:
            _save_checkpoint(trial, training)
            saved = time.monotonic()
    return True


def last_line(error: Exception) -> str:
    """What went wrong, in one line: ``ValueError: the last line of its message``."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[-1]}"


def _free_memory() -> None:
    """A worker process serves many trials."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _save_checkpoint(trial: TrialStore, training: Any) -> None:
    """The newest checkpoint; the one before is kept."""
    if trial.checkpoint_file.exists():
        os.replace(trial.checkpoint_file, trial.previous_checkpoint_file)
    _save(trial, training, trial.checkpoint_file)


def _save(trial: TrialStore, training: Any, path: Path) -> None:
    """Written beside and renamed."""
    import torch

    temporary = trial.path / ".checkpoint"
    with temporary.open("wb") as file:
        torch.save(training.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _load_checkpoint(trial: TrialStore, training: Any) -> int:
    """Loads the newest readable checkpoint. Returns the critic iteration at which the trial goes on."""
    import torch

    for file in (trial.checkpoint_file, trial.previous_checkpoint_file):
        if not file.exists():
            continue
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever the damaged bytes provoke
            trial.log(f"{file.name} cannot be read ({type(error).__name__}); trying the one before")
            continue
        training.load_state_dict(state)
        trial.log(f"resumed from {file.name} at critic iteration {training.iteration}")
        return training.iteration
    return 0


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
    folder = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "orchestrator/worker.py")
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

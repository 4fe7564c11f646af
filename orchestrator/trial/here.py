"""Trains one trial in this process, without Ray, to develop a method."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, disk_errors
from orchestrator.files import reason
from orchestrator.printing import printable
from orchestrator.store.runs import cache_dir
from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore
from orchestrator.store.weights import with_weights
from orchestrator.sweep.presets import compose, parse_override
from trainers.config import TrialConfig


def train_here(overrides: list[str], runs_dir: Path, feature_weights: Path | None = None) -> int:
    """Trains a trial from the start, in a new directory below ``train/``. Returns the exit code: 0, 1 or 130."""
    for text in overrides:
        parse_override(text, one_trial=True)
    cache = cache_dir(runs_dir)
    with disk_errors():
        config = TrialConfig.from_dict(with_weights(compose(overrides), feature_weights), cache)
    from trainers.devices import check_device

    check_device(config.device)
    config.evaluation.prepare()
    with disk_errors():
        config.dataset.prepare(cache)
    folder = runs_dir / "train"
    number = 1
    while (folder / f"{config.identity}-{number}").exists():
        number += 1
    trial = TrialStore(folder / f"{config.identity}-{number}")
    try:
        trial.create(config.to_dict())
    except OSError as error:
        raise UserError(f"the runs directory '{runs_dir}' cannot be written: {error.strerror}") from None

    from orchestrator.trial.run import run_trial

    print(f"{trial.path}: {config.budget} critic iterations, {config.epochs} epochs", flush=True)
    stopping, began = threading.Event(), threading.Event()

    def on_epoch(record: dict[str, Any]) -> None:
        began.set()
        _tell(record)

    def interrupt(*_: Any) -> None:
        at_once = stopping.is_set() or not began.is_set()  # before the first epoch there is nothing to keep
        stopping.set()  # in any case, because a callback may swallow the exception
        if at_once:
            raise KeyboardInterrupt
        os.write(2, b"\nStopping: the trial writes a checkpoint. Once more to leave at once.\n")

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        state = run_trial(trial, cache, should_stop=stopping.is_set, on_epoch=on_epoch)
    except KeyboardInterrupt:
        state = State.RUNNING
    except OSError as error:
        print(printable(f"FAILED: {trial.path} cannot be written: {reason(error)}"))
        return 1
    finally:
        signal.signal(signal.SIGINT, before)
    if state is State.RUNNING:
        trial.set_state(State.PENDING)
        print(f"Stopped; what there is of samples, metrics and log is in {trial.path}")
        return 130
    why = "" if state is State.DONE else f": {trial.status().error}"
    print(printable(f"{state}{why}; samples, metrics and log in {trial.path}"))
    return 0 if state.is_result else 1


def _tell(record: dict[str, Any]) -> None:
    """Prints a line for each evaluated epoch."""
    if "evaluation_seconds" in record or record["epoch"] == 0:
        numbers = " ".join(f"{name}={value:.4g}" for name, value in record.items() if isinstance(value, float))
        print(f"epoch {record['epoch']} iteration {record['iteration']}: {numbers}", flush=True)

"""One trial, written as in a user's own script that calls ``trainers``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKPOINT_EPOCHS = 10
PROPOSALS = 14
LOWEST, HIGHEST = 1e-4, 1e-2
"""A search proposes this many learning rates of the critic from this interval, on a logarithmic scale."""


def trials(folder: Path) -> list[dict[str, Any]]:
    """``label`` and ``config`` of every trial, as ``__main__`` wrote them."""
    found: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())
    return found


def proposed(folder: Path, rate: float) -> dict[str, Any]:
    """The trial of a search at this learning rate of the critic. Adds a line to ``proposals.log``."""
    with (folder / "proposals.log").open("a") as log:
        log.write(f"{rate!r}\n")
    config = trials(folder)[0]["config"]
    return {"label": repr(rate), "config": config | {"critic": config["critic"] | {"lr": rate}}}


def train(
    folder: Path,
    trial: dict[str, Any],
    report: Callable[[Any, dict[str, float]], None],
    state: dict[str, Any] | None = None,
) -> None:
    """Trains to the end, from ``state`` if given. Calls ``report`` and adds a line to ``epochs.log`` every epoch."""
    from trainers.config import TrialConfig
    from trainers.training import Training

    training = Training(TrialConfig.from_dict(trial["config"]), cache_dir=folder / "cache")
    if state is not None:
        training.load_state_dict(state)
    while not training.finished:
        metrics = training.run_epoch() or {}
        if training.evaluation_due:
            metrics |= training.evaluate().metrics
        with (folder / "epochs.log").open("a") as log:
            log.write(f"{trial['label']}\t{training.epoch}\n")
        report(training, metrics)


def keep(folder: Path, label: str, metrics: dict[str, float]) -> None:
    """Writes the final metrics of a trial atomically, because the process may be killed at any time."""
    file = folder / "final" / f"{label}.json"
    file.parent.mkdir(exist_ok=True)
    half = file.with_suffix(f".{os.getpid()}")
    half.write_text(json.dumps(metrics))
    half.rename(file)

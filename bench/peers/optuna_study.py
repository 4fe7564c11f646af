"""A search by Optuna alone, as in its guides: ``python -m bench.peers.optuna_study FOLDER [--heartbeat]``.

A study in SQLite and one process for each processor, each with a seeded sampler of its own. The same command again goes
on: the study is loaded, and so is each process's sampler, because the guide says that a study does not hold it.

Without ``--heartbeat`` this is the guide's plain script, and the sampler is stored at the end of every trial. With
``--heartbeat``, a study retries trials whose process is gone (``RetryHeartbeatStaleTrialCallback``), the trials load
checkpoints as Optuna's PyTorch example does, and the sampler is stored when it has proposed, because what was killed is
retried. Both choices are those that lose least.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

from bench.peers.trial import HIGHEST, LOWEST, PROPOSALS, keep, proposed, train

NAME = "search"
HEARTBEAT_SECONDS, GRACE_SECONDS = 1, 5


def open_study(folder: Path, heartbeat: bool, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """The study in the folder, which is made if there is none."""
    options: dict[str, Any] = {}
    if heartbeat:
        options = {
            "heartbeat_interval": HEARTBEAT_SECONDS,
            "grace_period": GRACE_SECONDS,
            "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(),
        }
    storage = RDBStorage(
        f"sqlite:///{folder / 'optuna.db'}", engine_kwargs={"connect_args": {"timeout": 60}}, **options
    )
    return optuna.create_study(study_name=NAME, storage=storage, sampler=sampler, load_if_exists=True)


def write(file: Path, content: bytes) -> None:
    """Writes a file atomically."""
    half = file.with_suffix(f".{os.getpid()}")
    half.write_bytes(content)
    half.rename(file)


def work(folder: Path, heartbeat: bool, worker: int) -> None:
    """Runs trials until enough are complete."""
    import torch

    kept = folder / f"sampler-{worker}.pickle"
    sampler = pickle.loads(kept.read_bytes()) if kept.exists() else optuna.samplers.TPESampler(seed=worker)
    study = open_study(folder, heartbeat, sampler)

    def keep_sampler(*_: object) -> None:
        write(kept, pickle.dumps(study.sampler))

    def objective(asked: optuna.Trial) -> float:
        trial = proposed(folder, asked.suggest_float("rate", LOWEST, HIGHEST, log=True))
        found: dict[str, float] = {}
        state, checkpoint = None, None
        if heartbeat:
            keep_sampler()
            first = RetryHeartbeatStaleTrialCallback.retried_trial_number(study.trials[asked.number])
            checkpoint = folder / f"checkpoint-{asked.number if first is None else first}.pt"
            state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None

        def report(training: Any, metrics: dict[str, float]) -> None:
            if "classifier_fid" not in metrics:
                return
            found.update(metrics)
            if training.finished:
                keep(folder, trial["label"], metrics)
            if checkpoint is not None:
                half = checkpoint.with_suffix(".half")
                torch.save(training.state_dict(), half)
                half.rename(checkpoint)

        train(folder, trial, report, state)
        return found["classifier_fid"]

    enough = optuna.study.MaxTrialsCallback(PROPOSALS, states=(optuna.trial.TrialState.COMPLETE,))
    study.optimize(objective, callbacks=[enough] if heartbeat else [keep_sampler, enough])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heartbeat", action="store_true")
    parser.add_argument("--worker", type=int)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.folder, options.heartbeat, options.worker)
        return
    study = open_study(options.folder, options.heartbeat)
    words = [sys.executable, *sys.orig_argv[1:]]
    workers = [subprocess.Popen([*words, "--worker", str(number)]) for number in range(os.cpu_count() or 1)]
    codes = [worker.wait() for worker in workers]
    states = Counter(trial.state.name for trial in study.get_trials())
    (options.folder / "states.json").write_text(json.dumps(states))
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()

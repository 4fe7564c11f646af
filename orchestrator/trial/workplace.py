"""Gives a worker what it needs for a trial: the trial's directory, the shared cache, and requests to stop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.remote.copies import scratch
from orchestrator.remote.news import asked_to_stop
from orchestrator.remote.replica import Replica
from orchestrator.store.runs import Runs, cache_dir, runs_at
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import CHECKPOINT_FILES, TrialStore
from trainers.locks import locked


@contextlib.contextmanager
def trial_at_hand(runs: Runs, sweep: str, trial_id: str) -> Iterator[tuple[TrialStore, Path, Callable[[], bool]]]:
    """Yields a trial to work on, the cache, and a function that says whether the trial is asked to stop.

    If the runs directory is in an object store, the trial is a copy for this worker alone. The cache belongs to this
    machine; machines share what is in their caches through the object store.
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
        ours.patiently(lambda: ours.pull(ours.key(trial.path), checkpoints=CHECKPOINT_FILES))
        share()
        with asked_to_stop(ours, store.stop_file, trial.early_stop_file) as asked:
            yield trial, cache, asked.is_set
        share()


def fill_cache(runs: str, config: dict[str, Any]) -> None:
    """Makes what trials share and puts it into the object store, so that one extractor measures all trials."""
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
    """Copies what cache and object store lack from each other.

    If the object store cannot be reached for minutes, the worker makes what its cache lacks itself.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache), contextlib.suppress(OSError):
        replica.patiently(lambda: replica.share(cache))

"""Measures the best checkpoint of each trial again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.files import parse_json, write_atomically
from orchestrator.results.evaluate import Subject, read_state
from orchestrator.results.stages import Shown, entries_in
from orchestrator.store import checkpoints
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.store.weights import with_weights
from trainers.config import TrialConfig
from trainers.metrics import EVALUATION_SECONDS


def best_again(
    stores: Sequence[SweepStore],
    feature_weights: Path | None = None,
    stage: Shown | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, dict[str, float]]:
    """Measures the best checkpoint of every trial of a table on fresh noise. Returns metrics by trial id.

    The stored value of a best checkpoint is biased: the checkpoint was chosen for it, and so partly for its noise. The
    new values are kept in the cache, under the checkpoint's checksum. Raises :class:`UserError` if no trial has a best
    checkpoint.
    """
    found: dict[str, dict[str, float]] = {}
    todo = [
        (store, store.trial(entry.trial_id))
        for store in stores
        for entry in entries_in(store, stage)[0]
        if store.trial(entry.trial_id).best_file.is_file()
        and store.trial(entry.trial_id).status().state in (State.DONE, State.STOPPED)
    ]
    if not todo:
        raise UserError("--at best: no trial has a best checkpoint; none was evaluated, or they were pruned")
    for store, trial in todo:
        try:
            key = json.dumps([checkpoints.checksum(trial.best_file), trial.config(), trial.references()])
            file = store.cache_dir / "again" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
            if (kept := _kept(file)) is not None:
                found[trial.trial_id] = kept
                continue
            state = read_state(Subject(trial.trial_id, trial, trial.best_file), "best")
        except (UserError, OSError) as problem:
            tell(str(problem))
            continue
        tell(f"measuring the best checkpoint of {trial.trial_id} on fresh noise")
        metrics, info = _measure_again(trial, state, feature_weights, store.cache_dir)
        if info != trial.references().get("info", info):
            tell(f"{trial.trial_id}: skipped, because its epochs were measured with another feature extractor")
            continue
        found[trial.trial_id] = metrics
        with contextlib.suppress(OSError):  # in a read-only directory it is measured again the next time
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps({"metrics": metrics, "sha256": _digest(metrics)}))
    return found


def _kept(file: Path) -> dict[str, float] | None:
    """The metrics that were measured before. None if there are none, with a warning if the file is damaged."""
    try:
        values = parse_json(file.read_bytes())
        metrics = values.get("metrics", values)  # earlier versions kept the metrics alone
        whole = all(isinstance(value, int | float) for value in metrics.values())
        if whole and (metrics is values or values.get("sha256") == _digest(metrics)):
            return metrics
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        pass
    warnings.warn(f"{file}: is damaged, and is measured again", stacklevel=2)
    return None


def _digest(metrics: Mapping[str, float]) -> str:
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()


def _measure_again(
    trial: TrialStore, state: dict[str, Any], feature_weights: Path | None, cache: Path
) -> tuple[dict[str, float], Mapping[str, Any]]:
    """The metrics on fresh noise, and what they depend on."""
    from trainers.training import FRESH_SEED, Training

    config = TrialConfig.from_dict(with_weights({**trial.config(), "device": "auto"}, feature_weights))
    config.evaluation.prepare()
    training = Training(config, cache_dir=cache)
    training.load_state_dict(state["training"])
    metrics = training.evaluate(FRESH_SEED).metrics
    del metrics[EVALUATION_SECONDS.name]
    return metrics, training.evaluator.info if training.evaluator else {}

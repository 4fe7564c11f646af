"""Early stopping by Ray Tune's schedulers (ASHA, median stopping), from the epochs in the store.

Tune's scheduler only decides. A decision is a file in the trial's directory. The worker sees the file before its next
step, writes a checkpoint and ends. So the scheduler holds no state of its own: it can be rebuilt at any time by showing
it the stored epochs again, in the order of their timestamps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from orchestrator.engine import ray_private
from orchestrator.files import write_atomically
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import EarlyStopping
from trainers.config import TrialConfig

TIME = "iteration"


class Stopper:
    """Watches the epochs of a sweep's trials and tells trials that are not promising to stop."""

    def __init__(self, store: SweepStore, options: EarlyStopping) -> None:
        self._store = store
        self._metric = options.metric
        self._scheduler = _scheduler(options, max((config["budget"] for _, config in store.configs()), default=1))
        self._epochs: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        for entry in store.entries():
            self._add(entry.trial_id, entry.epochs)
        self._replay()

    def add(self, trial_id: str) -> None:
        """Adds a trial by which the plan has grown."""
        self._add(trial_id, TrialConfig.from_dict(self._store.trial(trial_id).config()).epochs)

    def _add(self, trial_id: str, epochs: int) -> None:
        self._epochs[trial_id], self._seen[trial_id] = epochs, -1
        ray_private.add_to_scheduler(self._scheduler, trial_id)

    def observe(self, trial_id: str, record: Mapping[str, Any]) -> None:
        """Shows the scheduler a stored epoch, and writes its decision if it stops the trial.

        An epoch that was seen before, or that has no value of the metric, is ignored.
        """
        if self._decides_to_stop(trial_id, record):
            told = {"metric": self._metric, "value": record[self._metric], TIME: record[TIME]}
            trial = self._store.trial(trial_id)
            write_atomically(trial.early_stop_file, json.dumps(told))
            trial.publish()

    def _decides_to_stop(self, trial_id: str, record: Mapping[str, Any]) -> bool:
        if not record["epoch"] > self._seen[trial_id] or self._metric not in record:
            return False
        self._seen[trial_id] = record["epoch"]
        if record["epoch"] in (0, self._epochs[trial_id]):  # the untrained generator, or the last epoch
            return False
        return ray_private.stops(self._scheduler, trial_id, record)

    def _replay(self) -> None:
        readable = [id_ for id_ in self._epochs if self._store.trial(id_).problem() is None]  # the others do not run
        stored = [(id_, record) for id_ in readable for record in self._store.trial(id_).epochs()]
        last = {trial_id: record["epoch"] for trial_id, record in stored if self._metric in record}
        for trial_id, record in sorted(stored, key=lambda pair: pair[1]["timestamp"]):
            if record["epoch"] == last.get(trial_id):
                self.observe(trial_id, record)  # the driver may have died before it wrote the decision
            else:
                self._decides_to_stop(trial_id, record)


def _scheduler(options: EarlyStopping, longest_budget: int) -> Any:
    common: dict[str, Any] = {
        "time_attr": TIME,
        "metric": options.metric,
        "mode": options.mode,
        "grace_period": options.grace,
    }
    if options.scheduler == "asha":
        return AsyncHyperBandScheduler(
            **common, max_t=longest_budget, reduction_factor=options.reduction_factor, stop_last_trials=False
        )
    common["min_time_slice"] = math.inf  # otherwise it pauses trials while there are too few to compare with
    # A hard stop allows no later epochs, but a worker may store another epoch before it sees the decision.
    return MedianStoppingRule(**common, min_samples_required=options.minimum_trials, hard_stop=False)

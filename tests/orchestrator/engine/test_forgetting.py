"""On a real Ray, Ray Tune forgets trials that have ended, and those that wait when a sweep is stopped."""

from __future__ import annotations

import gc
import secrets
from pathlib import Path
from typing import Any

import pytest
from hand_made import make_sweep, one_cpu_each

from orchestrator.engine.executor import run_trials
from orchestrator.engine.placement import Assignment, Placement
from orchestrator.engine.tune import TuneExecutor
from orchestrator.store.states import State

MANY = """\
name: many
base: [dataset=mixture, evaluation=none, evaluation.times=1, batch_size=8, budget=2, device=cpu]
seeds: 6
"""


@pytest.mark.long
def test_ray_tune_keeps_few_ended_trials(
    tmp_path: Path, ray_resources: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.tune.experiment import Trial

    from orchestrator.engine.tune_searcher import TuneSearcher

    monkeypatch.setattr("orchestrator.engine.forgetting.KEPT", 1)
    store = make_sweep(tmp_path, MANY)
    ids = {entry.trial_id for entry in store.entries()}
    kept: list[int] = []
    complete = TuneSearcher.on_trial_complete

    def count_and_complete(self: TuneSearcher, *arguments: Any, **named: Any) -> None:
        kept.append(sum(isinstance(it, Trial) and it.config.get("trial_id") in ids for it in gc.get_objects()))
        complete(self, *arguments, **named)

    monkeypatch.setattr(TuneSearcher, "on_trial_complete", count_and_complete)
    assert run_trials(store, sorted(ids), TuneExecutor(one_cpu_each(store, 1), secrets.token_hex(6))) is None
    assert [store.trial(trial_id).status().state for trial_id in ids] == [State.DONE] * 6
    assert len(kept) == 6
    assert max(kept) <= 1 + 2 + 1  # ended, at work or about to begin, and the one that ends now


@pytest.mark.long
def test_a_stopped_sweep_does_not_wait_for_trials_that_have_not_begun(
    tmp_path: Path, ray_resources: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_sweep(tmp_path, MANY.replace("6", "2"))
    ids = [entry.trial_id for entry in store.entries()]
    begin = Placement.begin

    def begin_and_stop(self: Placement, trial_id: str) -> Assignment:
        if trial_id == ids[1]:
            store.stop_file.touch()
        return begin(self, trial_id)

    monkeypatch.setattr(Placement, "begin", begin_and_stop)
    placement = Placement(dict.fromkeys(ids, (("CPU", 64.0),)), 2, beyond=True)
    assert run_trials(store, ids, TuneExecutor(placement, secrets.token_hex(6))) is None
    statuses = [store.trial(trial_id).status() for trial_id in ids]
    assert [(status.state, status.attempts) for status in statuses] == [(State.PENDING, [])] * 2

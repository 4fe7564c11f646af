"""Ray Tune forgets the trials that have ended: by itself it keeps each of them, some 35 kB, as long as it runs.

Tune has no setting for it, and a run of its own for every so many trials would make all workers wait for the slowest
trial of each run, and start again. So :class:`Forgetting` reaches into Tune's controller; a test counts what is kept.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.engine import ray_private

KEPT = 100
"""Trials that may have ended before they are forgotten together: a few MB, and rarely anything to do."""


class Forgetting(FIFOScheduler):
    """Tune's own first-in-first-out scheduler. Of the trials that have ended it leaves Tune :data:`KEPT` at most.

    When the searcher has nothing more, what still waits in Ray is not to begin either: the sweep was stopped.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if tune_controller.search_alg.is_finished():
            ray_private.stop_pending(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        ray_private.forget_ended(tune_controller, KEPT)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        ray_private.forget_ended(tune_controller, KEPT)

"""A scheduler that makes Ray Tune forget ended trials. Tune by itself keeps about 35 kB of each until its run ends.

Tune has no setting for this. Dividing a sweep into several runs of Tune would not help: all workers would wait for the
slowest trial of each run and then start again. So :class:`Forgetting` reaches into Tune's controller. A test counts
the trials that are kept.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler

from orchestrator.engine import ray_private

KEPT = 100
"""Ended trials are forgotten together, once there are so many of them. They take a few MB until then."""


class Forgetting(FIFOScheduler):
    """Tune's own first-in-first-out scheduler, except that Tune keeps fewer than :data:`KEPT` ended trials.

    When the queue is finished, trials that still wait in Ray are ended before they begin: the sweep was stopped.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if tune_controller.search_alg.is_finished():
            ray_private.stop_pending(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        ray_private.forget_ended(tune_controller, KEPT)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        ray_private.forget_ended(tune_controller, KEPT)

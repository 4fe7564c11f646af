"""Ray Tune forgets the trials that have ended: by itself it keeps each of them, some 35 kB, as long as it runs.

Tune has no setting for it, and a run of its own for every so many trials would make all workers wait for the slowest
trial of each run, and start again. So :class:`Forgetting` reaches into Tune's controller; a test counts what is kept.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

KEPT = 100
"""Trials that may have ended before they are forgotten together: a few MB, and rarely anything to do."""


class Forgetting(FIFOScheduler):
    """Tune's own first-in-first-out scheduler. Of the trials that have ended it leaves Tune :data:`KEPT` at most.

    When the searcher has nothing more, what still waits in Ray is not to begin either: the sweep was stopped.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if tune_controller.search_alg.is_finished():
            for trial in [trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING]:
                trial.init_local_path()  # Tune asks each trial for its folder at the end
                tune_controller.stop_trial(trial)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        _forget_ended(tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        _forget_ended(tune_controller)


def _forget_ended(controller: Any) -> None:
    # Its progress messages, which nobody sees, remember every trial that they were ever told of. They cannot be
    # replaced by callbacks of our own: for those Ray's statistics of usage import MLflow.
    callbacks = controller._callbacks._callbacks
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, TrialProgressCallback)]
    ended = {trial for trial in controller._trials if trial.is_finished()}
    if len(ended) < KEPT:
        return
    controller._trials[:] = [trial for trial in controller._trials if trial not in ended]
    for name in ("_live_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache"):
        getattr(controller, name).difference_update(ended)
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)

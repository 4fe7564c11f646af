"""A searcher for Ray Tune that asks the queue for the next trial."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from orchestrator.engine.queue import Death, Queue
from orchestrator.engine.ray_private import why_it_died


class TuneSearcher(Searcher):
    """Passes Tune's questions and results on to the queue. Tune has its own ids for trials.

    Tune's own retries stay off: they put a killed trial at the end of Tune's list and can leave a slot empty.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue
        self._running: dict[str, str] = {}  # Tune's id to ours
        self._deaths: dict[str, Death] = {}  # by Tune's id

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration for Tune. None asks Tune to call again; FINISHED ends the run."""
        if self._queue.finished:
            return self.FINISHED
        assignment = self._queue.next()
        if assignment is None:
            return None
        self._running[trial_id] = assignment.trial_id
        return {
            "trial_id": assignment.trial_id,
            "kind": assignment.kind,
            "avoid": ",".join(assignment.avoid),
            "gpus": assignment.gpus,
        }

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Tells the queue of a stored epoch; everything else is read from the store."""
        ours = self._running.get(trial_id)
        if ours is not None and "epoch" in result:
            self._queue.observe(ours, result)

    def on_error(self, trial_id: str, error: Exception | None) -> None:
        """Remembers why a trial's worker died, until Tune tells that the trial has ended."""
        self._deaths[trial_id] = Death(*why_it_died(error))

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tells the queue that a trial's worker has ended, or that a node has refused the trial."""
        ours, death = self._running.pop(trial_id, None), self._deaths.pop(trial_id, None)
        if ours is None:
            return
        if result is not None and "refused" in result:
            self._queue.refused(ours, result["node"], result["refused"])
        else:
            died = death or Death("Ray does not say why") if error else None
            self._queue.ended(ours, died=died, broken=(result or {}).get("broken"))

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the store is the state."""

    def get_state(self) -> dict[str, Any]:
        """Returns an empty state: the store is the state."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Does nothing: the store is the state."""

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its searcher once and never reads the pickle
        return {}

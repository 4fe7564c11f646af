"""Which trial Tune runs next: decided from the store, not by Tune."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from orchestrator.store import State, SweepStore

LONGEST_BACK_OFF = 60.0


class StoreSearcher(Searcher):
    """Suggests trials in order, then those that FAILED or were LOST again, each after a back-off of 1, 2, 4 … s.

    Tune's own retries stay off: they put a killed trial at the end of the queue and can leave its slot empty.
    """

    def __init__(
        self,
        store: SweepStore,
        trial_ids: Sequence[str],
        *,
        retries: int,
        on_change: Callable[[str, State], None],
    ) -> None:
        super().__init__()
        self._store = store
        self._waiting = deque((trial_id, 0.0) for trial_id in trial_ids)
        self._running: dict[str, str] = {}  # Tune's id to ours
        self._tries: dict[str, int] = {}
        self._retries = retries
        self._on_change = on_change

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration for Tune; None to be asked again; FINISHED when nothing is left."""
        if self._store.stop_file.exists():
            return self.FINISHED
        now = time.monotonic()
        ready = next((item for item in self._waiting if item[1] <= now), None)
        if ready is None:
            return None if self._waiting or self._running else self.FINISHED
        self._waiting.remove(ready)
        self._running[trial_id] = ready[0]
        self._tries[ready[0]] = self._tries.get(ready[0], 0) + 1
        return {"trial_id": ready[0]}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Reads what became of the trial; the worker has ended, so the driver may write."""
        ours = self._running.pop(trial_id, None)
        if ours is None:
            return
        trial = self._store.trial(ours)
        status = trial.status()
        if not status.state.is_result and status.state is not State.FAILED:
            # The worker wrote no end: it died, or it stopped because it was told to.
            if error:
                status = trial.set_state(State.LOST, "the worker died (killed, out of memory, or its node is gone)")
            else:
                status = trial.set_state(State.PENDING)
        if status.state in (State.FAILED, State.LOST) and self._tries[ours] <= self._retries:
            back_off = min(2.0 ** (self._tries[ours] - 1), LONGEST_BACK_OFF)
            self._waiting.append((ours, time.monotonic() + back_off))
        self._on_change(ours, status.state)

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Nothing: results are read from the store."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def get_state(self) -> dict[str, Any]:
        """Nothing for Tune to keep."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""

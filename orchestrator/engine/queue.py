"""Which trial Tune runs next: decided from the store, not by Tune."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from orchestrator.engine.placement import Placement, anywhere
from orchestrator.files import reason
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import State

if TYPE_CHECKING:
    from orchestrator.engine.early_stopping import Stopper

LONGEST_BACK_OFF = 60.0
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What is no fault of a trial's: trying it again, or the next one, would end alike."""


class StoreSearcher(Searcher):
    """Suggests trials in order, then those that FAILED or were LOST again, each after a back-off of 1, 2, 4 … s.

    With a ``placement`` it suggests no more than its nodes have room for: all others wait here, not in Ray. A trial
    that came to a node with other versions comes again first, and has lost nothing. Attempts that were LOST cost no
    retry once another has begun further than they did: nodes that leave do not use them up.
    Tune's own retries stay off: they put a killed trial at the end of the queue and can leave its slot empty.
    ``stopped_because`` says why no more trials are suggested although some are left: ``max_failures`` trials have
    failed for good, or the store cannot be written any more.
    """

    def __init__(
        self,
        store: SweepStore,
        trial_ids: Sequence[str],
        *,
        retries: int,
        max_failures: int | None = None,
        stopper: Stopper | None = None,
        placement: Placement | None = None,
    ) -> None:
        super().__init__()
        self.stopped_because: str | None = None
        self._store = store
        self._waiting = deque((trial_id, 0.0) for trial_id in trial_ids)
        self._running: dict[str, str] = {}  # Tune's id to ours
        self._tries: dict[str, int] = {}
        self._retries = retries
        self._failures = 0
        self._max_failures = max_failures
        self._stopper = stopper
        self._placement = placement if placement is not None else anywhere(trial_ids)

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration for Tune; None to be asked again; FINISHED when nothing is left."""
        if self.stopped_because or self._store.stop_file.exists():
            return self.FINISHED
        if not self._waiting:
            return None if self._running else self.FINISHED
        now, kinds = time.monotonic(), self._placement.may_begin()
        ready = (item for item in self._waiting if item[1] <= now and self._placement.kind(item[0]) in kinds)
        if not kinds or (next_one := next(ready, None)) is None:
            return None
        self._waiting.remove(next_one)
        ours = next_one[0]
        self._running[trial_id] = ours
        self._store.begins(ours)
        self._tries[ours] = self._tries.get(ours, 0) + 1
        return {"trial_id": ours, **self._placement.begin(ours)}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Shows early stopping a stored epoch; everything else is read from the store."""
        ours = self._running.get(trial_id)
        if self._stopper is not None and ours is not None and "epoch" in result:
            with self._noticing_disk_errors():
                self._stopper.observe(ours, result)

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Reads what became of the trial; the worker has ended, so the driver may write."""
        ours = self._running.pop(trial_id, None)
        if ours is None:
            return
        waiting = len(self._waiting)
        if result is not None and "refused" in result:
            self._placement.refuse(result["node"], result["refused"])
            self._store.at_work.discard(ours)
            self._tries[ours] -= 1
            self._waiting.appendleft((ours, 0.0))
        else:
            with self._noticing_disk_errors():
                self._completed(ours, error)
        self._placement.end(ours, finished=len(self._waiting) == waiting)

    def _completed(self, ours: str, error: bool) -> None:
        trial = self._store.has_ended(ours)
        status = trial.status()
        if not status.state.is_result and status.state is not State.FAILED:
            # The worker wrote no end: it died, or it stopped because it was told to.
            if error:
                status = trial.set_state(State.LOST, "the worker died (killed, out of memory, or its node is gone)")
            else:
                status = trial.set_state(State.STOPPED if trial.early_stop_file.exists() else State.PENDING)
        if status.state not in (State.FAILED, State.LOST):
            return
        if status.attempts and status.attempts[-1].get("errno") in DISK_ERRORS:
            self.stopped_because = f"{self._store.path}: {os.strerror(status.attempts[-1]['errno'])}"
        if status.state is State.LOST and _got_on(status.attempts):
            self._tries[ours] = min(self._tries[ours], 1)
        if self._tries[ours] <= self._retries:
            back_off = min(2.0 ** (self._tries[ours] - 1), LONGEST_BACK_OFF)
            self._waiting.append((ours, time.monotonic() + back_off))
            return
        self._failures += 1
        if self._max_failures is not None and self._failures >= self._max_failures:
            self.stopped_because = f"{self._failures} trials have failed for good (max_failures: {self._max_failures})"
            self._store.stop_file.touch()

    @contextlib.contextmanager
    def _noticing_disk_errors(self) -> Iterator[None]:
        """The store cannot be written: what is stored stays, and nothing more is started.

        Where a trial's directory alone was deleted, the others go on.
        """
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and (self._store.path / "trials").exists():
                return
            self.stopped_because = f"{self._store.path}: {reason(error)}"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def get_state(self) -> dict[str, Any]:
        """Nothing for Tune to keep."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its searcher once, and never reads that
        return {}


def _got_on(attempts: Sequence[dict[str, Any]]) -> bool:
    """Whether the last attempt began further than the one before."""
    begun = [attempt.get("resumed_at", 0) for attempt in attempts[-2:]]
    return len(begun) == 2 and begun[1] > begun[0]

"""The queue of a sweep: which trial runs next, and what the end of an attempt means. Decided from the store.

The queue knows neither Ray nor MLflow. An :class:`~orchestrator.engine.executor.Executor` runs what it hands out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.engine.placement import Assignment, Demand, Placement, anywhere
from orchestrator.files import reason
from orchestrator.store.entry import known
from orchestrator.store.folders import is_of_one_trial
from orchestrator.store.states import Attempt, State
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import EarlyStopping

if TYPE_CHECKING:
    from orchestrator.engine.early_stopping import Stopper

LONGEST_BACK_OFF = 60.0
BACK_OFF_WITHOUT_MEMORY, LONGEST_BACK_OFF_WITHOUT_MEMORY = 30.0, 600.0
"""The first and the longest back-off of a trial whose worker was ended for lack of memory."""
LONGEST_WAIT_FOR_FEWER = 600.0
"""How long such a trial then waits for fewer trials to run."""
Grow = Callable[[str], Mapping[str, Demand]]
"""Called with a trial that will not run again. Returns the trials that it adds to the plan, with their demands."""
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that are no fault of the trial: its next attempt, and the next trial, would fail in the same way."""


@dataclass(frozen=True)
class Death:
    """Why a worker died, in one line, and whether its node had too little memory."""

    why: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class Waiting:
    """A trial that waits to begin, and from when on it may. Times are those of ``time.monotonic``.

    Until ``patient_until`` it begins only while fewer trials run than ``fewer_than``, itself included.
    """

    trial_id: str
    ready_at: float = 0.0
    fewer_than: int | None = None
    patient_until: float = 0.0

    def may_begin(self, now: float, running: int) -> bool:
        """Whether it may begin now, next to this number of running trials."""
        room = self.fewer_than is None or running + 1 < self.fewer_than or now >= self.patient_until
        return now >= self.ready_at and room


class Queue:
    """Hands out trials in order, then FAILED and LOST ones again, each after a back-off of 1, 2, 4 … seconds.

    A trial whose worker was ended for lack of memory waits 30, 60, 120 … seconds, and then until fewer trials run than
    at that time, but for that at most ten minutes.

    The queue hands out no more trials than the ``placement`` has room for: all others wait here, not in Ray. A trial
    that reached a node with other versions or code is handed out again first and loses no retry. A LOST attempt
    counts as the first if it began at a later iteration than the one before: nodes that leave do not use up retries.

    A plan that ``grow`` lets grow adds its new trials at the end. The queue is not finished before.

    ``stopped_because`` says why no more trials are handed out although some are left: ``max_failures`` trials have
    failed for good, the store cannot be written any more, or the nodes that could run them were refused.
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
        grow: Grow | None = None,
    ) -> None:
        self.store = store
        self.trial_ids = tuple(trial_ids)
        self.placement = placement if placement is not None else anywhere(trial_ids)
        self.stopped_because: str | None = None
        self._waiting = deque(map(Waiting, trial_ids))
        self._running: set[str] = set()
        self._tries: dict[str, int] = {}
        self._retries = retries
        self._failures = 0
        self._max_failures = max_failures
        self._stopper = stopper
        self._grow = grow

    @property
    def finished(self) -> bool:
        """Whether :meth:`next` will hand out nothing more, whatever becomes of the trials that run."""
        if self.stopped_because or self.store.stop_file.exists():
            return True
        return not self._waiting and not self._running

    def next(self) -> Assignment | None:
        """The trial that begins now. None if none may: ask again later, unless the queue is :attr:`finished`."""
        if self.finished or not self._waiting:
            return None
        now, kinds = time.monotonic(), self.placement.may_begin()
        ready = (
            item
            for item in self._waiting
            if item.may_begin(now, len(self._running)) and self.placement.kind(item.trial_id) in kinds
        )
        if not kinds or (next_one := next(ready, None)) is None:
            return None
        self._waiting.remove(next_one)
        trial_id = next_one.trial_id
        self._running.add(trial_id)
        self.store.begins(trial_id)
        self._tries[trial_id] = self._tries.get(trial_id, 0) + 1
        return self.placement.begin(trial_id)

    def observe(self, trial_id: str, record: Mapping[str, Any]) -> None:
        """Shows early stopping an epoch that a running trial has stored."""
        if self._stopper is not None and trial_id in self._running:
            with self._noticing_disk_errors():
                self._stopper.observe(trial_id, record)

    def refused(self, trial_id: str, node: str, why: str) -> None:
        """A node did not run the trial because it has other versions or other code: the trial is next.

        The node gets no more trials. If no other node is left, no more trials begin, and those that run go on.
        """
        if trial_id not in self._running:
            return
        self._running.remove(trial_id)
        self.placement.refuse(node, why)
        self.store.at_work.discard(trial_id)
        self._tries[trial_id] -= 1
        self._waiting.appendleft(Waiting(trial_id))
        self.placement.end(trial_id, finished=False)
        self.stopped_because = self.stopped_because or self.placement.deserted()

    def ended(self, trial_id: str, *, died: Death | None = None, broken: str | None = None) -> None:
        """Writes the state of a trial whose worker has ended. ``died`` says why the worker ended without a result.

        ``broken`` says why the worker could not begin the trial, for example because a library cannot be imported.
        A second call for the same attempt changes nothing.
        """
        if trial_id not in self._running:
            return
        self._running.remove(trial_id)
        waiting = len(self._waiting)
        with self._noticing_disk_errors(of_the_end=True):
            self._conclude(trial_id, died, broken)
        settled = len(self._waiting) == waiting
        self.placement.end(trial_id, finished=settled)
        if settled and self._grow is not None and not self.stopped_because and not self.store.stop_file.exists():
            with self._noticing_disk_errors():
                self._add(self._grow(trial_id))
        if self._waiting and not self._running:
            self.stopped_because = self.stopped_because or self.placement.deserted()

    def _add(self, trials: Mapping[str, Demand]) -> None:
        for trial_id, demand in trials.items():
            self.placement.add(trial_id, demand)
            if self._stopper is not None:
                self._stopper.add(trial_id)
            self._waiting.append(Waiting(trial_id))

    def _conclude(self, trial_id: str, died: Death | None, broken: str | None) -> None:
        trial = self.store.has_ended(trial_id)
        status = trial.status()
        if not status.state.is_result and status.state is not State.FAILED:
            # The worker wrote no final state: it died, or it stopped because it was told to.
            if broken is not None:
                trial.log(f"the worker could not begin: {broken}")
                status = trial.set_state(State.FAILED, broken)
            elif died is not None:
                status = trial.set_state(State.LOST, f"the worker died: {died.why}{self._help(died)}")
            else:
                status = trial.set_state(State.STOPPED if trial.early_stop_file.exists() else State.PENDING)
        if status.state not in (State.FAILED, State.LOST):
            return
        number = status.attempts[-1].errno if status.attempts else None
        if number in DISK_ERRORS:
            self.stopped_because = f"{self.store.path}: {os.strerror(number)}"
        if status.state is State.LOST and _began_further(status.attempts):
            self._tries[trial_id] = min(self._tries[trial_id], 1)
        if self._tries[trial_id] <= self._retries:
            self._waiting.append(self._again(trial_id, died))
            return
        self._failures += 1
        if self._max_failures is not None and self._failures >= self._max_failures:
            self.stopped_because = f"{self._failures} trials have failed for good (max_failures: {self._max_failures})"
            self.store.stop_file.touch()

    def _again(self, trial_id: str, died: Death | None) -> Waiting:
        """When a trial that failed or was lost may begin again."""
        doubled = 2.0 ** (self._tries[trial_id] - 1)
        if died is None or not died.out_of_memory:
            return Waiting(trial_id, time.monotonic() + min(doubled, LONGEST_BACK_OFF))
        ready_at = time.monotonic() + min(BACK_OFF_WITHOUT_MEMORY * doubled, LONGEST_BACK_OFF_WITHOUT_MEMORY)
        ran = len(self._running) + 1
        return Waiting(trial_id, ready_at, ran if ran > 1 else None, ready_at + LONGEST_WAIT_FOR_FEWER)

    def _help(self, died: Death) -> str:
        """What helps against lack of memory."""
        if not died.out_of_memory:
            return ""
        if others := len(self._running):
            return f". {others + 1} trials ran at once: fewer need less memory, with --max-concurrent {others}"
        return ". No other trial ran: this one needs a machine with more memory, or a smaller batch_size"

    @contextlib.contextmanager
    def _noticing_disk_errors(self, *, of_the_end: bool = False) -> Iterator[None]:
        """Stops the queue if the store cannot be written; what is stored stays.

        If only one trial's directory was deleted, the other trials go on. So they do at ``of_the_end`` of an attempt if
        the trial's directory is broken.
        """
        try:
            yield
        except OSError as error:
            is_one = isinstance(error, FileNotFoundError) or (of_the_end and is_of_one_trial(error))
            if is_one and os.access(self.store.path / "trials", os.W_OK):
                return
            self.stopped_because = f"{self.store.path}: {reason(error)}"


def make_queue(store: SweepStore, trial_ids: Sequence[str], placement: Placement, grow: Grow | None = None) -> Queue:
    """The queue of these trials with the retries, failures and early stopping that the plan asks for."""
    plan = store.plan()
    stopper = None
    if plan["early_stopping"]:
        from orchestrator.engine.early_stopping import Stopper

        stopper = Stopper(store, EarlyStopping(**known(EarlyStopping, plan["early_stopping"])))
    return Queue(
        store,
        trial_ids,
        retries=plan["retries"],
        max_failures=plan["max_failures"],
        stopper=stopper,
        placement=placement,
        grow=grow,
    )


def _began_further(attempts: Sequence[Attempt]) -> bool:
    """Whether the last attempt began at a later iteration than the one before."""
    begun = [attempt.resumed_at or 0 for attempt in attempts[-2:]]
    return len(begun) == 2 and begun[1] > begun[0]

"""What stands between the driver and the engine that runs trials."""

from __future__ import annotations

from typing import Protocol

from orchestrator.engine.placement import Placement
from orchestrator.engine.queue import Grow, Queue, make_queue
from orchestrator.store.sweep import SweepStore


class Executor(Protocol):
    """Runs the trials that a :class:`~orchestrator.engine.queue.Queue` hands out.

    Ray Tune pulls: it asks for the next trial and calls back when one has ended. So the executor gets the queue and
    asks it, until ``queue.finished``:

    - submit: ``queue.next()`` hands out the next trial, with what it takes of a node;
    - what may begin: the ``placement`` tells the queue for which trials there is room;
    - what ended: the executor calls ``queue.ended()`` once the trial's worker can write no more, ``queue.observe()``
      for each stored epoch, and ``queue.refused()`` for a trial that a node did not run;
    - stop: the queue hands out nothing more after ``orchestrator stop`` or too many failures. Trials see the stop file
      themselves, write a checkpoint and end.
    """

    placement: Placement

    def run(self, queue: Queue) -> None:
        """Runs trials until the queue is finished and every trial that began has ended."""
        ...


def run_trials(store: SweepStore, trial_ids: list[str], executor: Executor, grow: Grow | None = None) -> str | None:
    """Runs trials to their ends, and those that ``grow`` adds; FAILED and LOST ones are retried as the plan says.

    Returns None when every trial has a result, has used up its retries, or was stopped by the stop file. Otherwise
    returns why it stopped early: too many failures, a directory that cannot be written any more, or no node that runs
    the driver's code.
    """
    queue = make_queue(store, trial_ids, executor.placement, grow)
    executor.run(queue)
    return queue.stopped_because

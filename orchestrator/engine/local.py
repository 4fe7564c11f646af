"""An executor that runs trials one after the other in this process, without Ray. Breakpoints work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from orchestrator.engine.placement import anywhere
from orchestrator.engine.queue import Queue
from orchestrator.trial.run import run_trial
from orchestrator.trial.workplace import trial_at_hand

PAUSE_SECONDS = 0.1
"""How often the queue is asked again while a trial waits for its next attempt."""


class LocalExecutor:
    """Runs one trial at a time in the calling thread."""

    def __init__(self, trial_ids: Sequence[str]) -> None:
        self.placement = anywhere(trial_ids, at_once=1)

    def run(self, queue: Queue) -> None:
        """Runs trials until the queue is finished."""
        while not queue.finished:
            assignment = queue.next()
            if assignment is None:
                time.sleep(PAUSE_SECONDS)
                continue
            self._run_trial(queue, assignment.trial_id)
            queue.ended(assignment.trial_id)

    def _run_trial(self, queue: Queue, trial_id: str) -> None:
        def observe(record: dict[str, Any]) -> None:
            queue.observe(trial_id, record)

        with trial_at_hand(queue.store.runs, queue.store.name, trial_id) as (trial, cache, should_stop):
            run_trial(trial, cache, should_stop=should_stop, on_epoch=observe)

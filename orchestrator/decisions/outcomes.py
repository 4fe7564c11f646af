"""What a decision sees of trials: how they ended, and the metric that the sweep compares by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore

Ending = Literal["done", "stopped", "diverged", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial, or a cell of several seeds, ended.

    ``values`` are the last values of the seeds that have one, ``step`` the critic iteration that the first of the
    stopped ones reached. A cell is ``diverged`` if one of its seeds is, else ``failed`` if one lacks its value, else
    ``stopped`` if early stopping has ended one.
    """

    ending: Ending
    values: tuple[float, ...] = ()
    step: int | None = None

    @property
    def mean(self) -> float | None:
        """The mean over the seeds that have a value."""
        return math.fsum(self.values) / len(self.values) if self.values else None


def trial_outcome(trial: TrialStore, metric: str) -> Outcome:
    """How a trial ended. One that has no result, or cannot be read, is ``failed``: it does not run any more."""
    state = trial.status().state
    if state is State.DIVERGED:
        return Outcome("diverged")
    if not state.is_result or trial.problem() is not None:
        return Outcome("failed")
    measured = [record for record in trial.epochs() if record["epoch"] and metric in record]
    if not measured:
        return Outcome("failed")
    value, step = float(measured[-1][metric]), int(measured[-1]["iteration"])
    if not math.isfinite(value):
        return Outcome("diverged")
    return Outcome("stopped" if state is State.STOPPED else "done", (value,), step)


def cell_outcome(seeds: Sequence[Outcome]) -> Outcome:
    """How a cell ended, from its seeds."""
    order: tuple[Ending, ...] = ("diverged", "failed", "stopped", "done")
    ending: Ending = min((each.ending for each in seeds), key=order.index, default="failed")
    steps = [each.step for each in seeds if each.ending == "stopped" and each.step is not None]
    return Outcome(ending, tuple(value for each in seeds for value in each.values), min(steps, default=None))

"""What of a sweep can be read. This is decided and told once, before a command shows numbers."""

from __future__ import annotations

import warnings

from orchestrator.store.states import STATUS_FILE
from orchestrator.store.sweep import SweepStore


def leave_out_unreadable(*stores: SweepStore) -> list[str]:
    """Leaves every trial that cannot be read out of these sweeps' ``entries()``, with a warning that names its file.

    Returns a sentence for each: numbers are missing from whatever is shown then. A trial with a damaged ``status.json``
    stays, as LOST, and is named too. Raises :class:`UserError` for a plan that cannot be read.
    """
    told = []
    for store in stores:
        told += store.plan_problems()
        for entry in store.entries():
            trial = store.trial(entry.trial_id)
            if (problem := trial.problem()) is not None:
                store.left_out[entry.trial_id] = problem
                told.append(f"{entry.label} seed={entry.seed} is left out: {problem}")
            elif trial.status().is_unreadable:
                told.append(f"{entry.label} seed={entry.seed} is LOST: {trial.path / STATUS_FILE} is damaged")
    for problem in told:
        warnings.warn(problem, stacklevel=2)
    return told

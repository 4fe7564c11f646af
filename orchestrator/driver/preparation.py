"""Which trials are to run, and what they need before any of them starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from orchestrator.errors import disk_errors
from orchestrator.files import reason
from orchestrator.store.folders import is_of_one_trial
from orchestrator.store.forking import Ancestor, ancestors
from orchestrator.store.runs import runs_argument
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from trainers.datasets import Dataset
from trainers.evaluation import Evaluation
from trainers.parts import build_part


def prepare(
    store: SweepStore, tell: Callable[[str], None] = lambda text: None, selection: Selection = EVERYTHING
) -> list[str]:
    """The selected trials without a result, in the plan's order. Copies trials that another sweep has finished.

    A trial that cannot be read or written is told and skipped: it has failed before it began.
    """
    store.mend()
    entries = store.entries()
    origins = ancestors(store) if any(_is_untouched(store.trial(entry.trial_id)) for entry in entries) else {}
    return prepare_trials(store, entries, origins, tell, selection)


def prepare_trials(
    store: SweepStore,
    entries: Sequence[Entry],
    origins: Mapping[str, Ancestor],
    tell: Callable[[str], None],
    selection: Selection = EVERYTHING,
) -> list[str]:
    """As :func:`prepare`, for these trials only. ``origins`` are the finished trials that untouched ones continue."""
    todo = []
    for entry in entries:
        trial = store.trial(entry.trial_id)
        state = trial.status().state
        if (obstacle := trial.obstacle()) is not None:
            tell(f"{entry.label} seed={entry.seed} is skipped: {obstacle}")
            continue
        if _is_untouched(trial):
            if source := store.copy_finished(entry):
                tell(f"{entry.trial_id}: finished in sweep '{source}', copied from there")
                continue
            if (origin := origins.get(entry.trial_id)) is not None and (why := _fork(origin, store, entry)) is not None:
                tell(f"{entry.label} seed={entry.seed} is skipped: the trial that it continues cannot be read: {why}")
                continue
        if not trial.path.exists():
            tell(f"{trial.path}: is missing and skipped; run the sweep file again to create it")
            continue
        if state is State.DONE and trial.lacks_epochs():
            why = "epochs that it had are missing"
            state = trial.set_state(State.LOST, why).state
            tell(f"{entry.trial_id}: {why}; it has no result any more")
        if not selection.takes(entry.trial_id, state):
            continue
        if selection.restart and (trial.status().attempts or state is State.LOST):
            trial.restart()
        elif state is State.DIVERGED:
            trial.set_state(State.PENDING)
        todo.append(entry.trial_id)
    return todo


def prepare_parts(store: SweepStore, trial_ids: Sequence[str]) -> None:
    """Prepares each dataset and each evaluation of these trials, once.

    Raises :class:`UserError` or ConfigError if something that they need is missing.
    """
    configs = [config for _, config in store.configs(trial_ids)]
    with disk_errors():
        for values in {json.dumps(config["dataset"]): config["dataset"] for config in configs}.values():
            cast(Dataset, build_part("dataset", values)).prepare(store.cache_dir)
    for values in {json.dumps(config["evaluation"]): config["evaluation"] for config in configs}.values():
        cast(Evaluation, build_part("evaluation", values)).prepare()


def tell_removed(store: SweepStore, tell: Callable[[str], None]) -> None:
    """Names the trials that the sweep file no longer has; their directories are kept."""
    if removed := store.removed():
        names = ", ".join(trial.trial_id for trial in removed[:5]) + (", …" if len(removed) > 5 else "")
        tell(
            f"{len(removed)} trials are no longer in the sweep file and are kept as they are ({names}); "
            f"orchestrator prune {store.name} --removed{runs_argument(store.runs)} deletes them"
        )


def _fork(origin: Ancestor, store: SweepStore, entry: Entry) -> str | None:
    """Begins a trial where a finished one ended. Returns why the finished one cannot be read, or None."""
    if origin.problem is not None:
        return origin.problem
    try:
        origin.fork(store, entry)
    except OSError as error:
        if not is_of_one_trial(error):
            raise
        return f"{error.filename or origin.trial.path}: {reason(error)}"
    return None


def _is_untouched(trial: TrialStore) -> bool:
    return trial.status().state is State.PENDING and not trial.metrics_file.exists()

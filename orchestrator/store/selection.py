"""Which trials of a sweep to run, from the options of ``orchestrator resume``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.store.runs import runs_argument
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from trainers.parts import nearest

UNFINISHED = (State.FAILED, State.LOST, State.PENDING)


@dataclass(frozen=True)
class Selection:
    """All trials without a result. ``only`` restricts them to these states, ``trial_ids`` to these trials.

    ``retry_diverged`` adds DIVERGED trials. ``restart`` starts the trials from scratch.
    """

    only: frozenset[State] = frozenset()
    trial_ids: frozenset[str] = frozenset()
    restart: bool = False
    retry_diverged: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it takes every trial without a result."""
        return not self.only and not self.trial_ids

    def takes(self, trial_id: str, state: State) -> bool:
        """Whether a trial is to run."""
        if self.trial_ids and trial_id not in self.trial_ids:
            return False
        if state is State.DIVERGED:
            return self.retry_diverged
        return not state.is_result and (not self.only or state in self.only)


EVERYTHING = Selection()


def select(
    store: SweepStore, only: Sequence[str], trials: Sequence[str], *, restart: bool, retry_diverged: bool
) -> Selection:
    """The selection that ``--only`` (states) and ``--trial`` (trial ids or their first digits) ask for.

    Raises :class:`UserError` for a word that is not such a state, for an id that matches no trial or several, and for a
    trial that already has its result.
    """
    states = {str(state).lower(): state for state in UNFINISHED}
    for word in only:
        if word.lower() not in states:
            raise UserError(f"--only: '{word}' is not a state that can be resumed{nearest(word.lower(), states)}")
    entries = store.entries()
    chosen = [one_entry(store, entries, text) for text in trials]
    for entry in chosen:
        state = store.trial(entry.trial_id).status().state
        if state is State.DIVERGED and not retry_diverged:
            raise UserError(f"--trial {entry.trial_id}: the trial has diverged; add --retry-diverged to run it again")
        if state.is_result and state is not State.DIVERGED:
            raise UserError(f"--trial {entry.trial_id}: the trial already has its result ({state})")
    return Selection(
        frozenset(states[word.lower()] for word in only),
        frozenset(entry.trial_id for entry in chosen),
        restart,
        retry_diverged,
    )


def one_entry(store: SweepStore, entries: Sequence[Entry], text: str) -> Entry:
    """The trial that ``--trial`` names. Raises :class:`UserError` if no trial or several match."""
    fitting = [entry for entry in entries if text and entry.trial_id.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"--trial {text}: matches several trials: {', '.join(entry.trial_id for entry in fitting)}")
    known = {entry.trial_id for entry in entries}
    listing = f"orchestrator status {store.name}{runs_argument(store.runs)}"
    near = nearest(text, known) if len(known) <= 20 else f"; {listing} lists them"
    raise UserError(f"--trial {text}: this sweep has no such trial{near}")

"""Which trials of a sweep to run: what ``orchestrator resume`` is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from trainers.parts import nearest

UNFINISHED = (State.FAILED, State.LOST, State.PENDING)


@dataclass(frozen=True)
class Selection:
    """All trials without a result, or those of them in the states ``only`` and with one of ``trial_ids``.

    ``retry_diverged`` takes DIVERGED ones too; ``restart`` begins again from nothing.
    """

    only: frozenset[State] = frozenset()
    trial_ids: frozenset[str] = frozenset()
    restart: bool = False
    retry_diverged: bool = False

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
    """From words: states, and trial ids of which the first digits suffice.

    Raises :class:`UserError` for a word that is no such state, an id that is unknown or fits several trials, or a
    trial that has its result.
    """
    states = {str(state).lower(): state for state in UNFINISHED}
    for word in only:
        if word.lower() not in states:
            raise UserError(f"--only: '{word}' is no state that can be resumed{nearest(word.lower(), states)}")
    entries = store.entries()
    chosen = [one_entry(entries, text) for text in trials]
    for entry in chosen:
        state = store.trial(entry.trial_id).status().state
        if state is State.DIVERGED and not retry_diverged:
            raise UserError(f"--trial {entry.trial_id}: it has diverged; --retry-diverged runs it again")
        if state.is_result and state is not State.DIVERGED:
            raise UserError(f"--trial {entry.trial_id}: it has its result already ({state})")
    return Selection(
        frozenset(states[word.lower()] for word in only),
        frozenset(entry.trial_id for entry in chosen),
        restart,
        retry_diverged,
    )


def one_entry(entries: Sequence[Entry], text: str) -> Entry:
    """The trial that ``--trial`` means. Raises :class:`UserError`."""
    fitting = [entry for entry in entries if text and entry.trial_id.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"--trial {text}: fits {', '.join(entry.trial_id for entry in fitting)}")
    known = {entry.trial_id for entry in entries}
    near = nearest(text, known) if len(known) <= 20 else "; orchestrator status NAME lists them"
    raise UserError(f"--trial {text}: this sweep has no such trial{near}")

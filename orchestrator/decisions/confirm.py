"""Confirmation: the best cells once more, with seeds that no decision has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.decisions.outcomes import Outcome, cell_outcome, trial_outcome
from orchestrator.decisions.race import RaceRule
from orchestrator.decisions.rule import Made, Settled, decided_trial
from orchestrator.decisions.search import SearchRule
from orchestrator.store.decision_log import CellKey, Decision, cell_key
from orchestrator.store.entry import Entry
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import FIRST_FRESH_SEED, Confirm, Growing


@dataclass(frozen=True)
class Candidate:
    """A cell that may be confirmed, with its trials so far and how it ended."""

    trials: tuple[Entry, ...]
    outcome: Outcome

    @property
    def key(self) -> CellKey:
        """The cell's."""
        return cell_key(self.trials[0].variant, self.trials[0].axes)


class ConfirmRule:
    """Confirms the best cells of one search, or of one variant without a search.

    It waits for the whole search, or the whole race. A search that was given more proposals is confirmed again if that
    makes another cell the best.
    """

    def __init__(
        self,
        store: SweepStore,
        growing: Growing,
        confirm: Confirm,
        compare: Mapping[str, Any],
        source: SearchRule | tuple[str, Sequence[Entry], RaceRule | None],
        made: Sequence[Decision],
    ) -> None:
        self._store, self._growing, self._confirm, self._source = store, growing, confirm, source
        self._metric, self._sign = compare["metric"], -1 if compare["mode"] == "max" else 1
        if isinstance(source, SearchRule):
            self.about: dict[str, Any] = {"variant": source.group.variant, "axes": dict(source.group.axes)}
        else:
            self.about = {"variant": source[0], "axes": {}}
        self._confirmed: dict[CellKey, set[int]] = {}
        self._last: dict[str, Any] | None = None
        for decision in made:
            self._add(decision)

    @property
    def open(self) -> bool:
        return self._last != self._asked()

    def _asked(self) -> dict[str, int]:
        """What is asked for: of how many cells the best ones, after how many looks, how many, and how many seeds."""
        asked = {"of": self._cells(), "best": self._confirm.best, "seeds": self._confirm.seeds}
        race = None if isinstance(self._source, SearchRule) else self._source[2]
        return asked if race is None else {**asked, "looks": race.look}

    def _cells(self) -> int:
        if isinstance(self._source, SearchRule):
            return len(self._source.proposals)
        return len({cell_key(entry.variant, entry.axes) for entry in self._source[1]})

    def decide(self, settled: Settled) -> list[Made]:
        if not self.open or not self._may_decide(settled):
            return []
        made = self._choose()
        self._add(made.decision)
        return [made]

    def _may_decide(self, settled: Settled) -> bool:
        if isinstance(self._source, SearchRule):
            return self._source.over(settled)
        _, entries, race = self._source
        if race is not None:
            return not race.open
        return all(settled(entry.trial_id) for entry in entries)

    def _choose(self) -> Made:
        ranked = sorted(self._candidates(), key=lambda each: self._sign * (each.outcome.mean or 0.0))
        chosen = ranked[: self._confirm.best]
        fresh = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + self._confirm.seeds)
        trials = [
            self._trial(candidate.trials[0], seed)
            for seed in fresh
            for candidate in chosen
            if seed not in self._confirmed.get(candidate.key, ())
        ]
        about = {**self.about, **self._asked()}
        if not chosen:
            about["problem"] = "no cell has a value for all its seeds"
        cells = [
            {"axes": dict(each.trials[0].axes), "mean": each.outcome.mean, "count": len(each.outcome.values)}
            for each in chosen
        ]
        decision = Decision("confirm", about, {"cells": cells}, tuple(entry for entry, _ in trials))
        return Made(decision, {entry.trial_id: config for entry, config in trials})

    def _candidates(self) -> list[Candidate]:
        """The cells of which all seeds have a value; those that were stopped early only if there are no others."""
        if isinstance(self._source, SearchRule):
            search = self._source
            found = [Candidate(each.trials, search.outcome(each)) for each in search.proposals if each.trials]
        else:
            cells: dict[CellKey, list[Entry]] = {}
            variant, entries, race = self._source
            for entry in entries if race is None else (each for cell in race.cells.values() for each in cell):
                if entry.variant == variant:
                    cells.setdefault(cell_key(entry.variant, entry.axes), []).append(entry)
            found = [Candidate(tuple(each), self._outcome(each)) for each in cells.values()]
        whole = [each for each in found if each.outcome.ending == "done"]
        return whole or [each for each in found if each.outcome.ending == "stopped"]

    def _outcome(self, trials: Sequence[Entry]) -> Outcome:
        return cell_outcome([trial_outcome(self._store.trial(entry.trial_id), self._metric) for entry in trials])

    def _trial(self, like: Entry, seed: int) -> tuple[Entry, dict[str, Any]]:
        return decided_trial(
            like.variant,
            like.axes,
            self._store.trial(like.trial_id).config(),
            seed,
            self._growing.short,
            stage="confirm",
            proposal=like.proposal,
            searched=like.searched,
        )

    def _add(self, decision: Decision) -> None:
        """Takes over a confirmation that is made."""
        for entry in decision.trials:
            self._confirmed.setdefault(cell_key(entry.variant, entry.axes), set()).add(entry.seed)
        self._last = {name: decision.about[name] for name in ("of", "best", "seeds", "looks") if name in decision.about}

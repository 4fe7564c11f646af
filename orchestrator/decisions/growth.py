"""The growth of a sweep's plan: asks the rules whenever a trial has ended, and stores what they decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.decisions.confirm import ConfirmRule
from orchestrator.decisions.race import RaceRule
from orchestrator.decisions.rule import Made, Rule
from orchestrator.decisions.search import SearchRule
from orchestrator.decisions.words import told
from orchestrator.store.decision_log import CellKey, Decision, cell_key, check_undamaged
from orchestrator.store.entry import Entry
from orchestrator.store.plan_file import GrownPlan
from orchestrator.store.sweep import SweepStore

RACE: CellKey = ("", None)
"""Stands for all cells of a race. No variant has an empty name."""


class Growth:
    """Makes the decisions of a sweep from its store alone, and stores each before its trials begin.

    The end of a trial costs the rules of its own group, however large the sweep is.
    """

    def __init__(self, store: SweepStore, tell: Callable[[str], None] = lambda text: None) -> None:
        """Reads what is decided. Raises :class:`UserError` if the plan or the decisions are damaged."""
        self._store, self._tell = store, tell
        self._chains: dict[CellKey, list[Rule]] = {}
        self._told: dict[str, list[CellKey]] = {}
        """The chains of rules that the end of a trial concerns. Two searches may propose the same trial."""
        self._entries: dict[str, Entry] = {}
        self._unsettled: set[str] = set()
        if (grown := store.grown()) is not None:
            check_undamaged(store.decisions_file, grown.problems)
            self._entries = {entry.trial_id: entry for entry in store.planned()}
            self._compare = store.plan()["compare"]
            self._chains = _chains(store, grown, self._compare)
            for entry in self._entries.values():
                if not entry.stage:
                    self._tell_of(entry, RACE if RACE in self._chains else cell_key(entry.variant, {}))
            for decision in grown.decisions:
                self._tell_of_all(decision)

    @property
    def open(self) -> bool:
        """Whether decisions are still to be made."""
        return any(rule.open for rules in self._chains.values() for rule in rules)

    def begin(self, unsettled: Collection[str]) -> list[Entry]:
        """Makes all decisions that can be made now. ``unsettled`` are the trials that are to run.

        Returns the trials that are added. Raises OSError if they cannot be stored.
        """
        self._unsettled = set(unsettled)
        return self._decide(self._chains.values())

    def settled(self, trial_id: str) -> list[Entry]:
        """Makes the decisions that the end of a trial allows. Returns and raises as :meth:`begin`."""
        self._unsettled.discard(trial_id)
        return self._decide([self._chains[key] for key in self._told.get(trial_id, ()) if key in self._chains])

    def _decide(self, chains: Iterable[Sequence[Rule]]) -> list[Entry]:
        made = [each for rules in chains for rule in rules for each in rule.decide(self._is_settled)]
        made.sort(key=lambda each: each.decision.about.get("proposal", 0))  # all groups advance evenly
        self._write(made)
        added = []
        for each in made:
            self._tell_of_all(each.decision)
            for entry in each.decision.trials:
                if entry.trial_id not in self._entries:
                    self._entries[entry.trial_id] = entry
                    self._unsettled.add(entry.trial_id)
                    added.append(entry)
        return added

    def _tell_of_all(self, decision: Decision) -> None:
        """Notes whom the ends of a decision's trials concern. Those of a confirmation concern nobody."""
        for entry in decision.trials if decision.kind != "confirm" else ():
            self._tell_of(entry, RACE if decision.kind == "race" else cell_key(*decision.cell()))

    def _tell_of(self, entry: Entry, chain: CellKey) -> None:
        chains = self._told.setdefault(entry.trial_id, [])
        if chain not in chains:
            chains.append(chain)

    def _is_settled(self, trial_id: str) -> bool:
        return trial_id in self._entries and trial_id not in self._unsettled

    def _write(self, made: Sequence[Made]) -> None:
        if made:
            configs = {trial_id: config for each in made for trial_id, config in each.configs.items()}
            by = {"compare": dict(self._compare)}
            decisions = [replace(each.decision, about={**each.decision.about, **by}) for each in made]
            self._store.decide(decisions, configs)
        for each in made:
            if text := told(each.decision):
                self._tell(text)


def _chains(store: SweepStore, grown: GrownPlan, compare: Mapping[str, Any]) -> dict[CellKey, list[Rule]]:
    """The rules that the end of a trial may let decide, in their order: by searched cell, by variant, of the race."""
    growing, chains = grown.growing, dict[CellKey, list[Rule]]()
    made: dict[tuple[str, CellKey], list[Decision]] = {}
    for decision in grown.decisions:
        about = RACE if decision.kind == "race" else cell_key(*decision.cell())
        made.setdefault((decision.kind, about), []).append(decision)
    race = None
    if growing.race is not None:
        race = RaceRule(store, growing, growing.race, compare, grown.planned, made.get(("race", RACE), ()))
        chains[RACE] = [race]
    for group in growing.groups:
        key = cell_key(group.variant, group.axes)
        search = SearchRule(store, growing, group, compare, made.get(("search", key), ()))
        chains[key] = [search]
        if growing.confirm is not None:
            confirmed = made.get(("confirm", key), ())
            chains[key].append(ConfirmRule(store, growing, growing.confirm, compare, search, confirmed))
    if growing.confirm is not None:
        trials: dict[str, list[Entry]] = {}
        searched = {group.variant for group in growing.groups}
        for entry in grown.planned:
            if entry.variant not in searched:
                trials.setdefault(entry.variant, []).append(entry)
        for variant, entries in trials.items():
            key = cell_key(variant, {})
            source, confirmed = (variant, entries, race), made.get(("confirm", key), ())
            confirm = ConfirmRule(store, growing, growing.confirm, compare, source, confirmed)
            chains.setdefault(key if race is None else RACE, []).append(confirm)
    return chains

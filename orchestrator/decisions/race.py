"""Race: further seeds only for cells that may still be the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.decisions.outcomes import Outcome, cell_outcome, trial_outcome
from orchestrator.decisions.rule import Made, Settled, decided_trial
from orchestrator.results.racing import behind, level_at, seeds_at
from orchestrator.results.tables import value_of
from orchestrator.store.decision_log import CellKey, Decision, cell_key
from orchestrator.store.entry import Entry
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import Growing, Race

CLEAR = "one cell is left"
NONE_LEFT = "no cell has all its seeds"
MOST = "the cells that are left have the most seeds"
SPENT = "the trials of the race are spent"


class RaceRule:
    """Decides, when all seeds of a look have ended, which cells get further seeds.

    A cell is out if it is told apart from the best at the look's level, or if one of its seeds diverged: its other
    seeds flatter it, so that it cannot be named the best. A cell of which a seed failed stays in with the others.
    """

    def __init__(
        self,
        store: SweepStore,
        growing: Growing,
        race: Race,
        compare: Mapping[str, Any],
        planned: Sequence[Entry],
        made: Sequence[Decision],
    ) -> None:
        self._store, self._growing, self._race = store, growing, race
        self._metric, self._mode = compare["metric"], compare["mode"]
        self.cells: dict[CellKey, list[Entry]] = {}
        for entry in planned:
            self.cells.setdefault(cell_key(entry.variant, entry.axes), []).append(entry)
        self.racing = list(self.cells)
        self.seeds, self.look = race.first, 0
        self.ended: str | None = None
        self._awaited: set[str] | None = None
        for decision in made:
            self._add(decision)

    @property
    def open(self) -> bool:
        return self.ended is None

    def decide(self, settled: Settled) -> list[Made]:
        made = []
        while self.open and self._all_ended(settled):
            goes_on = self.seeds < self._target()
            made.append(self._go_on() if goes_on else self._look())
            self._add(made[-1].decision)
        return made

    def _target(self) -> int:
        """How many seeds a cell has at the look that comes."""
        return seeds_at(self.look, self._race.first, self._race.most)

    def _all_ended(self, settled: Settled) -> bool:
        """Whether all seeds of the look have ended. Those that have are not asked again."""
        if self._awaited is None:
            self._awaited = {entry.trial_id for key in self.racing for entry in self.cells[key]}
        while self._awaited:
            trial_id = self._awaited.pop()
            if not settled(trial_id):
                self._awaited.add(trial_id)
                return False
        return True

    def _look(self) -> Made:
        outcomes = {key: self._outcome(key) for key in self.racing}
        level = level_at(self.look, self._race.first)
        out: dict[CellKey, str] = {key: "diverged" for key, each in outcomes.items() if each.ending == "diverged"}
        compared = [key for key, each in outcomes.items() if key not in out and each.values]
        values = [value_of(outcomes[key].values, None) for key in compared]
        told = behind(
            [value.mean for value in values if value],
            [value.deviation for value in values if value],
            [value.count for value in values if value],
            seeds=self.seeds,
            cells=len(self.cells),
            level=level,
            mode=self._mode,
        )
        out |= {key: "worse" for key, is_out in zip(compared, told, strict=True) if is_out}
        left = [key for key in self.racing if key not in out]
        seeds = seeds_at(self.look + 1, self._race.first, self._race.most)
        ended = self._why_ended(len(left), seeds)
        about: dict[str, Any] = {"look": self.look, "level": level, "had": self.seeds, "ended": ended}
        cells = []
        for key in self.racing:
            entry, value = self.cells[key][0], value_of(outcomes[key].values, None)
            stands = {"out": out.get(key), "count": len(outcomes[key].values)}
            numbers = {} if value is None else {"mean": value.mean, "deviation": value.deviation}
            cells.append({"variant": entry.variant, "axes": dict(entry.axes), **stands, **numbers})
        if ended is not None:
            return Made(Decision("race", about, {"cells": cells}))
        return self._give(about, cells, left, seeds)

    def _go_on(self) -> Made:
        """Seeds for the next look of a race that had ended, because its sweep file allows more by now.

        Nothing is tested: the last look has spent its share of the error on the same values.
        """
        level = level_at(self.look - 1, self._race.first)
        about = {"look": self.look - 1, "level": level, "had": self.seeds, "ended": None, "goes_on": True}
        return self._give(about, [], self.racing, self._target())

    def _give(self, about: dict[str, Any], cells: list[dict[str, Any]], left: Sequence[CellKey], seeds: int) -> Made:
        """A decision that gives further seeds to the cells that are left."""
        trials = [
            self._trial(key, seed)
            for seed in range(self.seeds, seeds)
            for key in left  # seed by seed, as a plan
        ]
        decision = Decision("race", {**about, "seeds": seeds}, {"cells": cells}, tuple(entry for entry, _ in trials))
        return Made(decision, {entry.trial_id: config for entry, config in trials})

    def _outcome(self, key: CellKey) -> Outcome:
        return cell_outcome([trial_outcome(self._store.trial(each.trial_id), self._metric) for each in self.cells[key]])

    def _why_ended(self, left: int, seeds: int) -> str | None:
        if left <= 1:
            return CLEAR if left else NONE_LEFT
        if self.seeds >= self._race.most:
            return MOST
        there = sum(map(len, self.cells.values()))
        if self._race.trials is not None and there + left * (seeds - self.seeds) > self._race.trials:
            return SPENT
        return None

    def _trial(self, key: CellKey, seed: int) -> tuple[Entry, dict[str, Any]]:
        first = self.cells[key][0]
        config = self._store.trial(first.trial_id).config()
        return decided_trial(first.variant, first.axes, config, seed, self._growing.short)

    def _add(self, decision: Decision) -> None:
        """Takes over a look that is made."""
        gone = {cell_key(each["variant"], each["axes"]) for each in decision.rests_on["cells"] if each["out"]}
        self.racing = [key for key in self.racing if key not in gone]
        self.look = decision.about["look"] + 1
        self.seeds = decision.about.get("seeds", self.seeds)
        for entry in decision.trials:
            self.cells[cell_key(entry.variant, entry.axes)].append(entry)
        self._awaited = None
        self.ended = self._still_ended(decision.about["ended"])

    def _still_ended(self, ended: str | None) -> str | None:
        """Why the race has ended: the file may allow more seeds or more trials by now."""
        if ended == MOST and self.seeds < self._race.most:
            return self._why_ended(len(self.racing), self._target())
        return self._why_ended(len(self.racing), self._target()) if ended == SPENT else ended

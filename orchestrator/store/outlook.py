"""What is decided of a plan that may grow, and how many trials may still come.

The numbers are those of trials that end with a value. Where all trials of a cell diverge, a confirmation has fewer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.store.decision_log import Decision, cell_key
from orchestrator.sweep.growing import Confirm, Group, Growing, Race
from orchestrator.sweep.names import Planned


@dataclass
class SearchOutlook:
    """A search of one cell of a grid: how many of its ``proposals`` are decided. Each has ``seeds`` trials.

    ``inside`` counts those in the present space. An ``exhausted`` search has no setting left to propose.
    """

    group: Group
    label: str
    proposals: int
    seeds: int
    decided: int = 0
    inside: int = 0
    exhausted: bool = False

    @property
    def left(self) -> int:
        """The number of proposals to come: no more than the space has settings that were not proposed."""
        if self.exhausted:
            return 0
        left = max(0, self.proposals - self.decided)
        settings = self.group.search.settings
        return left if settings is None else min(left, max(0, settings - self.inside))

    def add(self, about: Mapping[str, Any]) -> None:
        space = self.group.search.space
        self.exhausted = about.get("exhausted") == {name: dimension.to_dict() for name, dimension in space.items()}
        if "exhausted" not in about:
            setting = about["setting"]
            self.decided += 1
            self.inside += setting.keys() == space.keys() and all(space[name].holds(setting[name]) for name in space)


@dataclass
class RaceOutlook:
    """A race: after ``looks`` looks the cells that may still be the best have ``seeds`` seeds.

    ``cells`` has the number of seeds of every cell and ``racing`` the keys of those that are left. ``ended`` says why
    no cell gets further seeds.
    """

    race: Race
    cells: dict[Hashable, int]
    racing: list[Hashable]
    seeds: int
    looks: int = 0
    ended: str | None = None

    @property
    def further(self) -> int:
        """The most seeds that each cell that is left may still get."""
        return 0 if self.ended else max(0, self.race.most - self.seeds)

    @property
    def most(self) -> int:
        """The most trials to come."""
        most = len(self.racing) * self.further
        return most if self.race.trials is None else max(0, min(most, self.race.trials - sum(self.cells.values())))

    def add(self, decision: Decision, decided_with: Race | None) -> None:
        about = decision.about
        gone = {cell_key(each["variant"], each["axes"]) for each in decision.rests_on["cells"] if each["out"]}
        self.racing = [key for key in self.racing if key not in gone]
        self.looks, self.seeds = about["look"] + 1, about.get("seeds", about["had"])
        for key in (cell_key(entry.variant, entry.axes) for entry in decision.trials):
            self.cells[key] = self.cells.get(key, 0) + 1
        # Where two cells are left, the race ended at its bounds. The sweep file may have others by now.
        spent = self.race.trials is not None and self.race == decided_with
        over = len(self.racing) < 2 or self.seeds >= self.race.most or spent
        self.ended = about["ended"] if over else None


@dataclass
class ConfirmOutlook:
    """A confirmation of the best cells of one search, or of a variant without one, which has ``count`` cells.

    ``confirmed`` is the number of its trials so far, ``cells`` the labels of their cells. ``problem`` says why it has
    none.
    """

    label: str
    confirm: Confirm
    source: SearchOutlook | RaceOutlook | None
    count: int
    confirmed: int = 0
    cells: list[str] = field(default_factory=list)
    problem: str | None = None
    asked: Mapping[str, int] | None = None

    @property
    def of(self) -> int:
        """Of how many cells the best are confirmed."""
        return self.source.decided + self.source.left if isinstance(self.source, SearchOutlook) else self.count

    @property
    def open(self) -> bool:
        """Whether the confirmation is still to be decided, for the first time or again."""
        asked = {"of": self.of, "best": self.confirm.best, "seeds": self.confirm.seeds}
        if isinstance(self.source, RaceOutlook):
            asked["looks"] = self.source.looks
            if self.source.ended is None:
                return True
        return self.asked != asked

    @property
    def waits_for(self) -> str:
        """What has to end before."""
        if isinstance(self.source, SearchOutlook):
            return "the search"
        return "its trials" if self.source is None else "the race"

    @property
    def most(self) -> int:
        """The most trials to come."""
        return min(self.confirm.best, self.of) * self.confirm.seeds if self.open else 0

    @property
    def least(self) -> int:
        """The fewest trials to come: the best cells may be those that were confirmed before."""
        return max(0, self.most - self.confirmed)

    def add(self, decision: Decision) -> None:
        self.asked = {name: decision.about[name] for name in ("of", "best", "seeds", "looks") if name in decision.about}
        self.problem = decision.about.get("problem")
        self.confirmed += len(decision.trials)
        self.cells = list(dict.fromkeys([*self.cells, *(entry.label for entry in decision.trials)]))


class Outlook:
    """All searches, the race and all confirmations of a plan, as far as they are decided."""

    def __init__(
        self,
        growing: Growing | None,
        planned: Iterable[Planned],
        decisions: Sequence[Decision] = (),
        decided_with: Race | None = None,
    ) -> None:
        """``planned`` are the trials that no decision made. ``decided_with`` is the race before a change, if any."""
        self.searches: dict[Hashable, SearchOutlook] = {}
        self.confirmations: dict[Hashable, ConfirmOutlook] = {}
        self.race: RaceOutlook | None = None
        if growing is None:
            return
        self._decided_with = decided_with or growing.race
        seeds = growing.seeds
        cells = {cell_key(each.variant, each.axes): each.variant for each in planned if each.seed in seeds}
        for group in growing.groups:
            search = SearchOutlook(group, group.label(growing.short), group.search.trials, len(seeds))
            self.searches[cell_key(group.variant, group.axes)] = search
        if growing.race is not None:
            count = len(seeds)
            self.race = RaceOutlook(growing.race, dict.fromkeys(cells, count), list(cells), count)
        if growing.confirm is not None:
            for key, search in self.searches.items():
                self.confirmations[key] = ConfirmOutlook(search.label, growing.confirm, search, search.proposals)
            searched = {group.variant for group in growing.groups}
            for variant in dict.fromkeys(cells.values()):
                if variant not in searched:
                    count = sum(each == variant for each in cells.values())
                    key = cell_key(variant, {})
                    self.confirmations[key] = ConfirmOutlook(variant, growing.confirm, self.race, count)
        self.add(decisions)

    def add(self, decisions: Iterable[Decision]) -> None:
        """Takes over decisions that were made."""
        for decision in decisions:
            if decision.kind == "race":
                if self.race is not None:
                    self.race.add(decision, self._decided_with)
                continue
            key = cell_key(*decision.cell())
            if decision.kind == "search" and key in self.searches:
                self.searches[key].add(decision.about)
            elif decision.kind == "confirm" and key in self.confirmations:
                self.confirmations[key].add(decision)

    @property
    def least(self) -> int:
        """How many trials are sure to come."""
        proposed = sum(each.left * each.seeds for each in self.searches.values())
        return proposed + sum(each.least for each in self.confirmations.values())

    @property
    def most(self) -> int:
        """How many trials may come at most."""
        proposed = sum(each.left * each.seeds for each in self.searches.values())
        raced = 0 if self.race is None else self.race.most
        return proposed + raced + sum(each.most for each in self.confirmations.values())

    @property
    def told(self) -> str:
        """The number of trials to come: ``20``, or ``2 to 11``. Empty if none can come."""
        if self.least == self.most:
            return f"{self.most:,}" if self.most else ""
        return f"{self.least:,} to {self.most:,}"

"""The two tables of a sweep that grows: *explored*, on which decisions rested, and *confirmed*, with fresh seeds alone.

Their trials never share a row: what chose a cell flatters it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from orchestrator.errors import UserError
from orchestrator.store.decision_log import CellKey, Decision, cell_key
from orchestrator.store.plan_file import GrownPlan
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from trainers.parts import nearest

Shown = Literal["explored", "confirmed"]
Out = Literal["", "worse", "diverged"]
CONFIRM_KEY = "confirm: {best: 1, seeds: 10}"


@dataclass(frozen=True)
class Look:
    """A look of a race: at how many seeds a cell, at which level, how many cells were in the race and were left."""

    seeds: int
    level: float
    cells: int
    left: int


@dataclass(frozen=True)
class Race:
    """What a race has decided so far, by the metric that the sweep compares by.

    ``cells`` is how many cells the first look saw, ``ended`` why no look follows; None as long as the race goes on.
    """

    metric: str
    cells: int
    looks: tuple[Look, ...]
    ended: str | None

    @property
    def level(self) -> float:
        """The level at which the last look told cells apart."""
        return self.looks[-1].level


@dataclass(frozen=True)
class Grown:
    """A sweep that grows, as one of its two tables shows it.

    ``proposals`` are the numbers of proposals of its searches, ``searching`` says whether it has any. ``chosen_of`` and
    ``best``: the best how many of how many proposals, and of how many cells of a method that is not searched, were
    confirmed, with ``fresh`` seeds. ``confirms`` says whether its sweep file asks for a confirmation, ``other`` whether
    the other table has values too.
    """

    sweep: str
    shown: Shown
    searching: bool
    proposals: tuple[int, ...]
    raced: bool
    chosen_of: tuple[tuple[int, ...], tuple[int, ...]]
    best: int
    fresh: int
    confirms: bool
    other: bool


def stage_named(option: str) -> Shown | None:
    """The table that ``--stage`` asks for; None for an empty text. Raises :class:`UserError`."""
    for shown in get_args(Shown):
        if option == shown:
            return shown
    if option:
        raise UserError(f"--stage {option}: expected {' or '.join(get_args(Shown))}{nearest(option, get_args(Shown))}")
    return None


def is_confirmed(store: SweepStore, entries: Sequence[Entry]) -> bool:
    """Whether one of these trials confirms, and has a value of the metric that the sweep compares by."""
    confirming = _staged(entries, "confirmed")
    metric = store.plan()["compare"]["metric"] if confirming else ""
    return any(_has_value(store, entry, metric) for entry in confirming)


def _has_value(store: SweepStore, entry: Entry, metric: str) -> bool:
    trial = store.trial(entry.trial_id)
    if trial.status().state not in (State.DONE, State.STOPPED):
        return False
    return any(record["epoch"] and math.isfinite(record.get(metric, math.nan)) for record in trial.epochs())


def _staged(entries: Iterable[Entry], shown: Shown) -> list[Entry]:
    return [entry for entry in entries if (entry.stage == "confirm") == (shown == "confirmed")]


def entries_in(store: SweepStore, stage: Shown | None = None) -> tuple[list[Entry], Shown]:
    """The trials of one of a sweep's tables, and which one it is.

    By default it is the confirmed one as soon as a confirmation has a value. Raises :class:`UserError` if the confirmed
    one is asked for before.
    """
    entries = store.entries()
    if stage != "explored" and is_confirmed(store, entries):
        return _staged(entries, "confirmed"), "confirmed"
    if stage != "confirmed":
        return _staged(entries, "explored"), "explored"
    grown = store.grown()
    if grown is None or grown.growing.confirm is None:
        why = f"its sweep file does not ask for any; add {CONFIRM_KEY} and run it again"
    elif _staged(entries, "confirmed"):
        why = "its confirmation has no value yet; orchestrator status tells how far it has come"
    else:
        why = "its confirmation begins when everything that it rests on has ended; resume the sweep"
    raise UserError(f"--stage confirmed: '{store.name}' has no confirmed cells: {why}")


def grown_as(store: SweepStore, plan: GrownPlan, shown: Shown) -> Grown:
    """What a table says of the growth of the sweep's plan."""
    searched = {cell_key(group.variant, group.axes) for group in plan.growing.groups}
    chosen_of: dict[bool, set[int]] = {True: set(), False: set()}
    best = 1
    for each in _confirmations(plan):
        chosen_of[cell_key(*each.cell()) in searched].add(each.about["of"])
        best = max(best, each.about["best"])
    counts = _proposals(plan.decisions).values()
    confirm = plan.growing.confirm
    return Grown(
        store.name,
        shown,
        bool(plan.growing.groups),
        tuple(sorted(set(counts))),
        plan.growing.race is not None,
        (tuple(sorted(chosen_of[True])), tuple(sorted(chosen_of[False]))),
        best,
        0 if confirm is None else confirm.seeds,
        confirm is not None,
        shown == "confirmed" or is_confirmed(store, store.entries()),
    )


def _confirmations(plan: GrownPlan) -> list[Decision]:
    """The last confirmation of each search, or of each variant without one, that has chosen a cell."""
    made = [each for each in plan.decisions if each.kind == "confirm" and each.rests_on["cells"]]
    return list({cell_key(*each.cell()): each for each in made}.values())


def chosen_cells(plan: GrownPlan) -> set[CellKey]:
    """The cells that the last confirmations have chosen, by :func:`cell_key`."""
    made = _confirmations(plan)
    return {cell_key(each.about["variant"], cell["axes"]) for each in made for cell in each.rests_on["cells"]}


def _proposals(decisions: Iterable[Decision]) -> dict[CellKey, int]:
    """How many proposals with trials each searched cell has."""
    found: dict[CellKey, int] = {}
    for each in decisions:
        if each.kind == "search" and each.trials:
            key = cell_key(*each.cell())
            found[key] = found.get(key, 0) + 1
    return found


def looks_in(plan: GrownPlan) -> list[Decision]:
    """The looks of a race. A race that goes on because more seeds are allowed by now has not looked for that."""
    return [each for each in plan.decisions if each.kind == "race" and not each.about.get("goes_on")]


def race_of(plan: GrownPlan, metric: str) -> tuple[Race, dict[CellKey, Out]] | None:
    """The race of a sweep, and why cells are out of it, by :func:`cell_key`. None if it has no race.

    ``metric`` is the one that the sweep compares by.
    """
    if plan.growing.race is None:
        return None
    made = [each for each in plan.decisions if each.kind == "race"]
    seen = looks_in(plan)
    outs: dict[CellKey, Out] = {}
    looks = []
    for decision in seen:
        cells = decision.rests_on["cells"]
        outs |= {cell_key(each["variant"], each["axes"]): each["out"] for each in cells if each["out"]}
        left = sum(not each["out"] for each in cells)
        looks.append(Look(decision.about["had"], decision.about["level"], len(cells), left))
    began = looks[0].cells if looks else 0
    ended = made[-1].about["ended"] if made else None
    return Race(metric, began, tuple(looks), ended), outs


# --- in words -------------------------------------------------------------------------------------------------------


def stage_notes(grown: Sequence[Grown], where: str = "") -> list[str]:
    """The notes on which of a sweep's two tables this is, and how to see the other one.

    ``where`` is what the command needs besides the sweep's name, such as `` --runs-dir DIR``.
    """
    named = len(grown) > 1
    return [
        f"{each.sweep}: {note}" if named else note
        for each in grown
        if (note := _confirmed(each, where) if each.shown == "confirmed" else _explored(each, where))
    ]


def _confirmed(grown: Grown, where: str) -> str:
    by = "race" if grown.raced else "search" if grown.searching else "sweep"
    proposals, cells = grown.chosen_of
    chosen = [f"of {_either(proposals)} proposal{_plural(proposals)}"] if proposals else []
    chosen += [f"of {_either(cells)} cell{_plural(cells)} of its method"] if cells else []
    best = "the best" if grown.best == 1 else f"one of the best {grown.best}"
    return (
        f"confirmed: the {by} chose each cell as {best} {', or '.join(chosen)}, "
        "which flatters its values there; here it is run again with "
        f"{_seeds(grown.fresh)}, which no decision has seen; "
        f"all that was tried: orchestrator export {grown.sweep} --stage explored{where}"
    )


def _explored(grown: Grown, where: str) -> str:
    told = []
    if grown.searching:
        several = _either(grown.proposals) or "several"
        told.append(f"the best of {several} proposals is flattered, because luck helps to choose it")
    if grown.other:
        told.append(f"the best ones again, with fresh seeds: orchestrator export {grown.sweep}{where}")
    elif grown.confirms:
        told.append(f"the best ones are run again with {_seeds(grown.fresh)} when everything here has ended")
    elif grown.searching:
        told.append(
            f"to run the best ones again with fresh seeds, add {CONFIRM_KEY} to the sweep file, and run it again"
        )
    return "; ".join(told)


def _seeds(count: int) -> str:
    return "1 fresh seed" if count == 1 else f"{count} fresh seeds"


def _plural(numbers: Sequence[int]) -> str:
    return "" if numbers == (1,) else "s"


def _either(numbers: Sequence[int]) -> str:
    if len(numbers) > 2:
        return f"{numbers[0]} to {numbers[-1]}"
    return " or ".join(map(str, numbers))

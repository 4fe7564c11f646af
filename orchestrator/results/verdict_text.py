"""Puts a verdict into words, for people, and into plain values, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.results.number_text import format_value
from orchestrator.results.stages import Race, stage_notes
from orchestrator.results.tables import ALIKE, Table, Value
from orchestrator.results.verdict import BestOfVariant, Effect, Judged, Standing, Verdict, race_by

NAMED = 8
"""How many cells a sentence names. It counts the rest; JSON has all."""
GROWN = ("stage", "race", "proposals", "searched", "tuned")
"""The fields of verdicts that only sweeps that grow need. JSON has them where they say something."""
BEYOND = "worse beyond chance"
STANDINGS: dict[Standing, str] = {
    "best": "the best of all",
    "worse": BEYOND,
    "alike": "not told apart from the best",
    "flattered": "flattered by its survivors",
}


def answer(table: Table) -> str:
    """The verdict of a table as text, a line a sentence. Empty if it has none."""
    return "\n".join(sentences(table.verdict))


def sentences(verdict: Verdict | None) -> list[str]:
    """The verdict as sentences, of which the first is the answer."""
    if verdict is None:
        return []
    told = [_headline(verdict)]
    if verdict.worse and verdict.alike:
        told.append(f"Not told apart from it: {_names(verdict.alike)}.")
    if verdict.flattered:
        fresh = verdict.stage == "confirmed"
        cells = [
            f"{cell.label}, {_mean(cell.value, fresh=fresh)} ({'; '.join(cell.lacking)})" for cell in verdict.flattered
        ]
        told.append(f"A better mean, but of survivors, which flatter their cell: {_listed(cells)}.")
    if verdict.without_value:
        told.append(f"Without any value: {_listed(verdict.without_value)}.")
    if verdict.race is not None:
        told.append(_of_race(verdict.race))
    if verdict.closest is not None:
        told.append(_seeds(verdict.closest, verdict.seeds))
    if verdict.variants:
        told.append(
            f"{_bests_of(verdict.variants)} (the best of several is flattered, because luck helps to choose it): "
            f"{_listed([_of_variant(each, verdict) for each in verdict.variants], '; ')}."
        )
    return told + [_of_effect(effect, raced=verdict.race is not None) for effect in verdict.effects]


def _headline(verdict: Verdict) -> str:
    metric, best, worse = verdict.metric, verdict.best, len(verdict.worse)
    others = worse + len(verdict.alike) + len(verdict.flattered)
    lowest = "lowest" if metric.direction == "min" else "highest"
    among = " of the cells with all seeds" if verdict.flattered else ""
    value = _mean(best.value, fresh=verdict.stage == "confirmed")
    has = f"{best.label} has the {lowest} {metric.name}{among}, {value}{_but(verdict)}"
    if not others:
        return f"{has}; no other cell has a value to compare it with."
    if not verdict.tested:
        takes = "that takes at least two seeds of the best cell and of another one"
        return f"Nothing is told apart, because {takes}: {has}."
    if not worse:
        none = "the other cell is not" if others == 1 else f"none of the {others} other cells is"
        return f"Nothing is told apart: {has}; {none} {BEYOND}."
    if worse == others:
        return f"{has}; {'the other cell is' if others == 1 else f'all {others} other cells are'} {BEYOND}."
    alike = len(verdict.alike)
    rest = [f"{alike} {_is(alike)} not told apart from it"] if alike else []
    return f"{has}; {', '.join([f'{worse} of the {others} other cells {_is(worse)} {BEYOND}', *rest])}."


def _but(verdict: Verdict) -> str:
    """What speaks against the best."""
    against = [f"the best of {verdict.proposals} proposals, which flatters it"] if verdict.proposals > 1 else []
    if verdict.best.lacking:
        against.append(f"of survivors, which flatter it: {'; '.join(verdict.best.lacking)}")
    if not verdict.learned:
        against.append("no better than the untrained generator")
    return f" ({'; '.join(against)})" if against else ""


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _mean(value: Value, *, fresh: bool) -> str:
    seeds = f"{value.count}{' fresh' if fresh else ''} seed{'s' if value.count > 1 else ''}"
    return f"{format_value(value)} over {seeds}"


def _names(cells: Sequence[Judged]) -> str:
    return _listed([cell.label + (f" ({'; '.join(cell.lacking)})" if cell.lacking else "") for cell in cells])


def _listed(words: Sequence[str], between: str = ", ") -> str:
    more = [f"and {len(words) - NAMED} more"] if len(words) > NAMED else []
    return between.join([*words[:NAMED], *more])


def _seeds(closest: Judged, seeds: int | None) -> str:
    if seeds is None:
        return f"No number of seeds would tell it from the closest, {closest.label}: their means are equal."
    return (
        f"About {seeds:,} seeds a cell would tell it from the closest, {closest.label} (power 80 %, two-sided 5 %, "
        "these two cells alone: n = (z₀.₉₇₅ + z₀.₈)² (s₁² + s₂²)/d² + z₀.₉₇₅²/4)."
    )


def _of_race(race: Race) -> str:
    """What a race has decided, in a sentence."""
    if not race.looks:
        return "The race has not looked yet: until it does, nothing is told apart."
    looks = "1 look" if len(race.looks) == 1 else f"{len(race.looks)} looks"
    *earlier, last = [str(look.seeds) for look in race.looks]
    seeds = f"{', '.join(earlier)} and {last}" if earlier else last
    left = f"{race.looks[-1].left} of {race.cells} cells {_is(race.looks[-1].left)} left"
    goes_on = "it goes on" if race.ended is None else f"it has ended: {race.ended}"
    return (
        f"The race has had {looks}, at {seeds} seeds a cell, and {left}; {goes_on}. "
        "A cell that is told apart from the best at a look gets no further seeds; "
        "all looks together have a chance of at most 5 % of any error."
    )


def _bests_of(bests: Sequence[BestOfVariant]) -> str:
    """Of what these are the best ones."""
    if all(each.searched for each in bests):
        return "Best proposal of each cell that was searched"
    if any(each.searched for each in bests):
        return "Best proposal of each cell that was searched, and best cell of each other method"
    return "Best cell of each method"


def _of_variant(best: BestOfVariant, verdict: Verdict) -> str:
    things = " proposals" if best.searched else ""
    only = "the one that was confirmed" if verdict.stage == "confirmed" else "its only cell"
    of = f"best of {best.cells}{things}" if best.cells > 1 else "its only proposal" if best.searched else only
    standing = [STANDINGS[best.standing]] if verdict.tested or best.standing == "best" else []
    told = [of, *standing, *best.cell.lacking]
    return f"{best.cell.label} {format_value(best.cell.value)} ({', '.join(told)})"


def _of_effect(effect: Effect, *, raced: bool) -> str:
    first, *others = effect.levels
    told = [f"{first.value}: {_number(first.mean)}"]
    for level in others:
        standing = f" ({BEYOND if level.worse else 'not told apart'})" if effect.tested else ""
        told.append(f"{level.value}: {_number(level.mean)}{standing}")
    told += ["some of these cells lack seeds, which flatters them"] if effect.flattered else []
    told += ["not compared, because the race gave these cells seeds by their values"] if raced else []
    at = " at tuned settings" if effect.tuned else ""
    return (
        f"Main effect of {effect.axis} in {effect.variant}{at}, mean over {' and '.join(effect.over)}: "
        f"{'; '.join(told)}."
    )


def _number(mean: float) -> str:
    return format_value(Value(mean, None, 1))


def all_notes(table: Table) -> list[str]:
    """All that stands below a table for people: its verdict, the note of its marks, its own notes."""
    return [*sentences(table.verdict), *stage_notes(table.grown), *mark_note(table), *table.notes]


def mark_note(table: Table) -> list[str]:
    """The note that explains the marks, if there are any."""
    best, alike = any(row.best for row in table.rows), any(row.alike for row in table.rows)
    told = ["bold: the best, with every other cell told apart from it"] if best else []
    told += [f"{ALIKE}: the best mean, or not told apart from it"] if alike else []
    test = "by Games and Howell's test with Dunnett's C, of all pairs: a chance of at most 5 % of any error in a column"
    marked = {mark.partition(" ")[0] for row in table.rows for mark in (*row.best, *row.alike)}
    if told and table.race is not None and table.race.metric in marked and race_by(table, table.race.metric):
        level = "by the race, whose looks together have a chance of at most 5 % of any error"
        test = f"{table.race.metric} {level}; other columns {test}"
    return [f"{'; '.join(told)}; {test}"] if told else []


def verdict_dict(verdict: Verdict | None) -> dict[str, Any] | None:
    """The verdict as plain values for JSON, with its sentences as ``text``."""
    if verdict is None:
        return None
    values = asdict(verdict, dict_factory=_without_growth)
    return {**values, "metric": verdict.metric.name, "text": sentences(verdict)}


def _without_growth(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields, without those that only sweeps that grow need and that say nothing."""
    return {name: value for name, value in items if name not in GROWN or value}

"""What has made a sweep's plan grow, for its report: searches, the looks of its race, confirmations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.results.number_text import format_value
from orchestrator.results.stages import looks_in
from orchestrator.results.tables import Value
from orchestrator.store.decision_log import CellKey, Decision, cell_key
from orchestrator.store.plan_file import GrownPlan
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import Group
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text, short_value

OUT = {"worse": "told apart from the best", "diverged": "a seed DIVERGED"}


@dataclass(frozen=True)
class Part:
    """The decisions of one kind as a table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def told_decisions(store: SweepStore) -> list[Part]:
    """The decisions of a sweep, kind by kind. Empty if its plan does not grow."""
    grown = store.grown()
    if grown is None:
        return []
    metric = store.plan()["compare"]["metric"]
    parts = [_searches(grown), _race(grown, metric), _confirmations(grown, metric)]
    return [part for part in parts if part is not None]


def _of_kind(grown: GrownPlan, kind: str) -> list[Decision]:
    return [each for each in grown.decisions if each.kind == kind]


def _label(grown: GrownPlan, variant: str, axes: Mapping[str, Any]) -> str:
    return cell_label(variant, setting_text(axes, grown.growing.short))


def _searches(grown: GrownPlan) -> Part | None:
    if not grown.growing.groups:
        return None
    made: dict[CellKey, list[Decision]] = {}
    for decision in _of_kind(grown, "search"):
        made.setdefault(cell_key(*decision.cell()), []).append(decision)
    rows = [
        _of_search(grown, group, made.get(cell_key(group.variant, group.axes), [])) for group in grown.growing.groups
    ]
    spaces = {
        f"{name}: {_dimension(dimension.to_dict())}"
        for group in grown.growing.groups
        for name, dimension in group.search.space.items()
    }
    seeds = len(grown.growing.seeds)
    notes = (
        f"The space: {'; '.join(sorted(spaces))}.",
        f"Every proposal has {'1 seed' if seeds == 1 else f'{seeds} seeds'}.",
    )
    columns = ("searched cell", "sampler", "its seed", "proposals", "why no more")
    return Part("Searches", columns, tuple(rows), notes)


def _of_search(grown: GrownPlan, group: Group, made: Sequence[Decision]) -> tuple[str, ...]:
    search = group.search
    proposed = sum("exhausted" not in each.about for each in made)
    bad = sum("problem" in each.about for each in made)
    told = f"{proposed} of {search.trials}" + (f", of which {bad} cannot be run" if bad else "")
    if made and "exhausted" in made[-1].about:
        why = "no setting is left to try"
    else:
        why = "all are made" if proposed >= search.trials else "more are to come"
    return _label(grown, group.variant, group.axes), search.sampler, str(search.seed), told, why


def _dimension(values: Mapping[str, Any]) -> str:
    """A dimension in words: ``0.0001 to 0.01, logarithmic``."""
    if values["kind"] == "choice":
        return ", ".join(map(short_value, values["values"]))
    told = f"{short_value(values['low'])} to {short_value(values['high'])}"
    told += f" in steps of {short_value(values['step'])}" if "step" in values else ""
    return told + (", logarithmic" if values.get("log") else ", whole" if values["kind"] == "int" else "")


def _race(grown: GrownPlan, metric: str) -> Part | None:
    looks, race = looks_in(grown), grown.growing.race
    if race is None:
        return None
    rows = [row for look in looks for row in _of_look(grown, look)]
    most = f", at most {race.trials} trials in all" if race.trials is not None else ""
    notes = [f"Asked for: {race.first} seeds for every cell, {race.most} at most{most}."]
    ended = next((each.about["ended"] for each in reversed(_of_kind(grown, "race"))), None)
    if ended is not None:
        notes.append(f"The race has ended: {ended}.")
    else:
        notes.append("The race goes on." if looks else "The race has not looked yet.")
    columns = ("look", "seeds a cell", "level", "cells", f"who left, with the {metric} that the look saw", "went on to")
    return Part("Race", columns, tuple(rows), tuple(notes))


def _of_look(grown: GrownPlan, look: Decision) -> Iterable[tuple[str, ...]]:
    about, cells = look.about, look.rests_on["cells"]
    left = [
        f"{_label(grown, cell['variant'], cell['axes'])}: {_seen(cell)}, {OUT[cell['out']]}"
        for cell in cells
        if cell["out"]
    ]
    on = f"{about['seeds']} seeds, {len(cells) - len(left)} cells" if about.get("seeds") else "—"
    first = (str(about["look"] + 1), str(about["had"]), f"{100 * about['level']:.2f} %", str(len(cells)))
    yield (*first, left[0] if left else "nobody", on)
    yield from (("", "", "", "", each, "") for each in left[1:])


def _seen(cell: Mapping[str, Any]) -> str:
    if cell.get("mean") is None:
        return "no value"
    return format_value(Value(cell["mean"], cell["deviation"], cell["count"]))


def _confirmations(grown: GrownPlan, metric: str) -> Part | None:
    confirm = grown.growing.confirm
    if confirm is None:
        return None
    rows = [row for decision in _of_kind(grown, "confirm") for row in _of_confirmation(grown, decision)]
    notes = () if rows else ("None yet: a confirmation begins when everything that it rests on has ended.",)
    columns = ("confirmed cell", "the best of", f"{metric} that chose it", "fresh seeds")
    return Part("Confirmations", columns, tuple(rows), notes)


def _of_confirmation(grown: GrownPlan, decision: Decision) -> Iterable[tuple[str, ...]]:
    about = decision.about
    for cell in decision.rests_on["cells"]:
        seeds = "1 seed" if cell["count"] == 1 else f"{cell['count']} seeds"
        chose = "—" if cell["mean"] is None else f"{format_value(Value(cell['mean'], None, 1))} over {seeds}"
        yield _label(grown, about["variant"], cell["axes"]), str(about["of"]), chose, str(about["seeds"])
    if not decision.rests_on["cells"]:
        label = _label(grown, about["variant"], about["axes"])
        yield label, str(about["of"]), f"nothing to confirm: {about.get('problem', 'no cell has a value')}", "—"

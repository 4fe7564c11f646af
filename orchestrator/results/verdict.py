"""What a table's values say: which cell is the best, and which cells are told apart from it.

:func:`judged` makes a small typed result, the :class:`Verdict`, and the marks of a table. Both come from the means,
deviations and counts in the table alone. :mod:`orchestrator.results.verdict_text` puts a verdict into words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.results.stages import Race, Shown
from orchestrator.results.statistics import LEVEL, Estimate, average, seeds_needed, told_apart
from orchestrator.results.tables import EARLIER, OTHER_REFERENCE, UNTRAINED, Row, Table, Value
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text, short_names, short_value
from trainers.metrics import Metric

Standing = Literal["best", "worse", "alike", "flattered"]
"""``worse``: told apart from the best. ``alike``: not told apart. ``flattered``: a better mean, but of survivors.

A cell that a race has told apart from the best of a look is ``worse``, whatever the numbers say later.
"""
MOST_LEVELS = 12
"""An axis with more values than this has no main effect; its figure shows it better."""


@dataclass(frozen=True)
class Judged:
    """A cell in a verdict, with its value. ``lacking`` says which of its seeds have no value: ``1 of 3 FAILED``."""

    label: str
    value: Value
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class BestOfVariant:
    """The best cell of a variant, of how many, and how it stands to the best of all.

    ``searched``: it is the best proposal of a cell that was searched, which ``variant`` names too.
    """

    variant: str
    cell: Judged
    cells: int
    standing: Standing
    searched: bool = False


@dataclass(frozen=True)
class Level:
    """A value of an axis and the mean over the cells that have it. ``worse``: told apart from the best value's mean."""

    value: str
    mean: float
    worse: bool


@dataclass(frozen=True)
class Effect:
    """The main effect of an axis in a variant: means over all its other axes, the best first.

    ``tested``: whether its levels were compared. That takes at least two seeds of all cells, of which a race has not
    chosen the numbers. ``flattered``: whether some of the cells lack seeds. ``tuned``: whether each cell has the best
    setting that a search has found for it.
    """

    variant: str
    axis: str
    over: tuple[str, ...]
    levels: tuple[Level, ...]
    tested: bool
    flattered: bool
    tuned: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a table says by one metric.

    ``best`` is the cell with the best mean among those of which all seeds have a value; if there is none, among all.
    ``worse``, ``alike`` and ``flattered`` are the others, by :data:`Standing`, the best first. ``tested``: whether the
    best and another cell have at least two seeds. ``learned``: whether the best is better than the untrained generator.
    ``without_value`` are the cells without any. ``closest`` is the cell of ``alike`` with the mean nearest to the
    best's, and ``seeds`` about how many seeds would tell them apart. ``stage`` says which of the two tables of a sweep
    that grows was judged. ``race``: the race that has decided, where it was run by this metric. ``proposals``: of how
    many proposals of searches the best is one.
    """

    metric: Metric
    best: Judged
    worse: tuple[Judged, ...]
    alike: tuple[Judged, ...]
    flattered: tuple[Judged, ...]
    without_value: tuple[str, ...]
    tested: bool
    learned: bool
    closest: Judged | None = None
    seeds: int | None = None
    variants: tuple[BestOfVariant, ...] = ()
    effects: tuple[Effect, ...] = ()
    stage: Shown | None = None
    race: Race | None = None
    proposals: int = 0


@dataclass(frozen=True)
class _Standings:
    """How rows stand to the best of a metric, by their indices."""

    first: int
    by_row: dict[int, Standing]
    tested: bool
    learned: bool
    race: Race | None

    def those(self, standing: Standing) -> list[int]:
        return [index for index, each in self.by_row.items() if each == standing]


def judged(table: Table) -> Table:
    """The table with its verdict and its marks.

    For each metric with a direction the best cell is marked if every other cell is told apart from it, if all its seeds
    have a value, and if it is better than the untrained generator. Where no cell is marked so, the best and all cells
    that are not told apart from it have the second mark. Nothing is marked where no cell could be tested. A cell that
    two sweeps share counts once, and has the same marks in both.
    """
    twins = _twins(table.rows)
    best: list[set[str]] = [set() for _ in table.rows]
    alike: list[set[str]] = [set() for _ in table.rows]
    verdict: Verdict | None = None
    directed = [metric for metric in table.metrics if metric.direction is not None]
    for metric in directed:
        if (standings := _standings(table, metric, twins)) is None:
            continue
        if metric is directed[0]:
            verdict = _verdict(table, metric, standings)
        others = [*standings.those("alike"), *standings.those("flattered")]
        sure = not others and standings.learned and not table.rows[standings.first].lacks(metric.name)
        for index in [standings.first, *others] if standings.tested else []:
            (best if sure else alike)[index].add(metric.name)
    for index, original in twins.items():
        best[index], alike[index] = best[original], alike[original]
    marked = zip(table.rows, best, alike, strict=True)
    rows = tuple(replace(row, best=frozenset(one), alike=frozenset(other)) for row, one, other in marked)
    return replace(table, rows=rows, verdict=verdict)


def _twins(rows: Sequence[Row]) -> dict[int, int]:
    """The rows with the trials of an earlier row, and that row: one sweep has copied the other's finished trials."""
    first: dict[frozenset[str], int] = {}
    originals = {index: first.setdefault(row.trials, index) for index, row in enumerate(rows) if row.trials}
    return {index: original for index, original in originals.items() if index != original}


def _standings(table: Table, metric: Metric, twins: Collection[int]) -> _Standings | None:
    """How the comparable rows with a value stand, without ``twins``. None if no row has one.

    By the metric of a race the best is looked for among the cells that are still in it.
    """
    rows, name = table.rows, metric.name
    there = [
        index
        for index, row in enumerate(rows)
        if not row.reference and OTHER_REFERENCE not in row.remarks and name in row.values and index not in twins
    ]
    if not there:
        return None
    sign = -1 if metric.direction == "max" else 1
    mean = {index: sign * rows[index].values[name].mean for index in there}
    race = race_by(table, name)
    out = {index for index in there if race is not None and rows[index].out == "worse"}
    eligible = there if race is None else [index for index in there if not rows[index].out] or there
    complete = [index for index in eligible if not rows[index].lacks(name)]
    first = min(complete or eligible, key=mean.__getitem__)
    compared = [index for index in there if index not in out]
    apart = dict.fromkeys(out, True) | _apart_from(rows, name, first, compared, race)
    by_row: dict[int, Standing] = {first: "best"}
    for index in sorted(there, key=mean.__getitem__):
        if index != first:
            # only cells that lack seeds, and cells that are out of a race, can be better than the first
            flattered = mean[index] < mean[first] and index not in out
            by_row[index] = "flattered" if flattered else "worse" if apart.get(index) else "alike"
    untrained = next((row.values.get(name) for row in rows if row.reference and row.variant == UNTRAINED), None)
    learned = untrained is None or mean[first] < sign * untrained.mean
    return _Standings(first, by_row, bool(apart), learned, race)


def race_by(table: Table, metric: str) -> Race | None:
    """The race that decides by a metric. None if there was none by it, or if only cells that are out are shown."""
    race = table.race
    if race is None or race.metric != metric or all(row.out for row in table.rows if not row.reference):
        return None
    return race


def _apart_from(
    rows: Sequence[Row], metric: str, first: int, there: Sequence[int], race: Race | None
) -> dict[int, bool]:
    """Whether each row with at least two seeds is told apart from the first. Empty if there is nothing to test.

    After a race it is tested at the level of the last look, as one of all cells that began. As long as the race goes on
    nothing is told apart between its looks.
    """
    import numpy as np

    tested = [index for index in there if rows[index].values[metric].deviation is not None]
    others = [index for index in tested if index != first]
    if first not in tested or not others:
        return {}
    if race is not None and race.ended is None:
        return dict.fromkeys(others, False)

    def estimate(value: Value) -> Estimate:
        return Estimate.over_seeds(value.mean, value.deviation, value.count)

    each = [estimate(rows[index].values[metric]) for index in others]
    means, variances, freedoms = (
        np.array(values) for values in zip(*((e.mean, e.variance, e.freedom) for e in each), strict=True)
    )
    best, rest = estimate(rows[first].values[metric]), Estimate(means, variances, freedoms)
    means_and_level = (len(tested), LEVEL) if race is None else (race.cells, race.level)
    apart = told_apart(best, rest, *means_and_level)
    return {index: bool(told) for index, told in zip(others, apart, strict=True)}


def _verdict(table: Table, metric: Metric, standings: _Standings) -> Verdict:
    rows, name = table.rows, metric.name

    def cell(index: int) -> Judged:
        row = rows[index]
        return Judged(_label(table, row), row.values[name], _lacking(row, name))

    best = cell(standings.first)
    alike = [cell(index) for index in standings.those("alike")]
    spread = [each for each in alike if each.value.deviation is not None]
    closest = min(spread, key=lambda each: abs(each.value.mean - best.value.mean), default=None)
    seeds = None
    if closest is not None and best.value.deviation is not None:
        difference = closest.value.mean - best.value.mean
        seeds = seeds_needed(difference, best.value.deviation, closest.value.deviation or 0.0)
    return Verdict(
        metric=metric,
        best=best,
        worse=tuple(cell(index) for index in standings.those("worse")),
        alike=tuple(alike),
        flattered=tuple(cell(index) for index in standings.those("flattered")),
        without_value=tuple(
            " ".join([_label(table, row), *([f"({'; '.join(told)})"] if (told := _lacking(row, name)) else [])])
            for row in rows
            if not row.reference and OTHER_REFERENCE not in row.remarks and name not in row.values
        ),
        tested=standings.tested,
        learned=standings.learned,
        closest=closest if standings.tested else None,
        seeds=seeds if standings.tested else None,
        variants=_bests_of_variants(table, name, standings, cell),
        effects=_effects(table, metric, standings),
        stage=table.grown[0].shown if table.grown and not table.sweeps else None,
        race=standings.race,
        proposals=_proposals(rows, standings),
    )


def _proposals(rows: Sequence[Row], standings: _Standings) -> int:
    """Of how many proposals the best is one; 0 if it is none."""
    proposals = [index for index in standings.by_row if rows[index].stage == "search"]
    return len(proposals) if standings.first in proposals else 0


def _label(table: Table, row: Row) -> str:
    return f"{row.sweep}: {row.label}" if table.sweeps else row.label


def _lacking(row: Row, metric: str) -> tuple[str, ...]:
    """The remarks that count seeds, if some have no value."""
    counting = tuple(remark for remark in row.remarks if remark.partition(" of ")[0].isdigit())
    if not row.lacks(metric):
        return ()
    there = row.values[metric].count if metric in row.values else 0
    return counting or (f"{row.seeds - there} of {row.seeds} without {metric}",)


def group_of(table: Table, row: Row) -> str:
    """What a row is compared within: its variant; for a proposal of a search the cell that is searched."""
    group = row.variant
    if row.stage == "search":
        fixed = {axis: value for axis, value in row.axes.items() if axis not in row.searched}
        group = cell_label(row.variant, setting_text(fixed, short_names(table.axes)))
    return f"{row.sweep}: {group}" if table.sweeps else group


def _groups(table: Table, standings: _Standings) -> dict[str, list[int]]:
    """The judged rows of each group, in the table's order."""
    found: dict[str, list[int]] = {}
    for index in sorted(standings.by_row):
        found.setdefault(group_of(table, table.rows[index]), []).append(index)
    return found


def _bests_of_variants(
    table: Table, metric: str, standings: _Standings, cell: Callable[[int], Judged]
) -> tuple[BestOfVariant, ...]:
    """The best cell of each group, the best first. Empty where that is the table, or where there is one group.

    After a race it is looked for among the cells that are still in it, if the group has any.
    """
    groups = _groups(table, standings)
    if len(groups) < 2 or all(len(indices) == 1 for indices in groups.values()):
        return ()
    rank = {index: place for place, index in enumerate(standings.by_row)}
    found = []
    for variant, indices in groups.items():
        racing = [index for index in indices if standings.race is not None and not table.rows[index].out]
        complete = [index for index in racing or indices if not table.rows[index].lacks(metric)]
        chosen = min(complete or racing or indices, key=rank.__getitem__)
        searched, standing = table.rows[chosen].stage == "search", standings.by_row[chosen]
        found.append((rank[chosen], BestOfVariant(variant, cell(chosen), len(indices), standing, searched)))
    return tuple(each for _, each in sorted(found, key=lambda pair: pair[0]))


def _effects(table: Table, metric: Metric, standings: _Standings) -> tuple[Effect, ...]:
    """The main effects of every variant whose cells are a full grid of at least two axes, proposals of searches apart.

    An axis that a search chose is none: cells that were confirmed are a grid at tuned settings.
    """
    sign = -1 if metric.direction == "max" else 1
    planned = [row for row in table.rows if not row.reference and not {OTHER_REFERENCE, EARLIER} & {*row.remarks}]
    effects = []
    for variant, indices in _groups(table, standings).items():
        rows = [table.rows[index] for index in indices if EARLIER not in table.rows[index].remarks]
        if not rows or rows[0].stage == "search":
            continue
        if len(rows) < sum((row.sweep, row.variant) == (rows[0].sweep, rows[0].variant) for row in planned):
            continue  # a cell of the grid has no value
        axes = _full_grid(rows)
        for axis, values in axes.items():
            if len(set(values)) <= MOST_LEVELS:
                over = tuple(name for name in axes if name != axis)
                found = [row.values[metric.name] for row in rows]
                effect = _effect(variant, axis, over, values, found, sign, raced=standings.race is not None)
                lacking, tuned = any(row.lacks(metric.name) for row in rows), any(row.searched for row in rows)
                effects.append(replace(effect, flattered=lacking, tuned=tuned))
    return tuple(effects)


def _full_grid(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Each axis that varies, with its value in each row. Empty unless the rows are a full grid of two axes or more.

    Axes that always change together are one axis.
    """
    names = sorted({axis for row in rows for axis in row.axes if axis not in row.searched})
    short = short_names({axis for row in rows for axis in row.axes})
    together: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        written = [json.dumps(row.axes.get(name), sort_keys=True) for row in rows]
        first: dict[str, int] = {}
        partition = tuple(first.setdefault(each, index) for index, each in enumerate(written))
        if len(set(partition)) > 1:
            together.setdefault(partition, []).append(name)
    full = (
        math.prod(len(set(partition)) for partition in together) == len(rows) == len(set(zip(*together, strict=True)))
    )
    if len(together) < 2 or not full:
        return {}
    return {
        ", ".join(short[name] for name in merged): [
            ", ".join(short_value(row.axes.get(name)) for name in merged) for row in rows
        ]
        for merged in together.values()
    }


def _effect(
    variant: str,
    axis: str,
    over: tuple[str, ...],
    at: Sequence[str],
    values: Sequence[Value],
    sign: int,
    *,
    raced: bool,
) -> Effect:
    """The main effect of an axis. ``at`` is its value in each cell, ``values`` are the cells' values."""
    tested = not raced and all(value.deviation is not None for value in values)
    means = {
        level: average(
            [
                Estimate.over_seeds(value.mean, value.deviation or 0.0, max(2, value.count))
                for value, here in zip(values, at, strict=True)
                if here == level
            ]
        )
        for level in dict.fromkeys(at)
    }
    best, *others = sorted(means, key=lambda level: sign * means[level].mean)
    apart = {each: tested and bool(told_apart(means[best], means[each], len(means))) for each in others}
    levels = [Level(best, means[best].mean, False), *(Level(each, means[each].mean, apart[each]) for each in others)]
    return Effect(variant, axis, over, tuple(levels), tested, False)

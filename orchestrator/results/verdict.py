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

from orchestrator.results.statistics import Estimate, average, seeds_needed, told_apart
from orchestrator.results.tables import OTHER_REFERENCE, UNTRAINED, Row, Table, Value
from orchestrator.sweep.setting import short_names, short_value
from trainers.metrics import Metric

Standing = Literal["best", "worse", "alike", "flattered"]
"""``worse``: told apart from the best. ``alike``: not told apart. ``flattered``: a better mean, but of survivors."""
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
    """The best cell of a variant, of how many, and how it stands to the best of all."""

    variant: str
    cell: Judged
    cells: int
    standing: Standing


@dataclass(frozen=True)
class Level:
    """A value of an axis and the mean over the cells that have it. ``worse``: told apart from the best value's mean."""

    value: str
    mean: float
    worse: bool


@dataclass(frozen=True)
class Effect:
    """The main effect of an axis in a variant: means over all its other axes, the best first.

    ``tested``: whether all cells have at least two seeds. ``flattered``: whether some of the cells lack seeds.
    """

    variant: str
    axis: str
    over: tuple[str, ...]
    levels: tuple[Level, ...]
    tested: bool
    flattered: bool


@dataclass(frozen=True)
class Verdict:
    """What a table says by one metric.

    ``best`` is the cell with the best mean among those of which all seeds have a value; if there is none, among all.
    ``worse``, ``alike`` and ``flattered`` are the others, by :data:`Standing`, the best first. ``tested``: whether the
    best and another cell have at least two seeds. ``learned``: whether the best is better than the untrained generator.
    ``without_value`` are the cells without any. ``closest`` is the cell of ``alike`` with the mean nearest to the
    best's, and ``seeds`` about how many seeds would tell them apart.
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


@dataclass(frozen=True)
class _Standings:
    """How rows stand to the best of a metric, by their indices."""

    first: int
    by_row: dict[int, Standing]
    tested: bool
    learned: bool

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
        if (standings := _standings(table.rows, metric, twins)) is None:
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


def _standings(rows: Sequence[Row], metric: Metric, twins: Collection[int]) -> _Standings | None:
    """How the comparable rows with a value stand, without ``twins``. None if no row has one."""
    name = metric.name
    there = [
        index
        for index, row in enumerate(rows)
        if not row.reference and OTHER_REFERENCE not in row.remarks and name in row.values and index not in twins
    ]
    if not there:
        return None
    sign = -1 if metric.direction == "max" else 1
    mean = {index: sign * rows[index].values[name].mean for index in there}
    complete = [index for index in there if not rows[index].lacks(name)]
    first = min(complete or there, key=mean.__getitem__)
    apart = _apart_from(rows, name, first, there)
    by_row: dict[int, Standing] = {first: "best"}
    for index in sorted(there, key=mean.__getitem__):
        if index != first:
            flattered = mean[index] < mean[first]  # only cells that lack seeds can be better than the first
            by_row[index] = "flattered" if flattered else "worse" if apart.get(index) else "alike"
    untrained = next((row.values.get(name) for row in rows if row.reference and row.variant == UNTRAINED), None)
    learned = untrained is None or mean[first] < sign * untrained.mean
    return _Standings(first, by_row, bool(apart), learned)


def _apart_from(rows: Sequence[Row], metric: str, first: int, there: Sequence[int]) -> dict[int, bool]:
    """Whether each row with at least two seeds is told apart from the first. Empty if there is nothing to test."""
    import numpy as np

    tested = [index for index in there if rows[index].values[metric].deviation is not None]
    others = [index for index in tested if index != first]
    if first not in tested or not others:
        return {}

    def estimate(value: Value) -> Estimate:
        return Estimate.over_seeds(value.mean, value.deviation, value.count)

    each = [estimate(rows[index].values[metric]) for index in others]
    means, variances, freedoms = (
        np.array(values) for values in zip(*((e.mean, e.variance, e.freedom) for e in each), strict=True)
    )
    apart = told_apart(estimate(rows[first].values[metric]), Estimate(means, variances, freedoms), len(tested))
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
    )


def _label(table: Table, row: Row) -> str:
    return f"{row.sweep}: {row.label}" if table.sweeps else row.label


def _lacking(row: Row, metric: str) -> tuple[str, ...]:
    """The remarks that count seeds, if some have no value."""
    counting = tuple(remark for remark in row.remarks if remark.partition(" of ")[0].isdigit())
    if not row.lacks(metric):
        return ()
    there = row.values[metric].count if metric in row.values else 0
    return counting or (f"{row.seeds - there} of {row.seeds} without {metric}",)


def _groups(table: Table, standings: _Standings) -> dict[str, list[int]]:
    """The judged rows of each variant, in the table's order."""
    found: dict[str, list[int]] = {}
    for index in sorted(standings.by_row):
        row = table.rows[index]
        found.setdefault(f"{row.sweep}: {row.variant}" if table.sweeps else row.variant, []).append(index)
    return found


def _bests_of_variants(
    table: Table, metric: str, standings: _Standings, cell: Callable[[int], Judged]
) -> tuple[BestOfVariant, ...]:
    """The best cell of each variant, the best first. Empty where that is the table, or where there is one variant."""
    groups = _groups(table, standings)
    if len(groups) < 2 or all(len(indices) == 1 for indices in groups.values()):
        return ()
    rank = {index: place for place, index in enumerate(standings.by_row)}
    found = []
    for variant, indices in groups.items():
        complete = [index for index in indices if not table.rows[index].lacks(metric)]
        chosen = min(complete or indices, key=rank.__getitem__)
        found.append((rank[chosen], BestOfVariant(variant, cell(chosen), len(indices), standings.by_row[chosen])))
    return tuple(each for _, each in sorted(found, key=lambda pair: pair[0]))


def _effects(table: Table, metric: Metric, standings: _Standings) -> tuple[Effect, ...]:
    """The main effects of every variant whose cells are a full grid of at least two axes."""
    sign = -1 if metric.direction == "max" else 1
    planned = [row for row in table.rows if not row.reference and OTHER_REFERENCE not in row.remarks]
    effects = []
    for variant, indices in _groups(table, standings).items():
        rows = [table.rows[index] for index in indices]
        if len(rows) < sum((row.sweep, row.variant) == (rows[0].sweep, rows[0].variant) for row in planned):
            continue  # a cell of the grid has no value
        axes = _full_grid(rows)
        for axis, values in axes.items():
            if len(set(values)) <= MOST_LEVELS:
                over = tuple(name for name in axes if name != axis)
                effects.append(_effect(variant, axis, over, values, [row.values[metric.name] for row in rows], sign))
                if any(row.lacks(metric.name) for row in rows):
                    effects[-1] = replace(effects[-1], flattered=True)
    return tuple(effects)


def _full_grid(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Each axis that varies, with its value in each row. Empty unless the rows are a full grid of two axes or more.

    Axes that always change together are one axis.
    """
    names = sorted({axis for row in rows for axis in row.axes})
    short = short_names(names)
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
    variant: str, axis: str, over: tuple[str, ...], at: Sequence[str], values: Sequence[Value], sign: int
) -> Effect:
    """The main effect of an axis. ``at`` is its value in each cell, ``values`` are the cells' values."""
    tested = all(value.deviation is not None for value in values)
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

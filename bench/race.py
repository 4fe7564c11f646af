"""What a race of ``orchestrator/results/racing.py`` promises, costs and finds, by simulation with that code.

It prints the tables of the section "A race" in ``docs/statistics.md``: how often a race errs at any of its looks, how
many trials it takes and what it tells apart beside tables of fixed numbers of seeds, how far off the means of a raced
table are, and how often its other columns err.

    python -m bench.race
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.verdict import KINDS, Draw, log_normal, show
from orchestrator.results.racing import behind, level_at, seeds_at
from orchestrator.results.statistics import LEVEL, mean_interval

MOST = 20
HALF_WORSE = 0.4
"""By how much the worse cells' means are above 1 where half of the cells differ. It is two deviations of the seeds."""
DIGITS = (
    [0.610, 2.56, 0.749, 0.528, 1.62, 1.22, 0.691, 0.849, 0.622, 0.895, 0.591, 0.621, 0.557, 0.680, 0.491, 0.915],
    [0.050, 0.33, 0.171, 0.105, 0.03, 0.32, 0.110, 0.019, 0.043, 0.158, 0.285, 0.339, 0.017, 0.220, 0.213, 0.478],
)
"""The means and deviations of the 16 cells in ``docs/results_digits.md``."""


@dataclass(frozen=True)
class Raced:
    """Simulated races. ``out``, ``means`` and ``counts`` have a row a race and a column a cell.

    ``wrong``: whether any cell was out at a look whose best cell is not truly better. ``means`` and ``deviations`` are
    over the seeds that a cell was given, ``counts`` is how many those are.
    """

    out: Any
    wrong: Any
    means: Any
    deviations: Any
    counts: Any

    @property
    def trials(self) -> Any:
        return self.counts.sum(axis=1)


def race(
    values: Any,
    truth: Any,
    first: int,
    most: int = MOST,
    level: Callable[[int], float] | None = None,
    *,
    by_those_left: bool = False,
) -> Raced:
    """Races of the seeds' ``values``, with the shape (races, cells, seeds). The lower, the better.

    ``truth`` are the cells' true means. ``level`` is the level of a look, by default the race's own.
    ``by_those_left``: a look compares as many means as cells are left, not as many as the race began with.
    """
    races, cells, _ = values.shape
    out, wrong = np.zeros((races, cells), dtype=bool), np.zeros(races, dtype=bool)
    counts = np.zeros((races, cells), dtype=int)
    means, deviations = np.zeros((2, races, cells))
    seeds = look = 0
    while seeds < most:
        seeds = seeds_at(look, first, most)
        racing = ~out & ((~out).sum(axis=1) > 1)[:, None]
        mean, deviation = values[..., :seeds].mean(axis=-1), values[..., :seeds].std(axis=-1, ddof=1)
        for ours, now in ((counts, seeds), (means, mean), (deviations, deviation)):
            np.copyto(ours, now, where=racing)
        left = np.where(racing, mean, np.nan)
        at = level_at(look, first) if level is None else level(look)
        told = np.zeros_like(out)
        compared = racing.sum(axis=1) if by_those_left else np.full(races, cells)
        for number in set(compared.tolist()) - {0}:
            these = compared == number
            told[these] = behind(left[these], deviation[these], seeds, seeds=seeds, cells=number, level=at, mode="min")
        best = truth[np.where(racing, mean, np.inf).argmin(axis=1)]
        wrong |= (told & (truth <= best[:, None])).any(axis=1)
        out |= told
        look += 1
    return Raced(out, wrong, means, deviations, counts)


def fixed(values: Any, truth: Any) -> Raced:
    """The verdict on tables in which every cell has all ``values``, by the same code: a race of one look at 5 %."""
    seeds = values.shape[-1]
    return race(values, truth, seeds, seeds, lambda _: LEVEL)


def half_different(cells: int) -> Any:
    """True means: every second cell is worse."""
    return 1 + HALF_WORSE * (np.arange(cells) % 2)


def drawn(draw: Draw, truth: Any, races: int, seeds: int = MOST) -> Any:
    """Seeds' values with the true means ``truth``. ``draw`` gives values with the mean 1."""
    return draw(np.random.default_rng(len(truth)), (races, len(truth), seeds)) + (truth - 1)[:, None]


def found(raced: Raced, truth: Any) -> tuple[float, float, float]:
    """How often all worse cells are out, their share that is, and how often the best cell is the best at the end."""
    worse = truth > truth.min()
    out = raced.out[:, worse]
    named = truth[np.where(raced.out, np.inf, raced.means).argmin(axis=1)] == truth.min()
    return float(out.all(axis=1).mean()), float(out.mean()), float(named.mean())


def settings() -> dict[str, tuple[Any, Any]]:
    """True means and deviations of cells, by what they are."""
    digits = (np.array(DIGITS[0]), np.array(DIGITS[1]))
    spread = {"digits, 16 cells": digits}
    for cells in (6, 16, 40):
        for difference in (1, 2, 4):
            truth = difference * (np.arange(cells) > 0)
            spread[f"{cells} cells, the best by {difference} s"] = truth.astype(float), np.ones(cells)
        spread[f"{cells} cells, 0 to 6 s"] = np.linspace(0, 6, cells), np.ones(cells)
    return spread


def print_errors(races: int) -> None:
    rows = []
    for cells in (2, 6, 16, 40):
        for name, truth in (("none", np.ones(cells)), ("half", half_different(cells))):
            for kind in ("normal", "heteroscedastic", "log-normal, σ = 0.5"):
                values = drawn(KINDS[kind], truth, races)
                each = [race(values, truth, first) for first in (2, 3, 5)]
                each.append(race(values, truth, 3, 10))
                each.append(race(values, truth, 3, level=lambda _: LEVEL))
                each.append(race(values, truth, 3, by_those_left=True))
                rows.append([str(cells), name, kind, *(f"{100 * raced.wrong.mean():.1f}" for raced in each)])
    firsts = ("first 2", "first 3", "first 5", "first 3, most 10")
    head = ["cells", "different", "data", *firsts, "first 3, 5 % at each look", "first 3, those left"]
    show("Races with any error, in per cent", head, rows)


def print_limits(races: int) -> None:
    """Equal means of skewed data, where every second cell's deviation is smaller. Neither a race nor a table holds."""
    rows = []
    for sigma in (0.5, 1.0):
        for times in (1, 4, 20):
            row = [f"log-normal, σ = {sigma:g}", str(times)]
            for cells in (6, 16):
                scale = np.where(np.arange(cells) % 2, 1 / times, 1.0)[:, None]
                source = np.random.default_rng(cells)
                values = 1 + scale * (log_normal(source, (races, cells, MOST), sigma) - 1)
                each = [race(values, np.ones(cells), 3), *(fixed(values[..., :n], np.ones(cells)) for n in (5, MOST))]
                row += [f"{100 * raced.wrong.mean():.1f}" for raced in each]
            rows.append(row)
    head = [f"{cells} cells, {design}" for cells in (6, 16) for design in ("a race", "5 seeds", "20 seeds")]
    show("Errors with skewed data and deviations apart, in per cent", ["data", "times apart", *head], rows)


def normal_values(truth: Any, deviations: Any, races: int, seed: int) -> Any:
    source = np.random.default_rng(seed)
    return truth[:, None] + deviations[:, None] * source.normal(size=(races, len(truth), MOST))


def told(all_share_named: tuple[float, float, float]) -> str:
    return "{:.0%} ({:.0%}), {:.0%}".format(*all_share_named)


def print_found(races: int) -> None:
    rows, those_left = [], []
    for name, (truth, deviations) in settings().items():
        values = normal_values(truth, deviations, races, 0)
        raced, five, left = (
            race(values, truth, first, by_those_left=by) for first, by in ((3, False), (5, False), (3, True))
        )
        share, share_five, share_left = (each.trials.mean() / len(truth) / MOST for each in (raced, five, left))
        equal = round(share * MOST)
        ours, whole, same = (
            found(each, truth) for each in (raced, *(fixed(values[..., :n], truth) for n in (MOST, equal)))
        )
        rows.append([name, f"{share:.0%}", f"{share_five:.0%}", told(ours), told(whole), f"{equal}: {told(same)}"])
        those_left.append([name, f"{share:.1%}", f"{share_left:.1%}", told(ours), told(found(left, truth))])
    head = [
        "cells",
        "trials, first 3",
        "first 5",
        "a race, first 3",
        "every cell 20 seeds",
        "as many trials as the race",
    ]
    show("Trials of a race beside 20 seeds for every cell, and what is found", head, rows)
    head = ["cells", "trials: all", "those left", "found: all", "those left"]
    show("A look compares as many means as there were cells, or as there are cells left", head, those_left)


def print_bias(races: int) -> None:
    rows = []
    for name, (truth, deviations) in settings().items():
        raced = race(normal_values(truth, deviations, races, 1), truth, 3)
        off = (raced.means - truth) / deviations
        covered = np.zeros(off.shape, dtype=bool)
        for count in np.unique(raced.counts):
            low, high = mean_interval(raced.means, raced.deviations, int(count))
            np.copyto(covered, (low <= truth) & (truth <= high), where=raced.counts == count)
        best = np.where(raced.out, np.inf, raced.means).argmin(axis=1)[:, None] == np.arange(len(truth))
        row = [name]
        for part in (raced.out & (raced.counts <= 5), raced.out, best):
            row += [f"{part.sum(axis=1).mean():.1f}"]
            row += [f"{off[part].mean():+.2f} s, {covered[part].mean():.0%}"] if part.mean() > 1e-3 else ["—"]
        rows.append(row[:-2] + row[-1:])
    head = [
        "cells",
        "out by five seeds",
        "off by, covered",
        "out",
        "off by, covered",
        "best at the end: off by, covered",
    ]
    show("Means of a raced table, first 3", head, rows)


def print_other_metrics(races: int) -> None:
    """Another metric, in which nothing differs, of a race by a metric in which cells are 0 to 6 s worse."""
    rows = []
    for cells in (6, 16, 40):
        truth = np.linspace(0, 6, cells)
        values = normal_values(truth, np.ones(cells), races, 2)
        raced = race(values, truth, 3)
        own = normal_values(np.zeros(cells), np.ones(cells), races, 3)
        row = [str(cells)]
        for correlation in (0, 0.5, 0.9, 1):
            other = correlation * (values - truth[:, None]) + np.sqrt(1 - correlation**2) * own
            mean, deviation = np.zeros((2, races, cells))
            for count in np.unique(raced.counts):
                part = other[..., :count]
                np.copyto(mean, part.mean(axis=-1), where=raced.counts == count)
                np.copyto(deviation, part.std(axis=-1, ddof=1), where=raced.counts == count)
            wrong = behind(mean, deviation, raced.counts, seeds=0, cells=cells, level=LEVEL, mode="min")
            row.append(f"{100 * wrong.any(axis=1).mean():.1f}")
        rows.append(row)
    head = ["cells", *(f"correlation {each}" for each in (0, 0.5, 0.9, 1))]
    show("Errors in another column of a raced table, tested at 5 %, in per cent", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=4_000)
    races = parser.parse_args().races
    print_errors(races)
    print_limits(races)
    print_found(races)
    print_bias(races)
    print_other_metrics(races)


if __name__ == "__main__":
    main()

"""The statistics of a race: at which numbers of seeds it looks, how sure each look is, and which cells are out.

A race (``seeds: {first: 3, most: 20}``) trains each cell with ``first`` seeds and looks. Cells that are told apart from
the best are out. The others get more seeds, and the race looks again. In at most 5 of 100 races any cell is called
worse, at any look, than a cell that it is equal to or better than. Each look has its share of these 5 %, which
depends neither on ``most`` nor on what the earlier looks found. So a race may go on with a larger ``most``.
``docs/statistics.md`` has the proof, the sources, and simulations by this code.
"""

from __future__ import annotations

from typing import Literal

from orchestrator.results.statistics import LEVEL, Estimate, Numbers, told_apart

HALF_SPENT = 10
"""By how many seeds half of the error is spent."""


def seeds_at(look: int, first: int, most: int) -> int:
    """How many seeds a cell has at a look. Looks count from 0.

    Each look has 1.6 times the seeds of the look before, rounded up: 3, 5, 8, 13, 21, … The last one has ``most``.
    """
    return min(most, _unbounded(look, first))


def _unbounded(look: int, first: int) -> int:
    seeds = first
    for _ in range(look):
        seeds = -(-8 * seeds // 5)
    return seeds


def spent(look: int, first: int) -> float:
    """The error that all looks up to this one spend together: n²/(n² + 10²) of 5 %.

    n is the number of seeds that the look would have without ``most``. All looks of an endless race spend 5 %.
    """
    seeds = _unbounded(look, first) if look >= 0 else 0
    return (1 - LEVEL) * seeds**2 / (seeds**2 + HALF_SPENT**2)


def level_at(look: int, first: int) -> float:
    """The level at which a look tells cells apart: 1 minus what it spends of the error.

    The last look's level is that of the final verdict. Which cells are out does not change after the last look.
    """
    return 1 - (spent(look, first) - spent(look - 1, first))


def behind(
    means: Numbers,
    deviations: Numbers,
    counts: Numbers,
    *,
    seeds: int,
    cells: int,
    level: float,
    mode: Literal["min", "max"],
) -> Numbers:
    """Which of the cells that are still in the race are told apart from the best of them, as an array of booleans.

    ``means``, ``deviations`` and ``counts`` have a number for each cell: its values' mean, deviation (anything with
    fewer than two values) and number. ``seeds`` is how many seeds each cell has, ``cells`` how many cells the race
    began with. The best has the best mean of the cells of which every seed has a value; if there is none, of all: its
    survivors flatter a cell of which some seeds diverged. A cell of fewer than two values is never out, and none is out
    if the best has fewer. Arrays may hold many races: the last axis is the cells', and a mean of NaN is no cell.
    """
    import numpy as np

    mean, deviation = np.asarray(means, dtype=np.float64), np.asarray(deviations, dtype=np.float64)
    count = np.broadcast_to(np.asarray(counts, dtype=np.int64), mean.shape)
    if not mean.size:
        return np.zeros(mean.shape, dtype=bool)
    there = ~np.isnan(mean)
    complete = there & (count >= seeds)
    eligible = np.where(complete.any(axis=-1, keepdims=True), complete, there)
    worse_by = mean if mode == "min" else -mean
    first = np.where(eligible, worse_by, np.inf).argmin(axis=-1)[..., None]
    every = Estimate.over_seeds(mean, deviation, np.maximum(count, 2))
    best = Estimate(*(np.take_along_axis(each, first, axis=-1) for each in (every.mean, every.variance, every.freedom)))
    worse = worse_by > np.take_along_axis(worse_by, first, axis=-1)
    tested = (count >= 2) & (np.take_along_axis(count, first, axis=-1) >= 2)
    return worse & tested & told_apart(best, every, cells, level)

"""What the statistics of ``orchestrator/results/statistics.py`` promise, by simulation and on a real sweep.

Without arguments it prints the tables of ``docs/statistics.md``: how often intervals cover the mean, how often a table
in which nothing differs tells a cell apart from its best, and how often a best cell is told apart from all others. With
a sweep's directory it prints how far the same seed's values go together in different cells, and how skewed they are.

    python bench/verdict.py
    python bench/verdict.py runs/ground_metrics
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import orchestrator
from orchestrator.results.statistics import Estimate, critical_ranges, mean_interval, seed_correlation, told_apart

COUNTS = (2, 3, 5, 10)
METRICS = ("classifier_fid", "classifier_is", "classifier_kid", "classifier_precision", "classifier_recall")
Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Any]


def normal(source: np.random.Generator, shape: Shape) -> Any:
    return 1 + 0.2 * source.normal(size=shape)


def heteroscedastic(source: np.random.Generator, shape: Shape) -> Any:
    """The last cell's deviation is four times the first one's."""
    return 1 + 0.1 * np.linspace(1, 4, shape[-2])[:, None] * source.normal(size=shape)


def log_normal(source: np.random.Generator, shape: Shape, sigma: float = 0.5) -> Any:
    return np.exp(sigma * source.normal(size=shape) - sigma**2 / 2)


def very_skewed(source: np.random.Generator, shape: Shape) -> Any:
    return log_normal(source, shape, 1.0)


KINDS: dict[str, Draw] = {
    "normal": normal,
    "heteroscedastic": heteroscedastic,
    "log-normal, σ = 0.5": log_normal,
    "log-normal, σ = 1": very_skewed,
}


def covered(draw: Draw, count: int, scale: Any, repetitions: int) -> float:
    """How often the interval of a mean contains it. The mean is 1."""
    values = draw(np.random.default_rng(count), (repetitions // 4, 4, count))
    low, high = mean_interval(values.mean(axis=-1), values.std(axis=-1, ddof=1), count, scale)
    return float(((low <= 1) & (high >= 1)).mean())


def resampled(draw: Draw, count: int, repetitions: int) -> float:
    """The same for the percentile bootstrap, which this project used before: 1,000 resamples each."""
    source = np.random.default_rng(count)
    values = draw(source, (repetitions, 4, count))[:, 0]
    indices = source.integers(count, size=(1_000, count))
    low, high = np.quantile(values[:, indices].mean(axis=-1), [0.025, 0.975], axis=1, method="inverted_cdf")
    return float(((low <= 1) & (high >= 1)).mean())


def estimates(values: Any) -> tuple[Estimate, Estimate]:
    """The lowest mean of each table, and all means. ``values`` has the shape (tables, cells, seeds)."""
    count = values.shape[-1]
    mean, deviation = values.mean(axis=-1), values.std(axis=-1, ddof=1)
    every = Estimate.over_seeds(mean, deviation, np.full(mean.shape, count))
    first = mean.argmin(axis=1)[:, None]
    taken = (np.take_along_axis(each, first, axis=1) for each in (every.mean, every.variance, every.freedom))
    return Estimate(*taken), every


def games_howell(one: Estimate, every: Estimate, cells: int) -> Any:
    """The same decision with Welch's degrees of freedom, as Games and Howell and SciPy's tukey_hsd have it."""
    variance = one.variance + every.variance
    with np.errstate(invalid="ignore"):
        welch = variance**2 / (one.variance**2 / one.freedom + every.variance**2 / every.freedom)
        q = np.sqrt(2) * np.abs(every.mean - one.mean) / np.sqrt(variance)
    grid = np.geomspace(welch.min(), welch.max(), 9)
    quantiles = [np.log(stats.studentized_range.isf(0.05, cells, freedom)) for freedom in grid]
    fitted = np.polynomial.Polynomial.fit(1 / grid, quantiles, 5)
    return q > np.exp(fitted(1 / welch))


def wrong(draw: Draw, cells: int, count: int, decide: Any, tables: int) -> float:
    """How often a table in which nothing differs tells any cell apart from its best."""
    values = draw(np.random.default_rng(100 * cells + count), (tables, cells, count))
    return float(decide(*estimates(values), cells).any(axis=1).mean())


def found(cells: int, count: int, difference: float, tables: int) -> tuple[float, float]:
    """How often the best of normal cells is told apart from all others, and the share of others told apart."""
    values = np.random.default_rng(cells + count).normal(size=(tables, cells, count))
    values[:, 1:] += difference
    apart = told_apart(*estimates(values), cells)
    return float((apart.sum(axis=1) == cells - 1).mean()), float(apart.sum(axis=1).mean() / (cells - 1))


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n{title}\n")
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |")


def simulate(repetitions: int) -> None:
    """Prints the tables of ``docs/statistics.md``."""
    seeds = [f"{count} seeds" for count in COUNTS]
    rows = []
    for kind, draw in KINDS.items():
        rows.append([kind, "Student's t", *(f"{covered(draw, n, 't', repetitions):.1%}" for n in COUNTS)])
        rows.append([kind, "logarithm's scale", *(f"{covered(draw, n, 'log', repetitions):.1%}" for n in COUNTS)])
        rows.append([kind, "percentile bootstrap", *(f"{resampled(draw, n, repetitions // 20):.1%}" for n in COUNTS)])
    show("Coverage of 95 % intervals of a mean", ["data", "interval", *seeds], rows)
    rows = []
    for cells in (2, 6, 16, 40):
        for kind, draw in KINDS.items():
            for name, decide in (("Dunnett's C", told_apart), ("Games–Howell", games_howell)):
                shares = [f"{wrong(draw, cells, n, decide, repetitions // 10):.1%}" for n in COUNTS]
                rows.append([str(cells), kind, name, *shares])
    show("Tables with any error, where nothing differs", ["cells", "data", "test", *seeds], rows)
    rows = []
    for cells in (6, 16):
        for difference in (1, 2, 3, 4, 8):
            both = [found(cells, n, difference, repetitions // 20) for n in (*COUNTS, 20)]
            rows.append([str(cells), f"{difference} s", *(f"{whole:.0%} ({share:.0%})" for whole, share in both)])
    show("Power", ["cells", "difference", *seeds, "20 seeds"], rows)
    critical = [
        [str(cells), *(f"{critical_ranges(cells, n - 1) / np.sqrt(2):.1f}" for n in COUNTS)] for cells in (2, 6, 16)
    ]
    show("Difference, in standard errors, from which two cells are told apart", ["cells", *seeds], critical)


def measure(folder: str) -> None:
    """Prints, for each metric of a finished sweep, how its seeds correlate between cells and how skewed they are."""
    trials: Any = orchestrator.load(folder).trials
    rows = []
    for metric in (name for name in METRICS if name in trials):
        done: pd.DataFrame = trials[trials["state"] == "DONE"]
        table = done.pivot(index="cell", columns="seed", values=metric).dropna(axis="columns")
        correlation = seed_correlation(table.to_numpy().tolist())
        if correlation is None:
            continue
        told = [f"{correlation.mean:.3f} ± {correlation.error:.3f}", f"{correlation.needed:.2f}"]
        skewed = [f"{skewness(table.to_numpy()):.2f}"]
        skewed.append(f"{skewness(np.log(table.to_numpy())):.2f}" if (table.to_numpy() > 0).all() else "—")
        rows.append([metric, str(correlation.cells), str(correlation.seeds), *told, *skewed])
    head = ["metric", "cells", "seeds", "correlation over seeds", "pairing helps from", "skewness", "of the logarithm"]
    show(folder, head, rows)


def skewness(values: Any) -> float:
    """The skewness of the deviations from each cell's mean, in units of each cell's deviation."""
    deviations = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    return float((deviations**3).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", help="a finished sweep's directory")
    parser.add_argument("--repetitions", type=int, default=40_000)
    arguments = parser.parse_args()
    if arguments.sweep is None:
        simulate(arguments.repetitions)
    else:
        measure(arguments.sweep)


if __name__ == "__main__":
    main()

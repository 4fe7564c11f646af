"""Statistics over seeds: intervals of a mean, which means differ, whether seeds pair, how many seeds would be enough.

``docs/statistics.md`` has the formulas, their sources, and simulations of what each of them promises. Functions of
estimates also take arrays, so that the simulations run this code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

LEVEL = 0.95
POWER = 0.8
Scale = Literal["t", "log"]
"""How an interval of a mean is made: Student's t, or Student's t on the logarithm's scale."""
Numbers = Any
"""A float, or an array of them."""


def mean_interval(mean: Numbers, deviation: Numbers, count: int, scale: Scale = "t") -> tuple[Numbers, Numbers]:
    """The 95 % interval of a mean over ``count`` independent seeds, at least two, with this sample deviation.

    ``t``: m ± h with h = t₍₀.₉₇₅, ₙ₋₁₎ s/√n (Student 1908). ``log``: m·exp(±h/m), the same on the logarithm's scale by
    the delta method, for a mean of positive numbers; it covers skewed metrics better and never reaches below zero.
    """
    import numpy as np

    half = _t_quantile(count - 1) * deviation / math.sqrt(count)
    if scale == "t":
        return mean - half, mean + half
    factor = np.exp(half / mean)
    return mean / factor, mean * factor


def _t_quantile(freedom: Numbers, level: float = LEVEL) -> Numbers:
    """Student's t's two-sided quantile: 97.5 % at 95 %. ``scipy.stats.t`` gives the same a hundred times slower."""
    from scipy import special

    return special.stdtrit(freedom, (1 + level) / 2)


@dataclass(frozen=True)
class Estimate:
    """An estimate of a mean: its value, its squared standard error, and the degrees of freedom of that error."""

    mean: Numbers
    variance: Numbers
    freedom: Numbers

    @classmethod
    def over_seeds(cls, mean: Numbers, deviation: Numbers, count: Numbers) -> Estimate:
        """A mean over at least two seeds."""
        return cls(mean, deviation**2 / count, count - 1)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates. Its degrees of freedom are those of Satterthwaite (1946)."""
    variance = sum(each.variance for each in estimates)
    spread = sum(each.variance**2 / each.freedom for each in estimates)
    freedom = variance**2 / spread if spread else sum(each.freedom for each in estimates)
    return Estimate(
        math.fsum(each.mean for each in estimates) / len(estimates), variance / len(estimates) ** 2, freedom
    )


def told_apart(one: Estimate, others: Estimate, means: int, level: float = LEVEL) -> Numbers:
    """Whether ``one`` and each of ``others`` differ beyond chance, where any two of ``means`` means are compared.

    Games and Howell's statistic (1976), q = √2·|m₁ − m₂|/√(v₁ + v₂), against Dunnett's critical value C (1980):
    (q₁v₁ + q₂v₂)/(v₁ + v₂), where qᵢ is the studentized range's quantile at ``level`` with mᵢ's degrees of freedom.
    With equal numbers of seeds that is Games and Howell's test with n − 1 degrees of freedom instead of Welch's. Those
    promise too much with few seeds and many cells: 6 to 8 % of tables of 16 equal cells of two to five normal seeds
    tell some apart. The best of a table is chosen for its values. So all pairs of means count, though only those of one
    mean are computed. Means without any deviation differ if they are not equal.
    """
    import numpy as np

    variance = np.asarray(one.variance + others.variance, dtype=np.float64)
    difference = np.abs(np.asarray(others.mean - one.mean, dtype=np.float64))
    ranges = (critical_ranges(means, each.freedom, level) * each.variance for each in (one, others))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = math.sqrt(2) * difference / np.sqrt(variance) > sum(ranges) / variance
    return np.where(variance == 0, difference > 0, apart)


def critical_ranges(means: int, freedom: Numbers, level: float = LEVEL) -> Numbers:
    """The quantiles at ``level`` of the studentized range of ``means`` means, with degrees of freedom rounded down.

    SciPy takes a tenth of a second for one, and up to a second for a thousand means or more. There is one for each
    number of seeds and each level, however many cells have it.
    """
    import numpy as np

    above = np.asarray(freedom) + 1e-9  # a sum of errors may have 0.9999999999 where it means 1
    whole, place = np.unique(np.floor(above).astype(int), return_inverse=True)
    return np.array([_critical_range(means, int(each), level) for each in whole])[place].reshape(np.shape(freedom))


@functools.lru_cache(maxsize=256)
def _critical_range(means: int, freedom: int, level: float) -> float:
    from scipy import stats

    if means == 2:
        return float(math.sqrt(2) * _t_quantile(freedom, level))
    return float(stats.studentized_range.isf(1 - level, means, freedom))


def seeds_needed(difference: float, one: float, other: float) -> int | None:
    """About how many seeds a cell tell two cells with these deviations and this difference of means apart.

    n = (z₀.₉₇₅ + z₀.₈)² (s₁² + s₂²)/d² + z₀.₉₇₅²/4, for power 80 % of a two-sided test at 5 % of these two cells alone;
    the last term makes up for the deviations being estimated (Guenther 1981). None if the means are equal.
    """
    from scipy import stats

    if difference == 0:
        return None
    two_sided, power = stats.norm.isf((1 - LEVEL) / 2), stats.norm.ppf(POWER)
    count = ((two_sided + power) / difference) ** 2 * (one**2 + other**2) + two_sided**2 / 4
    return max(2, math.ceil(count)) if math.isfinite(count) else None


@dataclass(frozen=True)
class SeedCorrelation:
    """How far the values of the same seed in different cells go together.

    ``mean`` is the mean of the correlations over ``seeds`` seeds of all pairs of ``cells`` cells.
    """

    mean: float
    cells: int
    seeds: int

    @property
    def error(self) -> float:
        """The standard error of ``mean`` if the cells' values are independent."""
        return math.sqrt(2 / (self.cells * (self.cells - 1) * (self.seeds - 1)))

    @property
    def needed(self) -> float:
        """From which correlation on pairing shortens the interval of a difference.

        Pairing divides the variance by 1/(1 − ρ), and leaves n − 1 of 2n − 2 degrees of freedom.
        """
        return float(1 - (_t_quantile(2 * self.seeds - 2) / _t_quantile(self.seeds - 1)) ** 2)

    @property
    def pairing_helps(self) -> bool:
        """Whether the correlation is above what is needed, by more than two standard errors."""
        return self.mean - 2 * self.error > self.needed


def seed_correlation(values: Sequence[Sequence[float]]) -> SeedCorrelation | None:
    """The correlation over seeds. ``values`` has a row a cell and a column a seed, without gaps.

    None with fewer than two cells that vary or fewer than three seeds: two numbers always correlate by 1 or −1.
    """
    import numpy as np

    table = np.array(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 3:
        return None
    deviations = table.std(axis=1, ddof=1)
    table, deviations = table[deviations > 0], deviations[deviations > 0]
    cells, seeds = table.shape
    if cells < 2:
        return None
    standard = (table - table.mean(axis=1, keepdims=True)) / deviations[:, None]
    total = float((standard.sum(axis=0) ** 2).sum()) / (seeds - 1) - cells
    return SeedCorrelation(total / (cells * (cells - 1)), cells, seeds)


def difference_interval(ours: Sequence[float], theirs: Sequence[float], *, paired: bool) -> tuple[float, float] | None:
    """The 95 % interval of the mean difference of two cells over the same seeds, at least two.

    ``paired``: Student's t over the seeds' differences. Otherwise Welch's (1947), as if the cells had different seeds.
    """
    import numpy as np

    count = len(ours)
    if count < 2:
        return None
    first, second = np.array(ours, dtype=np.float64), np.array(theirs, dtype=np.float64)
    difference = float((first - second).mean())
    if paired:
        return mean_interval(difference, float((first - second).std(ddof=1)), count)
    one, other = (Estimate.over_seeds(each.mean(), each.std(ddof=1), count) for each in (first, second))
    both = average([one, other])
    half = float(_t_quantile(both.freedom) * 2 * math.sqrt(both.variance))
    return difference - half, difference + half

"""Bootstrap intervals of a mean over seeds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
EXACT = 5
"""For at most this many numbers every resample is enumerated (5⁵ = 3,125), so the interval needs no random numbers."""
RESAMPLES = 10_000
SEED = 20_190_221


def bootstrap_interval(numbers: Sequence[float]) -> tuple[float, float] | None:
    """The percentile bootstrap's 95 % interval of the mean (Efron and Tibshirani, 1993, ch. 13).

    None for fewer than two numbers. The same numbers always have the same interval, whatever else is in a table. Two
    or three numbers say little about the mean: their interval is close to their range.
    """
    import numpy as np

    if len(numbers) < 2:
        return None
    means = np.asarray(numbers, dtype=np.float64)[_resamples(len(numbers))].mean(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = (math.ceil(share * len(means)) - 1 for share in (tail, 1 - tail))  # the inverted distribution function
    ordered = np.partition(means, [low, high])
    return float(ordered[low]), float(ordered[high])


@functools.lru_cache(maxsize=32)
def _resamples(count: int) -> np.ndarray[Any, Any]:
    """Indices of the resamples. Shape (resamples, count)."""
    import numpy as np

    if count <= EXACT:
        return np.array(list(itertools.product(range(count), repeat=count)))
    return np.random.default_rng(SEED).integers(count, size=(RESAMPLES, count), dtype=np.int32)

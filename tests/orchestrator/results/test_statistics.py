"""Bootstrap intervals of few numbers and of many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.results.statistics import bootstrap_interval

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=7)


def test_one_number_has_no_interval() -> None:
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([3.0]) is None


def test_two_numbers_have_their_range_as_interval() -> None:
    """Of two numbers, a quarter of the resamples has the first one twice, and a quarter the second one."""
    assert bootstrap_interval([1.0, 3.0]) == (1.0, 3.0)


def test_three_numbers_have_their_range_as_interval() -> None:
    """One of 27 resamples (3.7 %) has the smallest number three times, which is more than the 2.5 % of a tail."""
    assert bootstrap_interval([5.0, 1.0, 3.0]) == pytest.approx((1.0, 5.0))


@settings(deadline=None)
@given(numbers)
def test_the_interval_contains_the_mean_and_lies_in_the_range(values: list[float]) -> None:
    interval = bootstrap_interval(values)
    assert interval is not None
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= interval[0] <= np.mean(values) + slack
    assert np.mean(values) - slack <= interval[1] <= max(values) + slack


@settings(deadline=None)
@given(numbers, st.integers(-8, 8), st.floats(0.125, 8))
def test_the_interval_shifts_and_scales_with_the_numbers(values: list[float], shift: int, scale: float) -> None:
    interval = bootstrap_interval(values)
    moved = bootstrap_interval([scale * value + shift for value in values])
    assert interval is not None
    np.testing.assert_allclose(moved, [scale * bound + shift for bound in interval], rtol=1e-9, atol=1e-6)


def test_the_interval_of_many_numbers_is_scipy_s() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=20)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    np.testing.assert_allclose(bootstrap_interval(values.tolist()), expected, rtol=0.03)
    assert bootstrap_interval(values.tolist()) == bootstrap_interval(values.tolist())


def test_the_interval_contains_the_true_mean_about_as_often_as_its_level_says() -> None:
    """Percentile intervals of twenty numbers are known to be a little too short: they cover 92 to 94 %."""
    source = np.random.default_rng(7)
    intervals = [bootstrap_interval(source.normal(size=20).tolist()) for _ in range(300)]
    held = np.mean([interval is not None and interval[0] <= 0 <= interval[1] for interval in intervals])
    assert 0.88 < held < 0.98

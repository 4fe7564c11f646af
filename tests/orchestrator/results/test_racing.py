"""A race: its looks, what each look spends of the error, which cells are out, and by simulation what a race promises.

Simulations have a fixed seed. Of 1,500 races, the standard error of a share of 1 % is 0.3 points, of 8 % 0.7 points.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.race import drawn, found, half_different, race
from bench.verdict import KINDS
from orchestrator.results.racing import behind, level_at, seeds_at, spent
from orchestrator.results.statistics import LEVEL, Estimate, told_apart

RACES = 1_500
FIRSTS = st.integers(2, 20)
LOOKS = st.integers(0, 12)

# looks and levels


@pytest.mark.parametrize(
    ("first", "most", "seeds"),
    [
        (2, 10, [2, 4, 7, 10]),
        (2, 20, [2, 4, 7, 12, 20]),
        (3, 10, [3, 5, 8, 10]),
        (3, 20, [3, 5, 8, 13, 20]),
        (5, 10, [5, 8, 10]),
        (5, 20, [5, 8, 13, 20]),
        (5, 5, [5]),
    ],
)
def test_each_look_has_1_6_times_the_seeds_of_the_look_before(first: int, most: int, seeds: list[int]) -> None:
    assert [seeds_at(look, first, most) for look in range(len(seeds))] == seeds
    assert seeds_at(len(seeds), first, most) == most


@given(FIRSTS, st.integers(0, 1_000), LOOKS)
def test_every_look_has_more_seeds_until_it_has_the_most(first: int, more: int, look: int) -> None:
    now, after = (seeds_at(each, first, first + more) for each in (look, look + 1))
    assert first <= now <= after <= first + more
    assert after > now or now == first + more
    assert after - now <= math.ceil(0.6 * now)


@given(FIRSTS, st.integers(0, 100), st.integers(1, 100), LOOKS)
def test_a_look_under_a_larger_most_has_more_seeds_than_the_look_before_had(
    first: int, most: int, more: int, look: int
) -> None:
    assert seeds_at(look + 1, first, first + most + more) > seeds_at(look, first, first + most)


@given(FIRSTS)
def test_all_looks_together_spend_5_percent_however_many_there_are(first: int) -> None:
    """Levels know nothing of ``most``. So a race that goes on with a larger one spends no more than another."""
    levels = [level_at(look, first) for look in range(60)]
    assert all(LEVEL < level < 1 for level in levels[:20])
    assert [spent(look, first) for look in range(60)] == pytest.approx(np.cumsum([1 - level for level in levels]))
    assert 0.0499 < spent(59, first) <= (1 - LEVEL) * (1 + 1e-12)


def test_half_of_the_error_is_spent_by_ten_seeds() -> None:
    assert spent(0, 10) == pytest.approx(0.025)
    assert [round(100 * spent(look, 3), 2) for look in range(5)] == [0.41, 1.0, 1.95, 3.14, 4.08]
    assert round(100 * level_at(3, 3), 2) == 98.81


# which cells are out


def out(means: Any, deviations: Any, counts: Any, seeds: int = 5, mode: Any = "min", level: float = 0.99) -> list[bool]:
    told: list[bool] = behind(means, deviations, counts, seeds=seeds, cells=8, level=level, mode=mode).tolist()
    return told


def test_a_cell_is_out_if_it_is_worse_than_the_best_and_told_apart_from_it() -> None:
    means, deviations, counts = [1.0, 1.1, 1.8, 9.0], [0.1, 0.1, 0.2, 6.0], [5, 5, 5, 5]
    others = Estimate.over_seeds(np.array(means), np.array(deviations), np.array(counts))
    for level in (0.95, 0.99, 0.999):
        expected = told_apart(Estimate.over_seeds(1.0, 0.1, 5), others, 8, level).tolist()
        assert out(means, deviations, counts, level=level) == expected
        assert out([-each for each in means], deviations, counts, mode="max", level=level) == expected
    assert out(means, deviations, counts, level=0.95) == [False, False, True, False]
    assert out(means, deviations, counts, level=0.999) == [False] * 4


def test_a_cell_of_one_value_is_never_out_and_nothing_is_told_apart_from_it() -> None:
    assert out([1.0, 9.0, 9.0], [0.1, None, 0.1], [5, 1, 5]) == [False, False, True]
    assert out([1.0, 9.0, 9.0], [None, 0.1, 0.1], [1, 1, 1], seeds=1) == [False] * 3
    assert out([1.0, 9.0], [None, 0.1], [1, 4]) == [False, False]  # no cell has all its seeds
    assert out([], [], []) == []


def test_a_cell_that_lacks_seeds_is_not_the_best_and_is_not_out_for_being_better() -> None:
    assert out([1.0, 9.0, 0.1], [0.1, 0.1, 0.1], [5, 5, 4]) == [False, True, False]
    assert out([1.0, 9.0, 0.1], [0.1, 0.1, 0.1], [4, 4, 4]) == [True, True, False]  # none has all its seeds


def test_many_races_at_once_are_the_same_races() -> None:
    values = np.random.default_rng(0).normal(size=(20, 6, 5)) + 3 * np.arange(6)[:, None]
    mean, deviation = values.mean(axis=-1), values.std(axis=-1, ddof=1)
    mean[:, 4] = np.nan  # out since an earlier look
    told = behind(mean, deviation, 5, seeds=5, cells=6, level=0.97, mode="min")
    kept = [0, 1, 2, 3, 5]
    for row, each in enumerate(told):
        alone = behind(mean[row, kept], deviation[row, kept], [5] * 5, seeds=5, cells=6, level=0.97, mode="min")
        assert each[kept].tolist() == alone.tolist()
        assert not each[4]
    assert 0 < told.mean() < 1


# what a race promises


@pytest.mark.parametrize("kind", ["normal", "heteroscedastic", "log-normal, σ = 0.5"])
@pytest.mark.parametrize("cells", [6, 16])
def test_in_at_most_5_of_100_races_a_cell_is_out_that_is_not_worse(cells: int, kind: str) -> None:
    """In fact it is 1 to 2 of 100 races."""
    for truth in (np.ones(cells), half_different(cells)):
        values = drawn(KINDS[kind], truth, RACES)
        for first in (2, 5):
            assert race(values, truth, first).wrong.mean() <= 0.02


@pytest.mark.parametrize("cells", [6, 16])
def test_testing_at_5_percent_at_each_look_would_err_too_often(cells: int) -> None:
    truth = np.ones(cells)
    values = drawn(KINDS["normal"], truth, RACES)
    assert race(values, truth, 3, level=lambda _: LEVEL).wrong.mean() > 0.07


def test_a_race_saves_more_than_half_of_the_trials_where_the_best_is_better_by_four_deviations() -> None:
    truth = 4.0 * (np.arange(16) > 0)
    values = np.random.default_rng(0).normal(size=(500, 16, 20)) + truth[:, None]
    raced = race(values, truth, 3)
    everything, share, named = found(raced, truth)
    assert raced.trials.mean() / (16 * 20) == pytest.approx(0.44, abs=0.02)
    assert min(everything, share, named) > 0.98


def test_a_race_that_goes_on_with_a_larger_most_keeps_what_it_decided() -> None:
    truth = 2.0 * (np.arange(6) > 0)
    values = np.random.default_rng(0).normal(size=(500, 6, 20)) + truth[:, None]
    short, whole = race(values, truth, 3, 8), race(values, truth, 3, 20)
    assert (whole.out | ~short.out).all()
    assert (whole.means[short.out] == short.means[short.out]).all()
    assert whole.out.mean() > short.out.mean() > 0

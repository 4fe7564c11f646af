"""Exact transport: closed forms, with the 1/p of the (q,p)-WGAN paper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.datasets import Mixture
from trainers.evaluation.transport import TransportEvaluator, exact_wasserstein
from trainers.objectives import GroundCost

POWERS = [(1, 1), (2, 1), (2, 2), (1.5, 3), (3, 1.2)]
POWER_GRID = pytest.mark.parametrize(("q", "p"), POWERS, ids=[f"q={q:g},p={p:g}" for q, p in POWERS])


def norm(vector: list[float], q: float) -> float:
    return sum(abs(value) ** q for value in vector) ** (1 / q)


@POWER_GRID
def test_two_diracs(q: float, p: float) -> None:
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])
    assert exact_wasserstein(x, y, q=q, p=p) == pytest.approx(norm([3, -4], q) / p ** (1 / p), rel=1e-12)


@given(n=st.integers(1, 12), q=st.floats(1, 3), p=st.floats(1, 3), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_on_a_line_sorted_points_meet(n: int, q: float, p: float, seed: int) -> None:
    x, y = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pairs = (x.flatten().sort().values - y.flatten().sort().values).abs()
    expected = (pairs**p / p).mean().item() ** (1 / p)
    assert exact_wasserstein(x, y, q=q, p=p) == pytest.approx(expected, rel=1e-9)


def test_large_sets_are_transported_optimally_too() -> None:
    """By default POT's network simplex stops after 100,000 pivots, some percent above the optimum."""
    x, y = torch.randn(2, 2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = x.flatten().sort().values - y.flatten().sort().values
    assert exact_wasserstein(x, y, q=2, p=2) == pytest.approx((pairs.square() / 2).mean().sqrt().item(), rel=1e-9)


@POWER_GRID
def test_a_translation_moves_every_point(q: float, p: float) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = [0.3, -1.2, 2.0]
    distance = exact_wasserstein(x, x + torch.tensor(shift, dtype=torch.float64), q=q, p=p)
    assert distance == pytest.approx(norm(shift, q) / p ** (1 / p), rel=1e-9)


def test_w2_of_the_libraries_is_larger_by_the_root_of_two() -> None:
    ot = pytest.importorskip("ot")
    x, y = torch.randn(2, 15, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    library = ot.emd2([], [], ot.dist(x.numpy(), y.numpy())) ** 0.5
    assert exact_wasserstein(x, y, q=2, p=2) * 2**0.5 == pytest.approx(library, rel=1e-9)


def test_sets_of_unequal_size() -> None:
    x, y = torch.tensor([[0.0]]), torch.tensor([[1.0], [2.0], [6.0]])
    assert exact_wasserstein(x, y, q=2, p=1) == pytest.approx(3)


def test_images_are_points_too() -> None:
    x, y = torch.rand(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert exact_wasserstein(x, y, q=2, p=2) == exact_wasserstein(x.flatten(1), y.flatten(1), q=2, p=2)


def test_the_evaluator_measures_against_either_split(tmp_path: Path) -> None:
    data = Mixture().load(tmp_path)
    evaluator = TransportEvaluator(data, GroundCost(2.0, 2.0))
    assert evaluator.count == 140
    of_held_out, of_train = evaluator.measure(data.held_out), evaluator.measure(data.train)
    assert of_held_out["exact_w1"] == 0
    assert of_train["exact_wqp"] == 0
    assert of_train["exact_w1"] == evaluator.floor()["exact_w1"] > 0
    moved = evaluator.measure(data.train + torch.tensor([3.0, 4.0]))
    assert moved["exact_wqp"] == pytest.approx(5 / 2**0.5, rel=1e-6)

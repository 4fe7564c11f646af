"""A converged critic estimates the exact transport cost of two small point sets: how well, by method."""

from __future__ import annotations

from collections.abc import Iterator

import ot
import pytest
import torch
from torch import Tensor, nn

from trainers.ground_costs import ground_cost
from trainers.objectives import CTransform, KantorovichRubinstein, Objective
from trainers.pair import Pair
from trainers.penalties import Admissibility, GradientPenalty, NoPenalty, Penalty

POINTS = 8
KR = KantorovichRubinstein()


@pytest.fixture(autouse=True)
def fixed_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def overlapping(dimension: int) -> tuple[Tensor, Tensor]:
    real, fake = torch.rand(2, POINTS, dimension, generator=torch.Generator().manual_seed(0)) * 2
    return real, fake


def apart(dimension: int) -> tuple[Tensor, Tensor]:
    real, fake = torch.rand(2, POINTS, dimension, generator=torch.Generator().manual_seed(0))
    return real, fake + torch.tensor([2.0, 0.5])[:dimension]


SETS = {"1-D overlapping": overlapping(1), "1-D apart": apart(1), "2-D overlapping": overlapping(2), "2-D apart": apart(2)}


def exact(x: Tensor, y: Tensor, q: float = 2, p: float = 1) -> float:
    return ot.emd2([], [], ground_cost(x.double(), y.double(), q=q, p=p).numpy())


def converged_value(
    objective: Objective, penalty: Penalty, points: tuple[Tensor, Tensor], *, critic: nn.Module | None = None
) -> float:
    """The dual value after 700 full-batch steps, the learning rate falling to zero; the mean of the last 50."""
    if critic is None:
        hidden = 64
        layers = nn.Linear(points[0].shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        critic = nn.Sequential(*layers, nn.Linear(hidden, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700)
    values = []
    for _ in range(700):
        pair = Pair(objective, critic, *points)
        value = objective.value(pair)
        optimizer.zero_grad()
        (penalty(critic, pair) - value).backward()
        optimizer.step()
        schedule.step()
        values.append(value.item())
    return sum(values[-50:]) / 50


@pytest.mark.parametrize("points", SETS.values(), ids=SETS)
@pytest.mark.parametrize(("q", "p"), [(2, 1), (1, 1), (2, 2)], ids=["W1", "W1 of q=1", "W2 squared"])
def test_c_transform_is_exact(q: float, p: float, points: tuple[Tensor, Tensor]) -> None:
    value = converged_value(CTransform(q=q, p=p), NoPenalty(), points)
    print(f"RESULT ct {q} {p} {value / exact(*points, q, p) - 1:+.4f}")


@pytest.mark.parametrize("points", SETS.values(), ids=SETS)
@pytest.mark.parametrize("weight", [10, 100])
@pytest.mark.parametrize("one_sided", [False, True], ids=["gp", "lp"])
def test_gp(one_sided, weight, points):
    w = exact(*points)
    value = converged_value(KR, GradientPenalty(weight=weight, one_sided=one_sided), points)
    print(f"RESULT {'lp' if one_sided else 'gp'} {weight} W={w:.3f} {value / w - 1:+.4f} closed {w / 2 / weight:+.4f}")


@pytest.mark.parametrize("points", SETS.values(), ids=SETS)
def test_qp(points):
    value = converged_value(CTransform(), Admissibility(), points)
    print(f"RESULT qp {value / exact(*points) - 1:+.4f}")


@pytest.mark.parametrize("one_sided", [False, True], ids=["gp", "lp"])
def test_dirac(one_sided):
    x, y = torch.tensor([[0.3, -0.1]] * 8), torch.tensor([[1.5, 1.5]] * 8)
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    value = converged_value(KR, GradientPenalty(weight=10, one_sided=one_sided), (x, y), critic=critic)
    print(f"RESULT dirac {value} {2 + 4 / 20}")

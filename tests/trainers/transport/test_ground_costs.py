"""The ground cost ‖x − y‖_q^p / p: its definition, and gradients that stay finite where x = y."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.objectives import CTransform, SoftCTransform
from trainers.pair import Pair
from trainers.penalties import Admissibility
from trainers.transport.ground_costs import ground_cost

POWERS = (1.0, 1.2, 1.5, 2.0, 3.0)
GRID = [pytest.param(q, p, id=f"q={q:g},p={p:g}") for q in POWERS for p in POWERS]
powers = st.floats(1, 4)


def points(n: int, *shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("q", "p"), GRID)
def test_equals_the_definition(q: float, p: float) -> None:
    x, y = points(5, 2, 3, seed=1), points(4, 2, 3, seed=2)
    cost = ground_cost(x, y, q=q, p=p)
    assert cost.shape == (5, 4)
    for i in range(5):
        for j in range(4):
            total = sum(abs(a - b) ** q for a, b in zip(x[i].flatten().tolist(), y[j].flatten().tolist(), strict=True))
            assert cost[i, j].item() == pytest.approx(total ** (p / q) / p, rel=1e-12)


@pytest.mark.parametrize(("q", "p"), GRID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_is_exactly_zero_at_equal_points(q: float, p: float, dtype: torch.dtype) -> None:
    x = points(40, 30, seed=3, dtype=dtype) * 100  # so many that torch.cdist would by default use its Gram matrix
    assert torch.equal(ground_cost(x, x.clone(), q=q, p=p).diagonal(), torch.zeros(40, dtype=dtype))


@given(q=powers, p=powers, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_is_the_power_of_a_metric(q: float, p: float, seed: int) -> None:
    x, y, z = (points(4, 3, seed=3 * seed + k) for k in range(3))
    xy, yx = ground_cost(x, y, q=q, p=p), ground_cost(y, x, q=q, p=p)
    torch.testing.assert_close(xy, yx.T, rtol=1e-12, atol=0)
    root = 1 / p
    detour = xy[:, :, None] ** root + ground_cost(y, z, q=q, p=p)[None, :, :] ** root
    assert (ground_cost(x, z, q=q, p=p)[:, None, :] ** root <= detour + 1e-12).all()


@pytest.mark.parametrize(("q", "p"), GRID)
def test_gradient_is_the_limit_of_differences(q: float, p: float) -> None:
    x, y = points(3, 4, seed=4).requires_grad_(), points(2, 4, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ground_cost(a, b, q=q, p=p), (x, y), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("q", "p"), GRID)
def test_gradient_is_zero_at_equal_points(q: float, p: float) -> None:
    x = points(6, 5, seed=6, dtype=torch.float32)
    y = x.clone().requires_grad_()
    ground_cost(x, y, q=q, p=p).diagonal().sum().backward()
    assert y.grad is not None
    assert torch.equal(y.grad, torch.zeros_like(y))


@pytest.mark.parametrize(("q", "p"), GRID)
def test_gradient_is_finite_between_points_nearly_equal(q: float, p: float) -> None:
    x = torch.zeros(1, 3)
    y = torch.tensor([[10.0**-k, 0, -(10.0**-k)] for k in range(46)], requires_grad=True)  # down to denormal numbers
    ground_cost(x, y, q=q, p=p).sum().backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("p2", ["eq19", "alg1"])
@pytest.mark.parametrize("search_space", ["real", "both"])
@pytest.mark.parametrize("kind", [CTransform, SoftCTransform], ids=["hard", "soft"])
@pytest.mark.parametrize(("q", "p"), GRID)
def test_training_gradients_are_finite_where_points_coincide(
    q: float, p: float, kind: type[CTransform], search_space: str, p2: str
) -> None:
    objective = kind(q=q, p=p, search_space=search_space)  # type: ignore[arg-type]
    penalty = Admissibility(p2=p2)  # type: ignore[arg-type]
    real = points(6, 4, seed=7, dtype=torch.float32)
    fake = points(6, 4, seed=8, dtype=torch.float32)
    fake[0] = real[0]  # a fake on a real point,
    fake[1] = fake[2]  # two equal fakes,
    real[3] = real[4]  # two equal real points,
    fake[5, 1:] = real[5, 1:]  # and points that differ in one coordinate only
    fake.requires_grad_()
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Flatten(0))
    pair = Pair(objective, critic, real, fake)
    for loss in (penalty(critic, pair) - objective.value(pair), objective.generator_loss(pair)):
        gradients = torch.autograd.grad(loss, [*critic.parameters(), fake], retain_graph=True, materialize_grads=True)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)

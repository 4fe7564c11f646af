"""Penalties: values on simple critics, computed by hand, and derivatives compared with finite differences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.objectives import CTransform, KantorovichRubinstein, Objective, SoftCTransform
from trainers.pair import Pair
from trainers.penalties import (
    Admissibility,
    GradientPenalty,
    NoPenalty,
    Penalty,
    WassersteinPenalty,
    WeightClipping,
)
from trainers.transport.gradients import interpolate

MakePair = Callable[..., Pair]
KR = KantorovichRubinstein()
IMAGE = (2, 3, 3)
DIFFERENTIABLE: dict[str, Penalty] = {
    "gradient": GradientPenalty(weight=3),
    "one-sided": GradientPenalty(weight=3, one_sided=True),
    "wasserstein-identity": WassersteinPenalty(reference="identity", reference_weight=0.7),
    "wasserstein-rank-one": WassersteinPenalty(reference="rank_one", reference_weight=0.7, degree="paper"),
    "wasserstein-none": WassersteinPenalty(reference="none", channel_edges=True, mass="probability"),
    "wasserstein-one-sided": WassersteinPenalty(one_sided=True, neighbourhood="cross"),
    "admissibility-eq19": Admissibility(),
    "admissibility-alg1": Admissibility(p2="alg1"),
}
EVERY_DIFFERENTIABLE = pytest.mark.parametrize("penalty", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)


def linear_critic(weights: Tensor) -> nn.Module:
    """φ(x) = w·x + 1."""
    head = nn.Linear(len(weights), 1).double()
    with torch.no_grad():
        head.weight.copy_(weights[None])
        head.bias.fill_(1)
    return nn.Sequential(nn.Flatten(), head, nn.Flatten(0))


@pytest.mark.parametrize("length", [0.0, 0.4, 1.0, 2.5])
@pytest.mark.parametrize("one_sided", [False, True], ids=["two-sided", "one-sided"])
def test_gradient_penalty_of_a_linear_critic(one_sided: bool, length: float, random_pair: MakePair) -> None:
    critic = linear_critic(length * torch.tensor([0.6, 0, -0.8], dtype=torch.float64))
    value = GradientPenalty(weight=10, one_sided=one_sided)(critic, random_pair(KR, critic=critic))
    excess = max(length - 1, 0) if one_sided else length - 1
    assert value.item() == pytest.approx(10 * excess**2, abs=1e-4 if length == 0 else 1e-9)  # √(0 + 10⁻¹²) = 10⁻⁶
    if one_sided and length < 1:
        assert value.item() == 0


@pytest.mark.parametrize("reference", ["rank_one", "identity", "none"])
def test_wasserstein_penalty_of_a_uniform_gradient_is_its_reference(reference: Any, random_pair: MakePair) -> None:
    slope, alpha = 0.3, 0.25
    pair = random_pair(KR, shape=IMAGE, critic=linear_critic(torch.full((18,), slope, dtype=torch.float64)))
    value = WassersteinPenalty(weight=4, reference=reference, reference_weight=alpha)(pair.critic, pair)
    squared = {"rank_one": alpha * 2 * (9 * slope) ** 2, "identity": alpha * 18 * slope**2, "none": 0}[reference]
    assert value.item() == pytest.approx(4 * (squared**0.5 - 1) ** 2, abs=1e-5)


@EVERY_DIFFERENTIABLE
def test_derivative_equals_differences(
    penalty: Penalty, random_pair: MakePair, smooth_critic: Callable[..., nn.Module]
) -> None:
    objective = SoftCTransform(epsilon=0.5, p=2) if isinstance(penalty, Admissibility) else KR
    module = smooth_critic(18, slope=25, width=3)
    names = [name for name, _ in module.named_parameters()]
    points = random_pair(objective, shape=IMAGE).points

    def value(*parameters: Tensor) -> Tensor:
        def critic(x: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

        torch.manual_seed(3)  # the same interpolates every time
        return penalty(critic, Pair(objective, critic, points["real"], points["fake"]))  # type: ignore[arg-type]

    parameters = tuple(p.detach().clone().requires_grad_() for p in module.parameters())
    assert value(*parameters).item() > 1e-2
    assert torch.autograd.gradcheck(value, parameters, eps=1e-6, atol=1e-7, rtol=1e-5)


@EVERY_DIFFERENTIABLE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_derivative_is_finite_where_the_critic_is_flat(penalty: Penalty, dtype: torch.dtype) -> None:
    critic = linear_critic(torch.zeros(18, dtype=torch.float64)).to(dtype)
    real, fake = torch.rand(2, 4, *IMAGE, dtype=dtype)
    penalty(critic, Pair(KR, critic, real, fake)).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


def test_interpolation_draws_one_weight_per_sample() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(50, *IMAGE, dtype=torch.float64) + 2, torch.rand(50, *IMAGE, dtype=torch.float64)
    points = interpolate(real, fake)
    weight = ((points - fake) / (real - fake)).flatten(1)
    torch.testing.assert_close(weight, weight[:, :1].expand_as(weight), rtol=0, atol=1e-12)
    drawn = weight[:, 0]
    assert 0 <= drawn.min() < 0.2
    assert 0.8 < drawn.max() <= 1
    assert len(drawn.unique()) == 50
    assert not points.requires_grad


def test_gradient_penalty_takes_each_sample_by_itself() -> None:
    def critic(x: Tensor) -> Tensor:
        return (x**2).sum(dim=1) / 2  # ∇φ(x) = x

    torch.manual_seed(5)
    pair = Pair(KR, critic, *torch.rand(2, 9, 3, dtype=torch.float64))  # type: ignore[arg-type]
    torch.manual_seed(6)
    points = interpolate(pair.points["real"], pair.points["fake"])
    torch.manual_seed(6)
    value = GradientPenalty(weight=10)(critic, pair)  # type: ignore[arg-type]
    expected = 10 * sum((point.norm().item() - 1) ** 2 for point in points) / 9
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_clipping_bounds_every_weight_and_leaves_small_ones() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 1))
    before = [p.detach().clone() for p in critic.parameters()]
    WeightClipping(bound=0.05).constrain(critic)
    for old, new in zip(before, critic.parameters(), strict=True):
        assert new.abs().max() <= 0.05
        small = old.abs() <= 0.05
        assert torch.equal(new[small], old[small])
        assert torch.equal(new[~small], 0.05 * old[~small].sign())


@pytest.mark.parametrize("penalty", [NoPenalty(), WeightClipping()], ids=["none", "clipping"])
def test_what_is_no_term_of_the_loss_is_zero(penalty: Penalty, random_pair: MakePair) -> None:
    pair = random_pair(KR)
    assert penalty(pair.critic, pair).item() == 0


@pytest.mark.parametrize("penalty", [p for n, p in DIFFERENTIABLE.items() if n != "wasserstein-one-sided"], ids=repr)
def test_only_clipping_changes_the_critic(penalty: Penalty, smooth_critic: Callable[..., nn.Module]) -> None:
    critic = smooth_critic(3)
    before = [p.clone() for p in critic.parameters()]
    penalty.constrain(critic)
    assert all(torch.equal(old, new) for old, new in zip(before, critic.parameters(), strict=True))


def xi(pair: Pair, x: Tensor, y: Tensor, psi: float) -> float:
    """ξ(x, y) = c(x, y) − φ(x) − ψ(y) of two points."""
    q, p = pair.objective.cost
    cost = ((x - y).abs() ** q).sum().item() ** (p / q) / p
    return cost - pair.critic(x[None]).item() - psi


OBJECTIVES: dict[str, Objective] = {
    "kr": KR,
    "hard-real": CTransform(q=1.5, p=2, search_space="real"),
    "hard-both": CTransform(q=2, p=1),
    "soft-both": SoftCTransform(q=2, p=2, epsilon=0.4),
}


@pytest.mark.parametrize("p2", ["eq19", "alg1"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_admissibility_equals_the_sums_of_the_paper(objective: Objective, p2: Any, random_pair: MakePair) -> None:
    pair, m = random_pair(objective, slope=20), 7
    points, psi = {}, {}
    for side in ("real", "fake"):
        points[side], psi[side] = pair.points[side], pair.psi(side).tolist()
    first = sum(
        xi(pair, points["real"][i], points["fake"][j], psi["fake"][j]) ** 2 for i, j in product(range(m), range(m))
    )
    first *= 0.3 / m**2
    slacks = [
        xi(pair, points[a][i], points[b][j], psi[b][j])
        for a, b in product(points, points)
        for i, j in product(range(m), range(m))
    ]
    second = 20 / (4 * m**2) * sum((min(slack, 0) if p2 == "eq19" else slack) ** 2 for slack in slacks)
    if objective.admissible and p2 == "eq19":
        assert second == pytest.approx(0, abs=1e-25)  # identically zero, up to rounding
    else:
        assert second > 1e-3

    for lambda1, lambda2, expected in [(0.3, 20, first + second), (0.3, 0, first), (0, 20, second), (0, 0, 0)]:
        value = Admissibility(lambda1=lambda1, lambda2=lambda2, p2=p2)(pair.critic, pair)
        assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-25)


@pytest.mark.parametrize("search_space", ["real", "both"])
def test_eq19_punishes_only_what_is_not_admissible(search_space: Any, random_pair: MakePair) -> None:
    pair = random_pair(CTransform(search_space=search_space), slope=20)
    value = Admissibility(lambda1=0, lambda2=10, p2="eq19")(pair.critic, pair).item()
    assert value == 0 if search_space == "both" else value > 0.1

"""ψ: its definition, admissibility, weak duality against exact transport, and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.objectives import CTransform, KantorovichRubinstein, Objective, SoftCTransform
from trainers.pair import Pair
from trainers.transport.ground_costs import ground_cost

MakePair = Callable[..., Pair]
POWERS = [(1, 1), (2, 1), (2, 2), (1.2, 3), (3, 1.5)]
POWER_GRID = pytest.mark.parametrize(("q", "p"), POWERS, ids=[f"q={q:g},p={p:g}" for q, p in POWERS])
SEARCH_SPACES = pytest.mark.parametrize("search_space", ["real", "both"])
OBJECTIVES: dict[str, Objective] = {
    "kr": KantorovichRubinstein(),
    "hard-real": CTransform(q=1.5, p=2, search_space="real"),
    "hard-both": CTransform(q=2, p=1),
    "hard-detached": CTransform(q=2, p=1, detach_search=True),
    "soft-real": SoftCTransform(q=2, p=2, epsilon=0.3, search_space="real"),
    "soft-both": SoftCTransform(q=1, p=1.5, epsilon=0.05),
}
EVERY_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


def exact_cost(pair: Pair) -> float:
    """OT_c between the two minibatches, by POT."""
    q, p = pair.objective.cost
    return ot.emd2([], [], ground_cost(pair.points["real"], pair.points["fake"], q=q, p=p).numpy())


def candidates(pair: Pair, search_space: str) -> Tensor:
    sides = ["real", "fake"] if search_space == "both" else ["real"]
    return torch.cat([pair.points[side] for side in sides])  # type: ignore[index]


def test_kantorovich_rubinstein_is_minus_phi(random_pair: MakePair) -> None:
    pair = random_pair(KantorovichRubinstein())
    for side in ("real", "fake"):
        assert torch.equal(pair.psi(side), -pair.critic(pair.points[side]))
    assert pair.objective.cost == (2.0, 1.0)


@SEARCH_SPACES
@POWER_GRID
def test_psi_equals_its_definition(q: float, p: float, search_space: Any, random_pair: MakePair) -> None:
    epsilon = 0.2
    hard = random_pair(CTransform(q=q, p=p, search_space=search_space))
    soft = random_pair(SoftCTransform(q=q, p=p, search_space=search_space, epsilon=epsilon))
    among = candidates(hard, search_space)
    for side in ("real", "fake"):
        for j, y in enumerate(hard.points[side]):
            scores = []
            for x in among:
                distance = ((x - y).abs() ** q).sum().item() ** (1 / q)
                scores.append(distance**p / p - hard.critic(x[None]).item())
            assert hard.psi(side)[j].item() == pytest.approx(min(scores), rel=1e-12)
            mean = sum(math.exp(-score / epsilon) for score in scores) / len(scores)
            assert soft.psi(side)[j].item() == pytest.approx(-epsilon * math.log(mean), rel=1e-10)


@POWER_GRID
def test_search_space_both_is_admissible_on_both_minibatches(q: float, p: float, random_pair: MakePair) -> None:
    pair = random_pair(CTransform(q=q, p=p, search_space="both"), slope=20)
    for x, y in product(("real", "fake"), repeat=2):
        slack = pair.slack(x, y)
        assert slack.min() >= -1e-12
    assert pair.objective.admissible


@POWER_GRID
def test_search_space_real_is_admissible_from_the_real_points_to_everywhere(
    q: float, p: float, random_pair: MakePair
) -> None:
    pair = random_pair(CTransform(q=q, p=p, search_space="real"), slope=20)
    assert pair.slack("real", "fake").min() >= -1e-12
    assert pair.slack("real", "real").min() >= -1e-12
    assert pair.slack("fake", "fake").min() < 0  # a steep critic: nothing holds it between fakes
    assert not pair.objective.admissible


def test_an_objective_that_calls_itself_admissible_is(random_pair: MakePair) -> None:
    for objective in OBJECTIVES.values():
        pair = random_pair(objective, slope=20)
        lowest = min(pair.slack(x, y).min().item() for x, y in product(("real", "fake"), repeat=2))
        assert objective.admissible == (lowest >= -1e-12)


@given(
    q=st.floats(1, 4),
    p=st.floats(1, 4),
    slope=st.floats(0, 50),
    seed=st.integers(0, 1000),
    search_space=st.sampled_from(["real", "both"]),
    epsilon=st.floats(1e-3, 2),
)
@settings(deadline=None, max_examples=60)
def test_weak_duality(
    random_pair: MakePair, *, q: float, p: float, slope: float, seed: int, search_space: Any, epsilon: float
) -> None:
    hard = random_pair(CTransform(q=q, p=p, search_space=search_space), slope=slope, seed=seed)
    soft = random_pair(SoftCTransform(q=q, p=p, search_space=search_space, epsilon=epsilon), slope=slope, seed=seed)
    optimum = exact_cost(hard)
    excess = epsilon * math.log(len(candidates(soft, search_space)))
    assert hard.objective.value(hard).item() <= optimum + 1e-9
    assert soft.objective.value(soft).item() <= optimum + excess + 1e-9
    difference = soft.psi("fake") - hard.psi("fake")
    assert difference.min() >= -1e-9
    assert difference.max() <= excess + 1e-9


@SEARCH_SPACES
def test_soft_becomes_hard(search_space: Any, random_pair: MakePair) -> None:
    hard = random_pair(CTransform(search_space=search_space)).psi("fake")
    distances = []
    for epsilon in (1.0, 0.1, 0.01, 0.001, 1e-8):
        soft = random_pair(SoftCTransform(search_space=search_space, epsilon=epsilon)).psi("fake")
        distances.append((soft - hard).max().item())
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.1
    assert distances[-1] < 1e-6


@EVERY_OBJECTIVE
def test_a_constant_added_to_phi_changes_no_value(objective: Objective, random_pair: MakePair) -> None:
    pair = random_pair(objective)
    raised = random_pair(objective, critic=lambda points: pair.critic(points) + 17.25)
    torch.testing.assert_close(objective.value(raised), objective.value(pair), rtol=0, atol=1e-12)


@EVERY_OBJECTIVE
def test_the_order_of_a_batch_changes_no_value(objective: Objective, random_pair: MakePair) -> None:
    pair = random_pair(objective)
    real, fake = (pair.points[side][torch.randperm(7)] for side in ("real", "fake"))
    shuffled = Pair(objective, pair.critic, real, fake)
    torch.testing.assert_close(objective.value(shuffled), objective.value(pair), rtol=0, atol=1e-12)
    torch.testing.assert_close(objective.generator_loss(shuffled), objective.generator_loss(pair), rtol=0, atol=1e-12)


@SEARCH_SPACES
@POWER_GRID
def test_scaled_points_scale_the_value_by_the_power_p(
    q: float, p: float, search_space: Any, random_pair: MakePair
) -> None:
    s = 2.5
    for epsilon in (None, 0.3):
        if epsilon is None:
            one = other = CTransform(q=q, p=p, search_space=search_space)
        else:
            one = SoftCTransform(q=q, p=p, search_space=search_space, epsilon=epsilon)
            other = SoftCTransform(q=q, p=p, search_space=search_space, epsilon=epsilon * s**p)
        pair = random_pair(one)
        critic = pair.critic
        larger = Pair(
            other,
            lambda points, critic=critic: s**p * critic(points / s),  # type: ignore[arg-type]
            s * pair.points["real"],
            s * pair.points["fake"],
        )
        torch.testing.assert_close(other.value(larger), s**p * one.value(pair), rtol=1e-12, atol=1e-12)


@POWER_GRID
def test_under_real_the_generator_sees_the_gradient_of_the_cost_alone(
    q: float, p: float, random_pair: MakePair
) -> None:
    pair = random_pair(CTransform(q=q, p=p, search_space="real"))
    real, fake = pair.points["real"], pair.points["fake"].requires_grad_()
    (gradient,) = torch.autograd.grad(pair.objective.generator_loss(pair), fake)
    cost = ground_cost(real, fake, q=q, p=p)
    nearest = (cost - pair.critic(real)[:, None]).argmin(dim=0)
    (expected,) = torch.autograd.grad(cost[nearest, torch.arange(7)].mean(), fake)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-14)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", [CTransform, SoftCTransform], ids=["hard", "soft"])
@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
def test_detach_search_stops_the_generators_gradient_through_the_candidates(
    detach: bool, kind: type[CTransform], random_pair: MakePair
) -> None:
    objective = kind(q=2, p=2, detach_search=detach)
    pair = random_pair(objective)
    fake = pair.points["fake"].requires_grad_()
    (gradient,) = torch.autograd.grad(objective.generator_loss(pair), fake)

    searched = torch.cat([pair.points["real"], fake.detach() if detach else fake])
    phi = pair.critic(searched)
    scores = ((searched[:, None] - fake[None]) ** 2).sum(dim=2) / 2 - phi[:, None]
    if isinstance(objective, SoftCTransform):
        psi = -objective.epsilon * (-scores / objective.epsilon).logsumexp(dim=0)
    else:
        psi = scores.min(dim=0).values
    (expected,) = torch.autograd.grad(psi.mean(), fake)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    assert gradient.abs().sum() > 0


def test_with_detach_search_the_critic_still_learns_from_fakes(random_pair: MakePair) -> None:
    def critic_gradient(**options: Any) -> tuple[Tensor, ...]:
        pair = random_pair(CTransform(**options))  # fakes as in the critic's step, without a gradient
        return torch.autograd.grad(pair.objective.value(pair), list(pair.critic.parameters()))

    attached, detached = critic_gradient(), critic_gradient(detach_search=True)
    assert all(torch.equal(one, other) for one, other in zip(attached, detached, strict=True))
    # Here some y has its minimum at a fake, so that φ(fake) has an effect:
    assert not torch.equal(detached[0], critic_gradient(search_space="real")[0])


@EVERY_OBJECTIVE
def test_scoring_both_minibatches_at_once_changes_nothing(objective: Objective, random_pair: MakePair) -> None:
    one_by_one, at_once = random_pair(objective), random_pair(objective)
    at_once.score()
    torch.testing.assert_close(objective.value(at_once), objective.value(one_by_one), rtol=0, atol=1e-14)


@EVERY_OBJECTIVE
def test_images_are_points_too(objective: Objective, smooth_critic: Callable[..., nn.Module]) -> None:
    critic = smooth_critic(12)
    real, fake = torch.rand(2, 5, 3, 2, 2, dtype=torch.float64)
    images, vectors = Pair(objective, critic, real, fake), Pair(objective, critic, real.flatten(1), fake.flatten(1))
    assert torch.equal(objective.value(images), objective.value(vectors))

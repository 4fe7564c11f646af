"""The data as an opponent, exact transport without a critic, and the model of a few points."""

from __future__ import annotations

import copy
from collections.abc import Callable

import ot
import pytest
import torch
from twins import assert_equal_critics, interrupted_twins

from trainers.config import TrialConfig, identity_of
from trainers.datasets import to_input
from trainers.pair import Pair
from trainers.parts import ConfigError
from trainers.training import Training
from trainers.untrained import Resampler

Start = Callable[..., Training]


def test_resampled_examples_are_the_data_s_uniform_and_independent() -> None:
    examples = torch.arange(8, dtype=torch.float32)[:, None]
    drawn = Resampler(examples)(torch.randn(8000, 3, generator=torch.Generator().manual_seed(0)))
    counts = drawn[:, 0].long().bincount(minlength=8)
    assert drawn.shape == (8000, 1)
    assert (counts - 1000).abs().max() < 120  # four standard deviations
    assert Resampler(examples)(torch.tensor([[-40.0], [40.0]])).tolist() == [[0.0], [7.0]]


def test_images_come_as_networks_see_them(start: Start) -> None:
    training = start(opponent="data")
    drawn = training.generator(torch.randn(50, 8))
    known = to_input(training.data.train).flatten(1)
    assert all((known == row).all(dim=1).any() for row in drawn.flatten(1))


def test_against_the_data_the_critic_alone_is_trained(start: Start) -> None:
    training = start(opponent="data", budget=5)
    before = copy.deepcopy(training.critic.state_dict())
    record = training.run_epoch()
    assert record is not None
    assert "generator_loss" not in record
    assert list(training.generator.parameters()) == []
    assert not all(torch.equal(before[name], tensor) for name, tensor in training.critic.state_dict().items())


def test_a_trial_against_the_data_resumes_to_the_bit(start: Start) -> None:
    assert_equal_critics(*interrupted_twins(start, opponent="data", budget=30, network={"dropout": 0.2}))


def test_options_that_came_later_leave_identities_alone(trial: Callable[..., TrialConfig]) -> None:
    values = trial().to_dict()
    for name in ("opponent", "probes"):
        del values[name]
    del values["evaluation"]["stop_at"]
    assert identity_of(values) == trial().identity == trial(opponent="generator", probes=[]).identity
    assert len({trial().identity, trial(opponent="data").identity, trial(probes=["nearest"]).identity}) == 3


@pytest.mark.parametrize("p", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("q", [1.0, 2.0])
def test_without_a_critic_the_dual_value_is_the_exact_cost(start: Start, q: float, p: float) -> None:
    training = start(dataset="mixture", objective={"name": "exact_transport", "q": q, "p": p}, penalty="none")
    objective, real = training.config.objective, training.data.train[:20]
    fake = training.generator(torch.randn(20, 8))
    pair = Pair(objective, training.critic, real, fake)
    pair.score()
    cost = torch.cdist(real.double(), fake.detach().double(), p=q) ** p / p
    expected = float(ot.emd2([], [], cost.numpy()))
    assert objective.value(pair).item() == pytest.approx(expected, rel=1e-4)
    assert objective.generator_loss(pair).item() == pytest.approx(expected, rel=1e-4)


def test_the_generator_descends_the_exact_cost(start: Start) -> None:
    """Compares with finite differences of the transport cost, at a point where the plan is unique."""
    training = start(
        dataset="atoms", network="atoms", objective={"name": "exact_transport", "p": 2}, penalty="none", batch_size=70
    )
    points = training.generator.points
    with torch.no_grad():
        points.copy_(torch.randn(7, 2, generator=torch.Generator().manual_seed(3)))

    def cost() -> torch.Tensor:
        pair = Pair(
            training.config.objective, training.critic, training.data.train, training.generator(torch.zeros(70, 1))
        )
        return training.config.objective.generator_loss(pair)

    (gradient,) = torch.autograd.grad(cost(), [points])
    for index in [(0, 0), (3, 1), (6, 0)]:
        values = []
        for step in (1e-2, -2e-2):
            with torch.no_grad():
                points[index] += step
            values.append(cost().item())
        with torch.no_grad():
            points[index] += 1e-2
        assert gradient[index].item() == pytest.approx((values[0] - values[1]) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("p", [1.0, 2.0, 5.0])
def test_seven_points_come_close_to_ten(start: Start, p: float) -> None:
    """Mallasto et al., Fig. 1: the points start at the origin, and the cost falls to that of a good fit."""
    objective = {"name": "exact_transport", "p": p}
    training = start(
        dataset="atoms",
        network="atoms",
        objective=objective,
        penalty="none",
        batch_size=70,
        budget=300,
        evaluation={"name": "transport"},
        generator={"lr": 0.02},
    )
    before = training.evaluate().metrics["exact_wqp"]
    while not training.finished:
        training.run_epoch()
    after = training.evaluate()
    assert len(after.samples.unique(dim=0)) == 7
    assert after.metrics["exact_wqp"] < 0.5 * before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"objective": "exact_transport"}, "penalty.name: exact_transport has no critic", id="penalty"),
        pytest.param({"opponent": "dat"}, "opponent: there is no .* 'dat'; did you mean 'data'", id="slip"),
    ],
)
def test_what_does_not_fit_is_refused(trial: Callable[..., TrialConfig], changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        trial(**changes)

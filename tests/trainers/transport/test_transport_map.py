"""Noise as an opponent: φ is the potential of the noise, and its transport map carries the noise to the data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from function_critic import FunctionCritic
from torch import Tensor, nn
from twins import assert_equal_critics, interrupted_twins

from trainers.config import TrialConfig
from trainers.datasets import to_examples
from trainers.pair import Pair
from trainers.parts import ConfigError
from trainers.training import EVALUATION_SEED, Diverged, Training
from trainers.transport.transport_map import transport_map
from trainers.untrained import NOISE_SCALE

Start = Callable[..., Training]
AGAINST_NOISE = {"opponent": "noise", "objective": {"name": "c_transform", "p": 2}, "penalty": "none"}


@pytest.fixture
def points() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("p", [1.2, 2.0, 5.0])
@pytest.mark.parametrize("q", [1.05, 1.2, 2.0, 3.0])
def test_the_potential_of_a_translation_translates(points: Tensor, q: float, p: float) -> None:
    """φ(x) = ⟨∇h(−s), x⟩ is optimal from any distribution to itself moved by s, h(z) = ‖z‖_q^p / p."""
    moved_by = torch.tensor([1.0, -0.5, 0.0, 2.0], dtype=torch.float64)
    back = -moved_by.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(back.abs().pow(q).sum() ** (p / q) / p, back)
    mapped = transport_map(FunctionCritic(lambda x: x @ slope), points, q=q, p=p)
    assert torch.allclose(mapped, points + moved_by)


def test_the_potential_of_a_dilation_dilates(points: Tensor) -> None:
    """Half the squared distance: φ(x) = (1 − a) ‖x‖² / 2 is optimal from N(0, 1) to N(0, a²)."""
    mapped = transport_map(FunctionCritic(lambda x: -x.square().sum(dim=1)), points, q=2, p=2)
    assert torch.allclose(mapped, 3 * points)


@pytest.mark.parametrize(("q", "p"), [(2.0, 2.0), (1.2, 5.0), (3.0, 1.2)])
def test_where_the_potential_is_flat_nothing_moves(q: float, p: float) -> None:
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(transport_map(FunctionCritic(lambda x: 0 * x.sum(dim=(1, 2, 3))), images, q=q, p=p), images)


def test_the_trained_potential_carries_noise_to_the_data(start: Start) -> None:
    """The data are N([1, 1], I), so the optimal map takes noise σz to z + [1, 1]."""
    network = {"critic_widths": [64, 64]}
    training = start(dataset="gaussians", **AGAINST_NOISE, network=network, critic={"lr": 3e-3}, budget=312)
    latent = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))

    def error() -> float:
        mapped = training.to_samples(training.generator(latent))
        return (mapped - (latent + 1)).square().sum(dim=1).mean().sqrt().item()

    untrained = error()
    while not training.finished:
        training.run_epoch()
    assert untrained > 1
    assert error() < 0.4


def test_samples_are_noise_after_the_map(start: Start) -> None:
    training = start(**AGAINST_NOISE, network={"dropout": 0.5})
    latent = torch.randn(70, 64, generator=torch.Generator().manual_seed(EVALUATION_SEED))
    training.critic.eval()
    mapped = transport_map(training.critic, NOISE_SCALE * latent.unflatten(1, (1, 8, 8)), q=2, p=2)
    training.critic.train()
    assert torch.equal(training.sample(70), to_examples(mapped, like=training.data.train))
    assert training.critic.training


def test_the_potential_lives_on_the_noise(start: Start) -> None:
    """The dual value is mean φ(noise) + mean ψ(data), where ψ is the minimum over the noise."""
    training = start(dataset="gaussians", **AGAINST_NOISE)
    real, noise = training.data.train[:9], torch.randn(9, 2)
    objective = training.config.objective
    assert torch.equal(training.config.opponent.in_order(real, noise)[0], noise)
    phi = training.critic(noise)
    psi = (torch.cdist(noise, real).square() / 2 - phi[:, None]).amin(dim=0)
    sides = training.config.opponent.in_order(real, noise)
    value = objective.value(Pair(training.config.objective, training.critic, *sides))
    assert value.item() <= (phi.mean() + psi.mean()).item() + 1e-6  # with B = both it may be still lower


def test_a_map_that_overflows_is_no_picture(start: Start) -> None:
    """‖∇φ‖^{1/(p−1)} for p = 1.01 and a gradient of 3 is 3¹⁰⁰."""
    training = start(opponent="noise", objective={"name": "c_transform", "p": 1.01}, penalty="none")
    training.critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    with torch.no_grad():
        training.critic[1].weight.fill_(3 / 8)
    with pytest.raises(Diverged, match=r"the transport map for p = 1\.01 is not finite after critic iteration 0"):
        training.sample(3)


def test_no_generator_is_trained(start: Start) -> None:
    training = start(**AGAINST_NOISE)
    record = training.run_epoch()
    assert record is not None
    assert "generator_loss" not in record
    assert list(training.generator.parameters()) == []


def test_a_trial_against_noise_resumes_to_the_bit(start: Start) -> None:
    undisturbed, resumed = interrupted_twins(start, **AGAINST_NOISE, reuse_batch=True, budget=30)
    assert_equal_critics(undisturbed, resumed)
    assert torch.equal(undisturbed.sample(3), resumed.sample(3))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"p": 1.0}, "opponent: noise needs .*: p = 1 has no transport map", id="p = 1"),
        pytest.param({"q": 1.0, "p": 2.0}, "opponent: .*: with q = 1 .* above 1, got q = 1, p = 2", id="q = 1"),
        pytest.param({"name": "kantorovich_rubinstein"}, "p = 1 has no transport map", id="Kantorovich-Rubinstein"),
        pytest.param({"name": "exact_transport", "p": 2.0}, "exact_transport has no critic to carry noise", id="exact"),
    ],
)
def test_ground_costs_without_a_map_are_refused(
    trial: Callable[..., TrialConfig], changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        trial(opponent="noise", objective={"name": "c_transform", **changes}, penalty="none")

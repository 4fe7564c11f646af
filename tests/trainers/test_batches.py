"""The images and the noise that critic and generator steps use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainers.datasets import epoch_order, to_input
from trainers.training import Training

Start = Callable[..., Training]
EPOCH = 20  # critic iterations in an epoch of the small trial: 1,297 digits in batches of 64


def observed(training: Training) -> tuple[list[Tensor], list[Tensor]]:
    """Records the inputs of generator and critic. A critic step has real images, then fakes, in one pass."""
    noise: list[Tensor] = []
    points: list[Tensor] = []
    training.generator.register_forward_pre_hook(lambda _, inputs: noise.append(inputs[0].detach().clone()))
    training.critic.register_forward_pre_hook(lambda _, inputs: points.append(inputs[0].detach().clone()))
    return noise, points


def test_the_gradient_norm_is_half_way_between_the_last_pair_without_dropout(start: Start) -> None:
    training = start(network={"dropout": 0.5}, penalty="none", critic_iterations=3, budget=8)
    _, points = observed(training)
    record = training.run_epoch()
    assert record is not None
    real, fake = next(batch for batch in reversed(points) if len(batch) == 128).split(64)  # the last critic step's
    middle = ((real + fake) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(training.critic.eval()(middle).sum(), middle)
    assert record["critic_gradient_norm"] == pytest.approx(gradient.flatten(1).norm(dim=1).mean().item(), rel=1e-5)


def contents(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in tensors]


def test_an_epoch_visits_its_permutation_of_the_images(start: Start) -> None:
    training = start(penalty="clipping", critic_iterations=9 * EPOCH, budget=2 * EPOCH, seed=5)  # only critic steps
    _, points = observed(training)
    for epoch in range(2):
        training.run_epoch()
        visited = torch.cat([batch[:64] for batch in points[:EPOCH]])
        order = epoch_order(1297, seed=5, epoch=epoch)[: EPOCH * 64]
        assert torch.equal(visited, to_input(training.data.train[order]))
        points.clear()


def test_every_step_has_noise_of_its_own(start: Start) -> None:
    training = start(penalty="none", critic_iterations=3, budget=12)
    noise, points = observed(training)
    training.run_epoch(should_stop=lambda: training.iteration == 3)
    assert len(set(contents(noise))) == 4  # three critic steps, one of the generator
    assert len(set(contents([batch[:64] for batch in points[:3]]))) == 3


def test_algorithm_1_reuses_one_batch_of_images_and_noise(start: Start) -> None:
    changes = {"objective": "c_transform", "penalty": "none"}  # its generator step uses real images too
    training = start(**changes, critic_iterations=3, reuse_batch=True, budget=12)
    firsts = []
    for done in (3, 6, 9):
        noise, points = observed(training)
        training.run_epoch(should_stop=lambda done=done: training.iteration == done)
        assert len(noise) == 4  # three critic steps, one of the generator
        assert len(set(contents(noise))) == 1
        critic_steps, generator_step = points[:3], points[3:]
        real = contents([batch[:64] for batch in critic_steps])
        assert len(set(real)) == 1
        assert real[0] in contents(generator_step)
        firsts += [*contents(noise)[:1], real[0]]
    assert len(set(firsts)) == 6  # the next round has a batch of its own

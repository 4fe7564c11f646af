"""Checks, once and before training, that a trial's parts return what their kinds promise.

A part from another package may return a wrong shape, or a result that passes no gradient on. Such a part would often
train without an error, but train something else than was meant. The checks use a few examples and change no weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainers.datasets import Data, Dataset, to_input
from trainers.metrics import Metric, names_of
from trainers.objectives import GroundCost, Objective
from trainers.pair import Critic, Pair
from trainers.parts import Part, PartError
from trainers.penalties import GradientPenalty, Penalty

if TYPE_CHECKING:
    from trainers.training import Training


def check_data(dataset: Dataset, data: Data) -> None:
    """Raises :class:`PartError` for arrays whose shape, size or type is not the one that the dataset states."""
    example = torch.uint8 if len(dataset.shape) == 3 else torch.float32
    expect(dataset, "train", data.train, (dataset.train_size, *dataset.shape), example)
    expect(dataset, "held_out", data.held_out, (dataset.held_out_size, *dataset.shape), example)
    if data.other is not None:
        expect(dataset, "other", data.other, (len(data.other), *dataset.shape), example)
    if dataset.labelled:
        expect(dataset, "train_labels", data.train_labels, (dataset.train_size,), torch.int64)
        expect(dataset, "held_out_labels", data.held_out_labels, (dataset.held_out_size,), torch.int64)


def check_parts(training: Training) -> None:
    """Raises :class:`PartError` for a network, opponent, objective or penalty whose results are wrong.

    They are wrong if they have another shape than they should have, or pass no gradient to the weights that learn from
    them. It draws from torch's global random state.
    """
    networks = training.critic, training.generator
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()  # so that batch normalisation keeps its statistics
    try:
        _check_parts(training)
    finally:
        for network, was_training in zip(networks, modes, strict=True):
            network.train(was_training)


def _check_parts(training: Training) -> None:
    config, critic = training.config, training.critic
    objective, penalty, opponent = config.objective, config.penalty, config.opponent
    shape = config.dataset.shape
    m = next(size for size in count(2) if size not in shape)  # no other dimension has this size
    real = to_input(training.data.train[torch.arange(m) % len(training.data.train)]).to(training.device)
    latent = torch.randn(m, config.latent_size, device=training.device)
    made = training.generator(latent)
    expect(config.network if opponent.trained else opponent, "the generator", made, (m, *shape))
    points = real.clone().requires_grad_()
    expect(config.network, "the critic", scores := critic(points), (m,))
    expect_gradient(config.network, "the critic", scores, "the critic's weights", critic.parameters())
    expect_gradient(config.network, "the critic", scores, "the critic's input", [points])
    if not isinstance(objective.cost, GroundCost):
        raise _wrong(objective, f"cost is {objective.cost!r} and should be a GroundCost(q, p)")
    pair = Pair(objective, critic, *opponent.in_order(real, made.detach()))
    if type(objective).psi is not Objective.psi:  # exact transport needs none
        expect(objective, "psi", pair.psi("fake"), (m,))
        expect_gradient(objective, "psi", pair.psi("fake"), "the critic's weights", critic.parameters())
    expect(objective, "value", value := objective.value(pair), ())
    expect_gradient(objective, "value", value, "the critic's weights", critic.parameters())
    _check_penalty(penalty, critic, pair)
    if opponent.trained:
        weights = list(training.generator.parameters())
        expect_gradient(config.network, "the generator", made, "the generator's weights", weights)
        loss = objective.generator_loss(Pair(objective, critic, real, training.generator(latent)))
        expect(objective, "generator_loss", loss, ())
        expect_gradient(objective, "generator_loss", loss, "the generator's weights", weights)


def _check_penalty(penalty: Penalty, critic: nn.Module, pair: Pair) -> None:
    """Checks a penalty's term, and the norm of a gradient penalty. Without a weight, a norm changes nothing."""
    if isinstance(penalty, GradientPenalty):
        norm = penalty.norm(*penalty.gradient(critic, pair))
        expect(penalty, "norm", norm, tuple(pair.points["real"].shape[:1]))
        if penalty.weight:
            expect_gradient(penalty, "norm", norm, "the critic's weights", critic.parameters())
    expect(penalty, "__call__", term := penalty(critic, pair), ())
    if not term.requires_grad and not term:  # no penalty, or one that a small slope does not meet
        term = penalty(steep := _steep(critic), Pair(pair.objective, steep, *pair.points.values()))
    if term.requires_grad or term:
        expect_gradient(penalty, "__call__", term, "the critic's weights", critic.parameters())


def _steep(critic: nn.Module) -> Critic:
    """The critic times a large number, which no one-sided penalty leaves unpunished."""
    return lambda points: 1e4 * critic(points)


def check_metrics(part: Part, measured: Collection[str], stated: Sequence[Metric], needed: Sequence[Metric]) -> None:
    """Raises :class:`PartError` if a part measures a metric that it does not state, or misses a needed one."""
    if others := sorted(set(measured) - set(names_of(stated))):
        raise _wrong(part, f"it measures {', '.join(others)}, which its class does not state as metrics")
    if missing := [name for name in names_of(needed) if name not in measured]:
        raise _wrong(part, f"its class states the metrics {', '.join(missing)}, and it does not measure them")


def expect(part: Part, what: str, result: Any, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Raises :class:`PartError`, which names the part, if a result is not a tensor of this shape and type."""
    wanted = f"shape {shape}" + (f" and type {dtype}" if dtype else "")
    if not isinstance(result, Tensor):
        raise _wrong(part, f"{what} is a {type(result).__name__} and should be a tensor of {wanted}")
    if tuple(result.shape) != shape or (dtype is not None and result.dtype != dtype):
        got = f"shape {tuple(result.shape)}" + (f" and type {result.dtype}" if dtype else "")
        raise _wrong(part, f"{what} has {got} and should have {wanted}")


def expect_gradient(part: Part, what: str, result: Tensor, where: str, tensors: Iterable[Tensor]) -> None:
    """Raises :class:`PartError`, which names the part, if a result passes no gradient to any of these tensors."""
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    if trained and result.requires_grad:
        gradients = torch.autograd.grad(result.sum(), trained, retain_graph=True, allow_unused=True)
        if any(gradient is not None for gradient in gradients):
            return
    raise _wrong(
        part,
        f"{what} passes no gradient to {where}, so nothing would be learned from it; compute it by torch alone, "
        "without detach(), item(), numpy() or no_grad()",
    )


def _wrong(part: Part, problem: str) -> PartError:
    return PartError(f"the {part.kind} '{part.name}' ({type(part).__module__}.{type(part).__name__}): {problem}")

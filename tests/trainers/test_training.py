"""Running one trial: budgets, steps, seeds, learning rates, averages, divergence, and separate random states."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.parts import ConfigError, built_in
from trainers.training import Diverged, Training

EPOCH = 20  # critic iterations in an epoch of the small trial: 1,297 digits in batches of 64


Start = Callable[..., Training]


def run(training: Training) -> list[dict[str, float]]:
    """The records of all epochs, without times and memory."""
    records = []
    while not training.finished:
        record = training.run_epoch()
        assert record is not None
        records.append({k: v for k, v in record.items() if not k.endswith(("_seconds", "_second", "_mb"))})
    return records


def weights(training: Training, network: str) -> Tensor:
    return torch.cat([p.detach().flatten() for p in getattr(training, network).parameters()]).clone()


def generator_steps(training: Training) -> int:
    """The number of steps that the optimizer has counted."""
    state = training.state_dict()["generator_optimizer"]["state"]
    return int(state[0]["step"]) if state else 0


OBJECTIVES: dict[str, dict[str, Any]] = {
    "kr": {"name": "kantorovich_rubinstein"},
    "c_transform-both": {"name": "c_transform"},
    "c_transform-real": {"name": "c_transform", "search_space": "real", "q": 1.5, "p": 3},
    "soft-both": {"name": "soft_c_transform", "p": 2, "detach_search": True},
}


@pytest.mark.parametrize("dataset", ["digits", "mixture"])
@pytest.mark.parametrize("penalty", built_in("penalty"))
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective_trains_under_every_penalty(
    objective: dict[str, Any], penalty: str, dataset: str, start: Start
) -> None:
    changes = {"objective": objective, "penalty": penalty, "dataset": dataset, "budget": 3, "batch_size": 32}
    if (penalty, dataset) == ("wasserstein", "mixture"):
        with pytest.raises(ConfigError, match="needs images"):
            start(**changes)
        return
    training = start(**changes)
    before = weights(training, "critic"), weights(training, "generator")
    (record,) = run(training)
    assert all(np.isfinite(value) for value in record.values())
    assert record["critic_loss"] == pytest.approx(record["penalty"] - record["dual_value"], rel=1e-5, abs=1e-6)
    for old, name in zip(before, ("critic", "generator"), strict=True):
        new = weights(training, name)
        assert new.isfinite().all()
        assert not torch.equal(new, old)


@pytest.mark.parametrize(
    ("budget", "critic_iterations"), [(1, 1), (20, 1), (47, 1), (47, 5), (3, 5), (60, 7), (45, 20)]
)
@pytest.mark.parametrize("reuse_batch", [False, True], ids=["fresh", "reused"])
def test_the_budget_counts_critic_iterations(
    budget: int, critic_iterations: int, reuse_batch: bool, start: Start
) -> None:
    training = start(budget=budget, critic_iterations=critic_iterations, reuse_batch=reuse_batch)
    reached = []
    while not training.finished:
        record = training.run_epoch()
        assert record is not None
        reached.append((training.epoch, training.iteration))
        steps = (
            training.iteration // critic_iterations - (reached[-2][1] if len(reached) > 1 else 0) // critic_iterations
        )
        assert ("generator_loss" in record) == (steps > 0)  # an epoch without a generator step has no generator loss
    assert reached == [(i + 1, min((i + 1) * EPOCH, budget)) for i in range(-(-budget // EPOCH))]
    assert generator_steps(training) == budget // critic_iterations


@pytest.mark.parametrize("times", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("budget", [1, 20, 45, 100, 139, 140])
def test_evaluations_are_spread_over_the_budget_with_one_at_its_end(budget: int, times: int, start: Start) -> None:
    training = start(budget=budget, evaluation={"times": times})
    due = []
    while not training.finished:
        training.iteration = min(training.iteration + EPOCH, budget)  # as after an epoch, without training
        due.append(training.evaluation_due)
    assert due[-1]
    assert sum(due) == min(times, len(due))  # at most one an epoch
    at = [i + 1 for i, is_due in enumerate(due) if is_due]
    if times <= len(due):
        for number, epoch in enumerate(at, start=1):  # the first epoch that reaches its share
            assert (epoch - 1) * EPOCH * times < number * budget <= min(epoch * EPOCH, budget) * times


def test_one_seed_is_one_result_and_another_seed_another(start: Start) -> None:
    results = []
    for seed in (3, 3, 4):
        training = start(seed=seed, budget=25)
        torch.rand(5)  # independent of the global random state
        results.append((run(training), training.evaluate().samples, weights(training, "critic")))
    one, same, other = results
    assert one[0] == same[0]
    assert torch.equal(one[1], same[1])
    assert torch.equal(one[2], same[2])
    assert one[0] != other[0]
    assert not torch.equal(one[1], other[1])


def global_random_state() -> list[bytes]:
    return [
        torch.get_rng_state().numpy().tobytes(),
        np.random.get_state()[1].tobytes(),
        repr(random.getstate()).encode(),
    ]


@pytest.mark.parametrize(
    "evaluation", [{"name": "none"}, {"name": "classifier", "samples": 100}], ids=["none", "classifier"]
)
@pytest.mark.filterwarnings("ignore:.*samples leave the covariance")
def test_the_global_random_state_is_nobodys_business(evaluation: dict[str, Any], start: Start) -> None:
    network = {"name": "mlp", "latent_size": 4, "generator_widths": [8], "critic_widths": [8], "dropout": 0.3}
    before = global_random_state()
    training = start(network=network, evaluation=evaluation, budget=25)
    training.run_epoch()
    training.evaluate()
    training.run_epoch()
    assert global_random_state() == before


@pytest.mark.filterwarnings("ignore:.*samples leave the covariance")
def test_evaluation_does_not_change_what_training_does_next(start: Start) -> None:
    network = {"name": "dcgan", "latent_size": 4, "generator_widths": [4, 4], "critic_widths": [4], "stem_norm": True}
    changes = {"network": network, "evaluation": {"name": "classifier", "samples": 100}, "budget": 50}
    undisturbed, evaluated = start(**changes), start(**changes)
    expected = run(undisturbed)
    records = []
    while not evaluated.finished:
        records.append(evaluated.run_epoch())
        samples = evaluated.evaluate().samples
        assert torch.equal(evaluated.evaluate().samples, samples)
        assert evaluated.generator.training
        assert all(module.training for module in evaluated.generator.modules())
    for record, other in zip(expected, records, strict=True):
        assert other is not None
        assert record == {key: other[key] for key in record}
    for name in ("critic", "generator"):
        assert torch.equal(weights(evaluated, name), weights(undisturbed, name))
    undisturbed_state, evaluated_state = (t.generator.state_dict() for t in (undisturbed, evaluated))
    assert all(torch.equal(undisturbed_state[key], evaluated_state[key]) for key in undisturbed_state)


def test_sampling_depends_on_its_seed_and_the_generator_alone(start: Start) -> None:
    training = start()
    assert torch.equal(training.sample(700), training.sample(700))
    assert torch.equal(training.sample(700)[:30], training.sample(30))
    assert not torch.equal(training.sample(30), training.sample(30, seed=1))
    training.generator.eval()
    training.sample(3)
    assert not training.generator.training  # in the same mode as before


@pytest.mark.parametrize("who", ["critic", "generator"])
def test_learning_rates_act_apart(who: str, start: Start) -> None:
    other = {"critic": "generator", "generator": "critic"}[who]
    changes: dict[str, Any] = {"critic": {"lr": 1e-3}, "generator": {"lr": 1e-3}, "budget": 1}
    steps = {}
    for lr in (1e-3, 4e-3):
        training = start(**(changes | {who: {"lr": lr}}))
        before = {name: weights(training, name) for name in ("critic", "generator")}
        run(training)
        steps[lr] = {name: (weights(training, name) - before[name]).abs().max().item() for name in before}
    for lr, step in steps.items():  # Adam's first step is lr·g/(|g| + 10⁻⁸)
        assert step[who] == pytest.approx(lr, rel=1e-2)
        assert step[other] == pytest.approx(1e-3, rel=1e-2)


def test_the_moving_average_changes_evaluation_and_not_training(start: Start) -> None:
    plain, averaged = start(budget=30), start(budget=30, generator={"ema": 0.9})
    path = [weights(averaged, "generator")]
    while not averaged.finished:
        averaged.run_epoch(lambda: len(path) <= averaged.iteration)
        if averaged.iteration == len(path):
            path.append(weights(averaged, "generator"))
    run(plain)
    for name in ("critic", "generator"):
        assert torch.equal(weights(plain, name), weights(averaged, name))
    assert not torch.equal(plain.evaluate().samples, averaged.evaluate().samples)

    mean = path[1]  # starts from the weights after the first step
    for step in path[2:]:
        mean = 0.9 * mean + 0.1 * step
    by_hand = copy.deepcopy(plain)
    torch.nn.utils.vector_to_parameters(mean, by_hand.generator.parameters())
    difference = by_hand.evaluate().samples.int() - averaged.evaluate().samples.int()
    assert difference.abs().max() <= 1  # one grey level of rounding


@pytest.mark.parametrize("who", ["critic", "generator"])
def test_what_is_no_longer_finite_has_diverged(who: str, start: Start) -> None:
    training = start(**{who: {"lr": 1e30}}, network={"generator_tail": ["leaky_relu", "none"]}, budget=40)
    with pytest.raises(Diverged, match="not finite"):
        run(training)


def test_clipping_holds_throughout_training(start: Start) -> None:
    training = start(penalty={"name": "clipping", "bound": 0.02}, critic={"optimizer": "rmsprop", "lr": 0.1}, budget=5)
    run(training)
    assert weights(training, "critic").abs().max() == pytest.approx(0.02)


def test_records_of_an_epoch(start: Start) -> None:
    training = start(objective={"name": "c_transform", "p": 2}, penalty="none", budget=25)
    for _ in range(2):
        record = training.run_epoch()
        assert record is not None
        assert record["wasserstein_estimate"] == pytest.approx(max(record["dual_value"], 0) ** 0.5)
        assert record["epoch_seconds"] > 0
        assert record["peak_memory_mb"] > 10
        assert record["critic_gradient_norm"] > 0
        images = 64 * (20 if training.epoch == 1 else 5)
        assert record["images_per_second"] * record["epoch_seconds"] == pytest.approx(images)


def test_without_evaluation_there_are_samples_alone(start: Start) -> None:
    digits, points = start().evaluate(), start(dataset="mixture").evaluate()
    assert set(digits.metrics) == set(points.metrics) == {"evaluation_seconds"}
    assert (digits.samples.shape, digits.samples.dtype) == ((64, 1, 8, 8), torch.uint8)
    assert (points.samples.shape, points.samples.dtype) == ((64, 2), torch.float32)


def test_the_mixture_is_measured_by_exact_transport(start: Start) -> None:
    optimizers = {"critic": {"lr": 5e-3}, "generator": {"lr": 5e-3}}
    objective = {"name": "c_transform", "p": 2}
    training = start(
        dataset="mixture", evaluation="transport", objective=objective, penalty="none", budget=60, **optimizers
    )
    before = training.evaluate().metrics
    run(training)
    after = training.evaluate().metrics
    assert set(after) == {"exact_w1", "exact_wqp", "evaluation_seconds"}
    assert after["exact_w1"] < 0.75 * before["exact_w1"]
    assert after["exact_wqp"] < 0.75 * before["exact_wqp"]

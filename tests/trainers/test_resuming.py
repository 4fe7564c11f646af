"""Exact resuming: a trial that was interrupted, saved and resumed equals an uninterrupted one to the bit."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import trainers
from trainers.config import TrialConfig
from trainers.training import Training

CONF = Path(trainers.__file__).parent / "conf"
TRAINERS = sorted(file.stem for file in (CONF / "trainer").glob("*.yaml"))
SMALL = {"name": "mlp", "latent_size": 8, "generator_widths": [16, 16], "critic_widths": [16, 16]}
DROPOUT = SMALL | {"dropout": 0.3, "generator_widths": [16, 16, 16]}  # Table 2 of the (q,p)-WGAN paper, made smaller
CONVOLUTIONS = {  # small_dcgan with its batch normalisation, made smaller
    "name": "dcgan",
    "latent_size": 8,
    "generator_widths": [8, 4],
    "critic_widths": [4, 8],
    "generator_kernel": 4,
    "stem_norm": True,
}
BATCH, HELD_OUT = 32, 1477  # 320 training images
BUDGET = 24  # two epochs of 10 critic iterations and a short one


@cache
def composed(trainer: str) -> Any:
    small = [f"budget={BUDGET}", f"batch_size={BATCH}", f"dataset.held_out={HELD_OUT}", "evaluation=none", "device=cpu"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("config", overrides=[f"trainer={trainer}", *small])


def preset(trainer: str, **changes: Any) -> TrialConfig:
    values: Any = OmegaConf.to_container(composed(trainer), resolve=True)
    values["network"] = SMALL
    for key, value in changes.items():
        if isinstance(value, dict) and "name" not in value:
            values[key] |= value
        else:
            values[key] = value
    return TrialConfig.from_dict(values)


def finish(training: Training, records: list[dict[str, float]]) -> list[dict[str, float]]:
    while not training.finished:
        record = training.run_epoch()
        assert record is not None
        records.append(record)
    return records


def saved_and_loaded(training: Training, cache_dir: Path) -> Training:
    """A new Training from the saved state. The old Training is overwritten, so that nothing can be shared with it."""
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    for network in (training.critic, training.generator):
        for tensor in network.state_dict().values():
            tensor.zero_()
    file.seek(0)
    fresh = Training(training.config, cache_dir=cache_dir)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def interrupted(config: TrialConfig, stops: list[int], cache_dir: Path) -> tuple[Training, list[dict[str, float]]]:
    """The whole trial, saved and loaded before each of the critic iterations in ``stops``."""
    training = Training(config, cache_dir=cache_dir)
    records: list[dict[str, float]] = []
    for stop in stops:
        while training.iteration < stop:
            record = training.run_epoch(should_stop=lambda training=training, stop=stop: training.iteration >= stop)
            if record is not None:
                records.append(record)
        assert training.iteration == stop
        torch.rand(3)  # the process goes on with something else
        training = saved_and_loaded(training, cache_dir)
        assert training.iteration == stop
    return training, finish(training, records)


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_tensors(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_tensors, one, other))
    return one == other


def assert_equal_to_an_undisturbed_run(config: TrialConfig, stops: list[int], cache_dir: Path) -> None:
    undisturbed = Training(config, cache_dir=cache_dir)
    expected = finish(undisturbed, [])
    resumed, records = interrupted(config, stops, cache_dir)
    clocks = {"epoch_seconds", "images_per_second", "peak_memory_mb"}
    assert len(records) == len(expected) == config.epochs
    for record, other in zip(expected, records, strict=True):
        assert {k: v for k, v in record.items() if k not in clocks} == {
            k: v for k, v in other.items() if k not in clocks
        }
        assert other["epoch_seconds"] > 0
    assert torch.equal(resumed.evaluate().samples, undisturbed.evaluate().samples)
    states = [training.state_dict() for training in (resumed, undisturbed)]
    for state in states:
        del state["interrupted_seconds"]
    assert same_tensors(*states)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{trainer: (trainer, {}) for trainer in TRAINERS},
    "adam instead of rmsprop": ("wgan", {"critic": {"optimizer": "adam"}, "generator": {"optimizer": "adam"}}),
    "rmsprop instead of adam": ("qp_wgan", {"critic": {"optimizer": "rmsprop"}, "generator": {"optimizer": "rmsprop"}}),
    "dropout": ("wgan_gp", {"network": DROPOUT}),
    "dropout, reused batch": ("qp_wgan", {"network": DROPOUT, "critic_iterations": 3}),
    "moving average": ("wgan_gp", {"generator": {"ema": 0.9}}),
    "batch normalisation": ("wgan_gp", {"network": CONVOLUTIONS}),
    "batch normalisation, moving average": ("wwgan", {"network": CONVOLUTIONS, "generator": {"ema": 0.9}}),
    "5 critic iterations": ("wgan_gp", {"critic_iterations": 5}),
    "7 critic iterations, reused batch": ("qp_wgan", {"critic_iterations": 7}),  # a batch of epoch 1 used in epoch 2
    "p2 of Algorithm 1": ("qp_wgan", {"penalty": {"p2": "alg1"}}),
}


@pytest.mark.parametrize(("trainer", "changes"), CASES.values(), ids=CASES)
def test_an_interrupted_trial_equals_an_undisturbed_one(trainer: str, changes: dict[str, Any], cache_dir: Path) -> None:
    assert_equal_to_an_undisturbed_run(preset(trainer, **changes), [4, 13], cache_dir)


@given(
    stops=st.lists(st.integers(0, BUDGET), max_size=4, unique=True).map(sorted),
    critic_iterations=st.integers(1, 9),
    reuse_batch=st.booleans(),
)
@settings(deadline=None, max_examples=4)
def test_wherever_it_is_interrupted(
    stops: list[int], critic_iterations: int, reuse_batch: bool, cache_dir: Path
) -> None:
    changes = {"critic_iterations": critic_iterations, "reuse_batch": reuse_batch, "network": DROPOUT}
    assert_equal_to_an_undisturbed_run(preset("qp_wgan", **changes), stops, cache_dir)


def test_a_batch_straddles_two_epochs(cache_dir: Path) -> None:
    """With N = 7, critic iterations 7…13 share one batch and its noise. An epoch ends after ten iterations (0…9)."""
    config = preset("qp_wgan", critic_iterations=7)
    assert config.epoch_length == 10
    assert_equal_to_an_undisturbed_run(config, [9, 10], cache_dir)


def test_a_stop_before_the_first_iteration_changes_nothing(cache_dir: Path) -> None:
    training = Training(preset("wgan_gp"), cache_dir=cache_dir)
    assert training.run_epoch(should_stop=lambda: True) is None
    assert (training.iteration, training.epoch, training.finished) == (0, 0, False)
    assert_equal_to_an_undisturbed_run(preset("wgan_gp"), [0], cache_dir)


def test_time_before_an_interruption_counts(cache_dir: Path) -> None:
    training = Training(preset("wgan_gp"), cache_dir=cache_dir)
    training.run_epoch(should_stop=lambda: training.iteration >= 7)
    before = training.state_dict()["interrupted_seconds"]
    assert before > 0
    record = saved_and_loaded(training, cache_dir).run_epoch()
    assert record is not None
    assert record["epoch_seconds"] > before


def contiguous(state: Any) -> Any:
    """A nested state in the memory layout of a GPU's networks, which is not channels-last."""
    if isinstance(state, torch.Tensor):
        return state.contiguous()
    if isinstance(state, dict):
        return {key: contiguous(value) for key, value in state.items()}
    return state


def test_a_checkpoint_goes_on_alike_however_its_tensors_lie_in_memory(cache_dir: Path) -> None:
    """The layout is that of a GPU, whose convolutions are not channels-last."""
    undisturbed, other = (Training(preset("wgan_gp", network=CONVOLUTIONS), cache_dir=cache_dir) for _ in range(2))
    undisturbed.run_epoch()
    state = contiguous(copy.deepcopy(undisturbed.state_dict()))
    strides = [value.stride() for value in state["critic_optimizer"]["state"][2].values()]
    assert strides != [value.stride() for value in undisturbed.state_dict()["critic_optimizer"]["state"][2].values()]
    other.load_state_dict(state)
    for training in (undisturbed, other):
        training.run_epoch()
    assert same_tensors(other.critic.state_dict(), undisturbed.critic.state_dict())
    assert same_tensors(other.generator.state_dict(), undisturbed.generator.state_dict())


def test_loading_goes_back_as_well_as_forth(trial: Callable[..., TrialConfig], cache_dir: Path) -> None:
    training = Training(trial(budget=40), cache_dir=cache_dir)
    training.run_epoch()
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    one = training.run_epoch()
    file.seek(0)
    training.load_state_dict(torch.load(file, weights_only=True))
    other = training.run_epoch()
    assert one is not None
    assert other is not None
    assert one["critic_loss"] == other["critic_loss"]
    assert one["critic_gradient_norm"] == other["critic_gradient_norm"]

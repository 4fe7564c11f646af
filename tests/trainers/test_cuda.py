"""Training on a GPU: equal to the CPU's within rounding, resumable, and without waits for the host.

``python3 -m pytest tests/trainers/test_cuda.py`` needs torch, pytest, scikit-learn and a GPU, but not Ray or MLflow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from twins import interrupted_twins

from trainers.training import Training

Start = Callable[..., Training]

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ADMISSIBLE = {"name": "admissibility", "lambda1": 0.1}
WITHOUT_TRANSFORM: dict[str, dict[str, Any]] = {
    "wgan": {"penalty": "clipping"},
    "wgan-gp": {},
    "wgan-gp, five critic iterations": {"critic_iterations": 5},
    "wgan-lp": {"penalty": {"name": "gradient", "one_sided": True}},
    "wwgan": {"penalty": "wasserstein"},
    "convolutions": {
        "network": {"name": "dcgan", "latent_size": 8, "generator_widths": [8, 4], "critic_widths": [4, 8]}
    },
    "averaged": {"generator": {"ema": 0.9}},
}
METHODS: dict[str, dict[str, Any]] = WITHOUT_TRANSFORM | {
    f"({q},{p}), {'both' if reuse else 'real'}": {
        "objective": {"name": "c_transform", "q": q, "p": p, "search_space": "both" if reuse else "real"},
        "penalty": ADMISSIBLE,
        "reuse_batch": reuse,
    }
    for q, p, reuse in ((1.0, 1.0, True), (2.0, 1.0, True), (2.0, 2.0, True), (1.5, 2.0, True), (1.5, 2.0, False))
}
EVERY_METHOD = pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)


class DrawnOnTheCpu(TorchFunctionMode):
    """``torch.rand`` and ``torch.randn`` give the CPU's numbers on every device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func not in (torch.rand, torch.randn):
            return func(*args, **options)
        device = options.pop("device", None)
        drawn = func(*args, **options)
        return drawn if device is None else drawn.to(device)


@pytest.fixture
def drawn_on_the_cpu() -> Iterator[None]:
    """Noise and interpolates are the CPU's numbers on every device."""
    with DrawnOnTheCpu():
        yield


def weights(network: nn.Module) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in network.parameters()])


def distance(one: Training, other: Training) -> float:
    """The larger of the relative differences of the critics' weights and of the generators' weights."""
    pairs = [(weights(getattr(one, name)), weights(getattr(other, name))) for name in ("critic", "generator")]
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


@EVERY_METHOD
def test_an_epoch_is_that_of_the_cpu(changes: dict[str, Any], start: Start, drawn_on_the_cpu: None) -> None:
    cpu, gpu = start(budget=20, **changes), start(budget=20, device=DEVICE, **changes)
    gpu.load_state_dict(copy.deepcopy(cpu.state_dict()))
    expected, record = cpu.run_epoch(), gpu.run_epoch()
    assert expected is not None
    assert record is not None
    for name in ("critic_loss", "dual_value", "penalty", "critic_gradient_norm", "generator_loss"):
        assert record[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    assert distance(cpu, gpu) < 1e-3
    gpu.load_state_dict(copy.deepcopy(cpu.state_dict()))
    differences = cpu.sample(64).int() - gpu.sample(64).int()
    assert differences.abs().max() <= 1  # of 255 grey levels


@EVERY_METHOD
def test_an_interrupted_trial_goes_on_as_an_undisturbed_one(changes: dict[str, Any], start: Start) -> None:
    undisturbed, second = interrupted_twins(start, budget=40, device=DEVICE, **changes)
    assert distance(undisturbed, second) < 1e-5
    assert set(undisturbed.state_dict()["random_state"]) == {"cpu", "cuda"}
    for name, state in undisturbed.state_dict()["random_state"].items():
        assert torch.equal(state, second.state_dict()["random_state"][name])


@pytest.mark.parametrize(("writer", "reader"), [("cpu", DEVICE), (DEVICE, "cpu")])
def test_a_checkpoint_of_convolutions_goes_on_on_the_other_device(
    writer: str, reader: str, start: Start, drawn_on_the_cpu: None
) -> None:
    """On the CPU the weights have another memory layout."""
    one, other = (start(budget=40, device=device, **METHODS["convolutions"]) for device in (writer, reader))
    one.run_epoch()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for training in (one, other):
        training.run_epoch()
    assert distance(one, other) < 1e-3


@pytest.mark.parametrize("changes", WITHOUT_TRANSFORM.values(), ids=WITHOUT_TRANSFORM)
def test_iterations_never_wait_for_the_host(changes: dict[str, Any], start: Start) -> None:
    training = start(budget=100, device=DEVICE, **changes)
    training.run_epoch()
    training._real_batch(training.iteration)  # the order of an epoch's examples is copied once
    with training._random_state.inside():
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(6):
                training._iterate()  # a synchronisation raises an error
            with pytest.raises(RuntimeError, match="synchroniz"):
                training._steps.sums.sum().item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert training.iteration == 26


def test_the_whole_dataset_lies_there_as_bytes(start: Start) -> None:
    training = start(device=DEVICE)
    assert training._examples.device.type == DEVICE
    assert training._examples.batch(torch.arange(2, device=DEVICE)).dtype == torch.uint8


@EVERY_METHOD
def test_bfloat16_stays_near_float32(changes: dict[str, Any], start: Start, drawn_on_the_cpu: None) -> None:
    records = [start(budget=20, device=DEVICE, precision=each, **changes).run_epoch() for each in ("fp32", "bf16")]
    for name in ("critic_loss", "penalty"):
        exact, rounded = (record[name] for record in records if record)
        assert rounded == pytest.approx(exact, rel=0.05, abs=1e-3), name


@pytest.mark.long
@EVERY_METHOD
def test_compiled_steps_equal_eager_ones(changes: dict[str, Any], start: Start) -> None:
    from torch._inductor import config

    with config.patch(fallback_random=True):
        eager, compiled = (start(compile=choice, budget=8, device=DEVICE, **changes) for choice in (False, True))
        stops = iter([False] * 7 + [True])
        eager.run_epoch(lambda: next(stops))
        compiled.load_state_dict(copy.deepcopy(eager.state_dict()))
        for training in (eager, compiled):  # one iteration from the same state
            training.run_epoch()
    one, other = (
        torch.cat([parameter.grad.flatten() for parameter in training.critic.parameters()])
        for training in (eager, compiled)
    )
    assert (one - other).norm() <= 1e-4 * one.norm()
    assert distance(eager, compiled) < 1e-2  # and the step: weights, gradients and moments have the same layout

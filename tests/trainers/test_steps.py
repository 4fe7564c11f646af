"""Steps in bfloat16, compiled steps and reused distances compute the same function as the plain step."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from twins import assert_equal_critics, interrupted_twins

from trainers.objectives import CTransform
from trainers.pair import Pair
from trainers.steps import InBfloat16, compiles
from trainers.training import Training

Start = Callable[..., Training]

ADMISSIBLE = {"name": "admissibility", "lambda1": 0.1}
METHODS: dict[str, dict[str, Any]] = {
    "wgan-gp": {},
    "wwgan": {"penalty": "wasserstein"},
    "qp": {"objective": {"name": "c_transform", "q": 1.5, "p": 2.0}, "penalty": ADMISSIBLE, "reuse_batch": True},
}
CONVOLUTIONS = {"name": "dcgan", "latent_size": 8, "generator_widths": [8, 4], "critic_widths": [4, 8]}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
EVERY_METHOD = pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)


@pytest.fixture
def eager_randomness() -> Iterator[None]:
    """Makes compiled code draw the same random numbers as eager code."""
    from torch._inductor import config

    with config.patch(fallback_random=True):
        yield


@needs_compiler
@pytest.mark.long
@pytest.mark.parametrize(
    "changes", [*METHODS.values(), {"network": CONVOLUTIONS}], ids=[*METHODS, "wgan-gp on convolutions"]
)
def test_compiled_steps_equal_eager_ones(changes: dict[str, Any], start: Start, eager_randomness: None) -> None:
    eager, compiled = (start(compile=choice, budget=8, **changes) for choice in (False, True))
    stops = iter([False] * 7 + [True])
    eager.run_epoch(lambda: next(stops))
    compiled.load_state_dict(copy.deepcopy(eager.state_dict()))
    begun = {network: copy.deepcopy(getattr(eager, network)) for network in ("critic", "generator")}
    for training in (eager, compiled):  # one iteration from the same state
        training.run_epoch()
    for network in ("critic", "generator"):
        one, other = (
            torch.cat([parameter.grad.flatten() for parameter in getattr(training, network).parameters()])
            for training in (eager, compiled)
        )
        assert (one - other).norm() <= 1e-4 * one.norm(), network
        told = one.abs() > 1e-5 * one.abs().max()  # Adam makes a step of rounding errors too
        before, *after = (
            torch.cat([parameter.flatten() for parameter in each.parameters()]).detach()[told]
            for each in (begun[network], getattr(eager, network), getattr(compiled, network))
        )
        one, other = (weights - before for weights in after)  # the step that was taken, not only its gradient
        assert (one - other).norm() <= 1e-3 * one.norm(), network


@needs_compiler
@pytest.mark.long
def test_compiled_training_says_what_compiling_took_and_resumes_to_the_bit(start: Start) -> None:
    undisturbed, second = interrupted_twins(start, compile=True, budget=40)
    assert_equal_critics(undisturbed, second)
    another = start(compile=True, budget=40)
    first, later = another.run_epoch(), another.run_epoch()
    assert first is not None
    assert later is not None
    assert first["compile_seconds"] > 0
    assert "compile_seconds" not in later


@needs_compiler
def test_compiling_leaves_no_trace_in_what_is_trained(start: Start) -> None:
    plain, compiled = start(budget=3), start(budget=3, compile=True)
    assert_equal_critics(plain, compiled)
    assert plain.iteration == compiled.iteration == 0
    assert torch.equal(plain.state_dict()["random_state"]["cpu"], compiled.state_dict()["random_state"]["cpu"])
    assert compiled.state_dict()["critic_optimizer"]["state"] == {}


@needs_compiler
@pytest.mark.long
def test_a_process_compiles_any_number_of_trials(start: Start) -> None:
    from torch._dynamo import config

    with config.patch(recompile_limit=1):
        for width in (8, 12):
            training = start(compile=True, penalty="none", network={"critic_widths": [width]})
            assert training.run_epoch()


def test_auto_compiles_on_a_gpu_alone_and_for_long_budgets_alone(trial: Callable[..., Any]) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    long, short = trial(compile="auto", budget=100_000), trial(compile="auto", budget=100)
    assert [compiles(long, cuda), compiles(short, cuda), compiles(long, cpu)] == [True, False, False]
    assert not compiles(trial(budget=100_000), cuda)


@EVERY_METHOD
def test_networks_alone_see_bfloat16(changes: dict[str, Any], start: Start) -> None:
    exact, rounded = (start(precision=precision, budget=20, **changes) for precision in ("fp32", "bf16"))
    records = exact.run_epoch(), rounded.run_epoch()
    for name in ("critic_loss", "penalty"):
        one, other = (record[name] for record in records if record)
        assert other == pytest.approx(one, rel=0.05), name
        assert other != one
    assert {t.dtype for t in (*rounded.critic.state_dict().values(), *rounded.generator.state_dict().values())} == {
        torch.float32
    }
    rounded.load_state_dict(copy.deepcopy(exact.state_dict()))
    assert torch.equal(rounded.sample(8), exact.sample(8))  # evaluation is in float32


def test_potentials_and_pixels_keep_what_bfloat16_would_round_off() -> None:
    """The networks' last layers use float32, in the backward pass too."""
    points = torch.tensor([[1.0], [1.001]])
    potential = nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(), nn.Linear(1, 1), nn.Flatten(0))
    pixel = nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(), nn.Linear(1, 1), nn.Tanh())
    for network, offset in ((potential, 100.0), (pixel, 4.0)):
        with torch.no_grad():
            for layer in (network[0], network[2]):
                layer.weight.fill_(1)
                layer.bias.fill_(0)
            network[2].bias.fill_(offset)
        rounded = InBfloat16(network)
        assert rounded(points).tolist() == network(points.bfloat16().float()).tolist()
    leaf = torch.ones(1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(InBfloat16(pixel)(leaf).sum(), leaf)
    assert slope.item() == pytest.approx(1 - math.tanh(5) ** 2, rel=0.01)


@needs_compiler
@pytest.mark.long
def test_compiled_steps_in_bfloat16_are_those_of_eager_ones(start: Start, eager_randomness: None) -> None:
    eager, compiled = (start(compile=choice, precision="bf16", budget=1) for choice in (False, True))
    records = [training.run_epoch() for training in (eager, compiled)]
    for name in ("critic_loss", "penalty"):
        one, other = (record[name] for record in records if record)
        assert other == pytest.approx(one, rel=0.02), name


def test_a_trial_in_bfloat16_resumes_to_the_bit(start: Start) -> None:
    assert_equal_critics(*interrupted_twins(start, precision="bf16", budget=40))


@pytest.mark.parametrize("q", [1.0, 1.5, 2.0])
def test_distances_of_an_earlier_pair_serve_where_the_points_are_the_same(q: float) -> None:
    source = torch.Generator().manual_seed(0)
    real, fake, other = (torch.rand(6, 5, generator=source) for _ in range(3))
    critic = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))
    objective = CTransform(q=q, p=2.0)
    earlier = Pair(objective, critic, real, fake)
    objective.value(earlier)
    for points in (fake, other):  # the same fakes, then others
        found = []
        for known in (earlier, None):
            leaf = points.clone().requires_grad_()
            pair = Pair(objective, critic, real, leaf, earlier=known)
            loss: Tensor = objective.generator_loss(pair)
            found.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
        assert all(torch.equal(one, plain) for one, plain in zip(*found, strict=True))

"""If a part returns something else than its kind promises, an error before training names the part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.datasets import Data, Mixture
from trainers.evaluation import TransportEvaluation
from trainers.metrics import Metric
from trainers.networks import Mlp, Shape
from trainers.objectives import GroundCost, KantorovichRubinstein
from trainers.parts import Part, PartError
from trainers.penalties import GradientPenalty, Penalty
from trainers.probes import Nearest, Probed
from trainers.training import Training
from trainers.transport.gradients import input_gradient

MakeTrial = Callable[..., TrialConfig]


@dataclass(frozen=True, kw_only=True)
class Elementwise(GradientPenalty):
    name: ClassVar[str] = "elementwise"

    def norm(self, gradient: Tensor, points: Tensor) -> Tensor:
        return gradient.abs()


@dataclass(frozen=True, kw_only=True)
class Unreduced(Penalty):
    name: ClassVar[str] = "unreduced"

    def __call__(self, critic: Any, pair: Any) -> Tensor:
        return pair.phi("real").square()


@dataclass(frozen=True, kw_only=True)
class Column(KantorovichRubinstein):
    name: ClassVar[str] = "column"

    def psi(self, pair: Any, side: Any) -> Tensor:
        return -pair.phi(side)[:, None]


@dataclass(frozen=True, kw_only=True)
class Unsummed(KantorovichRubinstein):
    name: ClassVar[str] = "unsummed"

    def generator_loss(self, pair: Any) -> Tensor:
        return pair.psi("fake")


@dataclass(frozen=True, kw_only=True)
class Bare(KantorovichRubinstein):
    name: ClassVar[str] = "bare"

    @property
    def cost(self) -> GroundCost:
        return 2.0, 1.0  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class TwoScores(Mlp):
    name: ClassVar[str] = "two_scores"

    def build_critic(self, shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(2, 2))


@dataclass(frozen=True, kw_only=True)
class ThreeCoordinates(Mlp):
    name: ClassVar[str] = "three_coordinates"

    def build_generator(self, shape: Shape) -> nn.Module:
        return nn.Linear(self.latent_size, 3)


@dataclass(frozen=True, kw_only=True)
class Doubles(Mixture):
    name: ClassVar[str] = "doubles"

    def load(self, cache_dir: Path) -> Data:
        data = super().load(cache_dir)
        return replace(data, held_out=data.held_out.double())


@dataclass(frozen=True, kw_only=True)
class OneLess(Mixture):
    name: ClassVar[str] = "one_less"

    def load(self, cache_dir: Path) -> Data:
        data = super().load(cache_dir)
        return replace(data, train=data.train[1:])


@dataclass(frozen=True, kw_only=True)
class Labelled(Mixture):
    name: ClassVar[str] = "labelled"
    labelled: ClassVar[bool] = True


WRONG = [
    pytest.param(
        Elementwise(), r"penalty 'elementwise' .*norm has shape \(3, 2\) and should have shape \(3,\)", id="n"
    ),
    pytest.param(Unreduced(), r"penalty 'unreduced' .*__call__ has shape \(3,\) and should have shape \(\)", id="term"),
    pytest.param(Column(), r"objective 'column' .*psi has shape \(3, 1\) and should have shape \(3,\)", id="psi"),
    pytest.param(Unsummed(), r"objective 'unsummed' .*generator_loss has shape \(3,\)", id="generator's loss"),
    pytest.param(Bare(), r"objective 'bare' .*should be a GroundCost", id="bare cost"),
    pytest.param(TwoScores(), r"network 'two_scores' .*the critic has shape \(3, 2\)", id="critic"),
    pytest.param(ThreeCoordinates(), r"network 'three_coordinates' .*the generator has shape \(3, 3\)", id="generator"),
    pytest.param(Doubles(), r"dataset 'doubles' .*held_out has .*torch.float64 and should have", id="type"),
    pytest.param(OneLess(), r"dataset 'one_less' .*train has shape \(139, 2\)", id="size"),
    pytest.param(Labelled(), r"dataset 'labelled' .*train_labels is a NoneType", id="labels"),
]


@pytest.mark.parametrize(("part", "told"), WRONG)
def test_another_shape_is_an_error_that_names_the_part(part: Part, told: str, trial: MakeTrial, tmp_path: Path) -> None:
    config = replace(trial(dataset="mixture"), **{part.kind: part})
    with pytest.raises(PartError, match=told):
        Training(config, cache_dir=tmp_path)


@dataclass(frozen=True, kw_only=True)
class DetachedNorm(GradientPenalty):
    name: ClassVar[str] = "detached_norm"

    def norm(self, gradient: Tensor, points: Tensor) -> Tensor:
        return super().norm(gradient, points).detach()


@dataclass(frozen=True, kw_only=True)
class NormOfPoints(GradientPenalty):
    """Has a gradient, but none that reaches the critic."""

    name: ClassVar[str] = "norm_of_points"

    def norm(self, gradient: Tensor, points: Tensor) -> Tensor:
        return super().norm(points.requires_grad_(), points)


@dataclass(frozen=True, kw_only=True)
class FirstOrder(GradientPenalty):
    name: ClassVar[str] = "first_order"

    def gradient(self, critic: Any, pair: Any) -> tuple[Tensor, Tensor]:
        return input_gradient(critic, pair.points["real"], differentiable=False), pair.points["real"]


@dataclass(frozen=True, kw_only=True)
class Printed(Penalty):
    name: ClassVar[str] = "printed"

    def __call__(self, critic: Any, pair: Any) -> Tensor:
        return torch.tensor(pair.phi("real").square().mean().item())


@dataclass(frozen=True, kw_only=True)
class DetachedHinge(Penalty):
    """Its term is 0 for the small slope of a critic that is not trained yet."""

    name: ClassVar[str] = "detached_hinge"

    def __call__(self, critic: Any, pair: Any) -> Tensor:
        return (pair.phi("real").detach().abs() - 100).clamp(min=0).mean()


@dataclass(frozen=True, kw_only=True)
class DetachedPsi(KantorovichRubinstein):
    name: ClassVar[str] = "detached_psi"

    def psi(self, pair: Any, side: Any) -> Tensor:
        return -pair.phi(side).detach()


@dataclass(frozen=True, kw_only=True)
class DetachedValue(KantorovichRubinstein):
    name: ClassVar[str] = "detached_value"

    def value(self, pair: Any) -> Tensor:
        return super().value(pair).detach()


@dataclass(frozen=True, kw_only=True)
class OfRealPoints(KantorovichRubinstein):
    """The generator's loss depends on the critic, but not on the generator."""

    name: ClassVar[str] = "of_real_points"

    def generator_loss(self, pair: Any) -> Tensor:
        return pair.phi("real").mean()


class WithoutGradient(nn.Sequential):
    def forward(self, points: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(points)


class WithoutInput(nn.Sequential):
    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points.detach())


@dataclass(frozen=True, kw_only=True)
class DeafCritic(Mlp):
    name: ClassVar[str] = "deaf_critic"

    def build_critic(self, shape: Shape) -> nn.Module:
        return WithoutGradient(super().build_critic(shape))


@dataclass(frozen=True, kw_only=True)
class BlindCritic(Mlp):
    name: ClassVar[str] = "blind_critic"

    def build_critic(self, shape: Shape) -> nn.Module:
        return WithoutInput(super().build_critic(shape))


@dataclass(frozen=True, kw_only=True)
class FrozenCritic(Mlp):
    name: ClassVar[str] = "frozen_critic"

    def build_critic(self, shape: Shape) -> nn.Module:
        return super().build_critic(shape).requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class DeafGenerator(Mlp):
    name: ClassVar[str] = "deaf_generator"

    def build_generator(self, shape: Shape) -> nn.Module:
        return WithoutGradient(super().build_generator(shape))


DETACHED = [
    (DetachedNorm(), "penalty 'detached_norm' .*norm passes no gradient to the critic's weights"),
    (NormOfPoints(), "penalty 'norm_of_points' .*norm passes no gradient to the critic's weights"),
    (FirstOrder(), "penalty 'first_order' .*norm passes no gradient to the critic's weights"),
    (Printed(), "penalty 'printed' .*__call__ passes no gradient to the critic's weights"),
    (DetachedHinge(), "penalty 'detached_hinge' .*__call__ passes no gradient to the critic's weights"),
    (DetachedPsi(), "objective 'detached_psi' .*psi passes no gradient to the critic's weights"),
    (DetachedValue(), "objective 'detached_value' .*value passes no gradient to the critic's weights"),
    (OfRealPoints(), "objective 'of_real_points' .*generator_loss passes no gradient to the generator's weights"),
    (DeafCritic(), "network 'deaf_critic' .*the critic passes no gradient to the critic's weights"),
    (BlindCritic(), "network 'blind_critic' .*the critic passes no gradient to the critic's input"),
    (FrozenCritic(), "network 'frozen_critic' .*the critic passes no gradient to the critic's weights"),
    (DeafGenerator(), "network 'deaf_generator' .*the generator passes no gradient to the generator's weights"),
]


@pytest.mark.parametrize(("part", "told"), DETACHED, ids=[part.name for part, _ in DETACHED])
def test_a_result_without_gradient_is_an_error_that_names_the_part(
    part: Part, told: str, trial: MakeTrial, tmp_path: Path
) -> None:
    config = replace(trial(dataset="mixture"), **{part.kind: part})
    with pytest.raises(PartError, match=told):
        Training(config, cache_dir=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": "none", "objective": "c_transform"},
        {"penalty": "none", "objective": "exact_transport"},
        {"penalty": "clipping"},
        {"penalty": {"name": "gradient", "weight": 0}},
        {"penalty": {"name": "gradient", "one_sided": True}},
        {"penalty": {"name": "admissibility", "lambda1": 0, "lambda2": 0}, "objective": "c_transform"},
        {"penalty": {"name": "admissibility", "lambda1": 0}, "objective": "c_transform"},
        {"objective": {"name": "c_transform", "detach_search": True}, "penalty": "none"},
        {"objective": {"name": "soft_c_transform", "search_space": "real"}, "penalty": "none"},
        {"opponent": "data"},
        {"opponent": "noise", "objective": {"name": "c_transform", "p": 2.0}, "penalty": "none"},
    ],
    ids=str,
)
def test_parts_that_need_no_gradient_are_no_error(changes: dict[str, Any], trial: MakeTrial, tmp_path: Path) -> None:
    training = Training(trial(dataset="mixture", **changes), cache_dir=tmp_path)
    networks = training.critic, training.generator
    assert all(parameter.grad is None for network in networks for parameter in network.parameters())


@pytest.mark.parametrize("penalty", [DetachedNorm(weight=0.0), None], ids=["weight 0", "a penalty of weights"])
def test_what_does_not_matter_is_no_error(penalty: Penalty | None, trial: MakeTrial, tmp_path: Path) -> None:
    training = Training(replace(trial(dataset="mixture"), penalty=penalty or Decay()), cache_dir=tmp_path)
    matrices = [weights for weights in training.critic.parameters() if weights.dim() > 1]
    before = [weights.clone() for weights in matrices]
    assert (record := training.run_epoch()) is not None
    assert math.isfinite(record["critic_loss"])
    assert matrices
    assert not any(map(torch.equal, before, matrices))  # every layer of its critic learns


@dataclass(frozen=True, kw_only=True)
class Decay(Penalty):
    name: ClassVar[str] = "decay"

    def __call__(self, critic: Any, pair: Any) -> Tensor:
        return sum(weights.square().sum() for weights in critic.parameters())  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Undeclared(TransportEvaluation):
    name: ClassVar[str] = "undeclared"
    also_logged: ClassVar[tuple[Metric, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class Unmeasured(TransportEvaluation):
    name: ClassVar[str] = "unmeasured"
    metrics: ClassVar[tuple[Metric, ...]] = (*TransportEvaluation.metrics, Metric("never", "max"))


@dataclass(frozen=True, kw_only=True)
class Renamed(Nearest):
    name: ClassVar[str] = "renamed"

    def measure(self, training: Training) -> Probed:
        return Probed({"nearest_distanse": 1.0})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"evaluation": Undeclared()}, "evaluation 'undeclared' .*measures exact_wqp, which", id="more"),
        pytest.param({"evaluation": Unmeasured()}, "evaluation 'unmeasured' .*never, and it does not", id="less"),
        pytest.param({"probes": (Renamed(),)}, "probe 'renamed' .*measures nearest_distanse, which", id="probe"),
    ],
)
def test_other_metrics_than_stated_are_an_error(
    changes: dict[str, Any], told: str, trial: MakeTrial, tmp_path: Path
) -> None:
    training = Training(replace(trial(dataset="mixture"), **changes), cache_dir=tmp_path)
    with pytest.raises(PartError, match=told):
        training.evaluate()


def test_looking_changes_neither_weights_nor_random_state(trial: MakeTrial, tmp_path: Path) -> None:
    """The initial networks depend on the seed alone: the same networks can be built by hand."""
    network = {"name": "dcgan", "latent_size": 4, "generator_widths": [4, 4], "critic_widths": [4], "stem_norm": True}
    config = trial(network=network)
    before = torch.get_rng_state()
    training = Training(config, cache_dir=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        networks = [config.network.build_critic((1, 8, 8)), config.network.build_generator((1, 8, 8))]
        assert torch.equal(torch.get_rng_state(), training.state_dict()["random_state"]["cpu"])
    for ours, theirs in zip((training.critic, training.generator), networks, strict=True):
        assert ours.training
        for name, tensor in theirs.state_dict().items():  # running statistics of batch normalisation too
            assert torch.equal(ours.state_dict()[name], tensor), name
        assert all(parameter.grad is None for parameter in ours.parameters())

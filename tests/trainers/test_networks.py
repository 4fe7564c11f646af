"""Networks: shapes, ranges, and parameter counts, summed by hand from the papers' tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import trainers
from trainers.config import TrialConfig
from trainers.networks import Network
from trainers.parts import ConfigError, build_part

PRESETS = Path(trainers.__file__).parent / "conf" / "network"

# (q,p)-WGAN, Table 2, 28×28: Linear layers, weights + biases.
TABLE_2_CRITIC = (784 * 1024 + 1024) + (1024 * 512 + 512) + (512 * 256 + 256) + (256 + 1)
TABLE_2_GENERATOR = (128 * 256 + 256) + (256 * 512 + 512) + (512 * 1024 + 1024) + (1024 * 784 + 784)
# (q,p)-WGAN, Table 3, 3×32×32: 3×3 convolutions and Linear(4·4·512, 1); Linear(128, 4·4·512), 2×2 deconvolutions with
# two numbers a channel of batch normalisation after all but the last.
TABLE_3_CRITIC = (3 * 128 * 9 + 128) + (128 * 256 * 9 + 256) + (256 * 512 * 9 + 512) + (8192 + 1)
TABLE_3_GENERATOR = (128 * 8192 + 8192) + (512 * 256 * 4 + 256 + 512) + (256 * 128 * 4 + 128 + 256) + (128 * 3 * 4 + 3)
# WWGAN's train.py, 3×64×64: 4×4 kernels without bias throughout, batch normalisation in the generator alone, its
# ConvTranspose2d(100, 512, 4, 1, 0) and Conv2d(512, 1, 4, 1, 0) as the linear maps they are.
WWGAN_CRITIC = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 16 * 512
WWGAN_GENERATOR = (
    (16 * 100 * 512 + 2 * 512)
    + (16 * 512 * 256 + 2 * 256)
    + (16 * 256 * 128 + 2 * 128)
    + (16 * 128 * 64 + 2 * 64)
    + 16 * 64 * 3
)
PAPERS = [
    pytest.param("qp_mlp", (1, 28, 28), 1_460_225, 1_493_520, id="qp Table 2"),
    pytest.param("qp_dcgan", (3, 32, 32), 1_487_105, 1_714_819, id="qp Table 3"),
    pytest.param("wwgan_dcgan", (3, 64, 64), 2_763_776, 3_576_704, id="WWGAN"),
]
LEGAL = [
    *(pytest.param(preset, shape, id=f"{preset} {shape}") for preset, shape, _, _ in (p.values for p in PAPERS)),
    pytest.param("mlp", (1, 8, 8), id="mlp digits"),
    pytest.param("small_dcgan", (1, 8, 8), id="small_dcgan digits"),
    pytest.param("small_dcgan", (2, 12, 8), id="small_dcgan oblong"),
    pytest.param("toy", (2,), id="toy points"),
]


def preset(name: str) -> Network:
    return build_part("network", OmegaConf.to_container(OmegaConf.load(PRESETS / f"{name}.yaml")))  # type: ignore[return-value]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def layers(network: nn.Module) -> list[str]:
    """The layers in order, without those that only reshape."""
    names = [type(module).__name__ for module in network.children()]
    return [name for name in names if name not in ("Flatten", "Unflatten")]


def test_the_sums_by_hand() -> None:
    assert (TABLE_2_CRITIC, TABLE_2_GENERATOR) == (1_460_225, 1_493_520)
    assert (TABLE_3_CRITIC, TABLE_3_GENERATOR) == (1_487_105, 1_714_819)
    assert (WWGAN_CRITIC, WWGAN_GENERATOR) == (2_763_776, 3_576_704)


@pytest.mark.parametrize(("name", "shape", "critic", "generator"), PAPERS)
def test_parameter_counts_are_the_papers(name: str, shape: tuple[int, ...], critic: int, generator: int) -> None:
    assert parameters(preset(name).build_critic(shape)) == critic
    assert parameters(preset(name).build_generator(shape)) == generator


def test_layers_of_table_2() -> None:
    network = preset("qp_mlp")
    assert layers(network.build_critic((1, 28, 28))) == ["Linear", "LeakyReLU", "Dropout"] * 3 + ["Linear"]
    assert layers(network.build_generator((1, 28, 28))) == ["Linear", "LeakyReLU"] * 3 + ["Linear", "Tanh"]
    printed = build_part(
        "network", {"name": "mlp", "generator_widths": [4, 4], "generator_tail": ["tanh", "leaky_relu"]}
    )
    assert layers(printed.build_generator((2,)))[2:] == ["Linear", "Tanh", "Linear", "LeakyReLU"]  # type: ignore[attr-defined]


def test_layers_of_table_3() -> None:
    network = preset("qp_dcgan")
    critic, generator = network.build_critic((3, 32, 32)), network.build_generator((3, 32, 32))
    assert layers(critic) == ["Conv2d", "LeakyReLU"] * 3 + ["Linear"]
    block = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert layers(generator) == ["Linear", "ReLU", *block, *block, "ConvTranspose2d", "Tanh"]
    convolutions = [
        m for m in (*critic.modules(), *generator.modules()) if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    geometry = [(m.kernel_size, m.stride, m.padding) for m in convolutions]
    assert geometry == [((3, 3), (2, 2), (1, 1))] * 3 + [((2, 2), (2, 2), (0, 0))] * 3


def test_layers_of_wwgan() -> None:
    network = preset("wwgan_dcgan")
    critic, generator = network.build_critic((3, 64, 64)), network.build_generator((3, 64, 64))
    assert layers(critic) == ["Conv2d", "LeakyReLU"] * 4 + ["Linear"]
    block = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert layers(generator) == ["Linear", "BatchNorm2d", "ReLU", *block * 3, "ConvTranspose2d", "Tanh"]
    weights = torch.cat([m.weight.flatten() for m in critic.modules() if isinstance(m, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)  # N(0, 0.02²), as in train.py
    norms = torch.cat([m.weight for m in generator.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(("name", "shape"), LEGAL)
def test_shapes_and_range(name: str, shape: tuple[int, ...]) -> None:
    network = preset(name)
    generator, critic = network.build_generator(shape), network.build_critic(shape)
    fake = generator(torch.randn(3, network.latent_size) * 10)
    assert fake.shape == (3, *shape)
    assert critic(fake).shape == (3,)
    if len(shape) == 3:
        assert fake.abs().max() <= 1


@pytest.mark.parametrize(("name", "shape"), LEGAL)
def test_a_critic_takes_each_sample_by_itself(name: str, shape: tuple[int, ...]) -> None:
    critic = preset(name).build_critic(shape).eval().double()
    points = torch.rand(4, *shape, dtype=torch.float64)
    alone = torch.cat([critic(point[None]) for point in points])
    torch.testing.assert_close(critic(points), alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["qp_mlp", "qp_dcgan", "wwgan_dcgan"])
def test_leaky_slopes_are_the_papers(name: str) -> None:
    shape = (3, 64, 64)
    modules = [*preset(name).build_critic(shape).modules(), *preset(name).build_generator(shape).modules()]
    slopes = {module.negative_slope for module in modules if isinstance(module, nn.LeakyReLU)}
    assert slopes == {0.2}


def test_dropout_is_the_critics_alone_and_off_in_evaluation() -> None:
    critic = build_part("network", {"name": "mlp", "dropout": 0.5}).build_critic((4,))  # type: ignore[attr-defined]
    points = torch.rand(5, 4)
    assert not torch.equal(critic(points), critic(points))
    critic.eval()
    assert torch.equal(critic(points), critic(points))
    generator = build_part("network", {"name": "mlp", "dropout": 0.5}).build_generator((4,))  # type: ignore[attr-defined]
    assert "Dropout" not in layers(generator)


@pytest.mark.parametrize(
    ("network", "path"),
    [
        ({"name": "mlp", "generator_widths": []}, "network.generator_widths"),
        ({"name": "mlp", "critic_widths": [16, 0]}, "network.critic_widths"),
        ({"name": "dcgan", "critic_widths": [-4]}, "network.critic_widths"),
        ({"name": "dcgan", "generator_widths": [8] * 4, "critic_widths": [8]}, "network.generator_widths"),
        ({"name": "dcgan", "generator_widths": [8], "critic_widths": [8] * 4}, "network.critic_widths"),
        ({"name": "dcgan", "generator_kernel": 3}, "network.generator_kernel"),
        ({"name": "mlp", "latent_size": 0}, "network.latent_size"),
        ({"name": "mlp", "dropout": 1.0}, "network.dropout"),
        ({"name": "mlp", "activation": "gelu"}, "network.activation"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_built_is_an_error_of_its_option(
    network: dict[str, Any], path: str, trial: Callable[..., TrialConfig]
) -> None:
    with pytest.raises(ConfigError) as error:
        trial(network=network)
    assert error.value.path == path


def test_convolutions_of_points_are_an_error(trial: Callable[..., TrialConfig]) -> None:
    with pytest.raises(ConfigError, match=r"network\.name.*mixture has points.*mlp"):
        trial(dataset="mixture", network="dcgan")

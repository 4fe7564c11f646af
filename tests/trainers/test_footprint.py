"""A checkpoint's size is known without torch: all numbers are counted, and files are as long as the formula says."""

from __future__ import annotations

import io
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

import trainers
from trainers.config import TrialConfig
from trainers.footprint import checkpoint_bytes
from trainers.networks import Dcgan, Mlp, Network, Shape, Weights
from trainers.parts import ConfigError, build_part
from trainers.training import Training

CONF = Path(trainers.__file__).parent / "conf"
TRAINERS = sorted(file.stem for file in (CONF / "trainer").glob("*.yaml"))
NETWORKS = sorted(file.stem for file in (CONF / "network").glob("*.yaml"))
FITTING = [  # one network preset fits neither dataset
    *(("digits", network) for network in NETWORKS if network != "wwgan_dcgan"),
    *(("mixture", network) for network in NETWORKS if "dcgan" not in network),
]
TOLERANCE = 3_000
"""Bytes: less than any tensor that the formula may miss, and more than releases of torch may change."""


@cache
def composed(trainer: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        short = ["evaluation=none", "device=cpu", "critic_iterations=2", "budget=2", "batch_size=8"]
        return OmegaConf.to_container(compose("config", overrides=[f"trainer={trainer}", *short]), resolve=True)


def network_values(name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF / "network" / f"{name}.yaml"))


def config_of(trainer: str, dataset: str, network: str, **changes: Any) -> TrialConfig:
    """A trial after two critic iterations and a generator iteration. It then has every tensor that it keeps."""
    values = composed(trainer) | {"dataset": {"name": dataset}, "network": network_values(network)}
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    return TrialConfig.from_dict(values)


def real_size(config: TrialConfig, cache_dir: Path) -> int:
    training = Training(config, cache_dir=cache_dir)
    training.run_epoch()
    assert training.finished
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    return len(file.getvalue())


@pytest.mark.parametrize(("dataset", "network"), FITTING, ids=map(" ".join, FITTING))
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_checkpoint_of_every_preset_has_the_size_of_the_formula(
    trainer: str, dataset: str, network: str, cache_dir: Path
) -> None:
    if (trainer, dataset) == ("wwgan", "mixture"):
        with pytest.raises(ConfigError, match="needs images"):
            config_of(trainer, dataset, network)
        return
    config = config_of(trainer, dataset, network)
    assert checkpoint_bytes(config) == pytest.approx(real_size(config, cache_dir), abs=TOLERANCE)


OPTIONS = list(product(["adam", "rmsprop"], ["adam", "rmsprop"], [None, 0.9], [False, True]))


@pytest.mark.parametrize(("dataset", "network"), [("digits", "mlp"), ("digits", "small_dcgan"), ("mixture", "toy")])
@pytest.mark.parametrize(("critic", "generator", "ema", "reuse_batch"), OPTIONS)
def test_whatever_else_a_trial_keeps_counts(
    dataset: str, network: str, critic: str, generator: str, ema: float | None, reuse_batch: bool, cache_dir: Path
) -> None:
    options = {"critic": {"optimizer": critic}, "generator": {"optimizer": generator, "ema": ema}}
    config = config_of("wgan_gp", dataset, network, **options, reuse_batch=reuse_batch, batch_size=64)
    assert checkpoint_bytes(config) == pytest.approx(real_size(config, cache_dir), abs=TOLERANCE)


def test_against_noise_there_is_no_generator_to_keep(cache_dir: Path) -> None:
    """The batch of noise, which the (q,p)-WGAN reuses, has the data's dimension, not the network's latent size."""
    config = config_of("qp_wgan", "digits", "mlp", opponent="noise", objective={"p": 2.0}, batch_size=64)
    assert config.latent_size == 64 != config.network.latent_size
    assert checkpoint_bytes(config) == pytest.approx(real_size(config, cache_dir), abs=TOLERANCE)


def real_weights(module: nn.Module) -> Weights:
    parameters, buffers = list(module.parameters()), list(module.buffers())
    return Weights(
        sum(p.numel() for p in parameters),
        len(parameters),
        sum(b.numel() * b.element_size() for b in buffers),
        len(buffers),
    )


def assert_counted(network: Network, shape: Shape) -> None:
    assert network.critic_weights(shape) == real_weights(network.build_critic(shape))
    assert network.generator_weights(shape) == real_weights(network.build_generator(shape))
    # A network without a formula: the modules are counted with the same result, and no random number is drawn.
    before = torch.get_rng_state()
    assert Network.critic_weights(network, shape) == network.critic_weights(shape)
    assert Network.generator_weights(network, shape) == network.generator_weights(shape)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("dataset", "name"), [*FITTING, ("celeba", "wwgan_dcgan")])
def test_formulas_count_what_the_modules_of_every_preset_hold(dataset: str, name: str) -> None:
    network, shape = build_part("network", network_values(name)), build_part("dataset", {"name": dataset}).shape  # type: ignore[attr-defined]
    assert isinstance(network, Network)
    assert network.critic_weights(shape) == Network.critic_weights(network, shape)
    assert network.generator_weights(shape) == Network.generator_weights(network, shape)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, (1, 8, 8)) for name in NETWORKS if name != "wwgan_dcgan"),
        *((name, (2,)) for name in NETWORKS if "dcgan" not in name),
        ("small_dcgan", (2, 12, 8)),
        ("qp_dcgan", (3, 32, 32)),
        ("wwgan_dcgan", (3, 64, 64)),
    ],
    ids=str,
)
def test_every_weight_of_every_preset_is_counted(name: str, shape: Shape) -> None:
    assert_counted(build_part("network", network_values(name)), shape)  # type: ignore[arg-type]


WIDTHS = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@given(
    network=st.builds(
        Dcgan,
        latent_size=st.integers(1, 5),
        generator_widths=WIDTHS,
        critic_widths=WIDTHS,
        generator_kernel=st.sampled_from([2, 4]),
        critic_kernel=st.sampled_from([3, 4]),
        bias=st.booleans(),
        stem_norm=st.booleans(),
    )
    | st.builds(Mlp, latent_size=st.integers(1, 5), generator_widths=WIDTHS, critic_widths=WIDTHS)
)
@settings(deadline=None, max_examples=30)
def test_every_weight_of_any_network_is_counted(network: Network) -> None:
    assert_counted(network, (2, 8, 24))

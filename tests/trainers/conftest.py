"""Shared by the tests of ``trainers``: a cache, small trials, small critics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers.config import TrialConfig
from trainers.objectives import Objective
from trainers.pair import Pair
from trainers.training import Training

SMALL_TRIAL: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "network": {"name": "mlp", "latent_size": 8, "generator_widths": [16], "critic_widths": [16]},
    "objective": {"name": "kantorovich_rubinstein"},
    "penalty": {"name": "gradient"},
    "evaluation": {"name": "none", "times": 1},
    "critic": {"lr": 1e-3},
    "generator": {"lr": 1e-3},
    "budget": 3,
    "batch_size": 64,
    "device": "cpu",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Trials set their own number of threads. This makes the other computations of the tests as repeatable."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session: the classifier is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def trial() -> Callable[..., TrialConfig]:
    """``trial(penalty={"name": "clipping"}, critic={"lr": 1}, budget=5)``: a small trial with these changes.

    A mapping with a name replaces a part. A mapping without a name changes some of the part's options. A name alone
    stands for a part with its default options.
    """

    def build(**changes: Any) -> TrialConfig:
        values = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL_TRIAL.items()}
        for key, value in changes.items():
            if isinstance(value, str) and isinstance(values.get(key), dict):
                values[key] = {"name": value}
            elif isinstance(value, dict) and "name" not in value:
                values[key] |= value
            else:
                values[key] = value
        return TrialConfig.from_dict(values)

    return build


@pytest.fixture(scope="session")
def start(trial: Callable[..., TrialConfig], cache_dir: Path) -> Callable[..., Training]:
    """``start(**changes)``: the small trial with these changes, about to begin."""
    return lambda **changes: Training(trial(**changes), cache_dir=cache_dir)


@pytest.fixture(scope="session")
def smooth_critic() -> Callable[..., nn.Module]:
    """``smooth_critic(size)``: a random tanh network on points of ``size`` numbers, in float64.

    ``slope`` multiplies its output, so that it is far from 1-Lipschitz.
    """

    def build(size: int, *, seed: int = 0, slope: float = 1.0, width: int = 8) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = nn.Linear(size, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
            critic = nn.Sequential(nn.Flatten(), *layers, nn.Flatten(0)).double()
            with torch.no_grad():
                layers[-1].weight.mul_(slope)
        return critic

    return build


@pytest.fixture(scope="session")
def random_pair(smooth_critic: Callable[..., nn.Module]) -> Callable[..., Pair]:
    """``random_pair(objective)``: m random real points and as many fakes in float64, under a random critic."""

    def build(
        objective: Objective,
        *,
        m: int = 7,
        shape: tuple[int, ...] = (3,),
        seed: int = 0,
        slope: float = 5.0,
        critic: Callable[[Tensor], Tensor] | None = None,
    ) -> Pair:
        source = torch.Generator().manual_seed(seed)
        real, fake = (torch.rand(m, *shape, generator=source, dtype=torch.float64) * 2 - 1 for _ in range(2))
        critic = critic or smooth_critic(real[0].numel(), seed=seed, slope=slope)
        return Pair(objective, critic, real, fake)  # type: ignore[arg-type]

    return build

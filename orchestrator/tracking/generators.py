"""A trial's final generator as an MLflow model: weights and a graph of torch's own operators, without our code."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store import checkpoints
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.mlflow_private import save_program
from trainers.config import TrialConfig
from trainers.networks import Network, Shape
from trainers.parts import ConfigError

if TYPE_CHECKING:
    from mlflow.models import Model
    from torch import Tensor
    from torch.export import ExportedProgram


class NoGenerator(Exception):
    """A trial has no final generator; the message says why."""


@dataclass(frozen=True)
class Generator:
    """A network that generates examples of shape ``shape``, with its weights after ``epoch`` epochs."""

    network: Network
    shape: Shape
    weights: Mapping[str, Tensor]
    epoch: int


def final_generator(trial: TrialStore) -> Generator:
    """The generator of a trial's last checkpoint. It is the moving average if there is one, as in evaluations.

    Raises :class:`NoGenerator` if the trial was not trained with a generator or its checkpoint cannot be used.
    """
    try:
        config = TrialConfig.from_dict(trial.config())
    except (ConfigError, UserError) as error:  # written by another version, or damaged
        raise NoGenerator(f"config.yaml cannot be used: {error}") from None
    if not config.opponent.trained:
        raise NoGenerator(f"the critic's opponent was {config.opponent.words}")
    try:
        with trial.at_hand(trial.checkpoint_file) as file:
            state = checkpoints.read(file)["training"]
    except FileNotFoundError:
        raise NoGenerator(f"{trial.checkpoint_file.name} has been deleted") from None
    except (checkpoints.Unreadable, OSError) as problem:
        raise NoGenerator(f"{trial.checkpoint_file.name} cannot be used: {problem}") from None
    epoch = -(-state["iteration"] // config.epoch_length)
    return Generator(config.network, config.dataset.shape, _weights(state), epoch)


def check_traceable(generator: Generator) -> None:
    """Raises :class:`NoGenerator` if torch cannot trace the network."""
    try:
        _traced(generator.network, generator.shape)
    except Exception as error:  # torch.export raises many types
        raise NoGenerator(f"torch.export cannot trace it ({type(error).__name__})") from None


def save_generator(generator: Generator, folder: Path, model: Model) -> None:
    """Writes a generator as the MLflow model ``model`` into ``folder``, which must not exist yet.

    Its signature: noise, float32 of shape (m, latent size), to images in [−1, 1] of shape (m, C, H, W) or to points
    (m, d).
    """
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    program = _traced(generator.network, generator.shape)
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            tensor.copy_(generator.weights[name])
    inputs, outputs = (
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))])
        for shape in ((generator.network.latent_size,), generator.shape)
    )
    model.signature = ModelSignature(inputs, outputs)
    save_program(program, folder, model)


@functools.lru_cache(maxsize=4)
def _traced(network: Network, shape: Shape) -> ExportedProgram:
    """The graph of a network's generator for any number of examples. The caller replaces its weights."""
    import torch

    module = network.build_generator(shape).eval()
    noise = torch.zeros(2, network.latent_size)  # with a single example torch would fix the batch size at 1
    return torch.export.export(module, (noise,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the generator in a checkpoint, averaged if there is a moving average."""
    if state["average"] is None:
        return state["generator"]
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["average"].items() if key.startswith(prefix)}

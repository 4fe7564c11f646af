"""A trial's final generator as an MLflow model: a graph of torch's own operators with its weights, no code of ours."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.store import checkpoints
from orchestrator.store.trial import TrialStore
from trainers.config import TrialConfig
from trainers.networks import Network, Shape
from trainers.parts import ConfigError

if TYPE_CHECKING:
    from mlflow.models import Model
    from torch import Tensor
    from torch.export import ExportedProgram


class NoGenerator(Exception):
    """Why a trial has no final generator to give."""


@dataclass(frozen=True)
class Generator:
    """A network that makes examples of ``shape``, and its weights after so many epochs."""

    network: Network
    shape: Shape
    weights: Mapping[str, Tensor]
    epoch: int


def final_generator(trial: TrialStore) -> Generator:
    """The generator of a trial's last checkpoint, as evaluations see it: the moving average where there is one.

    Raises :class:`NoGenerator`.
    """
    try:
        config = TrialConfig.from_dict(trial.config())
    except ConfigError as error:  # of another version
        raise NoGenerator(f"config.yaml cannot be used: {error}") from None
    if not config.opponent.trained:
        raise NoGenerator(f"the critic's opponent was {config.opponent.words}")
    try:
        with trial.at_hand(trial.checkpoint_file) as file:
            state = checkpoints.read(file)["training"]
    except FileNotFoundError:
        raise NoGenerator(f"{trial.checkpoint_file.name} has been deleted") from None
    except checkpoints.Unreadable as problem:
        raise NoGenerator(f"{trial.checkpoint_file.name} cannot be used: {problem}") from None
    epoch = -(-state["iteration"] // config.epoch_length)
    return Generator(config.network, config.dataset.shape, _weights(state), epoch)


def check_traceable(generator: Generator) -> None:
    """Raises :class:`NoGenerator` where torch cannot make a graph of the network."""
    try:
        _traced(generator.network, generator.shape)
    except Exception as error:  # whatever torch.export raises
        raise NoGenerator(f"torch.export cannot trace it ({type(error).__name__})") from None


def save_generator(generator: Generator, folder: Path, model: Model) -> None:
    """Writes a generator into ``folder``, which must not be there yet, as the MLflow model ``model``.

    Its signature: noise, float32 of shape (m, latent size), to images in [−1, 1] of shape (m, C, H, W) or to points
    (m, d). ``mlflow.pytorch.save_model`` would write the same, but trace the same graph for each trial anew.
    """
    import numpy as np
    import torch
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    program = _traced(generator.network, generator.shape)
    with torch.no_grad():
        for name, tensor in program.state_dict.items():
            tensor.copy_(generator.weights[name])
    (folder / "data").mkdir(parents=True)
    torch.export.save(program, folder / "data" / "model.pt2")
    inputs, outputs = (
        Schema([TensorSpec(np.dtype("float32"), (-1, *shape))])
        for shape in ((generator.network.latent_size,), generator.shape)
    )
    model.signature = ModelSignature(inputs, outputs)
    model.add_flavor("pytorch", model_data="data", pytorch_version=str(torch.__version__))
    pyfunc.add_to_model(model, loader_module="mlflow.pytorch", data="data", model_config={"device": "cpu"})
    model.save(folder / "MLmodel")


@functools.lru_cache(maxsize=4)
def _traced(network: Network, shape: Shape) -> ExportedProgram:
    """The graph of a network's generator for any number of examples; its weights are anybody's."""
    import torch

    module = network.build_generator(shape).eval()
    noise = torch.zeros(2, network.latent_size)  # of one alone torch would make a graph for one alone
    return torch.export.export(module, (noise,), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def _weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The generator's part of a checkpoint."""
    if state["average"] is None:
        return state["generator"]
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in state["average"].items() if key.startswith(prefix)}

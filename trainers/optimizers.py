"""Optimizers, and the memory layout of the tensors that they work on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainers.config import OptimizerConfig


def make_optimizer(network: nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """The configured optimizer for all parameters of a network."""
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=options.lr)
    return torch.optim.Adam(network.parameters(), lr=options.lr, betas=options.betas, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads the state and gives each moment the memory layout of its parameter.

    In a checkpoint the moments have the layout of the device that wrote it.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = laid_out_like(parameter, value)


def laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the memory layout of a parameter of the same shape.

    On a CPU, torch's fused Adam reads numbers in the order in which they lie in memory. It does not check that a
    parameter, its gradient and its moments have the same layout.
    """
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)

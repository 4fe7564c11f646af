"""Optimizers, and how what they work on lies in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainers.config import OptimizerConfig


def make_optimizer(network: nn.Module, options: OptimizerConfig) -> torch.optim.Optimizer:
    """The configured optimizer over all parameters of a network."""
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=options.lr)
    return torch.optim.Adam(network.parameters(), lr=options.lr, betas=options.betas, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """``optimizer.load_state_dict(state)``; moments then lie in memory as their parameters do here.

    In a checkpoint they lie as on the device that wrote it.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                moments[name] = laid_out_like(parameter, value)


def laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the memory format of a parameter of its shape.

    torch's fused Adam takes numbers in the order in which they lie in memory (on a CPU) and asks nobody whether a
    parameter, its gradient and its moments lie alike.
    """
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)

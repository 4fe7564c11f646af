"""Where minibatches are taken from: examples on the device, or on the host where they do not fit."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.5
"""Of a GPU's free memory, which examples may take."""


class Examples:
    """Training examples for a device: all of them lie there if they fit, else batches are copied from pinned memory.

    On the CPU they are used as they are, on a mapped file too. ``device`` is where they lie, and where the indices
    of a batch should. Which of these it is changes no result.
    """

    def __init__(self, examples: Tensor, device: torch.device) -> None:
        self._examples = examples.to(device) if fits(examples, device) else examples
        self._target = device
        self.device = self._examples.device

    def batch(self, indices: Tensor) -> Tensor:
        """The examples with these indices, on the device."""
        batch = self._examples[indices]
        if self._target.type == "cuda" and self.device.type == "cpu":
            return batch.pin_memory().to(self._target, non_blocking=True)
        return batch


def fits(examples: Tensor, device: torch.device) -> bool:
    """Whether a device has room for all examples: the CPU has, a GPU if they take half of its free memory at most."""
    return device.type == "cpu" or examples.nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]

"""The examples that minibatches are taken from: on the device, or on the host if they do not fit there."""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.5
"""The share of a GPU's free memory that examples may take."""


class Examples:
    """Training examples for a device: all of them are on it if they fit, else batches are copied from pinned memory.

    On the CPU the examples are used as they are, memory-mapped or not. ``device`` is the device of the examples, and
    the indices of a batch should be on it too. The choice does not change results.
    """

    def __init__(self, examples: Tensor, device: torch.device) -> None:
        self._examples = examples.to(device) if fits(examples, device) else examples
        self._target = device
        self.device = self._examples.device

    def batch(self, indices: Tensor) -> Tensor:
        """The examples with these indices, on the trial's device."""
        batch = self._examples[indices]
        if self._target.type == "cuda" and self.device.type == "cpu":
            return batch.pin_memory().to(self._target, non_blocking=True)
        return batch


def fits(examples: Tensor, device: torch.device) -> bool:
    """Whether a device has room for all examples: always on the CPU, on a GPU up to half of its free memory."""
    return device.type == "cpu" or examples.nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]

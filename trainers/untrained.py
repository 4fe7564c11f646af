"""The modules of opponents that have nothing to train: the data, and noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.datasets import to_input

NOISE_SCALE = 0.1
"""Deviation of noise as an opponent. The papers give none. A map from N(0, σ²) is one from N(0, 1), with (2,2) even the
optimal one, after a change of scale; but what a critic with piecewise constant ∇φ leaves of x in T(x) = x − ∇φ(x) is
seen in an image, unless it is small."""


class Resampler(nn.Module):
    """The data as an opponent: noise (m, d) to m of the given examples, independent and uniform, by Φ of its first
    coordinate. Has nothing to train."""

    examples: Tensor

    def __init__(self, examples: Tensor) -> None:
        super().__init__()
        self.register_buffer("examples", examples, persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Examples as networks see them, shape (m, …)."""
        count = len(self.examples)
        chosen = (torch.special.ndtr(latent[:, 0].double()) * count).long().clamp(max=count - 1)
        return to_input(self.examples[chosen])


class Noise(nn.Module):
    """Noise as an opponent: N(0, I) of shape (m, d) to N(0, σ²I) of the examples' shape. Has nothing to train."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, latent: Tensor) -> Tensor:
        """Points as networks see them, shape (m, …)."""
        return NOISE_SCALE * latent.unflatten(1, self.shape)

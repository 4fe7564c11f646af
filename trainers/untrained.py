"""The modules of the opponents that are not trained: the data, and noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainers.datasets import to_input

NOISE_SCALE = 0.1
"""The standard deviation σ of noise as an opponent.

The papers do not give it. After a change of scale, a map from N(0, σ²) is a map from N(0, 1), and with (2,2) an optimal
one stays optimal. The scale matters for another reason: where ∇φ is piecewise constant, T(x) = x − ∇φ(x) still contains
x, which is visible in an image unless it is small."""


class Resampler(nn.Module):
    """The data as an opponent: maps noise (m, d) to m of the given examples. Nothing is trained.

    The examples are independent and uniform. Φ of the noise's first coordinate chooses each of them.
    """

    examples: Tensor

    def __init__(self, examples: Tensor) -> None:
        super().__init__()
        self.register_buffer("examples", examples, persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Examples as the networks' input, shape (m, …)."""
        count = len(self.examples)
        chosen = (torch.special.ndtr(latent[:, 0].double()) * count).long().clamp(max=count - 1)
        return to_input(self.examples[chosen])


class Noise(nn.Module):
    """Noise as an opponent: maps N(0, I) of shape (m, d) to N(0, σ²I) of the examples' shape. Nothing is trained."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, latent: Tensor) -> Tensor:
        """Points as the networks' input, shape (m, …)."""
        return NOISE_SCALE * latent.unflatten(1, self.shape)

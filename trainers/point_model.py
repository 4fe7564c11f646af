"""A generator without a network: its weights are its points."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointModel(nn.Module):
    """``count`` points of some shape, starting at the origin. Noise (m, d) tells how many to give, and no more."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.zeros(count, *shape))

    def forward(self, latent: Tensor) -> Tensor:
        """The points in order, again and again, shape (m, …)."""
        return self.points[torch.arange(latent.shape[0], device=self.points.device) % len(self.points)]

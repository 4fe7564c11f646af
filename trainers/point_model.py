"""A generator without a network: its weights are its points."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointModel(nn.Module):
    """``count`` points of some shape, which start at the origin. Of the noise (m, d) only m matters."""

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.zeros(count, *shape))

    def forward(self, latent: Tensor) -> Tensor:
        """The points in order, repeated until there are m, shape (m, …)."""
        return self.points[torch.arange(latent.shape[0], device=self.points.device) % len(self.points)]

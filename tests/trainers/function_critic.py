"""A critic whose function a test chooses."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class FunctionCritic(nn.Module):
    """φ as a function."""

    def __init__(self, phi: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.phi = phi

    def forward(self, points: Tensor) -> Tensor:
        return self.phi(points)

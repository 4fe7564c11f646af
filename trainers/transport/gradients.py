"""The critic's gradient with respect to its input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-12
"""Added under square roots, because a square root's derivative at zero is infinite."""


def interpolate(real: Tensor, fake: Tensor) -> Tensor:
    """x̂ = εx + (1 − ε)y with one ε ~ U[0, 1] per sample (Gulrajani et al., 2017, Algorithm 1)."""
    weight = torch.rand(real.shape[0], *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    return (weight * real + (1 - weight) * fake).detach()


def input_gradient(critic: Callable[[Tensor], Tensor], points: Tensor, *, differentiable: bool) -> Tensor:
    """∇φ at each point, in the shape of ``points``. With ``differentiable`` the graph is kept for a penalty."""
    if torch.compiler.is_compiling():
        return torch.func.grad(lambda x: critic(x).sum())(points.detach())
    points = points.detach().requires_grad_(True)
    with torch.enable_grad():
        return torch.autograd.grad(critic(points).sum(), points, create_graph=differentiable)[0]


def euclidean_norm(gradient: Tensor) -> Tensor:
    """‖g‖₂ of each sample, shape (m,), with a finite derivative at g = 0."""
    return (gradient.flatten(1).square().sum(dim=1) + TINY).sqrt()

"""Plain WGAN-GP, WWGAN and (q,p)-WGAN in the way of the papers' public code, against which ours is timed.

Methods, losses and networks are the same as in ``trainers``; a test compares the critic's losses and gradients with
ours. The code follows these sources without copying from them:

- caogang/wgan-gp at ae47a18 (``gan_cifar10.py``): The critic sees real images, fakes and interpolates in three passes,
  each with its own backward pass. Fakes have no graph. Each image is transformed alone, then the batch is stacked.
- dukleryoni/WWGAN at ab09c76 (``train.py``, ``wwgan_utils.py``): Three forward passes and one backward pass of the sum.
  Fakes have the generator's graph and are detached for the critic. Each difference of neighbours is a new ``Conv2d``
  with a kernel from a Python list. The kernel is differentiated needlessly, because ``requires_grad = False`` there
  sets the module's attribute, not the weight's. Some norms are only logged. Each step calls ``.item()`` on every loss
  and norm.
- sverdoot/qp-wgan at 12301de (``src/qpwgan.py``): Fakes and real images go through the critic in one pass.
  ``torch.norm`` is taken of the broadcast difference of all 2m × 2m pairs of B = both, once for the critic and again
  for the generator. P2 is computed although it is zero there. One batch of fakes with its graph serves both steps, so
  that the critic's backward pass continues through the costs and the generator. ``.item()`` is called on every loss.

As in all three sources, ``requires_grad`` of the critic's weights is off in the generator's step, and Adam has torch's
defaults (not fused). All three have a loader: WWGAN with 4 workers, qp-wgan with none by default, wgan-gp with a Python
generator in the same process. Here it has 2 workers.

Two choices favour the textbook: sverdoot's anomaly detection, TensorBoard, Weights & Biases and plots are left out, and
gradients are set to None instead of zero, which is now torch's default. One difference is left out because it would
make another method: the authors' kernel for adjacent pixels is three wide and loses the edges of the last column and
row. Here it is two wide and loses none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trainers.networks import Network

GP_WEIGHT = 10.0
WWGAN_WEIGHT, WWGAN_REFERENCE = 4.0, 1.0
LAMBDA1, LAMBDA2 = 0.1, 10.0
WORKERS = 2

ADJACENT = ([[1.0, -1.0]], [[1.0], [-1.0]])
DISTANT = ([[1.0, 0.0, -1.0]], [[1.0], [0.0], [-1.0]])
DIAGONAL = ([[1.0, 0.0], [0.0, -1.0]], [[0.0, 1.0], [-1.0, 0.0]])
"""Kernels of f_i − f_j over the diamond's edges. Their absolute values are the kernels of X_i + X_j."""


@dataclass
class Players:
    """A critic and a generator with their optimizers."""

    critic: nn.Module
    generator: nn.Module
    latent_size: int
    critic_optimizer: torch.optim.Optimizer
    generator_optimizer: torch.optim.Optimizer


Step = Callable[[Players, Tensor], dict[str, float]]
"""One critic and one generator iteration on a batch of real images in [−1, 1]. Returns the logged numbers."""


class Images(TorchDataset[Tensor]):
    """uint8 images (n, C, H, W), transformed one at a time: to [0, 1], then by mean and deviation 0.5 to [−1, 1]."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].float().div(255).sub(0.5).div(0.5)


def make_players(network: Network, shape: tuple[int, ...], device: torch.device, lr: float = 2e-4) -> Players:
    """The networks of ``trainers`` with plain Adam."""
    critic, generator = network.build_critic(shape).to(device), network.build_generator(shape).to(device)
    return Players(
        critic,
        generator,
        network.latent_size,
        torch.optim.Adam(critic.parameters(), lr=lr, betas=(0.5, 0.999)),
        torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.999)),
    )


def batches(images: Tensor, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """One epoch in random order, from worker processes that start with it. The last batch is dropped if not full."""
    loader = DataLoader(
        Images(images),
        batch_size=batch_size,
        shuffle=True,
        num_workers=WORKERS,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield batch.to(device)


def wgan_gp(players: Players, real: Tensor) -> dict[str, float]:
    """A step of WGAN-GP, λ = 10 (Gulrajani et al., 2017, Algorithm 1)."""
    players.critic.requires_grad_(True)
    with torch.no_grad():
        fake = players.generator(noise(players, real))
    logged = wgan_gp_critic(players, real, fake)
    return logged | kantorovich_generator(players, real)


def wgan_gp_critic(players: Players, real: Tensor, fake: Tensor) -> dict[str, float]:
    """mean φ(y) − mean φ(x) + λ mean (‖∇φ(x̂)‖₂ − 1)², three backward passes and a step."""
    critic = players.critic
    critic.zero_grad()
    score_real = critic(real).mean()
    (-score_real).backward()
    score_fake = critic(fake).mean()
    score_fake.backward()
    gradient, _ = interpolated_gradient(critic, real, fake)
    penalty = GP_WEIGHT * (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()
    penalty.backward()
    players.critic_optimizer.step()
    dual = score_real - score_fake
    return {"critic_loss": (penalty - dual).item(), "dual_value": dual.item(), "penalty": penalty.item()}


def wwgan(players: Players, real: Tensor) -> dict[str, float]:
    """A step of WWGAN, diamond, λ = 4, γ = 1 (Dukler et al., 2019, Algorithm 2 as their code has it)."""
    players.critic.requires_grad_(True)
    logged = wwgan_critic(players, real, players.generator(noise(players, real)))
    return logged | kantorovich_generator(players, real)


def wwgan_critic(players: Players, real: Tensor, fake: Tensor) -> dict[str, float]:
    """mean φ(y) − mean φ(x) + λ mean (‖grad φ(x̂)‖_W − 1)², one backward pass and a step."""
    critic = players.critic
    critic.zero_grad()
    score_real = critic(real).mean()
    score_fake = critic(fake.detach()).mean()
    logged = {"score_real": score_real.item(), "score_fake": score_fake.item()}
    gradient, points = interpolated_gradient(critic, real, fake)
    squared = wasserstein_norm_squared(gradient, points)
    flat = gradient.flatten(1)
    squared = squared + WWGAN_REFERENCE * (flat * flat).sum(dim=1)
    penalty = WWGAN_WEIGHT * (squared.sqrt() - 1).square().mean()
    with torch.no_grad():
        euclidean = flat.norm(2, dim=1)
        centred = 2 * euclidean.square() - 2 * (flat / flat.shape[1] ** 0.5).sum(dim=1).square()
    logged |= {
        "wasserstein_norm_squared": squared.detach().mean().item(),
        "gradient_norm": euclidean.mean().item(),
        "centred_norm": centred.clamp(min=0).sqrt().mean().item(),
        "penalty": penalty.item(),
    }
    loss = score_fake - score_real + penalty
    loss.backward()
    players.critic_optimizer.step()
    return logged | {"critic_loss": loss.item()}


def wasserstein_norm_squared(gradient: Tensor, images: Tensor) -> Tensor:
    """Σ over the diamond's edges of (g_i − g_j)² (X_i + X_j), of each image, with X mapped to [0, 1]. Shape (m,)."""
    total = torch.zeros((), device=images.device)
    for kernel in (*ADJACENT, *DISTANT, *DIAGONAL):
        difference = convolved(gradient, kernel)
        sums = convolved(images, [[abs(value) for value in row] for row in kernel])
        total = total + (difference.square() * (1 + sums / 2)).sum(dim=(1, 2, 3))
    return total


def convolved(images: Tensor, kernel: list[list[float]]) -> Tensor:
    """Convolves each channel with one kernel, in a layer made for this call."""
    channels = images.shape[1]
    layer = nn.Conv2d(channels, channels, (len(kernel), len(kernel[0])), groups=channels, bias=False)
    layer.weight.data = torch.tensor([kernel] * channels).unsqueeze(1)
    return layer.to(images.device)(images)


def kantorovich_generator(players: Players, real: Tensor) -> dict[str, float]:
    """A generator step on −mean φ(y), from new noise."""
    players.critic.requires_grad_(False)
    players.generator.zero_grad()
    loss = -players.critic(players.generator(noise(players, real))).mean()
    loss.backward()
    players.generator_optimizer.step()
    return {"generator_loss": loss.item()}


def qp_wgan(q: float, p: float) -> Step:
    """The step of the (q,p)-WGAN, B = both, λ₁ = 0.1, λ₂ = 10 (Mallasto et al., Algorithm 1 with eq. 19's P2)."""

    def step(players: Players, real: Tensor) -> dict[str, float]:
        fake = players.generator(noise(players, real))
        players.critic.requires_grad_(True)
        logged = qp_critic(players, real, fake, q=q, p=p)
        players.critic.requires_grad_(False)
        score, psi, _ = transform(players.critic, real, fake, q=q, p=p)
        loss = score[: len(real)].mean() + psi[len(real) :].mean()
        players.generator_optimizer.zero_grad()
        loss.backward()
        players.generator_optimizer.step()
        return logged | {"generator_loss": loss.item()}

    return step


def qp_critic(players: Players, real: Tensor, fake: Tensor, *, q: float, p: float) -> dict[str, float]:
    """−mean φ(x) − mean ψ(y) + λ₁ P1 + λ₂ P2, one backward pass, whose graph is kept, and a step."""
    count = len(real)
    score, psi, cost = transform(players.critic, real, fake, q=q, p=p)
    slack = cost - score[:, None] - psi[None, :]
    inadmissible = slack.clamp(max=0).square().mean()
    apart = (cost[:count, count:] - score[:count, None] - psi[None, count:]).square().mean()
    loss = -score[:count].mean() - psi[count:].mean() + LAMBDA1 * apart + LAMBDA2 * inadmissible
    players.critic_optimizer.zero_grad()
    loss.backward(retain_graph=True)
    players.critic_optimizer.step()
    return {"critic_loss": loss.item()}


def transform(critic: nn.Module, real: Tensor, fake: Tensor, *, q: float, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """φ and ψ at the 2m points of both minibatches, and the costs of all pairs, (2m, 2m)."""
    both = torch.cat([real, fake])
    cost = ground_cost(both, both, q=q, p=p)
    score = critic(both)
    return score, torch.min(cost - score[:, None], dim=0)[0], cost


def ground_cost(x: Tensor, y: Tensor, *, q: float, p: float) -> Tensor:
    """c(x_i, y_j) = ‖x_i − y_j‖_q^p / p of the broadcast difference."""
    return torch.norm(x.flatten(1)[:, None] - y.flatten(1)[None], p=q, dim=-1) ** p / p


def interpolated_gradient(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """∇φ at x̂ = εx + (1 − ε)y with its graph, and x̂; one ε a sample, written out to every pixel."""
    weight = torch.rand(len(real), 1, device=real.device)
    weight = weight.expand(len(real), real[0].numel()).contiguous().view_as(real)
    points = (weight * real + (1 - weight) * fake).detach().requires_grad_(True)
    score = critic(points)
    (gradient,) = torch.autograd.grad(
        score, points, grad_outputs=torch.ones_like(score), create_graph=True, retain_graph=True
    )
    return gradient, points


def noise(players: Players, real: Tensor) -> Tensor:
    """Noise from N(0, I), as many samples as there are real images."""
    return torch.randn(len(real), players.latent_size, device=real.device)

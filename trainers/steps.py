"""Training steps of the critic and the generator, in float32 or bfloat16, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trainers.optimizers import laid_out_like, load_optimizer, make_optimizer
from trainers.pair import Critic, Pair

if TYPE_CHECKING:
    from trainers.config import TrialConfig


REPAID_AFTER = 20_000
"""Critic iterations that repay compiling on a GPU: a guess, for a minute of compiling and 3 ms saved an iteration."""
STATISTICS = ("critic_loss", "dual_value", "penalty", "generator_loss", "generator_steps")


class Steps:
    """The critic and the generator with their optimizers, and one training step of each.

    ``sums`` holds the sums of ``STATISTICS`` over all steps since it was last set to zero. ``average`` is the moving
    average of the generator, or None if the trial has none.
    """

    def __init__(self, config: TrialConfig, critic: nn.Module, generator: nn.Module, device: torch.device) -> None:
        self.sums = torch.zeros(len(STATISTICS), device=device)
        self.average: AveragedModel | None = None
        self._config, self._device = config, device
        self._critic, self._generator = critic, generator
        self._critic_optimizer = make_optimizer(critic, config.critic)
        if device.type == "cpu":  # convolutions are faster, by a tenth with Table 3's networks
            for network in (critic, generator):
                network.to(memory_format=torch.channels_last)
        weights = list(generator.parameters())
        self._generator_optimizer = make_optimizer(generator, config.generator) if weights else None
        if config.generator.ema is not None:
            average = get_ema_multi_avg_fn(config.generator.ema)
            self.average = AveragedModel(generator, multi_avg_fn=average, use_buffers=True)
        bfloat16 = config.precision == "bf16"
        self._phi: nn.Module = InBfloat16(critic) if bfloat16 else critic
        self._g: Callable[[Tensor], Tensor] = InBfloat16(generator) if bfloat16 else generator
        self._pair: Pair | None = None  # of the last critic step: with reuse_batch its distances are reused
        self._critic_backward: Callable[[Tensor, Tensor], Tensor] = self._eager_critic_backward
        self._generator_loss: Callable[[Tensor, Tensor], Tensor] = self._eager_generator_loss

    @property
    def train_generator(self) -> bool:
        """Whether there is a generator with weights to train."""
        return self._generator_optimizer is not None

    @property
    def finite(self) -> bool:
        """Whether all sums and all parameters are finite."""
        networks = self._critic, self._generator
        parameters = torch.stack([p.isfinite().all() for network in networks for p in network.parameters()])
        return bool(self.sums.isfinite().all() and parameters.all())

    def critic(self, real: Tensor, latent: Tensor) -> Tensor:
        """Takes one step of the critic. Returns the fakes of this step."""
        with torch.no_grad():
            fake = self._g(latent)
        self._critic_optimizer.zero_grad(set_to_none=True)
        self.sums[:3] += self._critic_backward(real, fake)
        self._critic_optimizer.step()
        self._config.penalty.constrain(self._critic)
        return fake

    def generator(self, real: Tensor, latent: Tensor) -> None:
        """Takes one step of the generator."""
        assert self._generator_optimizer is not None
        self._critic.requires_grad_(False)
        loss = self._generator_loss(real, latent)
        self._generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._generator_optimizer.step()
        self._critic.requires_grad_(True)
        if self.average is not None:
            self.average.update_parameters(self._generator)
        self.sums[3] += loss.detach()
        self.sums[4] += 1

    def compile(self) -> None:
        """Replaces both steps by compiled ones. Each is compiled when it first runs."""
        torch.compiler.reset()  # else many trials in one process reach the limit of graphs for one function
        self._critic_backward = compiled_critic_backward(self._config, self._phi)
        self._generator_loss = compiled_generator_loss(self._config, self._phi, self._g)
        self._g = torch.compile(self._g, dynamic=False)

    def means(self, iterations: int) -> dict[str, float]:
        """The means of the losses over this number of critic iterations."""
        sums = dict(zip(STATISTICS, self.sums.tolist(), strict=True))
        dual_value = sums["dual_value"] / iterations
        means = {
            "critic_loss": sums["critic_loss"] / iterations,
            "dual_value": dual_value,
            "wasserstein_estimate": max(dual_value, 0.0) ** (1 / self._config.objective.cost.p),
            "penalty": sums["penalty"] / iterations,
        }
        if sums["generator_steps"]:  # an epoch shorter than critic_iterations may have none
            means["generator_loss"] = sums["generator_loss"] / sums["generator_steps"]
        return means

    def state_dict(self) -> dict[str, Any]:
        """The networks' weights, the optimizers' moments and the sums."""
        return {
            "sums": self.sums,
            "critic": self._critic.state_dict(),
            "generator": self._generator.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
            "generator_optimizer": self._generator_optimizer and self._generator_optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that :meth:`state_dict` returned."""
        self.sums.copy_(state["sums"])
        self._critic.load_state_dict(state["critic"])
        self._generator.load_state_dict(state["generator"])
        load_optimizer(self._critic_optimizer, state["critic_optimizer"])
        if self._generator_optimizer is not None:
            load_optimizer(self._generator_optimizer, state["generator_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def _eager_critic_backward(self, real: Tensor, fake: Tensor) -> Tensor:
        config = self._config
        pair = Pair(config.objective, self._phi, *config.opponent.in_order(real, fake), earlier=self._pair)
        losses = critic_losses(config, self._phi, pair)
        losses[0].backward(inputs=list(self._critic.parameters()))  # no gradient for the points of a penalty
        if config.reuse_batch and self._device.type == "cpu":  # on a GPU, comparing points would wait for the device
            self._pair = pair.measured()
        return torch.stack(losses).detach()

    def _eager_generator_loss(self, real: Tensor, latent: Tensor) -> Tensor:
        objective = self._config.objective
        return objective.generator_loss(Pair(objective, self._phi, real, self._g(latent), earlier=self._pair))


def compiles(config: TrialConfig, device: torch.device) -> bool:
    """Whether a trial's steps are compiled on this device."""
    if config.compile == "auto":
        return device.type == "cuda" and config.budget >= REPAID_AFTER
    return config.compile


class InBfloat16(nn.Module):
    """A network whose matrix products and convolutions use bfloat16. Its weights and its results are float32.

    In a Sequential, the last layer with weights and everything after it stay float32, for two reasons. Potentials are
    compared with ground costs, and bfloat16 would keep only two digits. A pixel's tanh that rounds to 1 would have no
    gradient.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._in_bfloat16, self._in_float32 = [network], list[nn.Module]()
        if isinstance(network, nn.Sequential):
            layers = list(network)
            last = max((index for index, layer in enumerate(layers) if list(layer.parameters())), default=0)
            self._in_bfloat16, self._in_float32 = layers[:last], layers[last:]

    def forward(self, points: Tensor) -> Tensor:
        """The network's output for these points, in float32."""
        with torch.autocast(points.device.type, torch.bfloat16):
            for layer in self._in_bfloat16:
                points = layer(points)
        points = points.float()
        for layer in self._in_float32:
            points = layer(points)
        return points


def critic_losses(config: TrialConfig, critic: Critic, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Three scalars: penalty − value, which the critic minimises, the dual value, and the penalty."""
    if not config.opponent.carried:  # if carried, B is the noise, and φ of the data is not needed
        pair.score()
    value = config.objective.value(pair)
    penalty = config.penalty(critic, pair)
    return penalty - value, value, penalty


def compiled_generator_loss(config: TrialConfig, critic: Critic, generator: Critic) -> Callable[..., Tensor]:
    """A compiled function ``generator_loss(real, latent)``, which returns a scalar to call backward on."""

    def generator_loss(real: Tensor, latent: Tensor) -> Tensor:
        return config.objective.generator_loss(Pair(config.objective, critic, real, generator(latent)))

    return torch.compile(generator_loss, dynamic=False)


def compiled_critic_backward(config: TrialConfig, critic: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A compiled function ``critic_backward(real, fake)``.

    It sets the gradients of the critic's parameters and returns the three values of :func:`critic_losses`. The graph is
    one nest of ``torch.func.grad``, because autograd's double backward, which a gradient penalty needs, does not
    compile.
    """

    def losses(parameters: dict[str, Tensor], real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        def functional(points: Tensor) -> Tensor:
            return cast(Tensor, torch.func.functional_call(critic, parameters, (points,)))

        pair = Pair(config.objective, functional, *config.opponent.in_order(real, fake))
        loss, value, penalty = critic_losses(config, functional, pair)
        return loss, torch.stack([loss, value, penalty])

    @torch.compile(dynamic=False, fullgraph=True)
    def gradients(parameters: dict[str, Tensor], real: Tensor, fake: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return torch.func.grad(losses, has_aux=True)(parameters, real, fake)

    def critic_backward(real: Tensor, fake: Tensor) -> Tensor:
        parameters = dict(critic.named_parameters())
        found, values = gradients({name: parameter.detach() for name, parameter in parameters.items()}, real, fake)
        for name, parameter in parameters.items():
            parameter.grad = laid_out_like(parameter, found[name])
        return values.detach()

    return critic_backward

"""The losses and gradients of one step: networks in float32 or bfloat16, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from trainers.optimizers import laid_out_like
from trainers.pair import Critic, Pair

if TYPE_CHECKING:
    from trainers.config import TrialConfig


class InBfloat16(nn.Module):
    """A network whose matrix products and convolutions take bfloat16; its weights and its results are float32.

    Of layers in a row, the last with weights and what follows take float32: potentials are compared with ground costs,
    of which bfloat16 would keep two digits, and a pixel's tanh, rounded to 1, would have no gradient any more.
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
        """What the network makes of points, in float32."""
        with torch.autocast(points.device.type, torch.bfloat16):
            for layer in self._in_bfloat16:
                points = layer(points)
        points = points.float()
        for layer in self._in_float32:
            points = layer(points)
        return points


def critic_losses(config: TrialConfig, critic: Critic, pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """penalty − value, which the critic minimises, the dual value and the penalty: scalars."""
    if not config.opponent.carried:  # where B is the noise, φ of the data is not asked for
        pair.score()
    value = config.objective.value(pair)
    penalty = config.penalty(critic, pair)
    return penalty - value, value, penalty


def compiled_generator_loss(config: TrialConfig, critic: Critic, generator: Critic) -> Callable[..., Tensor]:
    """``generator_loss(real, latent)``, a scalar to call backward on."""

    def generator_loss(real: Tensor, latent: Tensor) -> Tensor:
        return config.objective.generator_loss(Pair(config.objective, critic, real, generator(latent)))

    return torch.compile(generator_loss, dynamic=False)


def compiled_critic_backward(config: TrialConfig, critic: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """``critic_backward(real, fake)``: sets the gradients of the critic's parameters and returns the three losses.

    One graph by nested ``torch.func.grad``: the double backward of autograd, which a gradient penalty needs, does not
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

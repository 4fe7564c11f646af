"""Critics and generators: MLPs and DCGANs of any width and depth.

A critic maps points of shape (m, …) to potentials of shape (m,). A generator maps noise of shape (m, latent size) to
images in [−1, 1] of shape (m, C, H, W), or to points of shape (m, d).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from trainers.parts import ConfigError, Part, number

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "leaky_relu", "tanh", "none"]
Shape = tuple[int, ...]


class Weights(NamedTuple):
    """The size of one network: its trained parameters, and its buffers (batch normalisation's running statistics)."""

    parameters: int
    parameter_tensors: int
    buffer_bytes: int = 0
    buffer_tensors: int = 0


@dataclass(frozen=True, kw_only=True)
class Network(Part):
    """A critic and a generator of one architecture. ``latent_size`` is the dimension of the noise."""

    kind: ClassVar[str] = "network"

    latent_size: int = number(128, at_least=1)

    def build_critic(self, shape: Shape) -> nn.Module:
        """A newly initialised critic for points of ``shape``. It draws from torch's global random state."""
        raise NotImplementedError(f"{type(self).__name__} must build a critic")

    def build_generator(self, shape: Shape) -> nn.Module:
        """A newly initialised generator of points of ``shape``. It draws from torch's global random state."""
        raise NotImplementedError(f"{type(self).__name__} must build a generator")

    def critic_weights(self, shape: Shape) -> Weights:
        """The size of the critic for points of ``shape``.

        It is counted from the modules. The networks of this package use a formula instead, so that planning needs no
        torch.
        """
        return _counted(self, "critic", shape)

    def generator_weights(self, shape: Shape) -> Weights:
        """The size of the generator of points of ``shape``, counted like the critic's."""
        return _counted(self, "generator", shape)


@dataclass(frozen=True, kw_only=True)
class Mlp(Network):
    """Linear layers of the given widths. ``dropout`` is applied after every hidden layer of the critic.

    ``generator_tail`` gives the activations of the generator's last hidden layer and of its output. Table 2 of the
    (q,p)-WGAN paper prints ``[tanh, leaky_relu]``, which is probably swapped.
    """

    name: ClassVar[str] = "mlp"

    generator_widths: tuple[int, ...] = (256, 256)
    critic_widths: tuple[int, ...] = (256, 256)
    activation: Activation = "leaky_relu"
    generator_tail: tuple[Activation, Activation] = ("leaky_relu", "tanh")
    dropout: float = number(0.0, at_least=0, below=1)

    def __post_init__(self) -> None:
        _check_widths(generator_widths=self.generator_widths, critic_widths=self.critic_widths)

    def build_critic(self, shape: Shape) -> nn.Module:
        from torch import nn

        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise([_size(shape), *self.critic_widths]):
            layers += [nn.Linear(inputs, outputs), *_activation(self.activation)]
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(self.critic_widths[-1], 1), nn.Flatten(0))

    def build_generator(self, shape: Shape) -> nn.Module:
        from torch import nn

        sizes = [self.latent_size, *self.generator_widths, _size(shape)]
        activations = [self.activation] * (len(sizes) - 3) + list(self.generator_tail)
        layers: list[nn.Module] = []
        for (inputs, outputs), activation in zip(pairwise(sizes), activations, strict=True):
            layers += [nn.Linear(inputs, outputs), *_activation(activation)]
        return nn.Sequential(*layers, nn.Unflatten(1, shape))

    def critic_weights(self, shape: Shape) -> Weights:
        return _total(_layer(*sizes) for sizes in pairwise([_size(shape), *self.critic_widths, 1]))

    def generator_weights(self, shape: Shape) -> Weights:
        return _total(_layer(*sizes) for sizes in pairwise([self.latent_size, *self.generator_widths, _size(shape)]))


@dataclass(frozen=True, kw_only=True)
class AtomsNetwork(Mlp):
    """A model of ``count`` points, which all start at the origin (Mallasto et al., Fig. 1). The critic is the MLP's.

    A batch repeats the points in order and does not depend on the noise. The points have equal weights if ``count``
    divides the batch size.
    """

    name: ClassVar[str] = "atoms"

    count: int = number(7, at_least=1)

    def build_generator(self, shape: Shape) -> nn.Module:
        from trainers.point_model import PointModel

        return PointModel(self.count, shape)

    def generator_weights(self, shape: Shape) -> Weights:
        return Weights(self.count * _size(shape), 1)


@dataclass(frozen=True, kw_only=True)
class Dcgan(Network):
    """Strided convolutions, as in Table 3 of the (q,p)-WGAN paper and in WWGAN's code (Radford et al., 2015).

    The generator maps noise to ``generator_widths[0]`` channels, then doubles the image's sides once for each width.
    The critic halves the image's sides once for each of ``critic_widths``, then applies one linear layer. The critic
    has no batch normalisation, so that a gradient penalty acts on each sample separately.

    - ``stem_norm``: whether batch normalisation also follows the generator's first layer.
    - ``initial``: torch's own initialisation (``default``), or N(0, 0.02²) for weights and N(1, 0.02²) for the scales
      of batch normalisation (``normal``).
    """

    name: ClassVar[str] = "dcgan"

    generator_widths: tuple[int, ...] = (512, 256, 128)
    critic_widths: tuple[int, ...] = (128, 256, 512)
    generator_kernel: Literal[2, 4] = 2
    critic_kernel: Literal[3, 4] = 3
    bias: bool = True
    stem_norm: bool = False
    initial: Literal["default", "normal"] = "default"

    def __post_init__(self) -> None:
        _check_widths(generator_widths=self.generator_widths, critic_widths=self.critic_widths)

    def check(self, trial: Any) -> None:
        shape = trial.dataset.shape
        if len(shape) != 3:
            raise ConfigError("network.name", f"dcgan makes images; {trial.dataset.name} has points; use mlp")
        for option in ("generator_widths", "critic_widths"):
            factor = 2 ** len(getattr(self, option))
            if shape[1] % factor or shape[2] % factor:
                raise ConfigError(
                    f"network.{option}",
                    f"{len(getattr(self, option))} layers need image sides divisible by {factor}, "
                    f"{trial.dataset.name} has {shape[1]} × {shape[2]}",
                )

    def build_critic(self, shape: Shape) -> nn.Module:
        from torch import nn

        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([shape[0], *self.critic_widths]):
            layers.append(nn.Conv2d(inputs, outputs, self.critic_kernel, stride=2, padding=1, bias=self.bias))
            layers += _activation("leaky_relu")
        head = nn.Linear(_size(self._critic_top(shape)), 1, bias=self.bias)
        return self._initialised(nn.Sequential(*layers, nn.Flatten(), head, nn.Flatten(0)))

    def build_generator(self, shape: Shape) -> nn.Module:
        from torch import nn

        base = self._generator_base(shape)
        layers: list[nn.Module] = [
            nn.Linear(self.latent_size, _size(base), bias=self.bias),
            nn.Unflatten(1, base),
            *([nn.BatchNorm2d(base[0])] if self.stem_norm else []),
            nn.ReLU(),
        ]
        padding = (self.generator_kernel - 2) // 2
        for inputs, outputs in pairwise([*self.generator_widths, shape[0]]):
            layers.append(
                nn.ConvTranspose2d(inputs, outputs, self.generator_kernel, stride=2, padding=padding, bias=self.bias)
            )
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        return self._initialised(nn.Sequential(*layers[:-2], nn.Tanh()))

    def critic_weights(self, shape: Shape) -> Weights:
        convolutions = pairwise([shape[0], *self.critic_widths])
        return _total(
            [
                *(_layer(*channels, kernel=self.critic_kernel, bias=self.bias) for channels in convolutions),
                _layer(_size(self._critic_top(shape)), 1, bias=self.bias),
            ]
        )

    def generator_weights(self, shape: Shape) -> Weights:
        convolutions = pairwise([*self.generator_widths, shape[0]])
        normalised = self.generator_widths if self.stem_norm else self.generator_widths[1:]
        return _total(
            [
                _layer(self.latent_size, _size(self._generator_base(shape)), bias=self.bias),
                *(_layer(*channels, kernel=self.generator_kernel, bias=self.bias) for channels in convolutions),
                *map(_batch_norm, normalised),
            ]
        )

    def _critic_top(self, shape: Shape) -> Shape:
        side = 2 ** len(self.critic_widths)
        return self.critic_widths[-1], shape[1] // side, shape[2] // side

    def _generator_base(self, shape: Shape) -> Shape:
        side = 2 ** len(self.generator_widths)
        return self.generator_widths[0], shape[1] // side, shape[2] // side

    def _initialised(self, network: nn.Module) -> nn.Module:
        from torch import nn

        if self.initial == "normal":
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                    nn.init.normal_(module.weight, 0.0, 0.02)
                elif isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(module.weight, 1.0, 0.02)
        return network


@functools.cache
def _counted(network: Network, which: Literal["critic", "generator"], shape: Shape) -> Weights:
    """Counts the weights of a network's modules on torch's ``meta`` device, which neither draws nor stores numbers."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = network.build_critic(shape) if which == "critic" else network.build_generator(shape)
    trained = list(module.parameters())
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    buffers = [tensor for name, tensor in module.state_dict().items() if name not in names]
    return Weights(sum(p.numel() for p in trained), len(trained), sum(b.nbytes for b in buffers), len(buffers))


def _check_widths(**widths: tuple[int, ...]) -> None:
    for option, values in widths.items():
        if not values or min(values) < 1:
            raise ConfigError(option, f"needs at least one width of 1 or more, got {list(values)}")


def _size(shape: Shape) -> int:
    return math.prod(shape)


def _layer(inputs: int, outputs: int, *, kernel: int = 1, bias: bool = True) -> Weights:
    """The size of a linear layer, or of a convolution whose kernel has side ``kernel``."""
    return Weights(inputs * outputs * kernel**2 + outputs * bias, 1 + bias)


def _batch_norm(channels: int) -> Weights:
    """The size of a batch normalisation: scale, shift, running mean and variance in float32, and an int64 counter."""
    return Weights(2 * channels, 2, 2 * channels * 4 + 8, 3)


def _total(layers: Iterable[Weights]) -> Weights:
    return Weights(*map(sum, zip(*layers, strict=True)))


def _activation(name: Activation) -> list[nn.Module]:
    from torch import nn

    layers: dict[str, list[nn.Module]] = {
        "relu": [nn.ReLU()],
        "leaky_relu": [nn.LeakyReLU(0.2)],
        "tanh": [nn.Tanh()],
        "none": [],
    }
    return layers[name]

"""Datasets as tensors, in memory or memory-mapped, with one fixed split into training and held-out examples."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainers.parts import Part, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Data:
    """The examples of a dataset: uint8 images (n, C, H, W) or float32 points (n, d), and labels (n,) if it has any.

    Images may be memory-mapped files, so they must not be written to. ``kept_digest`` is the digest that is stored with
    such files.
    """

    train: Tensor
    held_out: Tensor
    train_labels: Tensor | None = None
    held_out_labels: Tensor | None = None
    other: Tensor | None = None
    """Second distribution for ``opponent=data``. None means the training set itself."""
    shift: tuple[float, ...] | None = None
    """The translation from the training examples' distribution to that of ``other``. None if there is none."""
    kept_digest: str | None = None

    @property
    def digest(self) -> str:
        """The key of the content in caches: ``kept_digest``, or SHA-256 of all examples and labels in order."""
        if self.kept_digest is not None:
            return self.kept_digest
        content = hashlib.sha256()
        for tensor in (self.train, self.held_out, self.train_labels, self.held_out_labels, self.other):
            if tensor is not None:
                content.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                content.update(tensor.numpy().tobytes())
        return content.hexdigest()


def to_input(examples: Tensor) -> Tensor:
    """Examples as the networks' input: uint8 images become float32 in [−1, 1], points stay as they are."""
    return examples / 127.5 - 1 if not examples.is_floating_point() else examples


def to_examples(outputs: Tensor, like: Tensor) -> Tensor:
    """A generator's outputs in the type of the dataset's examples: the reverse of :func:`to_input`."""
    if like.is_floating_point():
        return outputs
    return ((outputs + 1) * 127.5).round().clamp(0, 255).to(like.dtype)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order in which one epoch visits n training examples without replacement, a permutation.

    It depends only on its arguments. So all methods with the same seed see the same data in the same order, and a
    resumed trial needs no state for it.
    """
    import torch

    source = torch.Generator().manual_seed(int(hashlib.sha256(f"{seed}/{epoch}".encode()).hexdigest()[:15], 16))
    return torch.randperm(n, generator=source)


@dataclass(frozen=True, kw_only=True)
class Dataset(Part):
    """A source of examples."""

    kind: ClassVar[str] = "dataset"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        raise NotImplementedError(f"{type(self).__name__} must say its shape")

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        return False

    @property
    def train_size(self) -> int:
        """The number of training examples."""
        raise NotImplementedError(f"{type(self).__name__} must say its size")

    @property
    def held_out_size(self) -> int:
        """The number of held-out examples."""
        raise NotImplementedError(f"{type(self).__name__} must say its size")

    def filled_in(self, cache_dir: Path) -> Dataset:
        """The dataset with the options filled in that depend on its files. Called before anything starts.

        Files that are already in the cache are not read again. Raises :class:`~trainers.parts.ConfigError` if the files
        are not at the given path.
        """
        return self

    def prepare(self, cache_dir: Path) -> None:
        """Puts what all trials of a machine share into the cache, so that :meth:`load` is quick.

        Raises :class:`~trainers.parts.ConfigError` if the files are neither here nor can be downloaded.
        """

    def load(self, cache_dir: Path) -> Data:
        """The examples, the same in every call."""
        raise NotImplementedError(f"{type(self).__name__} must load its examples")


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """The 1,797 real handwritten digits inside scikit-learn, 8×8, with grey levels 0…16 scaled to 0…255.

    The split is one fixed random permutation, the same for every trial. Source: Alpaydın and Kaynak, Optical
    Recognition of Handwritten Digits, UCI, 1998.
    """

    name: ClassVar[str] = "digits"
    shape: ClassVar[tuple[int, ...]] = (1, 8, 8)
    labelled: ClassVar[bool] = True
    total: ClassVar[int] = 1797

    held_out: int = number(500, at_least=1, below=1797)

    @property
    def train_size(self) -> int:
        return self.total - self.held_out

    @property
    def held_out_size(self) -> int:
        return self.held_out

    def load(self, cache_dir: Path) -> Data:
        import numpy as np
        import torch

        # The file is read directly, because importing scikit-learn would take every worker two seconds.
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        table = np.loadtxt(str(file), delimiter=",")
        order = torch.randperm(self.total, generator=torch.Generator().manual_seed(0))
        grey = torch.from_numpy(table[:, :-1]).reshape(-1, *self.shape)
        images = (grey * (255 / 16)).round().to(torch.uint8)[order]
        labels = torch.from_numpy(table[:, -1]).long()[order]
        n = self.train_size
        return Data(images[:n], images[n:], labels[:n], labels[n:])


@dataclass(frozen=True, kw_only=True)
class Mixture(Dataset):
    """A 2-D mixture of three Gaussian clusters of 60, 30 and 50 points (Mallasto et al., § 4, Fig. 3).

    The paper gives only the cluster sizes. We chose the centres (on a circle of radius 1) and the standard deviation
    (0.15). The held-out points are a second draw of the same sizes.
    """

    name: ClassVar[str] = "mixture"
    shape: ClassVar[tuple[int, ...]] = (2,)
    sizes: ClassVar[tuple[int, ...]] = (60, 30, 50)

    @property
    def train_size(self) -> int:
        return sum(self.sizes)

    @property
    def held_out_size(self) -> int:
        return sum(self.sizes)

    def load(self, cache_dir: Path) -> Data:
        return Data(self._draw(seed=0), self._draw(seed=1))

    def _draw(self, seed: int) -> Tensor:
        import torch

        source = torch.Generator().manual_seed(seed)
        clusters = []
        for index, size in enumerate(self.sizes):
            angle = math.pi / 2 + 2 * math.pi * index / len(self.sizes)
            centre = torch.tensor([math.cos(angle), math.sin(angle)])
            clusters.append(centre + 0.15 * torch.randn(size, 2, generator=source))
        return torch.cat(clusters)


@dataclass(frozen=True, kw_only=True)
class Atoms(Dataset):
    """Ten points in the plane with equal weights, for a model with fewer points (Mallasto et al., Fig. 1).

    The paper does not print the coordinates. We use one fixed draw from a standard normal distribution. Each point is
    repeated seven times. So one batch of 70 holds all of them with equal weights, and a model's seven points ten times
    each.
    """

    name: ClassVar[str] = "atoms"
    shape: ClassVar[tuple[int, ...]] = (2,)

    @property
    def train_size(self) -> int:
        return 70

    @property
    def held_out_size(self) -> int:
        return 70

    def load(self, cache_dir: Path) -> Data:
        import torch

        points = torch.randn(10, 2, generator=torch.Generator().manual_seed(1)).repeat(7, 1)
        return Data(points, points)


@dataclass(frozen=True, kw_only=True)
class Gaussians(Dataset):
    """Two standard normal distributions in the plane, one moved by [1, 1], the other by [−1, −1] (poster, Fig. 2).

    The training examples come from the first one. With ``opponent=data`` the critic tells them from the second one. The
    distance between the two is known for every ground cost, because a translation is an optimal transport.
    """

    name: ClassVar[str] = "gaussians"
    shape: ClassVar[tuple[int, ...]] = (2,)
    size: ClassVar[int] = 10_000

    @property
    def train_size(self) -> int:
        return self.size

    @property
    def held_out_size(self) -> int:
        return self.size // 10

    def load(self, cache_dir: Path) -> Data:
        import torch

        source = torch.Generator().manual_seed(0)
        train, held_out, other = (
            torch.randn(n, 2, generator=source) + place
            for n, place in ((self.size, 1.0), (self.size // 10, 1.0), (self.size, -1.0))
        )
        return Data(train, held_out, other=other, shift=(-2.0, -2.0))

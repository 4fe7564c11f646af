"""What the sections share: networks, methods, turns, trials and the printing of tables."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch

from trainers.config import GeneratorConfig, OptimizerConfig, TrialConfig
from trainers.datasets import Data, Dataset
from trainers.evaluation import NoEvaluation
from trainers.networks import Dcgan, Mlp, Network
from trainers.objectives import CTransform, KantorovichRubinstein, Objective
from trainers.penalties import Admissibility, GradientPenalty, Penalty, WassersteinPenalty, WeightClipping
from trainers.training import Training

BATCH = 64
ENDLESS = 10**9
IMAGES = 60_000
"""Enough images that no turn reaches the end of an epoch."""
PAIRS = ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.5, 1.0), (1.2, 1.0), (3.0, 2.0))
BASE = "WGAN-GP"


@dataclass(frozen=True, kw_only=True)
class RandomImages(Dataset):
    """A dataset of random bytes."""

    name: ClassVar[str] = "random"

    shape: tuple[int, ...] = (1, 8, 8)
    train_size: int = IMAGES
    held_out_size: int = BATCH

    def load(self, cache_dir: Path) -> Data:
        return random_data(self)


@functools.cache
def random_data(dataset: RandomImages) -> Data:
    """The data of a dataset, cached so that all trials of a process share the memory."""
    source = torch.Generator().manual_seed(0)
    count = max(dataset.train_size, dataset.held_out_size)
    images = torch.randint(0, 256, (count, *dataset.shape), generator=source, dtype=torch.uint8)
    return Data(images[: dataset.train_size], images[: dataset.held_out_size])


@dataclass(frozen=True)
class Setting:
    """A network on images of one shape. ``epoch`` is the number of images in the real dataset."""

    shape: tuple[int, ...]
    network: Network
    epoch: int


SETTINGS = {
    "digits MLP": Setting((1, 8, 8), Mlp(latent_size=32), 1297),
    "MNIST MLP": Setting(
        (1, 28, 28),
        Mlp(latent_size=128, generator_widths=(256, 512, 1024), critic_widths=(1024, 512, 256), dropout=0.3),
        60_000,
    ),
    "CIFAR-10 DCGAN": Setting((3, 32, 32), Dcgan(), 50_000),
}
"""As in the presets mlp (digits), qp_mlp and qp_dcgan (Tables 2 and 3 of the (q,p)-WGAN paper)."""


class Turns(NamedTuple):
    """Iterations per turn and number of rounds, for steps and for epochs."""

    iterations: int
    rounds: int
    epoch_iterations: int
    epoch_rounds: int


TURNS = {
    "cpu": {"digits MLP": Turns(10, 30, 20, 6), "MNIST MLP": Turns(3, 15, 20, 3), "CIFAR-10 DCGAN": Turns(1, 6, 3, 2)},
    "cuda": dict.fromkeys(SETTINGS, Turns(20, 20, 100, 4)) | {"digits MLP": Turns(20, 20, 20, 10)},
}
QUICK = Turns(1, 2, 3, 1)
"""A few turns, to see that everything runs."""
LONGEST, FEWEST = 60.0, 3
"""On a slow machine the rounds of a network end after LONGEST seconds, but not before FEWEST rounds."""


def qp_name(q: float, p: float) -> str:
    return f"({q:g},{p:g})"


def methods() -> dict[str, tuple[Objective, Penalty]]:
    """Objective and penalty by name. Methods take turns in this order."""
    duality = KantorovichRubinstein()
    return {
        "WGAN": (duality, WeightClipping()),
        BASE: (duality, GradientPenalty()),
        "WWGAN": (duality, WassersteinPenalty()),
        **{qp_name(q, p): (CTransform(q=q, p=p), Admissibility()) for q, p in PAIRS},
    }


class Bench:
    """The options that all sections share: device, threads, cache; and their progress lines."""

    def __init__(self, device: Literal["cpu", "cuda"], threads: int, cache_dir: Path, *, quick: bool) -> None:
        self.kind = device
        self.device = torch.device(device)
        self.quick = quick
        self.threads = threads
        self.cache_dir = cache_dir
        self.started = time.perf_counter()

    def say(self, text: str) -> None:
        """Prints a line of progress on standard error."""
        print(f"{time.perf_counter() - self.started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def turns(self, name: str) -> Turns:
        """The turns of a network on this device."""
        return QUICK if self.quick else TURNS[self.device.type][name]

    def rounds(self, name: str, count: int) -> Iterator[int]:
        """Yields 0, 1, … up to ``count``. Ends earlier if that takes longer than LONGEST, but not before FEWEST."""
        started = time.perf_counter()
        for number in range(count):
            if number >= FEWEST and time.perf_counter() - started > LONGEST:
                self.say(f"{name}: {number} rounds of {count}, they take too long")
                return
            self.say(f"{name}: round {number + 1} of {count}")
            yield number

    def training(self, setting: Setting, method: str, *, images: int = IMAGES, **options: Any) -> Training:
        """A new trial. It has one critic iteration per generator iteration unless ``options`` change that."""
        objective, penalty = methods()[method]
        values = {"reuse_batch": isinstance(objective, CTransform), "budget": ENDLESS} | options
        config = TrialConfig(
            dataset=RandomImages(shape=setting.shape, train_size=images),
            network=setting.network,
            objective=objective,
            penalty=penalty,
            evaluation=NoEvaluation(),
            critic=OptimizerConfig(),
            generator=GeneratorConfig(),
            batch_size=BATCH,
            threads=self.threads,
            device=self.kind,
            **values,
        )
        return Training(config, cache_dir=self.cache_dir)

    def seconds(self, act: Callable[[], object]) -> float:
        """The seconds that a call takes, including the device's work."""
        self.synchronize()
        started = time.perf_counter()
        act()
        self.synchronize()
        return time.perf_counter() - started

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def advance(training: Training, iterations: int) -> None:
    """Runs ``iterations`` critic iterations within an epoch, with the generator iterations that belong to them.

    Raises RuntimeError if the epoch ends before.
    """
    left = iter(range(iterations))
    if training.run_epoch(lambda: next(left, None) is None) is not None:
        raise RuntimeError("an epoch ended within a turn: the dataset is too small for it")


def print_table(header: str, rows: Iterable[Sequence[str]]) -> None:
    columns = header.count("|") + 1
    print(f"| {header} |")
    print(f"|{'---|' * columns}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def verdict(value: float | None, target: float | None, *, at_most: bool, digits: int = 1) -> tuple[str, str]:
    """The target and whether it is met."""
    if target is None or value is None:
        return "–", "–"
    met = value <= target if at_most else value >= target
    return f"{'≤' if at_most else '≥'} {target:.{digits}f}", "met" if met else "missed"


def shown(values: dict[str, Any], key: str, digits: int = 2) -> str:
    return f"{values[key]:.{digits}f}" if key in values else "–"

"""Training steps beside WGAN-GP's, the textbook's and the machine's limits: ``python -m bench.performance``.

Needs torch and ``trainers`` alone (torch-fidelity for the evaluation): no Ray, MLflow or Hydra. Prints Markdown; with
``--output FILE`` the raw figures as JSON too. Images are random bytes of the datasets' shapes, m = 64.

- **Time** of a critic and a generator iteration (``critic_iterations`` 1), in fp32, not compiled: all methods take
  turns of a few iterations within one process, after a turn that does not count; the median of the rounds. The
  **ratio** is the median over the rounds of time / WGAN-GP's time in the same round.
- **FLOPs** are what ``torch.utils.flop_counter`` counts in the real iteration (matrix products and convolutions,
  forward and backward passes of all orders, 2 a multiply-add), and for (q,p) with B = both the ground costs'
  elementwise work by formula: 3 d (difference, power, sum) for each of 2 m² pairs, and as much in a generator's
  backward pass for each of m pairs, the minima. Other elementwise work is not counted.
- **Bytes** that must move at least, in float32: 4 P (4 + 2 s) for P trained parameters (read, gradient written and
  read, written) with s slots of the optimizer (read and written), 4 P' for the other player's parameters (read), each
  byte of a layer's outputs twice (written, read by the next layer or the backward pass), counted by hooks in the real
  iteration, and 4 m d for the minibatch.
- **Floor** = max(FLOPs / rate of a matrix product, bytes / rate of a copy), critic's and generator's added, with the
  rates measured here. What fits a CPU's cache can be faster than memory.
- **Textbook / ours**: ``bench.textbook`` and ``Training.run_epoch`` take turns of as many iterations, each method.
  Ours is a whole short epoch, with what an epoch does at its end; the textbook's time is its loop from the first batch
  on, and the start of its workers is added once an epoch of the dataset's real length, as the ratio of epochs wants it.
  Textbook / floor is what no faster code of ours could exceed on this machine in fp32. Compile time is how much longer
  a compiled trial takes until its first epoch is over.
- **Memory** of the ground cost, forward and backward with a gradient for every pair and with respect to both sides,
  beyond what was there: 2 m points on either side, as B = both has. On the CPU the peak of a process of its own, whose
  allocator keeps nothing back; on CUDA what torch allocated. The gradients themselves are 4 · 2 · 2 m · d bytes of it.
  "In a step" is what a generator's step has of it: m × m pairs twice, a gradient for m of them and one side.
- **Evaluation**: 10,000 samples of CIFAR-10's DCGAN, their features in a classifier of random weights (the time is that
  of trained ones), FID alone, and all metrics.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench import textbook
from trainers.config import GeneratorConfig, OptimizerConfig, TrialConfig
from trainers.datasets import Data, Dataset, to_input
from trainers.evaluation import NoEvaluation
from trainers.footprint import SLOTS
from trainers.ground_costs import ground_cost
from trainers.networks import Dcgan, Mlp, Network
from trainers.objectives import CTransform, KantorovichRubinstein, Objective
from trainers.pair import Pair
from trainers.penalties import Admissibility, GradientPenalty, Penalty, WassersteinPenalty, WeightClipping
from trainers.training import Training

BATCH = 64
ENDLESS = 10**9
IMAGES = 60_000
"""So many that no turn reaches the end of an epoch."""
PAIRS = ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.5, 1.0), (1.2, 1.0), (3.0, 2.0))
BASE = "WGAN-GP"
EVALUATED = 10_000
MEMORY_QS = (1.0, 1.5, 2.0)
MEMORY_TARGETS = {64: 5.0, 256: 30.0}
TEXTBOOK: dict[str, textbook.Step] = {
    BASE: textbook.wgan_gp,
    "WWGAN": textbook.wwgan,
    "(2,1)": textbook.qp_wgan(2.0, 1.0),
}
TEXTBOOK_TARGETS = {"cpu": {BASE: 1.5, "(2,1)": 2.0}, "cuda": {BASE: 4.0, "(2,1)": 4.0}}
BF16_TARGET = 1.5


@dataclass(frozen=True, kw_only=True)
class RandomImages(Dataset):
    """Random bytes."""

    name: ClassVar[str] = "random"

    shape: tuple[int, ...] = (1, 8, 8)
    train_size: int = IMAGES
    held_out_size: int = BATCH

    def load(self, cache_dir: Path) -> Data:
        return random_data(self)


@functools.cache
def random_data(dataset: RandomImages) -> Data:
    """The same memory for all trials of a process."""
    source = torch.Generator().manual_seed(0)
    count = max(dataset.train_size, dataset.held_out_size)
    images = torch.randint(0, 256, (count, *dataset.shape), generator=source, dtype=torch.uint8)
    return Data(images[: dataset.train_size], images[: dataset.held_out_size])


@dataclass(frozen=True)
class Setting:
    """A network on images of one shape; ``epoch`` is how many the real dataset has."""

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
"""As in the presets mlp, qp_mlp and qp_dcgan: the digits', Table 2's and Table 3's of the (q,p)-WGAN paper."""


class Turns(NamedTuple):
    """Iterations of a turn and rounds of turns, of steps and of epochs."""

    iterations: int
    rounds: int
    epoch_iterations: int
    epoch_rounds: int


TURNS = {
    "cpu": {"digits MLP": Turns(10, 30, 20, 6), "MNIST MLP": Turns(3, 15, 20, 3), "CIFAR-10 DCGAN": Turns(1, 6, 3, 2)},
    "cuda": dict.fromkeys(SETTINGS, Turns(20, 20, 100, 4)) | {"digits MLP": Turns(20, 20, 20, 10)},
}
QUICK = Turns(1, 2, 3, 1)
"""As few as show that everything runs."""
LONGEST, FEWEST = 60.0, 3
"""Seconds of a network's rounds, on a machine slower than they were made for, and how many there are at least."""


def qp_name(q: float, p: float) -> str:
    return f"({q:g},{p:g})"


def methods() -> dict[str, tuple[Objective, Penalty]]:
    """Objective and penalty by name; neighbours in this order take turns next to each other."""
    duality = KantorovichRubinstein()
    return {
        "WGAN": (duality, WeightClipping()),
        BASE: (duality, GradientPenalty()),
        "WWGAN": (duality, WassersteinPenalty()),
        **{qp_name(q, p): (CTransform(q=q, p=p), Admissibility()) for q, p in PAIRS},
    }


def step_target(method: str) -> float | None:
    """The most that a method's step may take, in WGAN-GP's."""
    if method == "WWGAN":
        return 1.01
    if method.startswith("("):
        return 1.0 if float(method[1:].split(",", maxsplit=1)[0]) in (1, 2) else 1.3
    return None


def option(name: str, value: Any) -> dict[str, Any] | None:
    """An option of a trial, or None where this version of ``TrialConfig`` has none of that name."""
    return {name: value} if name in {field.name for field in fields(TrialConfig)} else None


PLAIN: dict[str, Any] = (option("precision", "fp32") or {}) | (option("compile", False) or {})
"""What ours is measured with, unless said otherwise."""


class Bench:
    """What all sections share: device, threads, and where progress goes."""

    def __init__(self, device: Literal["cpu", "cuda"], threads: int, cache_dir: Path, *, quick: bool) -> None:
        self.kind = device
        self.device = torch.device(device)
        self.quick = quick
        self.threads = threads
        self.cache_dir = cache_dir
        self.started = time.perf_counter()

    def say(self, text: str) -> None:
        """A line of progress on stderr."""
        print(f"{time.perf_counter() - self.started:5.0f} s  {text}", file=sys.stderr, flush=True)

    def turns(self, name: str) -> Turns:
        """How often what is done with a network."""
        return QUICK if self.quick else TURNS[self.device.type][name]

    def rounds(self, name: str, count: int) -> Iterator[int]:
        """0, 1, …, fewer than ``count`` only where they take longer than LONGEST: then three, or what fits."""
        started = time.perf_counter()
        for number in range(count):
            if number >= FEWEST and time.perf_counter() - started > LONGEST:
                self.say(f"{name}: {number} rounds of {count}, they take too long")
                return
            self.say(f"{name}: round {number + 1} of {count}")
            yield number

    def training(self, setting: Setting, method: str, *, images: int = IMAGES, **options: Any) -> Training:
        """A trial about to begin, one critic iteration to one of the generator unless ``options`` say otherwise."""
        objective, penalty = methods()[method]
        values = PLAIN | {"reuse_batch": isinstance(objective, CTransform), "budget": ENDLESS} | options
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
        """How long it takes, the device's work included."""
        self.synchronize()
        started = time.perf_counter()
        act()
        self.synchronize()
        return time.perf_counter() - started

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def advance(training: Training, iterations: int) -> None:
    """So many critic iterations within an epoch, and what generator iterations go with them."""
    left = iter(range(iterations))
    if training.run_epoch(lambda: next(left, None) is None) is not None:
        raise RuntimeError("an epoch ended within a turn: the dataset is too small for it")


# The machine.


def machine(bench: Bench) -> dict[str, Any]:
    """What it is, its FLOP/s in matrix products and its bytes a second in copies, the best of several."""
    size = 8192 if bench.device.type == "cuda" else 2048
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        side = size if name == "fp32" or bench.device.type == "cuda" else size // 4  # slow without AMX or AVX-512
        left, right = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        multiply = functools.partial(torch.mm, left, right, out=out)
        rates[name] = 2 * side**3 / min(bench.seconds(multiply) for _ in range(6))
    source = torch.ones(2**26, device=bench.device)  # 268 MB
    target = torch.empty_like(source)
    copy = functools.partial(target.copy_, source)
    rates["copy"] = 2 * source.nbytes / min(bench.seconds(copy) for _ in range(6))
    return {
        "device": torch.cuda.get_device_name() if bench.device.type == "cuda" else processor(),
        "kind": bench.device.type,
        "threads": bench.threads,
        "amx": "amx_bf16" in flags(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
        "fp32_flops": rates["fp32"],
        "bf16_flops": rates["bf16"],
        "bytes_a_second": rates["copy"],
    }


def processor() -> str:
    lines = [line for line in cpuinfo() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.machine()


def flags() -> set[str]:
    """What the processor says that it can do."""
    return {flag for line in cpuinfo() if line.startswith("flags") for flag in line.partition(":")[2].split()}


def cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def print_machine(facts: dict[str, Any]) -> None:
    print(f"# Performance, {time.strftime('%Y-%m-%d', time.gmtime())}\n")
    amx = (
        "" if facts["kind"] == "cuda" else f" ({'with' if facts['amx'] else 'without'} AMX), {facts['threads']} threads"
    )
    print(f"{facts['device']}{amx}; torch {facts['torch']}, Python {facts['python']}, {facts['system']}; load", end=" ")
    print(
        f"{facts['load']:.1f} at the start. Matrix products: {facts['fp32_flops'] / 1e9:,.0f} GFLOP/s in fp32,", end=" "
    )
    print(f"{facts['bf16_flops'] / 1e9:,.0f} in bf16; copies: {facts['bytes_a_second'] / 1e9:,.1f} GB/s.\n")


# Steps: time, floor, ratio to WGAN-GP.


class Work(NamedTuple):
    """Floating-point operations and least bytes of one step."""

    flops: float
    bytes: float

    def seconds(self, facts: dict[str, Any]) -> float:
        """The floor."""
        return max(self.flops / facts["fp32_flops"], self.bytes / facts["bytes_a_second"])


def count_work(bench: Bench, setting: Setting, method: str) -> tuple[Work, Work]:
    """The critic's step and the generator's: with two critic iterations to one of the generator, the first is a
    critic's alone, and the second, less the first, leaves the generator's."""
    training = bench.training(setting, method, critic_iterations=2)
    first, second = count(training), count(training)
    config, pixels = training.config, math.prod(setting.shape)
    pairs, nearest = (2 * BATCH**2, BATCH) if isinstance(config.objective, CTransform) else (0, 0)
    critic = sum(parameter.numel() for parameter in training.critic.parameters())
    generator = sum(parameter.numel() for parameter in training.generator.parameters())
    return (
        Work(
            first.flops + 3 * pixels * pairs,
            first.bytes + updated(critic, config.critic) + 4 * generator + 4 * BATCH * pixels,
        ),
        Work(
            second.flops - first.flops + 3 * pixels * (pairs + nearest),
            second.bytes - first.bytes + updated(generator, config.generator) + 4 * critic,
        ),
    )


def flop_counter() -> FlopCounterMode:
    """torch's counter without its attribution to modules, whose hooks ``torch.autograd.grad`` within a step refuses."""

    class Everywhere(contextlib.nullcontext[None]):
        parents = frozenset({"Global"})

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Everywhere()  # type: ignore[assignment]
    return counter


def updated(parameters: int, options: OptimizerConfig) -> float:
    """Bytes of a step's parameters, their gradients and the optimizer's slots."""
    return 4.0 * parameters * (4 + 2 * SLOTS[options.optimizer])


def count(training: Training) -> Work:
    """Matrix products' operations, and 2 bytes for each byte of layers' outputs, in one iteration."""
    outputs = 0

    def add(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal outputs
        views = isinstance(module, nn.Flatten | nn.Unflatten)
        if isinstance(output, Tensor) and not views and not any(True for _ in module.children()):
            outputs += output.nbytes

    hook = nn.modules.module.register_module_forward_hook(add)
    try:
        with flop_counter() as counter:
            advance(training, 1)
    finally:
        hook.remove()
    return Work(counter.get_total_flops(), 2.0 * outputs)


def measure_steps(bench: Bench, name: str, setting: Setting, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each method."""
    bench.say(f"{name}: counting operations")
    one = qp_name(*PAIRS[0])  # the counts of all (q,p) are the same
    work = {method: count_work(bench, setting, method) for method in methods() if method[0] != "(" or method == one}
    turns = bench.turns(name)
    trainings = {method: bench.training(setting, method) for method in methods()}
    for method, training in trainings.items():
        bench.say(f"{name}: {method}, first turn")
        advance(training, max(2, turns.iterations))
    times: dict[str, list[float]] = {method: [] for method in trainings}
    for _ in bench.rounds(name, turns.rounds):
        for method, training in trainings.items():
            taken = bench.seconds(functools.partial(advance, training, turns.iterations))
            times[method].append(taken / turns.iterations)
    rows = []
    for method, each in times.items():
        critic, generator = work.get(method, work[one])
        ratios = [mine / base for mine, base in zip(each, times[BASE], strict=True)]
        floor = critic.seconds(facts) + generator.seconds(facts)
        rows.append(
            {
                "network": name,
                "method": method,
                "seconds": statistics.median(each),
                "ratio": statistics.median(ratios),
                "target": step_target(method),
                "critic": critic._asdict(),
                "generator": generator._asdict(),
                "floor": floor,
                "times": each,
                "ratios": ratios,
            }
        )
    return rows


def print_steps(rows: Sequence[dict[str, Any]]) -> None:
    print("## A critic and a generator iteration\n")
    print_table(
        "network | method | ms | / WGAN-GP | target | | critic: MFLOP (MB) | generator | floor: ms | time / floor",
        (
            [
                row["network"],
                row["method"],
                f"{1e3 * row['seconds']:.2f}",
                f"{row['ratio']:.3f}",
                *verdict(row["ratio"], row["target"], at_most=True, digits=2),
                *(
                    f"{row[side]['flops'] / 1e6:,.0f} ({row[side]['bytes'] / 1e6:,.1f})"
                    for side in ("critic", "generator")
                ),
                f"{1e3 * row['floor']:.2f}",
                f"{row['seconds'] / row['floor']:.1f}",
            ]
            for row in rows
        ),
    )


# Epochs: the textbook's, ours, and ours with other options.


def measure_epochs(bench: Bench, name: str, setting: Setting, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each method that the textbook has."""
    rows: list[dict[str, Any]] = []
    turns = bench.turns(name)
    variants = {"ours": {}, "compiled": option("compile", True), "bf16": option("precision", "bf16")}
    if not bf16_is_worth_it(facts):
        del variants["bf16"]
    for method, step in TEXTBOOK.items():
        ours: dict[str, Callable[[], object]] = {}
        first: dict[str, float] = {}
        failed: dict[str, str] = {}
        for variant, options in variants.items():
            if options is None:
                continue
            bench.say(f"{name}: {method}, {variant}, first turn")
            started = time.perf_counter()
            try:
                training = bench.training(setting, method, images=turns.epoch_iterations * BATCH, **options)
                training.run_epoch()
            except Exception as error:  # an option that this machine cannot do loses its row, not the others'
                failed[variant] = f"{type(error).__name__}: {str(error).strip()[:200]}"
            else:
                ours[variant] = training.run_epoch
                first[variant] = time.perf_counter() - started
        book = TextbookEpochs(bench, setting, step, turns.epoch_iterations)
        book.run()
        times: dict[str, list[float]] = {variant: [] for variant in (*ours, "textbook", "loader")}
        for _ in bench.rounds(f"{name}: {method}, epochs", turns.epoch_rounds):
            loader, loop = book.run()
            times["loader"].append(loader)
            times["textbook"].append(loop)
            for variant, act in ours.items():
                times[variant].append(bench.seconds(act) / turns.epoch_iterations)
        row: dict[str, Any] = {"network": name, "method": method, "times": times, "first": first, "failed": failed}
        if "compiled" in times:
            row["compile_seconds"] = first["compiled"] - first["ours"]
        rows.append(row | epoch_ratios(times, setting.epoch // BATCH))
    return rows


def bf16_is_worth_it(facts: dict[str, Any]) -> bool:
    """Whether its matrix products are no slower than fp32's: without AMX or AVX-512 they can be fifty times slower."""
    return facts["bf16_flops"] >= facts["fp32_flops"]


class TextbookEpochs:
    """The textbook's training, an epoch's first iterations at a time."""

    def __init__(self, bench: Bench, setting: Setting, step: textbook.Step, iterations: int) -> None:
        self._bench = bench
        self._step = step
        self._turn = iterations
        self._players = textbook.make_players(setting.network, setting.shape, bench.device)
        self._images = random_data(RandomImages(shape=setting.shape)).train

    def run(self) -> tuple[float, float]:
        """Seconds until the first batch, and seconds an iteration from there on."""
        started = time.perf_counter()
        loader = textbook.batches(self._images, BATCH, self._bench.device)
        batches = itertools.chain([next(loader)], loader)
        until_first = time.perf_counter() - started
        loop = self._bench.seconds(lambda: self._iterate(batches))
        return until_first, loop / self._turn

    def _iterate(self, batches: Iterator[Tensor]) -> None:
        for _ in range(self._turn):
            self._step(self._players, next(batches))


def epoch_ratios(times: dict[str, list[float]], length: int) -> dict[str, float]:
    """Medians over the rounds: textbook / ours for whole epochs and the loop alone, ours / ours compiled or bf16."""
    book = [loader / length + loop for loader, loop in zip(times["loader"], times["textbook"], strict=True)]
    ratios = {"textbook/ours": median_ratio(book, times["ours"])}
    ratios["textbook loop/ours"] = median_ratio(times["textbook"], times["ours"])
    for variant in ("compiled", "bf16"):
        if variant in times:
            ratios[f"ours/{variant}"] = median_ratio(times["ours"], times[variant])
            ratios[f"textbook/{variant}"] = median_ratio(book, times[variant])
    return ratios


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def print_epochs(rows: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    floors = {(row["network"], row["method"]): row["floor"] for row in steps}
    print("## Epochs: the textbook's and ours, an iteration\n")
    print_table(
        "network | method | textbook: ms | ours: ms | textbook / ours | target | | "
        "textbook / floor | loop alone | loader: ms",
        (
            [
                row["network"],
                row["method"],
                *(f"{1e3 * statistics.median(row['times'][side]):.2f}" for side in ("textbook", "ours")),
                f"{row['textbook/ours']:.2f}",
                *verdict(row["textbook/ours"], TEXTBOOK_TARGETS[facts["kind"]].get(row["method"]), at_most=False),
                f"{statistics.median(row['times']['textbook']) / floors[row['network'], row['method']]:.2f}",
                f"{row['textbook loop/ours']:.2f}",
                f"{1e3 * statistics.median(row['times']['loader']):.0f}",
            ]
            for row in rows
        ),
    )
    if not bf16_is_worth_it(facts):
        print("bf16 is not measured: its matrix products are slower here than those of fp32.\n")
    options = [row for row in rows if {"compiled", "bf16"} & {*row["first"], *row["failed"]}]
    if not options:
        return
    print("## Ours, compiled and in bf16\n")
    print_table(
        "network | method | eager / compiled | compile: s | textbook / compiled | target | | fp32 / bf16 | target |",
        (
            [
                row["network"],
                row["method"],
                shown(row, "ours/compiled"),
                shown(row, "compile_seconds", digits=0),
                shown(row, "textbook/compiled"),
                *verdict(
                    row.get("textbook/compiled"), TEXTBOOK_TARGETS[facts["kind"]].get(row["method"]), at_most=False
                ),
                shown(row, "ours/bf16"),
                *verdict(
                    row.get("ours/bf16"),
                    BF16_TARGET if facts["amx"] or facts["kind"] == "cuda" else None,
                    at_most=False,
                ),
            ]
            for row in options
        ),
    )
    for row in options:
        for variant, error in row["failed"].items():
            print(f"{row['network']}, {row['method']}, {variant} failed: {error}\n")


# Memory of the ground cost.


def plain_cdist(x: Tensor, y: Tensor, *, q: float, p: float) -> Tensor:
    distance = torch.cdist(x.flatten(1), y.flatten(1), p=q, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.pow(p) / p


class NoCritic(nn.Module):
    """φ = 0."""

    def forward(self, points: Tensor) -> Tensor:
        return points.new_zeros(len(points))


def costs_of_step(real: Tensor, fake: Tensor, *, q: float, p: float) -> Tensor:
    """ψ of the fakes with B = both: costs of m × m pairs twice, of which the minima alone have a gradient."""
    return Pair(CTransform(q=q, p=p), NoCritic(), real, fake).psi("fake")


STEP = "in a step"
COSTS: dict[str, Callable[..., Tensor]] = {
    "ours": ground_cost,
    STEP: costs_of_step,
    "torch.cdist": plain_cdist,
    "broadcast": textbook.ground_cost,
}


def measure_memory(bench: Bench) -> list[dict[str, Any]]:
    """MB beyond what was there, d = 3072, for each m and q."""
    cases = [
        (name, m, q)
        for m, q, name in itertools.product(MEMORY_TARGETS, MEMORY_QS, COSTS)
        if bench.device.type == "cuda"
        or name == "ours"
        or (m == 64 and not bench.quick)  # gigabytes and seconds otherwise
    ]
    bench.say("memory of the ground cost")
    peaks = [cuda_peak(*case) for case in cases] if bench.device.type == "cuda" else cpu_peaks(bench, cases)
    found = dict(zip(cases, peaks, strict=True))
    return [
        {"m": m, "q": q, "target": target} | {name: found[name, m, q] for name in COSTS if (name, m, q) in found}
        for m, target in MEMORY_TARGETS.items()
        for q in MEMORY_QS
    ]


def cpu_peaks(bench: Bench, cases: list[tuple[str, int, float]]) -> list[float]:
    """In a process of its own, in which everything of 64 kB or more goes back to the system when it is freed."""
    result = subprocess.run(
        [sys.executable, "-m", "bench.performance", "--peaks", json.dumps(cases), "--threads", str(bench.threads)],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def cuda_peak(name: str, m: int, q: float) -> float:
    act = forward_and_backward(name, m, q, torch.device("cuda"))
    act()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    act()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def cpu_peak(name: str, m: int, q: float) -> float:
    """Of this process: its high-water mark, set back to what it holds before the call. A small call comes first."""
    forward_and_backward(name, 8, q, torch.device("cpu"))()
    act = forward_and_backward(name, m, q, torch.device("cpu"))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    act()
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024 / 1e6


def forward_and_backward(name: str, m: int, q: float, device: torch.device) -> Callable[[], None]:
    """The cost of 2 m points and 2 m others with p = 1, each entry of weight 1, down to both sides' gradients; or the
    generator's of m real and m fake images, down to the fakes'."""
    count = m if name == STEP else 2 * m
    x, y = (torch.randn(count, 3, 32, 32, device=device).requires_grad_() for _ in range(2))
    if name == STEP:
        x.requires_grad_(False)

    def act() -> None:
        COSTS[name](x, y, q=q, p=1.0).sum().backward()
        x.grad = y.grad = None

    return act


def print_memory(rows: Sequence[dict[str, Any]]) -> None:
    print("## Extra peak memory of the ground cost, d = 3072\n")
    print_table(
        "m | q | ours: MB | target | | ours in a step: MB | torch.cdist: MB | broadcast: MB",
        (
            [
                str(row["m"]),
                f"{row['q']:g}",
                f"{row['ours']:.1f}",
                *verdict(row["ours"], row["target"], at_most=True, digits=0),
                shown(row, STEP, digits=1),
                shown(row, "torch.cdist", digits=0),
                shown(row, "broadcast", digits=0),
            ]
            for row in rows
        ),
    )


# Evaluation.


def measure_evaluation(bench: Bench, facts: dict[str, Any], count: int) -> dict[str, Any] | str:
    """Seconds and floors; a line where torch-fidelity is not there."""
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        from trainers.evaluation import classifier
        from trainers.evaluation.fidelity import Extractor, FeatureEvaluator
    except ImportError as error:
        return f"not measured: {error}"
    setting = SETTINGS["CIFAR-10 DCGAN"]
    bench.say(f"evaluation of {count} samples")
    training = bench.training(setting, BASE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = classifier.Classifier(setting.shape, 10).requires_grad_(False).eval()
    extractor = Extractor(
        network=lambda images: network(to_input(images)),
        dimension=classifier.FEATURES,
        metric_names={"frechet_inception_distance": "fid", "precision": "precision"},
        info={"extractor": "random weights"},
        preprocessing="uint8 to [-1, 1]",
        batch_size=classifier.BATCH_SIZE,
        device=torch.device("cpu"),
    )
    data = random_data(RandomImages(shape=setting.shape, train_size=count, held_out_size=count))
    started = time.perf_counter()
    evaluator = FeatureEvaluator(extractor, data, count, bench.cache_dir)
    seconds = {"reference features, once a machine": time.perf_counter() - started}
    training.sample(1000)
    samples: list[Tensor] = []
    seconds["sampling"] = bench.seconds(lambda: samples.append(training.sample(count)))
    features: list[dict[str, Tensor]] = []
    seconds["features"] = bench.seconds(lambda: features.append(extractor.features(samples[0])))
    real = fid_features_to_statistics(extractor.features(data.held_out)["features"])

    def fid() -> None:
        fid_statistics_to_metric(fid_features_to_statistics(features[0]["features"]), real, verbose=False)

    seconds["FID of the features"] = bench.seconds(fid)
    bench.say("evaluation: all metrics")
    measured = bench.seconds(lambda: evaluator.measure(samples[0]))
    seconds["all metrics of the features"] = measured - seconds["features"]
    with flop_counter() as generating:
        training.sample(100)
    with flop_counter() as looking, torch.no_grad():
        network(to_input(samples[0][:100]))
    flops = {"sampling": generating.get_total_flops(), "features": looking.get_total_flops()}
    floors = {part: value * count / 100 / facts["fp32_flops"] for part, value in flops.items()}
    return {"samples": count, "seconds": seconds, "floors": floors}


def print_evaluation(result: dict[str, Any] | str) -> None:
    print("## Evaluation: CIFAR-10's DCGAN, features of a classifier\n")
    if isinstance(result, str):
        print(f"{result}\n")
        return
    print_table(
        f"of {result['samples']} samples | s | floor: s | time / floor",
        (
            [
                part,
                f"{seconds:.2f}",
                shown(result["floors"], part, digits=3),
                f"{seconds / result['floors'][part]:.1f}" if part in result["floors"] else "–",
            ]
            for part, seconds in result["seconds"].items()
        ),
    )


# Tables.


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Training steps beside WGAN-GP's, the textbook's and the machine's limits."
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--quick", action="store_true", help="as few turns as show that everything runs")
    parser.add_argument("--output", type=Path, help="raw figures, as JSON")
    parser.add_argument("--peaks", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peaks:
        print(json.dumps([cpu_peak(*case) for case in options.peaks]))
        return
    with tempfile.TemporaryDirectory(prefix="performance-") as cache:
        run(options, Bench(options.device, options.threads, Path(cache), quick=options.quick))


def run(options: argparse.Namespace, bench: Bench) -> None:
    """All sections, each printed when it is done."""
    settings = {name: SETTINGS[name] for name in options.networks}
    torch.backends.cudnn.allow_tf32 = False
    facts = machine(bench)
    print_machine(facts)
    steps = [row for name, each in settings.items() for row in measure_steps(bench, name, each, facts)]
    print_steps(steps)
    epochs = [row for name, each in settings.items() for row in measure_epochs(bench, name, each, facts)]
    print_epochs(epochs, steps, facts)
    memory = measure_memory(bench)
    print_memory(memory)
    evaluation = measure_evaluation(bench, facts, 1000 if options.quick else EVALUATED)
    print_evaluation(evaluation)
    facts["seconds"] = time.perf_counter() - bench.started
    print(f"Took {facts['seconds']:.0f} s; load {os.getloadavg()[0]:.1f} at the end.")
    if options.output:
        raw = {
            "machine": facts,
            "settings": {name: f"{each}, {bench.turns(name)}" for name, each in settings.items()},
            "steps": steps,
            "epochs": epochs,
            "memory": memory,
            "evaluation": evaluation,
        }
        options.output.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Time, floor and ratio to WGAN-GP of a critic and a generator iteration."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.performance.settings import (
    BASE,
    BATCH,
    PAIRS,
    Bench,
    Setting,
    advance,
    methods,
    print_table,
    qp_name,
    verdict,
)
from trainers.config import OptimizerConfig
from trainers.footprint import SLOTS
from trainers.objectives import CTransform
from trainers.training import Training


def step_target(method: str) -> float | None:
    """The largest allowed ratio of a method's step time to WGAN-GP's; None if there is no target."""
    if method == "WWGAN":
        return 1.01
    if method.startswith("("):
        return 1.0 if float(method[1:].split(",", maxsplit=1)[0]) in (1, 2) else 1.3
    return None


class Work(NamedTuple):
    """Floating-point operations of one step, and the least bytes that it moves."""

    flops: float
    bytes: float

    def seconds(self, facts: dict[str, Any]) -> float:
        """The floor in seconds."""
        return max(self.flops / facts["fp32_flops"], self.bytes / facts["bytes_a_second"])


def count_work(bench: Bench, setting: Setting, method: str) -> tuple[Work, Work]:
    """The work of the critic's step and of the generator's.

    With two critic iterations per generator iteration, the first iteration is only the critic's. The second minus the
    first is the generator's.
    """
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
    """torch's counter without counts per module, whose hooks do not work with ``torch.autograd.grad`` within a step."""

    class Everywhere(contextlib.nullcontext[None]):
        parents = frozenset({"Global"})

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Everywhere()  # type: ignore[assignment]
    return counter


def updated(parameters: int, options: OptimizerConfig) -> float:
    """Bytes that a step moves for the trained parameters, their gradients and the optimizer's slots."""
    return 4.0 * parameters * (4 + 2 * SLOTS[options.optimizer])


def count(training: Training) -> Work:
    """The work of one iteration: operations of matrix products, and 2 bytes for each byte of layers' outputs."""
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
    """Measures each method. Returns a row per method."""
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

"""Extra peak memory of the ground cost."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import textbook
from bench.performance.settings import Bench, print_table, shown, verdict
from trainers.objectives import CTransform
from trainers.pair import Pair
from trainers.transport.ground_costs import ground_cost

MEMORY_QS = (1.0, 1.5, 2.0)
MEMORY_TARGETS = {64: 5.0, 256: 30.0}


def plain_cdist(x: Tensor, y: Tensor, *, q: float, p: float) -> Tensor:
    distance = torch.cdist(x.flatten(1), y.flatten(1), p=q, compute_mode="donot_use_mm_for_euclid_dist")
    return distance.pow(p) / p


class NoCritic(nn.Module):
    """φ = 0."""

    def forward(self, points: Tensor) -> Tensor:
        return points.new_zeros(len(points))


def costs_of_step(real: Tensor, fake: Tensor, *, q: float, p: float) -> Tensor:
    """ψ of the fakes with B = both: the costs of m × m pairs twice. Only the minima have a gradient."""
    return Pair(CTransform(q=q, p=p), NoCritic(), real, fake).psi("fake")


STEP = "in a step"
COSTS: dict[str, Callable[..., Tensor]] = {
    "ours": ground_cost,
    STEP: costs_of_step,
    "torch.cdist": plain_cdist,
    "broadcast": textbook.ground_cost,
}


def measure_memory(bench: Bench) -> list[dict[str, Any]]:
    """Extra peak memory in MB with d = 3072, for each m and q."""
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
    """Measures in a separate process, whose allocator returns blocks of 64 kB or more to the system when freed."""
    result = subprocess.run(
        [sys.executable, "-m", "bench.performance.memory", str(bench.threads), json.dumps(cases)],
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
    """The extra peak memory of this process in MB. The high-water mark is reset after a small first call."""
    forward_and_backward(name, 8, q, torch.device("cpu"))()
    act = forward_and_backward(name, m, q, torch.device("cpu"))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    act()
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """An entry of this process's ``/proc/self/status``, such as ``VmRSS``, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024 / 1e6


def forward_and_backward(name: str, m: int, q: float, device: torch.device) -> Callable[[], None]:
    """A function that computes a ground cost with p = 1 and its gradients.

    The cost is between 2 m points and 2 m others, each entry has weight 1, and there are gradients for both sides. With
    :data:`STEP` it is the generator's cost of m real and m fake images, with a gradient for the fakes.
    """
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


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps([cpu_peak(*case) for case in json.loads(sys.argv[2])]))

"""Describes the machine and measures the rates from which floors are computed."""

from __future__ import annotations

import functools
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from bench.performance.settings import Bench


def machine(bench: Bench) -> dict[str, Any]:
    """The machine's properties, FLOP/s in matrix products and bytes per second in copies, each the best of several."""
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
    """The feature flags of the processor."""
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

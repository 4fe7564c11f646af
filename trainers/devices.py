"""The device that a trial runs on, and the memory that it takes there."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

from trainers.parts import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device of this name. ``auto`` is the current CUDA device if there is one, else the CPU."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def check_device(name: str) -> None:
    """Raises :class:`~trainers.parts.ConfigError` for ``cuda`` on a machine without a GPU that torch can use."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", "'cuda' needs a GPU that torch can use, and this machine has none; use cpu or auto")


def reset_peak_memory(device: torch.device) -> None:
    """Resets the peak, so that earlier trials of the same worker do not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # only Linux has this file
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """The peak memory in MB (10⁶ bytes) since :func:`reset_peak_memory`: allocated on a GPU, resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

"""The device that a trial runs on, and the memory that it takes there."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainers.parts import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device of this name, for computing in full float32 (see :func:`use_full_float32`).

    ``auto`` is the current CUDA device if there is one, else the CPU.
    """
    use_full_float32()
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def use_full_float32() -> None:
    """Turns TF32 and bfloat16 off for float32 matrix products and convolutions. Gradient penalties need the precision.

    Torch turns TF32 on for convolutions by default. NVIDIA's containers also turn it on for matrix products, by the
    variable ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE``.
    """
    torch.set_float32_matmul_precision("highest")
    # Torch has older and newer switches. It raises when it reads an older one that the newer ones contradict.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for switch in (torch.backends, *_switches(torch.device("cuda")), *_switches(torch.device("cpu"))):
        switch.fp32_precision = "ieee"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch within the context, in this process; the number from before comes back at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def arithmetic(device: torch.device) -> str:
    """The device's type, and the precision in which this process computes float32 products there.

    Results that were computed with different arithmetic must not be mixed. On a CPU, full precision has no suffix.
    """
    reduced = {switch.fp32_precision for switch in _switches(device)} - {"none", "ieee"}
    precision = "+".join(sorted(reduced)) or ("" if device.type == "cpu" else "ieee")
    return f"{device.type} {precision}".rstrip()


def _switches(device: torch.device) -> tuple[Any, ...]:
    """Torch's switches for the precision of float32 on a kind of device."""
    backend: Any = torch.backends
    if device.type == "cpu":
        return backend.mkldnn.matmul, backend.mkldnn.conv, backend.mkldnn.rnn
    return backend.cuda.matmul, backend.cudnn, backend.cudnn.conv, backend.cudnn.rnn


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

"""A trial's part of a GPU's memory."""

from __future__ import annotations

import gc


def memory_share(gpus: float | None) -> float:
    """The part of a GPU's memory that a trial may take: its fraction of the GPU, or all of it if it shares none."""
    return gpus if gpus is not None and 0 < gpus < 1 else 1.0


def limit_gpu_memory(gpus: float | None) -> None:
    """Limits this process to the trial's part of the GPU's memory; the worker's previous trial may have had another."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(memory_share(gpus))


def out_of_memory(error: Exception, gpus: float | None) -> str | None:
    """What to do if a GPU has no room left, in words; None for any other error."""
    import torch

    if not isinstance(error, torch.OutOfMemoryError):
        return None
    share = memory_share(gpus)
    had = f"its share of the GPU's memory ({share:g})" if share < 1 else "the GPU's memory"
    more = "give it more (resources.gpus) and run the sweep's file again, or " if share < 1 else ""
    return f"OutOfMemoryError: {had} is not enough: {more}make batch_size smaller"


def free_memory() -> None:
    """Frees what a trial used: the same worker process runs more trials."""
    import torch

    gc.collect()
    gc.unfreeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

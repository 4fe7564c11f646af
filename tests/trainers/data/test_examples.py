"""Results do not depend on where the examples are: on the device, or on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainers.data import examples
from trainers.data.examples import Examples, fits
from trainers.training import Training

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def images(count: int = 50) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_on_the_cpu_examples_are_used_as_they_are() -> None:
    data = images()
    held = Examples(data, CPU)
    assert held.batch(torch.arange(50)).equal(data)
    assert held._examples.data_ptr() == data.data_ptr()


@pytest.mark.parametrize(("free", "expected"), [(50 * 48 * 2, True), (50 * 48 * 2 - 1, False)])
def test_a_gpu_takes_what_fits_into_half_of_its_free_memory(
    free: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    assert fits(images(), GPU) is expected


def test_examples_that_do_not_fit_train_alike(start: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    def record() -> tuple[dict[str, float], torch.Tensor]:
        training = start(budget=25)
        means = training.run_epoch()
        assert means is not None
        kept = {name: value for name, value in means.items() if "second" not in name and "memory" not in name}
        return kept, training.sample(3)

    resident = record()
    monkeypatch.setattr(examples, "fits", lambda examples, device: False)
    monkeypatch.setattr(Examples, "batch", _copied)
    copied = record()
    assert copied[0] == resident[0]
    assert copied[1].equal(resident[1])


def _copied(self: Examples, indices: torch.Tensor) -> torch.Tensor:
    """The way of batches from the host, without pinned memory, which needs a GPU."""
    assert self.device == indices.device == CPU
    return self._examples[indices].to(self._target, non_blocking=True)


@needs_gpu
def test_both_ways_give_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    indices = torch.randperm(50)[:7]
    resident = Examples(images(), GPU)
    monkeypatch.setattr(examples, "fits", lambda examples, device: False)
    copied = Examples(images(), GPU)
    assert (resident.device, copied.device) == (GPU, CPU)
    batches = [held.batch(indices.to(held.device)) for held in (resident, copied)]
    assert {batch.device for batch in batches} == {GPU}
    assert batches[0].equal(batches[1])

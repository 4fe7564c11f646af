"""A trial's own random numbers: torch's global generators are used and then restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class RandomState:
    """One trial's own copy of torch's global random state, which dropout uses too.

    ``state`` holds it by device: ``cpu``, and ``cuda`` if the trial runs on a GPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._forked = [device] if device.type == "cuda" else []
        with self.elsewhere():
            torch.manual_seed(seed)
            self.state = self._global()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Inside this context torch's global random state is the trial's. Afterwards it is what it was before."""
        with self.elsewhere():
            torch.set_rng_state(self.state["cpu"])
            if "cuda" in self.state:
                torch.cuda.set_rng_state(self.state["cuda"], self._device)
            yield
            self.state = self._global()

    def elsewhere(self) -> contextlib.AbstractContextManager[None]:
        """A context in which drawing random numbers changes neither the trial's nor the global random state."""
        return torch.random.fork_rng(devices=self._forked)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continues from an earlier ``state``."""
        self.state = {name: tensor.cpu() for name, tensor in state.items()}

    def _global(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self._forked:
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

"""A trial's own random numbers, drawn from torch's global generators without a trace there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class RandomState:
    """torch's global random state, dropout's too, as one trial sees it.

    ``state`` has it by device, ``cpu`` and where the trial runs on one ``cuda``.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        self._forked = [device] if device.type == "cuda" else []
        with self.elsewhere():
            torch.manual_seed(seed)
            self.state = self._global()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Torch's global random state is this trial's inside and everybody else's outside."""
        with self.elsewhere():
            torch.set_rng_state(self.state["cpu"])
            if "cuda" in self.state:
                torch.cuda.set_rng_state(self.state["cuda"], self._device)
            yield
            self.state = self._global()

    def elsewhere(self) -> contextlib.AbstractContextManager[None]:
        """Whatever is drawn inside changes nobody's random state."""
        return torch.random.fork_rng(devices=self._forked)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a ``state`` of earlier."""
        self.state = {name: tensor.cpu() for name, tensor in state.items()}

    def _global(self) -> dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self._forked:
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

"""Two trainings of the same trial: one was interrupted, one was not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from trainers.training import Training


def interrupted_twins(start: Callable[..., Training], **changes: Any) -> tuple[Training, Training]:
    """A training of two epochs, and one that was interrupted and resumed in the middle of the first epoch."""
    undisturbed, first, second = (start(**changes) for _ in range(3))
    undisturbed.run_epoch()
    undisturbed.run_epoch()
    stops = iter([False] * 7 + [True])
    assert first.run_epoch(lambda: next(stops)) is None
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run_epoch()
    second.run_epoch()
    return undisturbed, second


def assert_equal_critics(one: Training, other: Training) -> None:
    """Whether all parameters and buffers are equal to the bit."""
    for name, tensor in one.critic.state_dict().items():
        assert torch.equal(tensor, other.critic.state_dict()[name]), name

"""Trials that share a GPU keep to their parts of its memory. These tests need a GPU.

``python3 -m pytest --noconftest tests/orchestrator/trial/test_gpu_memory.py`` needs neither Ray nor MLflow.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_trials import create

from orchestrator.store.states import State
from orchestrator.trial.run import run_trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

HALF_A_GIGABYTE = 5e8
LARGE = {"critic_widths": [8192, 8192]}
"""Its weights take 268 MB. With gradients and Adam's moments it takes four times as much."""


@pytest.fixture
def share() -> float:
    """Half a gigabyte, as a fraction of the GPU."""
    return HALF_A_GIGABYTE / torch.cuda.get_device_properties(0).total_memory


def test_one_that_wants_more_than_its_part_fails_with_what_to_do_and_the_next_has_its_own(
    tmp_path: Path, share: float
) -> None:
    large, small, alone = (
        create(tmp_path / name, device="cuda", network=network)
        for name, network in (("large", LARGE), ("small", {}), ("alone", LARGE))
    )
    assert run_trial(large, tmp_path / "cache", gpus=share) is State.FAILED
    error = large.status().error
    assert error is not None
    assert error.startswith(f"OutOfMemoryError: its share of the GPU's memory ({share:g}) is not enough")
    assert run_trial(small, tmp_path / "cache", gpus=share) is State.DONE
    assert small.epochs()[-1]["peak_memory_mb"] < HALF_A_GIGABYTE / 1e6
    assert run_trial(alone, tmp_path / "cache", gpus=1.0) is State.DONE
    assert alone.epochs()[-1]["peak_memory_mb"] > 1000

"""The devices that a trial may run on."""

from __future__ import annotations

import pytest
import torch

from trainers.devices import check_device, resolve_device
from trainers.parts import ConfigError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error_in_the_option_s_name() -> None:
    with pytest.raises(ConfigError, match=r"^device: 'cuda' needs a GPU"):
        check_device("cuda")


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_what_runs_everywhere_is_no_error(name: str) -> None:
    check_device(name)
    assert resolve_device("cpu").type == "cpu"

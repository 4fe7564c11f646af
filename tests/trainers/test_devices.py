"""Where a trial may run, and that float32 there is full float32."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from trainers.devices import arithmetic, check_device, resolve_device
from trainers.parts import ConfigError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error_in_the_option_s_name() -> None:
    with pytest.raises(ConfigError, match=r"^device: 'cuda' needs a GPU"):
        check_device("cuda")


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_what_runs_everywhere_is_no_error(name: str) -> None:
    check_device(name)
    assert resolve_device("cpu").type == "cpu"


TURNED_ON = {
    "torch's defaults": "",
    "the older switches": "matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True",
    "the newer switches": "matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "the newest, of everything": "torch.backends.fp32_precision = 'tf32'",
    "bfloat16": "torch.set_float32_matmul_precision('medium')",
}


@pytest.mark.parametrize("variable", [None, "1"])  # NVIDIA's containers set it
def test_choosing_a_device_turns_tf32_off(variable: str | None) -> None:
    """However it was turned on. Torch's compiler reads all these switches, and none may contradict another."""
    script = """
import sys, torch
from trainers.devices import arithmetic, resolve_device
matmul = torch.backends.cuda.matmul
for turn_on in sys.argv[1:]:
    exec(turn_on)
    resolve_device("cpu")
    print(arithmetic(torch.device("cuda")), arithmetic(torch.device("cpu")), matmul.allow_tf32,
          torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision(), torch.backends.fp32_precision)
    resolve_device("cpu")
"""
    environment = dict(os.environ) | ({"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": variable} if variable else {})
    command = [sys.executable, "-c", script, *TURNED_ON.values()]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.splitlines() == ["cuda ieee cpu False False highest ieee"] * len(TURNED_ON), ran.stderr


def test_arithmetic_tells_precisions_and_devices_apart() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    resolve_device("cpu")
    full = {arithmetic(cpu), arithmetic(cuda)}
    try:
        torch.backends.fp32_precision = "tf32"
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "tf32"
        assert {arithmetic(cpu), arithmetic(cuda)} == {"cpu tf32", "cuda tf32"}
    finally:
        resolve_device("cpu")
    assert {arithmetic(cpu), arithmetic(cuda)} == full == {"cpu", "cuda ieee"}

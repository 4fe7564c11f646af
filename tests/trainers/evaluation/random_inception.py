"""Inception with random weights, because the published weights are a download of 95 MB."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class _Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
    def load_state_dict(self, *_: Any) -> None:  # type: ignore[override]
        """Does not initialise the weights."""


def save_random_inception(path: Path, seed: int = 0) -> Path:
    """Writes random weights (He et al. 2015), which keep the size of activations, in torch-fidelity's format."""
    with (
        mock.patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(seed)
        network = _Unloaded("inception-v3-compat", ["2048"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path

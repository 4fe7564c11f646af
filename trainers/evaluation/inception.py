"""torch-fidelity's Inception, and its weights."""

from __future__ import annotations

import hashlib
import sys
from http.client import HTTPException
from pathlib import Path
from typing import cast

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.utils import create_feature_extractor

from trainers.evaluation.fidelity import Extractor
from trainers.locks import locked
from trainers.parts import ConfigError

NAME = "inception-v3-compat"
LAYERS = ["2048", "logits_unbiased"]
"""The layers that torch-fidelity takes features and logits from."""
PUBLISHED_HASH = "6726825d"
"""The first digits of the published file's SHA-256. torch.hub usually reads them from the file's name."""
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 128
"""An image takes about 10 MB, because each is resized to 299×299."""


def inception_extractor(feature_weights: str | None, device: torch.device) -> Extractor:
    """Inception on a device. ``extractor`` in its info ends in the first 12 digits of the file's SHA-256.

    Raises :class:`~trainers.parts.ConfigError` as :func:`load_inception` does.
    """
    network, path = load_inception(feature_weights)
    return Extractor(
        network=network.to(device),
        dimension=2048,
        metric_names={
            "frechet_inception_distance": "fid",
            "inception_score_mean": "inception_score",
            "inception_score_std": "inception_score_std",
            "kernel_inception_distance_mean": "kid",
            "precision": "precision",
            "recall": "recall",
        },
        info={"extractor": f"{NAME}-{_digest(path)[:12]}"},
        preprocessing="uint8 RGB",
        batch_size=CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE,
        channels=3,
        device=device,
    )


def load_inception(feature_weights: str | None) -> tuple[FeatureExtractorBase, Path]:
    """Inception on the CPU, and the file of its weights: the given file, or the published one, downloaded once.

    Raises :class:`~trainers.parts.ConfigError` if the file is missing or does not hold Inception's weights, or if the
    download fails.
    """
    path = _published() if feature_weights is None else Path(feature_weights).expanduser()
    if not path.is_file():
        raise _error(f"there is no file '{path}'")
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run pickled code
    except Exception as error:  # torch raises any error for other files
        raise _error(f"'{path}' is not a file of weights that torch can read ({type(error).__name__})") from None
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are drawn, then replaced
            network = create_feature_extractor(
                NAME, LAYERS, cuda=False, verbose=False, feature_extractor_weights_path=str(path)
            )
    except (RuntimeError, TypeError, AttributeError):
        raise _error(f"'{path}' does not hold the weights of torch-fidelity's Inception") from None
    return cast(FeatureExtractorBase, network), path


def _published() -> Path:
    """The file that torch-fidelity downloads, in torch.hub's folder. Downloads it if it is missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not path.exists():
                torch.hub.download_url_to_file(
                    URL_INCEPTION_V3, str(path), PUBLISHED_HASH, progress=sys.stderr.isatty()
                )
    except (OSError, HTTPException, RuntimeError) as error:
        raise _error(f"the download into '{path.parent}' failed ({error})") from None
    return path


def _error(problem: str) -> ConfigError:
    return ConfigError(
        "evaluation.feature_weights",
        f"{problem}. Inception's weights are at {URL_INCEPTION_V3}. If they cannot be downloaded here, copy the "
        "file to this machine and name it with --feature-weights FILE",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

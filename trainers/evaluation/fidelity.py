"""FID, inception score, KID, precision and recall by torch-fidelity. No metric is implemented again here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from trainers.datasets import Data
from trainers.devices import arithmetic
from trainers.evaluation.caching import cache_key, cached
from trainers.stopping import between

NEIGHBOURHOOD = 3
"""Precision and recall use the third nearest neighbour, as Kynkäänniemi et al. do."""
DISTANCES_AT_ONCE = 1000
"""The number of rows of the distance matrix that precision and recall hold in memory."""


@dataclass(frozen=True)
class Extractor:
    """A feature extractor of torch-fidelity's, which returns features and logits, and its properties.

    ``dimension`` is the dimension of the features. ``metric_names`` maps torch-fidelity's names of metrics to ours.
    ``info`` holds, as ``extractor``, the extractor's name with the hash of its weights.
    """

    network: FeatureExtractorBase
    dimension: int
    metric_names: Mapping[str, str]
    info: Mapping[str, str | float]
    preprocessing: str
    batch_size: int
    device: torch.device
    channels: int | None = None
    """The number of channels that the network requires. Grey images repeat their channel. None: any number."""

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """``features`` (n, dimension) and ``logits`` (n, classes) of uint8 images (n, C, H, W), on the CPU.

        Raises :class:`~trainers.stopping.Stopped`.
        """
        with torch.inference_mode():
            batches = [self._batch(batch) for batch in between(images.split(self.batch_size))]
        return {
            name: torch.cat(parts).clone()
            for name, parts in zip(("features", "logits"), zip(*batches, strict=True), strict=True)
        }

    def _batch(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.channels is not None:
            images = images.expand(-1, self.channels, -1, -1)
        return tuple(output.cpu() for output in self.network(images.to(self.device)))


class FeatureEvaluator:
    """Compares ``count`` generated images with as many held-out ones in an extractor's features.

    See :class:`trainers.evaluation.FeatureEvaluation`.
    """

    def __init__(self, extractor: Extractor, data: Data, count: int, cache_dir: Path) -> None:
        self.count = count
        self.info: dict[str, str | float] = {
            **extractor.info,
            "evaluation_samples": count,
            "torch_fidelity": torch_fidelity.__version__,
        }
        if count <= extractor.dimension:
            warnings.warn(
                f"{count} samples leave the covariance of {extractor.dimension} features singular: prefer KID to FID",
                stacklevel=2,
            )
        self._extractor = extractor
        self._train = data.train[:count]
        self._digest = data.digest
        self._cache_dir = cache_dir
        held_out = data.held_out[:count]
        self._held_out = cached(self._cache_file("held_out"), lambda: (extractor.features(held_out), {}))[0]
        self._held_out_statistics = fid_features_to_statistics(self._held_out["features"])

    def measure(self, samples: Tensor) -> dict[str, float]:
        return self._compare(self._extractor.features(samples))

    def floor(self) -> dict[str, float]:
        def measured() -> tuple[dict[str, Tensor], dict[str, str]]:
            values = self._compare(self._extractor.features(self._train))
            return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}, {}

        file = self._cache_file("floor", metrics=[*self._extractor.metric_names])
        return {name: value.item() for name, value in cached(file, measured)[0].items()}

    def _compare(self, generated: dict[str, Tensor]) -> dict[str, float]:
        features, real = generated["features"], self._held_out["features"]
        with torch.random.fork_rng(devices=[]):  # torch-fidelity consumes the global random state
            measurements: tuple[Callable[[], dict[str, float]], ...] = (
                lambda: fid_statistics_to_metric(
                    fid_features_to_statistics(features), self._held_out_statistics, verbose=False
                ),
                lambda: isc_features_to_metric(generated["logits"]),
                lambda: kid_features_to_metric(
                    features, real, kid_subset_size=min(1000, self.count // 4), verbose=False
                ),
                lambda: prc_features_to_metric(
                    features,
                    real,
                    prc_neighborhood=NEIGHBOURHOOD,
                    prc_batch_size=DISTANCES_AT_ONCE,
                    save_cpu_ram=True,
                    verbose=False,
                ),
            )
            values = {name: value for measure in between(measurements) for name, value in measure().items()}
        return {ours: values[theirs] for theirs, ours in self._extractor.metric_names.items()}

    def _cache_file(self, what: str, **more: Any) -> Path:
        """The file of values that are computed once from real images for all processes that share the cache."""
        key = cache_key(
            data=self._digest,
            split=what,
            count=self.count,
            preprocessing=self._extractor.preprocessing,
            extractor=self.info["extractor"],
            torch_fidelity=torch_fidelity.__version__,
            device=arithmetic(self._extractor.device),  # results differ in the last bits, with TF32 in many
            **more,
        )
        return self._cache_dir / "features" / f"{what}-{key}.safetensors"

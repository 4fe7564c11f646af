"""FID, inception score and KID by torch-fidelity, on classifier features. Nothing here re-implements a metric."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import torch
import torch_fidelity
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from trainers.datasets import Data
from trainers.evaluation.caching import cache_key, cached
from trainers.evaluation.classifier import FEATURES, NAME, ClassifierExtractor, train_classifier

BATCH_SIZE = 250


def register_classifier() -> None:
    """Makes ``trainers-classifier`` known to torch-fidelity, once a process."""
    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(NAME, ClassifierExtractor)


class ClassifierEvaluator:
    """See :class:`trainers.evaluation.ClassifierEvaluation`."""

    def __init__(self, data: Data, count: int, cache_dir: Path) -> None:
        register_classifier()
        self.count = count
        self._data = data
        self._weights, metadata = train_classifier(data, cache_dir)
        self.info: dict[str, str | float] = {
            "extractor": f"{NAME}-{metadata['hash']}",
            "extractor_test_accuracy": float(metadata["test_accuracy"]),
            "evaluation_samples": count,
            "torch_fidelity": torch_fidelity.__version__,
        }
        if count <= FEATURES:
            warnings.warn(
                f"{count} samples leave the covariance of {FEATURES} features singular: prefer KID to FID", stacklevel=2
            )
        self._extractor = create_feature_extractor(
            NAME,
            list(ClassifierExtractor.get_provided_features_list()),
            cuda=False,
            verbose=False,
            feature_extractor_weights_path=str(self._weights),
        )
        self._cache_dir = cache_dir
        self._held_out = self._reference("held_out", data.held_out[:count])
        self._held_out_statistics = fid_features_to_statistics(self._held_out["features"])

    def measure(self, samples: Tensor) -> dict[str, float]:
        return self._compare(self._features(samples))

    def floor(self) -> dict[str, float]:
        return self._compare(self._reference("train", self._data.train[: self.count]))

    def _compare(self, features: dict[str, Tensor]) -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):  # torch-fidelity consumes the global random state
            fid = fid_statistics_to_metric(
                fid_features_to_statistics(features["features"]), self._held_out_statistics, verbose=False
            )
            inception_score = isc_features_to_metric(features["logits"])
            kid = kid_features_to_metric(
                features["features"],
                self._held_out["features"],
                kid_subset_size=min(1000, self.count // 4),
                verbose=False,
            )
        return {
            "classifier_fid": fid[KEY_METRIC_FID],
            "classifier_is": inception_score[KEY_METRIC_ISC_MEAN],
            "classifier_is_std": inception_score[KEY_METRIC_ISC_STD],
            "classifier_kid": kid[KEY_METRIC_KID_MEAN],
        }

    def _reference(self, split: str, images: Tensor) -> dict[str, Tensor]:
        """Features of real images, computed once for everybody who shares the cache."""
        key = cache_key(
            data=self._data.digest,
            split=split,
            count=self.count,
            preprocessing="uint8 to [-1, 1]",
            extractor=self.info["extractor"],
            torch_fidelity=torch_fidelity.__version__,
        )
        return cached(
            self._cache_dir / "features" / f"{split}-{key}.safetensors", lambda: (self._features(images), {})
        )[0]

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            batches = [cast(tuple[Tensor, ...], self._extractor(batch)) for batch in images.cpu().split(BATCH_SIZE)]
        names = ClassifierExtractor.get_provided_features_list()
        return {name: torch.cat(parts).clone() for name, parts in zip(names, zip(*batches, strict=True), strict=True)}

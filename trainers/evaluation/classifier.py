"""A small classifier of a dataset's own labels, which gives features where Inception's are of no use."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import torch
import torch_fidelity
from torch import Tensor, nn
from torch.nn import functional
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from trainers.datasets import Data, to_input
from trainers.devices import one_thread
from trainers.evaluation.caching import cache_key, cached
from trainers.evaluation.fidelity import Extractor
from trainers.stopping import between

NAME = "trainers-classifier"
FEATURES = 64
RECIPE = {"version": 1, "features": FEATURES, "steps": 600, "batch_size": 128, "lr": 2e-3, "seed": 0}
"""Everything that the weights depend on besides the data. A change leads to a new file."""
BATCH_SIZE = 250
PIXELS = 128_000
"""Pixels in a batch of images: about 50 MB of activations. All digits fit into one batch."""


class Classifier(nn.Module):
    """Two convolutions, then FEATURES features after a ReLU, then one logit for each class."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 16, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features (m, FEATURES) and logits (m, classes) of images (m, C, H, W) in [−1, 1]."""
        features = self.body(inputs)
        return features, self.head(features)


class ClassifierExtractor(FeatureExtractorBase):
    """The classifier as torch-fidelity's feature extractor ``trainers-classifier``.

    It maps uint8 images to features and raw logits. The features are scaled to mean square 1 on the real training set,
    because KID's cubic kernel depends on the scale.
    """

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, **_: object) -> None:
        super().__init__(name, features_list)
        weights, metadata = cached(Path(feature_extractor_weights_path), _missing)
        self.scale = float(metadata["scale"])
        with torch.random.fork_rng(devices=[]):  # the initial weights are drawn, then replaced
            self.classifier = Classifier(tuple(map(int, metadata["shape"].split(","))), int(metadata["classes"]))
        self.classifier.load_state_dict(weights)
        self.requires_grad_(False).eval()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        raise NotImplementedError("the classifier is too small to be worth compiling")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.classifier(to_input(images))
        provided = {"features": features * self.scale, "logits": logits}
        return tuple(provided[name] for name in self.features_list)


def _missing() -> tuple[dict[str, Tensor], dict[str, str]]:
    raise FileNotFoundError("the classifier's weights are missing; train_classifier makes them")


def register_classifier() -> None:
    """Registers ``trainers-classifier`` with torch-fidelity, once in each process."""
    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(NAME, ClassifierExtractor)


def classifier_extractor(data: Data, cache_dir: Path) -> Extractor:
    """The dataset's classifier, trained if it is not in the cache. It is small and always runs on the CPU."""
    register_classifier()
    path, metadata = train_classifier(data, cache_dir)
    layers = list(ClassifierExtractor.get_provided_features_list())
    network = create_feature_extractor(
        NAME, layers, cuda=False, verbose=False, feature_extractor_weights_path=str(path)
    )
    return Extractor(
        network=cast(ClassifierExtractor, network),
        dimension=FEATURES,
        metric_names={
            "frechet_inception_distance": "classifier_fid",
            "inception_score_mean": "classifier_is",
            "inception_score_std": "classifier_is_std",
            "kernel_inception_distance_mean": "classifier_kid",
            "precision": "classifier_precision",
            "recall": "classifier_recall",
        },
        info={
            "extractor": f"{NAME}-{metadata['hash']}",
            "extractor_test_accuracy": float(metadata["test_accuracy"]),
        },
        preprocessing="uint8 to [-1, 1]",
        batch_size=BATCH_SIZE,
        device=torch.device("cpu"),
    )


def train_classifier(data: Data, cache_dir: Path) -> tuple[Path, dict[str, str]]:
    """The file of a dataset's classifier, and its metadata.

    The metadata holds the ``hash`` of the weights and the ``test_accuracy`` on the held-out images. The classifier is
    trained if there is no file for these examples, labels and RECIPE yet.
    """
    key = cache_key(data=data.digest, recipe=RECIPE)
    path = cache_dir / "extractors" / f"classifier-{key}.safetensors"
    _, metadata = cached(path, lambda: _train(data))
    return path, metadata


def _train(data: Data) -> tuple[dict[str, Tensor], dict[str, str]]:
    assert data.train_labels is not None
    assert data.held_out_labels is not None
    classes = int(data.train_labels.max()) + 1
    with torch.random.fork_rng(devices=[]), one_thread():  # sums, and so the weights' hash, depend on it
        torch.manual_seed(RECIPE["seed"])
        model = Classifier(tuple(data.train.shape[1:]), classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE["lr"], weight_decay=1e-4)
        for _ in between(range(int(RECIPE["steps"]))):
            chosen = torch.randint(data.train.shape[0], (int(RECIPE["batch_size"]),))
            _, logits = model(to_input(data.train[chosen]))
            optimizer.zero_grad()
            functional.cross_entropy(logits, data.train_labels[chosen]).backward()
            optimizer.step()
        with torch.inference_mode():
            features, _ = _in_batches(model, data.train)
            _, logits = _in_batches(model, data.held_out)
            accuracy = (logits.argmax(dim=1) == data.held_out_labels).double().mean().item()
            scale = features.square().mean().rsqrt().item()
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    content = b"".join(tensor.numpy().tobytes() for _, tensor in sorted(weights.items()))
    return weights, {
        "hash": hashlib.sha256(content).hexdigest()[:12],
        "test_accuracy": f"{accuracy:.4f}",
        "scale": repr(scale),
        "shape": ",".join(map(str, data.train.shape[1:])),
        "classes": str(classes),
    }


def _in_batches(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits of all images, computed in batches to bound the memory."""
    batches = images.split(max(1, PIXELS // (images.shape[-2] * images.shape[-1])))
    features, logits = zip(*(model(to_input(batch)) for batch in between(batches)), strict=True)
    return torch.cat(features), torch.cat(logits)

"""A small classifier trained on a dataset's own labels: features where Inception's mean nothing."""

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
from trainers.evaluation.caching import cache_key, cached
from trainers.evaluation.fidelity import Extractor

NAME = "trainers-classifier"
FEATURES = 64
RECIPE = {"version": 1, "features": FEATURES, "steps": 600, "batch_size": 128, "lr": 2e-3, "seed": 0}
"""Everything that the weights depend on besides the data; a change makes a new file."""
BATCH_SIZE = 250
PIXELS = 128_000
"""Of images that are looked at together: about 50 MB of activations, and all the digits at once."""


class Classifier(nn.Module):
    """Two convolutions, then FEATURES rectified features and as many logits as there are classes."""

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
        """(m, C, H, W) in [−1, 1] to features (m, FEATURES) and logits (m, classes)."""
        features = self.body(inputs)
        return features, self.head(features)


class ClassifierExtractor(FeatureExtractorBase):
    """The classifier as torch-fidelity's feature extractor ``trainers-classifier``: uint8 images in, features
    scaled to mean square 1 on the real training set (KID's cubic kernel wants that) and raw logits out."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, **_: object) -> None:
        super().__init__(name, features_list)
        weights, metadata = cached(Path(feature_extractor_weights_path), _missing)
        self.scale = float(metadata["scale"])
        with torch.random.fork_rng(devices=[]):  # the initial weights, drawn for nothing
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
    """Makes ``trainers-classifier`` known to torch-fidelity, once a process."""
    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor(NAME, ClassifierExtractor)


def classifier_extractor(data: Data, cache_dir: Path) -> Extractor:
    """The dataset's classifier, trained if it is not in the cache. On the CPU always: it is small."""
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
    """The classifier's file for a dataset, and its metadata: ``hash`` of the weights, ``test_accuracy`` on the
    held-out images. Trained if no file for these examples, labels and RECIPE is there yet."""
    key = cache_key(data=data.digest, recipe=RECIPE)
    path = cache_dir / "extractors" / f"classifier-{key}.safetensors"
    _, metadata = cached(path, lambda: _train(data))
    return path, metadata


def _train(data: Data) -> tuple[dict[str, Tensor], dict[str, str]]:
    assert data.train_labels is not None
    assert data.held_out_labels is not None
    classes = int(data.train_labels.max()) + 1
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.set_num_threads(1)  # the order of additions, and so the weights' hash, depends on it
        torch.manual_seed(RECIPE["seed"])
        model = Classifier(tuple(data.train.shape[1:]), classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE["lr"], weight_decay=1e-4)
        for _ in range(int(RECIPE["steps"])):
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
    torch.set_num_threads(threads)
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
    """Features and logits of all images, in bounded memory."""
    batches = images.split(max(1, PIXELS // (images.shape[-2] * images.shape[-1])))
    features, logits = zip(*(model(to_input(batch)) for batch in batches), strict=True)
    return torch.cat(features), torch.cat(logits)

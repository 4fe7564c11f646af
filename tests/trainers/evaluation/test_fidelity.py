"""FID, inception score and KID equal torch-fidelity's own values, on the classifier's features."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from trainers.config import TrialConfig
from trainers.datasets import Data, Digits
from trainers.devices import resolve_device
from trainers.evaluation.classifier import NAME, classifier_extractor, train_classifier
from trainers.evaluation.fidelity import Extractor, FeatureEvaluator
from trainers.metrics import EVALUATION_SECONDS, names_of
from trainers.training import Training

COUNT = 400


class Images(Dataset):  # type: ignore[type-arg]
    """uint8 images as a dataset for torch-fidelity."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def classifier_evaluator(data: Data, count: int, cache_dir: Path) -> FeatureEvaluator:
    return FeatureEvaluator(classifier_extractor(data, cache_dir), data, count, cache_dir)


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> Data:
    return Digits().load(cache_dir)


@pytest.fixture(scope="module")
def evaluator(digits: Data, cache_dir: Path) -> FeatureEvaluator:
    return classifier_evaluator(digits, COUNT, cache_dir)


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randint(0, 256, (COUNT, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def torch_fidelity_metrics(one: Tensor, other: Tensor, weights: Path, cache: Path) -> dict[str, float]:
    return torch_fidelity.calculate_metrics(
        input1=Images(one),
        input2=Images(other),
        feature_extractor=NAME,
        feature_extractor_weights_path=str(weights),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=COUNT // 4,
        batch_size=250,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        cache_root=str(cache),
        verbose=False,
    )


@pytest.mark.parametrize("what", ["noise", "training images"])
def test_metrics_are_torch_fidelitys(
    what: str, digits: Data, evaluator: FeatureEvaluator, noise: Tensor, cache_dir: Path
) -> None:
    images = noise if what == "noise" else digits.train[:COUNT]
    weights, _ = train_classifier(digits, cache_dir)
    theirs = torch_fidelity_metrics(images, digits.held_out[:COUNT], weights, cache_dir / "torch_fidelity")
    ours = evaluator.measure(images)
    assert ours == pytest.approx(
        {
            "classifier_fid": theirs["frechet_inception_distance"],
            "classifier_is": theirs["inception_score_mean"],
            "classifier_is_std": theirs["inception_score_std"],
            "classifier_kid": theirs["kernel_inception_distance_mean"],
            "classifier_precision": theirs["precision"],
            "classifier_recall": theirs["recall"],
        },
        rel=1e-6,
    )


def test_the_floor_is_what_training_images_score(digits: Data, evaluator: FeatureEvaluator) -> None:
    assert evaluator.floor() == pytest.approx(evaluator.measure(digits.train[:COUNT]), rel=1e-12)


def test_held_out_images_have_no_distance_to_themselves(digits: Data, evaluator: FeatureEvaluator) -> None:
    metrics = evaluator.measure(digits.held_out[:COUNT])
    assert abs(metrics["classifier_fid"]) < 1e-6
    assert metrics["classifier_fid"] < 1e-4 * evaluator.floor()["classifier_fid"]
    assert abs(metrics["classifier_kid"]) < evaluator.floor()["classifier_kid"]


def test_the_floor_is_far_below_an_untrained_generator(
    evaluator: FeatureEvaluator, trial: Callable[..., TrialConfig], cache_dir: Path
) -> None:
    floor = evaluator.floor()
    untrained = evaluator.measure(Training(trial(), cache_dir=cache_dir).sample(COUNT))
    assert floor["classifier_fid"] < untrained["classifier_fid"] / 30
    assert floor["classifier_kid"] < untrained["classifier_kid"] / 30
    assert 8 < floor["classifier_is"] <= 10  # ten classes, all distinguished
    assert untrained["classifier_is"] < 4


def test_training_comes_nearer_to_the_floor(trial: Callable[..., TrialConfig], cache_dir: Path) -> None:
    network = {"name": "mlp", "latent_size": 16, "generator_widths": [64], "critic_widths": [64]}
    config = trial(network=network, evaluation={"name": "classifier", "samples": COUNT}, budget=200)
    training = Training(config, cache_dir=cache_dir)
    before = training.evaluate().metrics
    while not training.finished:
        training.run_epoch()
    after = training.evaluate().metrics
    stated = (*config.evaluation.metrics, *config.evaluation.also_logged)
    assert set(after) == {*before} == {EVALUATION_SECONDS.name, *names_of(stated)}
    assert all(math.isfinite(value) for value in after.values())
    assert after["classifier_fid"] < 0.7 * before["classifier_fid"]


def test_measuring_twice_is_the_same_and_touches_no_random_state(
    digits: Data, evaluator: FeatureEvaluator, noise: Tensor, cache_dir: Path
) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = evaluator.measure(noise)
    assert evaluator.measure(noise) == first
    assert classifier_evaluator(digits, COUNT, cache_dir).measure(noise) == first
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_what_the_metrics_depend_on_is_said(evaluator: FeatureEvaluator, digits: Data, cache_dir: Path) -> None:
    _, metadata = train_classifier(digits, cache_dir)
    assert evaluator.info == {
        "extractor": f"{NAME}-{metadata['hash']}",
        "extractor_test_accuracy": float(metadata["test_accuracy"]),
        "evaluation_samples": COUNT,
        "torch_fidelity": torch_fidelity.__version__,
    }


def test_another_count_is_another_reference(digits: Data, cache_dir: Path) -> None:
    floors = {count: classifier_evaluator(digits, count, cache_dir).floor()["classifier_fid"] for count in (COUNT, 200)}
    assert floors[200] > floors[COUNT]  # FID falls with the sample count, because it is biased
    files = list((cache_dir / "features").glob("*.safetensors"))
    assert len(files) >= 4  # held-out and training images at both counts


def test_too_few_samples_for_a_covariance_are_warned_of(digits: Data, tmp_path: Path, cache_dir: Path) -> None:
    with pytest.warns(UserWarning, match="64 samples leave the covariance of 64 features singular: prefer KID"):
        classifier_evaluator(digits, 64, cache_dir)


class Brightness(FeatureExtractorBase):
    """Gives two features and three logits of RGB images, and keeps every batch that it was given."""

    def __init__(self) -> None:
        super().__init__("brightness", ["features", "logits"])
        self.batches: list[tuple[int, ...]] = []

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "features", "logits"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(tuple(images.shape))
        bright = images.float().mean(dim=(2, 3)) / 255
        return bright[:, :2], bright


def brightness(**changes: Any) -> Extractor:
    names = {"frechet_inception_distance": "fid", "precision": "precision", "recall": "recall"}
    options: dict[str, Any] = {
        "network": Brightness(),
        "dimension": 2,
        "metric_names": names,
        "info": {"extractor": "brightness-0"},
        "preprocessing": "none",
        "batch_size": 30,
        "device": torch.device("cpu"),
        "channels": 3,
    }
    return Extractor(**options | changes)


def some_images(seed: int, channels: int = 1) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (50, channels, 2, 2), generator=source, dtype=torch.uint8)


def test_grey_images_have_their_channel_three_times_and_batches_are_small() -> None:
    extractor = brightness()
    features = extractor.features(some_images(0))
    assert extractor.network.batches == [(30, 3, 2, 2), (20, 3, 2, 2)]
    assert torch.equal(features["logits"], brightness().features(some_images(0).repeat(1, 3, 1, 1))["logits"])
    assert features["features"].shape == (50, 2)


def test_reference_features_are_kept_for_what_they_depend_on_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(some_images(0), some_images(1))

    def files_after(data: Data, count: int, extractor: Extractor) -> int:
        FeatureEvaluator(extractor, data, count, tmp_path).floor()
        return len(list((tmp_path / "features").glob("*.safetensors")))

    assert files_after(data, 40, brightness()) == 2  # held-out and training images
    again = brightness()
    assert files_after(data, 40, again) == 2
    assert again.network.batches == []
    assert files_after(data, 40, brightness(batch_size=7)) == 2
    assert files_after(data, 41, brightness()) == 4
    assert files_after(Data(some_images(0), some_images(2)), 40, brightness()) == 6
    assert files_after(data, 40, brightness(info={"extractor": "brightness-1"})) == 8  # other weights
    assert files_after(data, 40, brightness(preprocessing="another")) == 10
    torch.set_float32_matmul_precision("medium")
    assert files_after(data, 40, brightness()) == 12
    resolve_device("cpu")  # full precision again
    assert files_after(data, 40, brightness()) == 12
    monkeypatch.setattr(torch_fidelity, "__version__", "0.5.0")
    assert files_after(data, 40, brightness()) == 14


def test_precision_is_of_the_samples_and_recall_of_the_real_images(tmp_path: Path) -> None:
    data = Data(some_images(0), some_images(1))
    evaluator = FeatureEvaluator(brightness(), data, 50, tmp_path)
    one_real_image = data.held_out[:1].expand(50, -1, -1, -1)
    metrics = evaluator.measure(one_real_image)
    assert metrics["precision"] == 1
    assert metrics["recall"] < 0.1
    assert evaluator.measure(data.held_out)["recall"] == 1

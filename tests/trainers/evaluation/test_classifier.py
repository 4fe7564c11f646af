"""The classifier behind the features: it is accurate, scaled, and trained once even if several processes need it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch_fidelity.utils import create_feature_extractor

from trainers.datasets import Data, Digits, to_input
from trainers.evaluation.classifier import (
    FEATURES,
    NAME,
    RECIPE,
    Classifier,
    ClassifierExtractor,
    _in_batches,
    classifier_extractor,
    register_classifier,
    train_classifier,
)
from trainers.evaluation.fidelity import FeatureEvaluator

STEPS = 40
"""Fewer training steps of the classifier, enough for tiny images."""


def tiny_data(*shape: int) -> Data:
    """Two kinds of images, dark and light; 2×2 by default."""
    shape = shape or (1, 2, 2)
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 2
    images = torch.randint(0, 100, (300, *shape), generator=source) + 150 * labels[:, None, None, None]
    images = images.to(torch.uint8)
    return Data(images[:200], images[200:], labels[:200], labels[200:])


def extractor(weights: Path) -> ClassifierExtractor:
    register_classifier()
    names = list(ClassifierExtractor.get_provided_features_list())
    options = {"cuda": False, "verbose": False, "feature_extractor_weights_path": str(weights)}
    return create_feature_extractor(NAME, names, **options)


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPE, "steps", STEPS)


def test_it_knows_the_digits(cache_dir: Path) -> None:
    data = Digits().load(cache_dir)
    weights, metadata = train_classifier(data, cache_dir)
    assert data.held_out_labels is not None
    features, logits = extractor(weights)(data.held_out)
    accuracy = (logits.argmax(dim=1) == data.held_out_labels).double().mean().item()
    assert accuracy > 0.95
    assert float(metadata["test_accuracy"]) == pytest.approx(accuracy, abs=1e-4)
    assert features.shape == (500, FEATURES)
    assert logits.shape == (500, 10)


def test_features_have_mean_square_one_on_the_training_images(cache_dir: Path) -> None:
    data = Digits().load(cache_dir)
    weights, _ = train_classifier(data, cache_dir)
    features, _ = extractor(weights)(data.train)
    assert features.square().mean().item() == pytest.approx(1, rel=1e-5)


def test_digits_are_looked_at_all_at_once_and_large_images_in_batches(cache_dir: Path) -> None:
    seen: list[int] = []
    model = Classifier((1, 8, 8), 10)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    digits = Digits(held_out=1).load(cache_dir).train  # all threads: the order of additions must not change
    with torch.inference_mode():
        assert all(map(torch.equal, _in_batches(model, digits), model(to_input(digits))))
        assert seen == [1796, 1796]
        seen.clear()
        photographs = torch.zeros(300, 1, 32, 32, dtype=torch.uint8)
        features, logits = _in_batches(model, photographs)
    assert (features.shape, logits.shape) == ((300, FEATURES), (300, 10))
    assert seen == [125, 125, 50]


@pytest.mark.usefixtures("short_recipe")
def test_training_it_is_repeatable_and_touches_nobody_elses_random_state(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    weights, first = train_classifier(tiny_data(), tmp_path / "one")
    extractor(weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.rand(3)
    assert train_classifier(tiny_data(), tmp_path / "other")[1] == first


@pytest.mark.usefixtures("short_recipe")
def test_another_recipe_or_other_labels_are_another_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data()
    assert data.train_labels is not None
    assert data.held_out_labels is not None
    relabelled = Data(data.train, data.held_out, 1 - data.train_labels, 1 - data.held_out_labels)
    made = [train_classifier(data, tmp_path), train_classifier(relabelled, tmp_path)]
    monkeypatch.setitem(RECIPE, "seed", 1)
    made.append(train_classifier(data, tmp_path))
    assert len({path for path, _ in made}) == 3
    assert len({metadata["hash"] for _, metadata in made}) == 3


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["as MNIST", "as CIFAR-10"])
def test_it_learns_and_measures_images_of_other_shapes(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPE, "steps", 10)
    monkeypatch.setattr("trainers.evaluation.classifier.PIXELS", 90 * shape[1] * shape[2])
    data = tiny_data(*shape)
    evaluator = FeatureEvaluator(classifier_extractor(data, tmp_path), data, 100, tmp_path)
    assert evaluator.info["extractor_test_accuracy"] == 1
    assert abs(evaluator.measure(data.held_out)["classifier_fid"]) < 1e-6
    one_kind = data.held_out[:1].expand(100, *shape)
    assert evaluator.measure(one_kind)["classifier_fid"] > 2 * evaluator.floor()["classifier_fid"]


@pytest.mark.usefixtures("short_recipe")
def test_evaluators_share_files_and_replace_corrupted_ones(tmp_path: Path) -> None:
    data = tiny_data()

    def files() -> list[Path]:
        return sorted(tmp_path.rglob("*.safetensors"))

    def written() -> list[int]:
        return [file.stat().st_mtime_ns for file in files()]

    def contents() -> list[dict[str, torch.Tensor]]:
        return [load(file.read_bytes()) for file in files()]

    first = FeatureEvaluator(classifier_extractor(data, tmp_path), data, 100, tmp_path)
    floor, times, tensors = first.floor(), written(), contents()
    assert [file.parent.name for file in files()] == ["extractors", "features", "features"]  # of both splits
    second = FeatureEvaluator(classifier_extractor(data, tmp_path), data, 100, tmp_path)
    assert (second.floor(), second.info, written()) == (floor, first.info, times)  # read, not made again

    for file, damage in zip(files(), [b"", b"no tensors at all", files()[2].read_bytes()[:-100]], strict=True):
        file.write_bytes(damage)
    third = FeatureEvaluator(classifier_extractor(data, tmp_path), data, 100, tmp_path)
    assert (third.floor(), third.info) == (floor, first.info)
    assert second.floor() == floor  # what was read before the damage stays as it was
    for old, new in zip(tensors, contents(), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".safetensors", ".lock"}


def ask(cache_dir: Path, barrier: Any, answers: Any) -> None:
    """The work of each of several processes at the same time."""
    RECIPE["steps"] = STEPS
    data = tiny_data()
    barrier.wait(timeout=120)
    weights, metadata = train_classifier(data, cache_dir)
    answers.put((str(weights), metadata["hash"], weights.stat().st_mtime_ns))


@pytest.mark.long
@pytest.mark.usefixtures("short_recipe")
def test_processes_that_start_together_train_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # fresh processes, which share the cost of importing torch
    context.set_forkserver_preload(["trainers.evaluation.fidelity"])
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path, barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    results = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert len(set(results)) == 1  # one file, one hash, one time of writing
    assert [str(path) for path in tmp_path.rglob("*.safetensors")] == [results[0][0]]
    assert results[0][1] == train_classifier(tiny_data(), tmp_path / "alone")[1]["hash"]

"""MNIST, CIFAR-10 and CelebA: where they are found, how their content is verified, and how trials use them.

Real MNIST is read if it is beside the repository. CIFAR-10 and CelebA are files of the right format with other content,
and the tests set the expected checksums and counts to fit.
"""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import MNIST, cifar_files, idx, needs_mnist, picture, save

from trainers.config import TrialConfig
from trainers.data.decoding import decoded
from trainers.data.image_datasets import CelebA, Cifar10, Mnist
from trainers.datasets import Dataset
from trainers.parts import ConfigError, built_in
from trainers.training import Training

MakeTrial = Callable[..., TrialConfig]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@needs_mnist
def test_real_mnist_is_all_there_in_order(cache: Path) -> None:
    dataset = Mnist(root=str(MNIST))
    data = dataset.load(cache)
    assert data.train.shape == (dataset.train_size, *dataset.shape) == (60_000, 1, 28, 28)
    assert data.held_out.shape == (dataset.held_out_size, *dataset.shape) == (10_000, 1, 28, 28)
    with np.load(MNIST) as theirs:
        assert np.array_equal(data.train[:, 0].numpy(), theirs["x_train"])
        assert np.array_equal(data.held_out[:, 0].numpy(), theirs["x_test"])
        assert data.train_labels is not None
        assert np.array_equal(data.train_labels.numpy(), theirs["y_train"])
        assert data.held_out_labels is not None
        assert np.array_equal(data.held_out_labels.numpy(), theirs["y_test"])


@needs_mnist
def test_mnist_with_a_margin_is_the_same_inside(cache: Path) -> None:
    small, large = Mnist(root=str(MNIST.parent)).load(cache), Mnist(root=str(MNIST.parent), size=32).load(cache)
    assert large.train.shape == (60_000, 1, 32, 32)
    assert torch.equal(large.held_out[:, :, 2:-2, 2:-2], small.held_out)
    assert large.held_out.sum() == small.held_out.sum()
    assert large.digest != small.digest


@needs_mnist
def test_once_in_the_cache_it_needs_neither_path_nor_time(cache: Path) -> None:
    first = Mnist(root=str(MNIST)).load(cache)
    started = time.perf_counter()
    again = Mnist().load(cache)
    assert again.digest == first.digest
    assert time.perf_counter() - started < 1
    assert torch.equal(again.train[::1000], first.train[::1000])


@needs_mnist
def test_mnist_in_torchvisions_layout_is_the_same(tmp_path: Path, cache: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    with np.load(MNIST) as arrays:
        for split, name in (("train", "train"), ("t10k", "test")):
            x, y = arrays[f"x_{name}"], arrays[f"y_{name}"]
            (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(x))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(y))
    data = Mnist(root=str(tmp_path)).load(tmp_path / "cache")
    assert data.digest == Mnist(root=str(MNIST)).load(cache).digest
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"^dataset\.root: '.*t10k-labels-idx1-ubyte' is damaged"):
        Mnist(root=str(tmp_path)).load(tmp_path / "other")


def arrays_like_mnist() -> dict[str, Any]:
    return {
        "x_train": np.zeros((60_000, 28, 28), np.uint8),
        "y_train": np.zeros(60_000, np.uint8),
        "x_test": np.zeros((10_000, 28, 28), np.uint8),
        "y_test": np.zeros(10_000, np.uint8),
    }


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"y_train": None}, "is not Keras's mnist.npz with the arrays x_train, y_train, x_test and y_test"),
    "too few": (
        {"x_train": np.zeros((50, 28, 28), np.uint8)},
        "train: expected images uint8 60000×28×28, got uint8 50×28×28",
    ),
    "floats": ({"x_train": np.zeros((60_000, 1))}, "got float64 60000×1"),
    "labels one short": ({"y_train": np.zeros(59_999, np.uint8)}, "expected labels uint8 60000, got uint8 59999"),
    "eleven classes": ({"y_train": np.full(60_000, 10, np.uint8)}, "train: got label 10, expected 0 to 9"),
    "other digits": ({}, "train: pixels or labels, or their order, are not MNIST's"),
}


@pytest.mark.parametrize(("changes", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_not_mnist(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    arrays = {name: array for name, array in (arrays_like_mnist() | changes).items() if array is not None}
    np.savez_compressed(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(ConfigError) as error:
        Mnist(root=str(tmp_path)).load(tmp_path / "cache")
    assert error.value.path == "dataset.root"
    assert problem in error.value.problem
    assert f"'{tmp_path}/mnist.npz'" in error.value.problem
    assert not list((tmp_path / "cache" / "datasets").glob("mnist*v*[0-9]"))


@pytest.mark.parametrize("content", [b"", b"PK nonsense", pickle.dumps([1]), b"\x93NUMPY nonsense"], ids=repr)
def test_what_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^dataset\.root: .*is not Keras's mnist\.npz"):
        Mnist(root=str(tmp_path / "mnist.npz")).load(tmp_path / "cache")


def test_cifar_is_its_batches_in_order_and_a_download_of_earlier_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = tmp_path / "downloads"
    source = np.random.default_rng(0)
    files = cifar_files(monkeypatch, lambda: source.integers(0, 256, (10_000, 3072), dtype=np.uint8))
    (downloads / "cifar-10-batches-py").mkdir(parents=True)
    for name, content in files.items():
        (downloads / "cifar-10-batches-py" / name).write_bytes(content)
    dataset = Cifar10()
    data = dataset.load(tmp_path)
    assert data.train.shape == (dataset.train_size, *dataset.shape) == (50_000, 3, 32, 32)
    assert data.held_out.shape == (dataset.held_out_size, *dataset.shape) == (10_000, 3, 32, 32)
    third, last = (pickle.loads(files[name]) for name in ("data_batch_3", "test_batch"))
    assert np.array_equal(data.train[20_000:30_000].flatten(1).numpy(), third["data"])
    assert np.array_equal(data.held_out.flatten(1).numpy(), last["data"])
    assert data.held_out_labels is not None
    assert data.held_out_labels.tolist() == last["labels"]
    for root in (downloads, downloads / "cifar-10-batches-py"):
        assert Cifar10(root=str(root)).filled_in(tmp_path).root == str(root)


def test_batches_with_another_checksum_are_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "executed"), "w")

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(
        ConfigError, match=r"^dataset\.root: a batch in '.*' is missing or its checksum is not CIFAR-10"
    ):
        Cifar10(root=str(tmp_path)).load(tmp_path / "cache")
    assert not (tmp_path / "executed").exists()


def like_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine pictures of CelebA's size, in partitions 0, 1 and 2 in turn."""
    monkeypatch.setattr(CelebA, "train_size", 3)
    monkeypatch.setattr(CelebA, "held_out_size", 3)
    lines = []
    for index in range(9):
        save(picture(178, 218, index), root / "img_align_celeba" / f"{index + 1:06}.png")
        lines.append(f"{index + 1:06}.png {index % 3}\n")
    (root / "list_eval_partition.txt").write_text("".join(lines))


def test_celeba_is_cropped_and_split_officially(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like_celeba(tmp_path / "celeba", monkeypatch)
    data = CelebA(root=str(tmp_path)).load(tmp_path / "cache")
    assert (data.train.shape, data.held_out.shape) == ((3, 3, 64, 64), (3, 3, 64, 64))
    assert (data.train_labels, data.held_out_labels) == (None, None)
    for images, first in ((data.train, 0), (data.held_out, 2)):
        for image, index in zip(images, range(first, 9, 3), strict=True):
            cropped = picture(178, 218, index).crop((15, 35, 163, 183))
            square = decoded(save(cropped, tmp_path / "crop.png"), 64, 3)  # computed by another antialiasing filter
            assert np.abs(image.numpy().astype(int) - square).mean() < 2


def test_celeba_as_kaggle_has_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like_celeba(tmp_path / "official", monkeypatch)
    expected = CelebA(root=str(tmp_path / "official")).load(tmp_path / "cache")
    kaggle = tmp_path / "kaggle"
    shutil.copytree(tmp_path / "official" / "img_align_celeba", kaggle / "img_align_celeba" / "img_align_celeba")
    table = (tmp_path / "official" / "list_eval_partition.txt").read_text().replace(" ", ",")
    (kaggle / "list_eval_partition.csv").write_text(f"image_id,partition\n{table}", encoding="utf-8-sig")
    data = CelebA(root=str(kaggle)).load(tmp_path / "another cache")
    assert torch.equal(data.train, expected.train)
    assert torch.equal(data.held_out, expected.held_out)
    assert data.digest == expected.digest
    (kaggle / "list_eval_partition.csv").write_text(table.replace(",0", ",1"))
    with pytest.raises(ConfigError, match=r"is not CelebA: list_eval_partition\.csv has 0 train images, not 3"):
        CelebA(root=str(kaggle)).load(tmp_path / "third cache")


def test_what_is_not_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like_celeba(tmp_path, monkeypatch)
    save(picture(64, 64), tmp_path / "img_align_celeba" / "000004.png")
    told = r"1 of its train images cannot be read, the first is 000004\.png: 64×64 pixels instead of 178×218"
    with pytest.raises(ConfigError, match=told):
        CelebA(root=str(tmp_path)).load(tmp_path / "cache")
    monkeypatch.setattr(CelebA, "train_size", 4)
    with pytest.raises(ConfigError, match=r"is not CelebA: list_eval_partition\.txt has 3 train images, not 4"):
        CelebA(root=str(tmp_path)).load(tmp_path / "cache")


PUBLISHED = [Mnist, Cifar10, CelebA]


@pytest.mark.parametrize("dataset", PUBLISHED, ids=lambda each: each.name)
@pytest.mark.parametrize("there", [True, False], ids=["empty folder", "no folder"])
def test_a_path_without_the_files_is_refused_before_anything_starts(
    dataset: type[Dataset], there: bool, tmp_path: Path, trial: MakeTrial
) -> None:
    root = tmp_path / "data"
    if there:
        root.mkdir()
    size = {"size": 32} if dataset is Mnist else {}
    values = trial().to_dict() | {"dataset": {"name": dataset.name, "root": str(root), **size}}
    with pytest.raises(ConfigError) as error:
        TrialConfig.from_dict(values, tmp_path / "cache")
    what = "does not hold" if there else "does not exist; it should hold"
    assert str(error.value).startswith(f"dataset.root: '{root}' {what} {dataset.name}: expected ")
    TrialConfig.from_dict(values)  # a stored configuration, whose arrays may be in the cache
    assert not (tmp_path / "cache").exists()


def has_network() -> bool:
    import socket

    try:
        socket.create_connection(("ossci-datasets.s3.amazonaws.com", 443), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("dataset", PUBLISHED, ids=lambda each: each.name)
def test_without_a_network_and_a_path_the_error_says_what_to_put_where(
    dataset: type[Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_network():
        pytest.skip("there is a network")
    with pytest.raises(ConfigError) as error:
        dataset().prepare(tmp_path)
    text = str(error.value)
    assert text.startswith(f"dataset.root: {dataset.name} is not on this machine and cannot be downloaded (")
    assert "give dataset.root=PATH, where PATH is" in text
    assert {"mnist": "mnist.npz", "cifar10": "cifar-10-batches-py", "celeba": "img_align_celeba"}[dataset.name] in text
    assert "\n" not in text
    assert capsys.readouterr().out == ""


@needs_mnist
def test_root_and_its_absence_are_the_same_trial(trial: MakeTrial, cache: Path) -> None:
    values = trial().to_dict()
    here, nowhere, large = (
        TrialConfig.from_dict(values | {"dataset": {"name": "mnist", **options}}, cache)
        for options in ({"root": str(MNIST)}, {}, {"size": 32})
    )
    assert here.identity == nowhere.identity != large.identity
    assert here.to_dict()["dataset"]["root"] == str(MNIST)


def test_all_datasets_are_known() -> None:
    assert {*built_in("dataset")} >= {"digits", "mixture", "mnist", "cifar10", "celeba", "image_folder"}


def run(training: Training) -> dict[str, float]:
    record = training.run_epoch()
    assert record is not None
    return {name: value for name, value in record.items() if "second" not in name and "memory" not in name}


@needs_mnist
def test_training_on_mapped_data_is_training_on_data_in_memory(
    trial: MakeTrial, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial(dataset={"name": "mnist", "root": str(MNIST)}, budget=20)
    mapped = run(Training(config, cache_dir=cache))
    load = Mnist.load

    def in_memory(self: Mnist, cache_dir: Path) -> Any:
        data = load(self, cache_dir)
        return replace(data, train=data.train.clone())

    monkeypatch.setattr(Mnist, "load", in_memory)
    assert run(Training(config, cache_dir=cache)) == mapped

"""torchvision's downloads of MNIST and CIFAR-10, from a server that misbehaves.

The files have the published format but other content. torchvision is made to download them from this machine, and to
expect their checksums.
"""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from http_files import Files, http_files
from image_files import cifar_files, idx, md5
from numpy.typing import NDArray

from trainers.data import image_datasets
from trainers.data.image_datasets import Cifar10, Mnist
from trainers.parts import ConfigError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http_files() as files:
        yield files


@pytest.fixture
def mnist(server: Files, monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[np.uint8]]:
    """Four files on the second of two mirrors. No server runs at the address of the first."""
    from torchvision.datasets import MNIST

    arrays, checksums = {}, {}
    for split, count in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 3, 4] = np.arange(count) % 251
        labels = (np.arange(count) % 10).astype(np.uint8)
        arrays |= {f"{split}-images-idx3-ubyte.gz": images, f"{split}-labels-idx1-ubyte.gz": labels}
        checksums[split] = md5(idx(images)), md5(idx(labels))
    files = {name: gzip.compress(idx(array), 1) for name, array in arrays.items()}
    server.contents |= files
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", server.address])
    monkeypatch.setattr(MNIST, "resources", [(name, md5(content)) for name, content in files.items()])
    monkeypatch.setattr(Mnist, "checksums", checksums)
    return arrays


@pytest.fixture
def cifar(server: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of batches. Each batch has one grey level."""
    from torchvision.datasets import CIFAR10

    greys = itertools.count()
    files = cifar_files(monkeypatch, lambda: np.full((10_000, 3072), next(greys), np.uint8))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    server.contents[CIFAR10.filename] = archive.getvalue()
    monkeypatch.setattr(CIFAR10, "url", server.address + CIFAR10.filename)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.getvalue()))


def refusal(dataset: Mnist | Cifar10, cache: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        dataset.prepare(cache)
    text = str(raised.value)
    assert text.startswith(f"dataset.root: {dataset.name} is not on this machine and cannot be downloaded (")
    assert "give dataset.root=PATH" in text
    assert "\n" not in text
    return text


def arrays_in(cache: Path) -> list[Path]:
    """The digest of the images and labels that trials would read."""
    return sorted(cache.glob("datasets/*/*.npy"))


def test_mnist_comes_from_the_mirror_that_answers_and_comes_once(
    server: Files, mnist: dict[str, NDArray[np.uint8]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Mnist().load(tmp_path)
    assert np.array_equal(data.train[:, 0].numpy(), mnist["train-images-idx3-ubyte.gz"])
    assert np.array_equal(data.held_out[:, 0].numpy(), mnist["t10k-images-idx3-ubyte.gz"])
    assert data.train_labels is not None
    assert np.array_equal(data.train_labels.numpy(), mnist["train-labels-idx1-ubyte.gz"])
    assert set(server.asked) == set(mnist)
    server.asked.clear()
    padded = Mnist(size=32).load(tmp_path)
    assert padded.train.shape == (60_000, 1, 32, 32)
    assert server.asked == []
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("cifar")
def test_cifar_s_archive_comes_and_is_unpacked(server: Files, tmp_path: Path) -> None:
    data = Cifar10().load(tmp_path)
    assert data.train.shape == (50_000, 3, 32, 32)
    assert [int(image[0, 0, 0]) for image in data.train[::10_000]] == [0, 1, 2, 3, 4]
    assert data.held_out.unique().tolist() == [5]
    assert set(server.asked) == {"cifar-10-python.tar.gz"}
    server.asked.clear()
    Cifar10().prepare(tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("dataset", [Mnist(), Cifar10()], ids=lambda each: each.name)
@pytest.mark.usefixtures("mnist", "cifar")
def test_a_download_that_breaks_off_is_told_and_the_next_command_has_it_whole(
    dataset: Mnist | Cifar10, server: Files, tmp_path: Path
) -> None:
    server.sent_at_most = 1000
    refusal(dataset, tmp_path)
    assert arrays_in(tmp_path) == []
    server.sent_at_most = None
    dataset.prepare(tmp_path)
    assert len(arrays_in(tmp_path)) == 4


@pytest.mark.usefixtures("mnist")
def test_a_page_instead_of_the_file_is_no_dataset(server: Files, tmp_path: Path) -> None:
    server.contents = dict.fromkeys(server.contents, b"<html>Please log in</html>")
    refusal(Mnist(), tmp_path)
    assert arrays_in(tmp_path) == []


@pytest.mark.usefixtures("cifar")
def test_a_server_that_never_answers_is_given_up(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_datasets, "SILENCE", 0.3)
    server.silent = True
    assert "timed out" in refusal(Cifar10(), tmp_path)

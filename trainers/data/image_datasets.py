"""Published image datasets, read from the user's path or downloaded by torchvision.

Their content is verified and is the same wherever it comes from. So ``root`` is not part of a trial's identity, and the
arrays in the cache (see :mod:`trainers.data.image_arrays`) are found by the dataset's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainers.data.decoding import open_image, to_pixels
from trainers.data.image_arrays import kept, open_images, open_labels, write_array, write_images
from trainers.datasets import Data, Dataset
from trainers.parts import ConfigError, path_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
"""Must be increased when the same files come to give other arrays."""
MOST_BYTES = 60_000 * 28 * 28 * 8 + 4096
"""Upper bound of the unpacked bytes of an array of MNIST, with eight bytes for each value."""
SILENCE = 20.0
"""Seconds without an answer after which a download fails."""


@dataclass(frozen=True, kw_only=True)
class PublishedImages(Dataset):
    """Images that torchvision can download.

    ``root`` is the path of the user's copy. Without it the images are downloaded into ``downloads`` in the cache.
    """

    train_size: ClassVar[int]
    held_out_size: ClassVar[int]
    files: ClassVar[str]
    """What ``root`` must be, in words for messages."""

    root: str | None = path_option()

    def filled_in(self, cache_dir: Path) -> PublishedImages:
        """The dataset with an absolute root. Raises :class:`ConfigError` if root does not hold the dataset."""
        if self.root is None:
            return self
        root = Path(self.root).expanduser().absolute()
        self._find(root)
        return replace(self, root=str(root))

    def prepare(self, cache_dir: Path) -> None:
        self._kept(cache_dir)

    def load(self, cache_dir: Path) -> Data:
        about = self._kept(cache_dir)
        folder = self._folder(cache_dir)
        images, labels = ([f(folder, split) for split in ("train", "test")] for f in (open_images, open_labels))
        return Data(images[0], images[1], labels[0], labels[1], kept_digest=about["digest"])  # type: ignore[arg-type]

    def _folder(self, cache_dir: Path) -> Path:
        return cache_dir / "datasets" / f"{self.name}-{self.shape[-1]}-v{VERSION}"

    def _kept(self, cache_dir: Path) -> dict[str, Any]:
        def build(folder: Path) -> dict[str, Any]:
            source = self._source(cache_dir)
            self._write(source, folder)
            return {"source": str(source)}

        return kept(self._folder(cache_dir), build)

    def _source(self, cache_dir: Path) -> Path:
        if self.root is not None:
            return self._find(Path(self.root).expanduser())
        downloads = cache_dir / "downloads"
        with contextlib.suppress(ConfigError):
            return self._find(downloads)
        try:
            with _quiet_and_impatient():
                self._download(downloads)
        except Exception as error:  # no network, a mirror's broken file, a full disk, gdown not installed
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            problem = f"{self.name} is not on this machine and cannot be downloaded ({why})"
            raise ConfigError(
                "dataset.root", f"{problem}: copy it here and give dataset.root=PATH, where PATH is {self.files}"
            ) from None
        return self._find(downloads)

    def _missing(self, root: Path) -> ConfigError:
        what = "does not hold" if root.exists() else "does not exist; it should hold"
        return ConfigError("dataset.root", f"'{root}' {what} {self.name}: expected {self.files}")

    def _find(self, root: Path) -> Path:
        """The file or folder below ``root`` to read. Raises :class:`ConfigError` if there is none."""
        raise NotImplementedError(f"{type(self).__name__} must find its files")

    def _download(self, folder: Path) -> None:
        """Downloads the dataset by torchvision, in torchvision's layout, into ``folder``."""
        raise NotImplementedError(f"{type(self).__name__} must download itself")

    def _write(self, source: Path, folder: Path) -> None:
        """Writes the arrays into ``folder``. Raises :class:`ConfigError` if ``source`` is not the published dataset."""
        raise NotImplementedError(f"{type(self).__name__} must write its arrays")


@dataclass(frozen=True, kw_only=True)
class Mnist(PublishedImages):
    """60,000 + 10,000 handwritten digits, 28×28 grey. ``size: 32`` adds a margin of two black pixels.

    Networks that halve an image's sides three times need 32. ``root`` is Keras's ``mnist.npz``, a folder that holds it,
    or a folder in torchvision's layout (``MNIST/raw/train-images-idx3-ubyte`` and so on). The content is compared with
    the checksums of the four original files. Source: LeCun, Cortes and Burges, The MNIST database, 1998.
    """

    name: ClassVar[str] = "mnist"
    train_size: ClassVar[int] = 60_000
    held_out_size: ClassVar[int] = 10_000
    labelled: ClassVar[bool] = True
    files: ClassVar[str] = (
        "Keras's mnist.npz, a folder that holds it, or a folder that holds MNIST/raw/train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    )
    checksums: ClassVar[dict[str, tuple[str, str]]] = {
        "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
        "t10k": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    }
    """MD5 of the original file of images, and of that of labels, of each split."""

    size: Literal[28, 32] = 28

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, self.size, self.size

    def _find(self, root: Path) -> Path:
        if root.is_file():
            return root
        if (root / "mnist.npz").is_file():
            return root / "mnist.npz"
        if all((root / "MNIST" / "raw" / name).is_file() for name in _idx_names()):
            return root / "MNIST" / "raw"
        raise self._missing(root)

    def _download(self, folder: Path) -> None:
        from torchvision.datasets import MNIST

        MNIST(folder, download=True)

    def _write(self, source: Path, folder: Path) -> None:
        import numpy as np

        margin = (self.size - 28) // 2
        for split, count in (("train", self.train_size), ("t10k", self.held_out_size)):
            images, labels = _read_npz(source, split) if source.is_file() else _read_idx(source, split)
            for what, array, shape in (("images", images, (count, 28, 28)), ("labels", labels, (count,))):
                if array.dtype != np.uint8 or array.shape != shape:
                    problem = (
                        f"expected {what} {_words(np.dtype(np.uint8), shape)}, got {_words(array.dtype, array.shape)}"
                    )
                    raise ConfigError("dataset.root", f"'{source}' is not MNIST: {split}: {problem}")
            if labels.max() > 9:
                raise ConfigError(
                    "dataset.root", f"'{source}' is not MNIST: {split}: got label {labels.max()}, expected 0 to 9"
                )
            if self.checksums[split] != (_idx_md5(images), _idx_md5(labels)):
                problem = "pixels or labels, or their order, are not MNIST's (dataset=image_folder takes any images)"
                raise ConfigError("dataset.root", f"'{source}' is not MNIST: {split}: {problem}")
            name = "train" if split == "train" else "test"
            padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
            write_array(folder, name, padded[:, None])
            write_array(folder, f"{name}_labels", labels.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Cifar10(PublishedImages):
    """50,000 + 10,000 RGB photographs of ten classes, 32×32.

    ``root`` is the folder ``cifar-10-batches-py`` or its parent folder. torchvision compares the batches' checksums
    before it unpickles them. Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """

    name: ClassVar[str] = "cifar10"
    shape: ClassVar[tuple[int, ...]] = (3, 32, 32)
    train_size: ClassVar[int] = 50_000
    held_out_size: ClassVar[int] = 10_000
    labelled: ClassVar[bool] = True
    files: ClassVar[str] = (
        "the folder cifar-10-batches-py (data_batch_1 … data_batch_5, test_batch, batches.meta: cifar-10-python.tar.gz "
        "unpacked) or its parent folder"
    )

    def _find(self, root: Path) -> Path:
        parent = root.parent if root.name == "cifar-10-batches-py" else root
        if (parent / "cifar-10-batches-py" / "data_batch_1").is_file():
            return parent
        raise self._missing(root)

    def _download(self, folder: Path) -> None:
        from torchvision.datasets import CIFAR10

        CIFAR10(str(folder), download=True)

    def _write(self, source: Path, folder: Path) -> None:
        import numpy as np
        from torchvision.datasets import CIFAR10

        for name, count in (("train", self.train_size), ("test", self.held_out_size)):
            try:
                split = CIFAR10(str(source), train=name == "train")
            except RuntimeError:
                problem = f"a batch in '{source / 'cifar-10-batches-py'}' is missing or its checksum is not CIFAR-10's"
                raise ConfigError("dataset.root", f"{problem}: expected {self.files}") from None
            labels = np.asarray(split.targets, dtype=np.int64)
            assert split.data.shape == (count, 32, 32, 3)
            assert labels.shape == (count,)
            write_array(folder, name, split.data.transpose(0, 3, 1, 2))
            write_array(folder, f"{name}_labels", labels)


@dataclass(frozen=True, kw_only=True)
class CelebA(PublishedImages):
    """162,770 + 19,962 faces, the official training and test partitions, 64×64 RGB, without labels.

    The central 148×148 pixels of the aligned 178×218 images are resampled by Pillow's antialiasing bilinear filter.
    ``root`` is a folder that holds ``img_align_celeba/000001.jpg`` … and ``list_eval_partition.txt``, or what Kaggle's
    archive holds: ``img_align_celeba/img_align_celeba/000001.jpg`` … and ``list_eval_partition.csv``. If this folder is
    called ``celeba``, as torchvision calls it, ``root`` may be its parent folder. torchvision's download also needs the
    package gdown.
    Source: Liu, Luo, Wang and Tang, Deep learning face attributes in the wild, ICCV 2015.
    """

    name: ClassVar[str] = "celeba"
    shape: ClassVar[tuple[int, ...]] = (3, 64, 64)
    train_size: ClassVar[int] = 162_770
    held_out_size: ClassVar[int] = 19_962
    files: ClassVar[str] = (
        "a folder that holds img_align_celeba/000001.jpg … (img_align_celeba.zip unpacked) and list_eval_partition.txt "
        "or, as Kaggle has it, list_eval_partition.csv, or the parent folder if it is called celeba"
    )

    def _find(self, root: Path) -> Path:
        for folder in (root, root / "celeba"):
            if (folder / "img_align_celeba").is_dir() and any(file.is_file() for file in self._lists(folder)):
                return folder
        raise self._missing(root)

    def _lists(self, folder: Path) -> tuple[Path, Path]:
        """Where the partition may stand: the authors' list, and Kaggle's table."""
        return folder / "list_eval_partition.txt", folder / "list_eval_partition.csv"

    def _download(self, folder: Path) -> None:
        from torchvision.datasets import CelebA as Theirs

        Theirs(folder, download=True)

    def _write(self, source: Path, folder: Path) -> None:
        listed: dict[str, list[Path]] = {}
        partitions = next(file for file in self._lists(source) if file.is_file())
        images = source / "img_align_celeba"
        if (images / "img_align_celeba").is_dir():  # as Kaggle's archive is unpacked
            images /= "img_align_celeba"
        for line in partitions.read_text(encoding="utf-8-sig").splitlines():
            name, *rest = line.replace(",", " ").split() or [""]
            listed.setdefault(" ".join(rest), []).append(images / name)
        for split, partition, count in (("train", "0", self.train_size), ("test", "2", self.held_out_size)):
            files = listed.get(partition, [])
            if len(files) != count:
                problem = f"{partitions.name} has {len(files)} {split} images, not {count}"
                raise ConfigError("dataset.root", f"'{source}' is not CelebA: {problem}")
            problems = write_images(folder / f"{split}.npy", files, _face, self.shape)
            for index, problem in problems.items():
                told = (
                    f"{len(problems)} of its {split} images cannot be read, the first is {files[index].name}: {problem}"
                )
                raise ConfigError("dataset.root", f"'{source}' is not CelebA: {told}")


@contextlib.contextmanager
def _quiet_and_impatient() -> Iterator[None]:
    """Hides what torchvision prints, and limits how long it waits.

    Otherwise it prints its failures, and waits for ever for a network that drops packets.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _idx_names() -> list[str]:
    return [f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]


def _read_idx(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels from the original, unpacked files: a header of big-endian sizes, then the bytes."""
    import numpy as np

    arrays = []
    for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
        file = folder / f"{split}-{what}-ubyte"
        content = file.read_bytes()
        header = 4 * (1 + dimensions)
        magic, *sizes = struct.unpack(f">{1 + dimensions}i", content[:header].ljust(header, b"\0"))
        if magic != 0x800 + dimensions or min(sizes) < 0 or len(content) != header + math.prod(sizes):
            raise ConfigError("dataset.root", f"'{file}' is damaged or is not a file in MNIST's format")
        arrays.append(np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes))
    return arrays[0], arrays[1]


def _read_npz(file: Path, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images and labels from Keras's file."""
    import zipfile

    import numpy as np

    ending = "train" if split == "train" else "test"
    try:
        with np.load(file) as arrays:  # never unpickles
            for name in (f"x_{ending}", f"y_{ending}"):
                if (size := arrays.zip.getinfo(f"{name}.npy").file_size) > MOST_BYTES:
                    raise ValueError(f"{name} would take {size:,} bytes")
            return arrays[f"x_{ending}"], arrays[f"y_{ending}"]
    except (
        MemoryError,
        ValueError,
        EOFError,
        KeyError,
        OSError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        problem = f"'{file}' is not Keras's mnist.npz with the arrays x_train, y_train, x_test and y_test"
        raise ConfigError("dataset.root", f"{problem} ({error})") from None


def _idx_md5(array: NDArray[np.uint8]) -> str:
    """MD5 of the original file that holds the array. It identifies the content and is no protection from attacks."""
    header = struct.pack(f">{1 + array.ndim}i", 0x800 + array.ndim, *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def _words(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{dtype} {'×'.join(map(str, shape))}"


def _face(file: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with open_image(file) as image:
        if image.size != (178, 218):
            raise ValueError(f"{image.width}×{image.height} pixels instead of 178×218")
        cropped = image.convert("RGB").crop((15, 35, 163, 183))
    return to_pixels(cropped.resize((64, 64), Image.Resampling.BILINEAR), channels=3)

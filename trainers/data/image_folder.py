"""A dataset from any folder of images."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from trainers.data.image_arrays import decoded, kept, open_images, open_labels, write_array, write_images
from trainers.datasets import Data, Dataset
from trainers.parts import ConfigError, number, path_option

VERSION = 1
"""Must be increased when the same files come to give other arrays."""
NAMED = 5
"""The number of bad files that a message names."""


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """The content of a folder of images.

    ``digest``: of the sorted list of relative paths and sizes in bytes.
    ``images``: the number of files that can be read as images.
    ``test_images``: the number of these images in ``test``, or None without this split.
    ``classes``: the number of classes, 0 without labels.
    """

    digest: str
    images: int = number(0, at_least=0)
    test_images: int | None = number(None, at_least=0)
    classes: int = number(0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Every file below ``root``, as an image with ``channels`` × ``size`` × ``size`` values.

    See :func:`trainers.data.image_arrays.decoded` for how an image is resized, cropped and converted.

    If root has the folders ``train`` and ``test``, these are the split, and all other files are ignored. Otherwise the
    fraction ``held_out`` of the images is held out. If all files of a split are in subfolders, and there are at least
    two, the subfolders are the classes, numbered in sorted order. Images are ordered by the SHA-256 of their paths. So
    the first n are a fair sample, and the split does not depend on where the folder is. Hidden files and folders are
    ignored.

    Files that are damaged, or are not images, are left out and named in a warning. If they are more than the fraction
    ``max_bad`` of all files, this is an error.

    The length of an epoch depends on how many images can be read, which is known only after reading all of them. So
    planning a trial reads the folder once. The cache then holds the arrays and the list of bad files, and ``content``
    in the trial's configuration says what was found. ``content`` is part of the trial's identity. ``root`` and
    ``max_bad`` are not.
    """

    name: ClassVar[str] = "image_folder"

    root: str | None = path_option()
    size: int = number(32, at_least=1)
    channels: Literal[1, 3] = 3
    held_out: float = number(0.1, above=0, below=1)
    max_bad: float = number(0.01, at_least=0, below=1, runtime=True)
    content: FolderContent | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.channels, self.size, self.size

    @property
    def labelled(self) -> bool:
        return self._known.classes > 0

    @property
    def train_size(self) -> int:
        return self._known.images - self.held_out_size

    @property
    def held_out_size(self) -> int:
        known = self._known
        if known.test_images is not None:
            return known.test_images
        return min(max(1, round(self.held_out * known.images)), known.images - 1)

    def filled_in(self, cache_dir: Path) -> ImageFolder:
        """The dataset with an absolute root and its content. Builds the arrays if they are not in the cache.

        Raises :class:`ConfigError` if there is no such folder, if it has too many bad files, or if ``content`` is given
        and differs from the folder's.
        """
        return self._read(cache_dir)[0]

    def prepare(self, cache_dir: Path) -> None:
        self.filled_in(cache_dir)

    def load(self, cache_dir: Path) -> Data:
        whole, folder, arrays_digest = self._read(cache_dir)
        images, labels = open_images(folder, "train"), open_labels(folder, "train")
        digest = f"{arrays_digest}/{whole.held_out_size}"
        if whole._known.test_images is not None:
            return Data(images, open_images(folder, "test"), labels, open_labels(folder, "test"), kept_digest=digest)
        n = whole.train_size
        train_labels, held_out_labels = (None, None) if labels is None else (labels[:n], labels[n:])
        return Data(images[:n], images[n:], train_labels, held_out_labels, kept_digest=digest)

    @property
    def _known(self) -> FolderContent:
        if self.content is None:
            problem = "the folder has not been read: give TrialConfig.from_dict a cache_dir, then it reads the folder"
            raise ConfigError("dataset.content", problem)
        return self.content

    @property
    def _folder(self) -> Path:
        if self.root is None:
            raise ConfigError("dataset.root", "is missing: image_folder needs dataset.root=FOLDER, a folder of images")
        root = Path(self.root).expanduser().absolute()
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise ConfigError("dataset.root", f"'{root}' {what}: give the path of a folder of images")
        return root

    def _read(self, cache_dir: Path) -> tuple[ImageFolder, Path, str]:
        """Returns the dataset with its content, the folder of the arrays in the cache, and their digest."""
        files = _Files(self._folder)
        if self.content is not None and self.content.digest != files.digest:
            digests = f"{files.digest} instead of {self.content.digest}"
            raise self._another(files, f"the digest of its {files.count:,} files' names and sizes is {digests}")
        key = {"content": files.digest, "size": self.size, "channels": self.channels, "version": VERSION}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        arrays = cache_dir / "datasets" / f"{self.name}-{self.size}-{name}"

        def build(folder: Path) -> dict[str, Any]:
            note = f"reading {files.count:,} files in '{files.root}', once; the images are then kept in '{cache_dir}'"
            print(f"image_folder: {note}", file=sys.stderr, flush=True)
            return self._write(files, folder)

        about = kept(arrays, build)
        counts = about["counts"]
        self._judge(files, about["bad"], counts)
        found = FolderContent(
            digest=files.digest,
            images=sum(counts.values()),
            test_images=counts["test"] if files.has_split else None,
            classes=len(files.classes),
        )
        if self.content not in (None, found):  # another version of Pillow may read more or fewer files
            raise self._another(files, f"{found.images:,} images can be read instead of {self._known.images:,}")
        return replace(self, root=str(files.root), content=found), arrays, about["digest"]

    def _another(self, files: _Files, differing: str) -> ConfigError:
        problem = f"'{files.root}' is not the folder that this trial was planned with ({differing})"
        return ConfigError("dataset.content", f"{problem}: restore the folder, or start a new sweep")

    def _write(self, files: _Files, folder: Path) -> dict[str, Any]:
        import numpy as np

        counts, bad = {}, []
        for split, names in files.splits.items():
            paths = [files.root / name for name in names]
            problems = write_images(
                folder / f"{split}.npy", paths, lambda path: decoded(path, self.size, self.channels), self.shape
            )
            bad += [[names[index], problem] for index, problem in problems.items()]
            counts[split] = len(names) - len(problems)
            if files.classes:
                labels = [files.label(name) for index, name in enumerate(names) if index not in problems]
                write_array(folder, f"{split}_labels", np.asarray(labels, dtype=np.int64))
        return {"counts": counts, "bad": bad}

    def _judge(self, files: _Files, bad: list[tuple[str, str]], counts: dict[str, int]) -> None:
        """Warns of bad files, or raises :class:`ConfigError` if they are too many. Both name the first of them."""
        told = ", ".join(f"{_printable(name)} ({problem})" for name, problem in bad[:NAMED])
        told += f" and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
        told = f"{len(bad):,} of {files.count:,} files in '{files.root}' cannot be read as images: {told}"
        if len(bad) > self.max_bad * files.count:
            advice = f"that is more than the fraction {self.max_bad:g}; repair or remove them, or raise dataset.max_bad"
            raise ConfigError("dataset.max_bad", f"{told}; {advice}")
        if min(counts.values()) < (1 if files.has_split else 2):
            least = "train and test need at least one each" if files.has_split else "at least two are needed"
            raise ConfigError("dataset.root", f"'{files.root}' has too few images: {least}")
        if bad:
            warnings.warn(f"{told}; they are left out", stacklevel=2)


class _Files:
    """The files below a folder, by split. Everything here follows from their paths and sizes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        sizes = dict(_walk(root))
        self.has_split = (root / "train").is_dir() and (root / "test").is_dir()
        self._depth = 1 if self.has_split else 0
        if self.has_split:
            sizes = {name: size for name, size in sizes.items() if name.startswith(("train/", "test/"))}
        listing = "".join(f"{size} {name}\n" for name, size in sorted(sizes.items()))
        self.digest = hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]
        self.splits: dict[str, list[str]] = {"train": [], "test": []} if self.has_split else {"train": []}
        for name in sorted(sizes, key=lambda name: hashlib.sha256(os.fsencode(name)).digest()):
            self.splits[name.partition("/")[0] if self.has_split else "train"].append(name)
        if empty := [split for split, names in self.splits.items() if not names]:
            where = root / empty[0] if self.has_split else root
            raise ConfigError("dataset.root", f"there are no files in '{where}'")
        self.count = len(sizes)
        classes = [self._classes(names) for names in self.splits.values()]
        if any(each != classes[0] for each in classes):
            only = sorted(set(classes[0]) ^ set(classes[1]))
            problem = f"train and test in '{root}' have different classes: only one of them has the folder '{only[0]}'"
            raise ConfigError("dataset.root", problem)
        self.classes = classes[0]

    def label(self, name: str) -> int:
        """The number of a file's class."""
        return self.classes.index(name.split("/")[self._depth])

    def _classes(self, names: list[str]) -> list[str]:
        parts = [name.split("/")[self._depth :] for name in names]
        folders = {pieces[0] for pieces in parts}
        return sorted(folders) if len(folders) > 1 and all(len(pieces) > 1 for pieces in parts) else []


def _walk(folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, int]]:
    """The relative path and size of every file. Links are followed, but not into a folder that contains the link."""
    status = folder.stat()
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", here)
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size if entry.is_file() else -1


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")

"""Any folder of images as a dataset."""

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
from trainers.parts import ConfigError, number, runtime

VERSION = 1
"""Raised when the same files come to give other arrays."""
NAMED = 5
"""Bad files that a message names."""


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """What a folder holds: ``digest`` of the sorted (relative path, bytes) list, ``images`` that can be read, of them
    ``test_images`` in ``test`` (None without such a split), and the number of ``classes`` (0 without labels)."""

    digest: str
    images: int = number(0, at_least=0)
    test_images: int | None = number(None, at_least=0)
    classes: int = number(0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Every file below ``root`` as an image with ``channels`` × ``size`` × ``size`` values.

    See :func:`trainers.data.image_arrays.decoded` for how an image is resized, cropped and converted.

    Where root has the folders ``train`` and ``test``, these are the split and the rest is left alone; otherwise the
    fraction ``held_out`` is held out. A split whose files are all in subfolders, two or more, has these as classes,
    numbered in sorted order. Images stand in the order of SHA-256 of their paths: the first n are a fair sample,
    and the split is the same wherever the folder is. Hidden files and folders are passed over.

    Files that are no images, or damaged, are named in a warning and left out, up to the fraction ``max_bad``; beyond
    that they are an error.

    How many images can be read is known only when all have been, and the length of an epoch depends on it. So planning
    a trial reads the folder, once: the arrays are then in the cache with the list of bad files, and ``content`` in the
    trial's configuration has what was found. ``content`` is part of its identity, ``root`` and ``max_bad`` are not.
    """

    name: ClassVar[str] = "image_folder"

    root: str | None = runtime(None)
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
        """With an absolute root and its content; the arrays are built if they are not in the cache.

        Raises :class:`ConfigError` if there is no such folder, if it has too many bad files, or if ``content`` is given
        and the folder has another.
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
            problem = "the folder has not been read: give TrialConfig.from_dict a cache_dir, where its images are kept"
            raise ConfigError("dataset.content", problem)
        return self.content

    @property
    def _folder(self) -> Path:
        if self.root is None:
            raise ConfigError("dataset.root", "is missing: image_folder needs dataset.root=FOLDER, a folder of images")
        root = Path(self.root).expanduser().absolute()
        if not root.is_dir():
            what = "is no folder" if root.exists() else "does not exist"
            raise ConfigError("dataset.root", f"'{root}' {what}: give the path of a folder of images")
        return root

    def _read(self, cache_dir: Path) -> tuple[ImageFolder, Path, str]:
        """With its content; the folder of the arrays in the cache; their digest."""
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
        if self.content not in (None, found):  # another version of Pillow reads other files
            raise self._another(files, f"{found.images:,} images can be read instead of {self._known.images:,}")
        return replace(self, root=str(files.root), content=found), arrays, about["digest"]

    def _another(self, files: _Files, differing: str) -> ConfigError:
        problem = f"'{files.root}' is not the folder that this trial was planned with ({differing})"
        return ConfigError("dataset.content", f"{problem}: put it back as it was, or plan anew for what it is now")

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
        """Whether the bad files are few enough: a warning or an error that names the first of them."""
        told = ", ".join(f"{_printable(name)} ({problem})" for name, problem in bad[:NAMED])
        told += f" and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
        told = f"{len(bad):,} of {files.count:,} files in '{files.root}' cannot be read as images: {told}"
        if len(bad) > self.max_bad * files.count:
            advice = f"that is more than the fraction {self.max_bad:g}; remove or mend them, or raise dataset.max_bad"
            raise ConfigError("dataset.max_bad", f"{told}; {advice}")
        if min(counts.values()) < (1 if files.has_split else 2):
            least = "train and test need an image each" if files.has_split else "it takes at least two"
            raise ConfigError("dataset.root", f"'{files.root}' has too few images: {least}")
        if bad:
            warnings.warn(f"{told}; they are left out", stacklevel=2)


class _Files:
    """The files below a folder, by the names of the splits; everything follows from their paths and sizes."""

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
        """The class of a file by number."""
        return self.classes.index(name.split("/")[self._depth])

    def _classes(self, names: list[str]) -> list[str]:
        parts = [name.split("/")[self._depth :] for name in names]
        folders = {pieces[0] for pieces in parts}
        return sorted(folders) if len(folders) > 1 and all(len(pieces) > 1 for pieces in parts) else []


def _walk(folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file; links are followed, but not back into a folder that they are in."""
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

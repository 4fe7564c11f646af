"""A dataset from any folder of images."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainers.data.decoding import NOT_AN_IMAGE, Depths, composed, decoded, is_named_image, printable, walk
from trainers.data.image_arrays import kept, open_images, open_labels, write_array, write_images
from trainers.data.splits import Unclear, find_split, may_be_image, refuse_inner_splits
from trainers.datasets import Data, Dataset
from trainers.parts import ConfigError, number, path_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 2
"""Must be increased when the same files come to give other arrays."""
NAMED = 5
"""The number of bad files that a message names."""


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """The content of a folder of images.

    - ``digest``: the digest of the sorted list of relative paths and sizes in bytes.
    - ``images``: the number of files that can be read as images.
    - ``test_images``: the number of these images in ``test``, or None without this split.
    - ``classes``: the number of classes, 0 without labels.
    - ``bits``: the number of bits that the values of 16-bit images take.
    """

    digest: str
    images: int = number(0, at_least=0)
    test_images: int | None = number(None, at_least=0)
    classes: int = number(0, at_least=0)
    bits: int = number(16, at_least=8)


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Every image file below ``root``, as an image with ``channels`` × ``size`` × ``size`` values.

    See :func:`trainers.data.decoding.decoded` for how an image is resized, cropped and converted.

    Two folders whose names say training and held-out images are the split, and all other files are ignored (see
    :func:`trainers.data.splits.find_split`). Otherwise the fraction ``held_out`` of the images is held out. If all
    images of a split are in subfolders, and there are at least two, the subfolders are the classes, numbered in sorted
    order. Images are ordered by the SHA-256 of their paths. So the first n are a fair sample, and the split does not
    depend on where the folder is. Hidden files and folders are ignored.

    Files that are no images are passed over and counted in a warning. Images that cannot be read are left out and named
    in a warning. If they are more than the fraction ``max_bad`` of all images, this is an error.

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
        whole, folder, about = self._read(cache_dir)
        images, labels = open_images(folder, "train"), open_labels(folder, "train")
        digest = f"{about['digest']}/{whole.held_out_size}"
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

    def bits(self, cache_dir: Path) -> int | None:
        """The number of bits that the values of its 16-bit images take. None if it has no such images."""
        about = self._read(cache_dir)[2]
        return about["bits"] if about["deep"] else None

    def _read(self, cache_dir: Path) -> tuple[ImageFolder, Path, dict[str, Any]]:
        """Returns the dataset with its content, the folder of the arrays in the cache, and what is known of them."""
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
        self._judge(files, about)
        found = FolderContent(
            digest=files.digest,
            images=sum(counts.values()),
            test_images=counts["test"] if files.has_split else None,
            classes=len(_classes(about["tops"])),
            bits=about["bits"],
        )
        if self.content not in (None, found):  # another version of Pillow or of trainers may read it otherwise
            raise self._another(files, _difference(found, self._known))
        return replace(self, root=str(files.root), content=found), arrays, about

    def _another(self, files: _Files, differing: str) -> ConfigError:
        problem = f"'{files.root}' is not the folder that this trial was planned with ({differing})"
        return ConfigError("dataset.content", f"{problem}: restore the folder, or start a new sweep")

    def _write(self, files: _Files, folder: Path) -> dict[str, Any]:
        import numpy as np

        depths = Depths()
        problems = self._decode(files, folder, 16, depths)
        if (bits := depths.bits(files.root)) < 16:
            problems = self._decode(files, folder, bits, Depths())
        about: dict[str, Any] = {"counts": {}, "bad": [], "others": [], "tops": {}, "inner": 0}
        about |= {"bits": bits, "deep": bool(depths.grey)}
        folders: dict[str, list[list[str]]] = {}
        for split, names in files.splits.items():
            for index, problem in problems[split].items():
                if problem == NOT_AN_IMAGE and not is_named_image(names[index]):
                    about["others"].append(names[index])
                else:
                    unread = "not an image that is read"
                    about["bad"].append([names[index], unread if problem == NOT_AN_IMAGE else problem])
            folders[split] = [files.folders(name) for index, name in enumerate(names) if index not in problems[split]]
            about["counts"][split] = len(folders[split])
            about["tops"][split] = dict(Counter(each[0] if each else "" for each in folders[split]))
        about["inner"] = len({each[1] if len(each) > 1 else "" for each in folders["train"]})
        if classes := _classes(about["tops"]):
            for split, each in folders.items():
                labels = [classes.index(names[0]) for names in each]
                write_array(folder, f"{split}_labels", np.asarray(labels, dtype=np.int64))
        return about

    def _decode(self, files: _Files, folder: Path, bits: int, depths: Depths) -> dict[str, dict[int, str]]:
        """Writes the images of each split. Returns the problems of the files that are left out, by index."""

        def decode(path: Path) -> NDArray[np.uint8]:
            return decoded(path, self.size, self.channels, bits, depths)

        return {
            split: write_images(folder / f"{split}.npy", [files.root / name for name in names], decode, self.shape)
            for split, names in files.splits.items()
        }

    def _judge(self, files: _Files, about: dict[str, Any]) -> None:
        """Warns of files that are left out and of folders that are not used as they could be.

        Raises :class:`ConfigError` if what is there cannot be used.
        """
        others, bad, counts = about["others"], about["bad"], about["counts"]
        images = files.count - len(others)
        told = f"{len(bad):,} of {images:,} images in '{files.root}' cannot be read: "
        told += _some([f"{name} ({problem})" for name, problem in bad])
        if len(bad) > self.max_bad * images:
            advice = f"that is more than the fraction {self.max_bad:g}; repair or remove them, or raise dataset.max_bad"
            raise ConfigError("dataset.max_bad", f"{told}; {advice}")
        if min(counts.values()) < (1 if files.has_split else 2):
            least = "train and test need at least one each" if files.has_split else "at least two are needed"
            some = (
                f" ({len(others):,} of {files.count:,} files in it are not images: {_some(others)})" if others else ""
            )
            raise ConfigError("dataset.root", f"'{files.root}' has too few images: {least}{some}")
        tops = about["tops"]
        if files.has_split and _classes_of(tops["train"]) != _classes_of(tops["test"]):
            raise self._unlike(files, tops)
        if bad:
            warnings.warn(f"{told}; they are left out", stacklevel=2)
        if others:
            told = f"{len(others):,} of {files.count:,} files in '{files.root}' {_are(len(others))} passed over"
            warnings.warn(f"{told}, since not an image: {_some(others)}", stacklevel=2)
        for note in _notes(files, about):
            warnings.warn(f"'{files.root}': {note}", stacklevel=2)

    def _unlike(self, files: _Files, tops: dict[str, dict[str, int]]) -> ConfigError:
        """An error for a split of which only one part has classes, or whose parts have different classes."""
        train, test = (files.tops[split] for split in ("train", "test"))
        classes = {split: _classes_of(found) for split, found in tops.items()}
        if all(classes.values()):
            only = sorted(set(classes["train"]) ^ set(classes["test"]))
            problem = f"have different classes: only one of them has the folder '{only[0]}'"
        else:
            described = [f"{files.tops[split]} has {_described(found)}" for split, found in tops.items()]
            problem = f"differ: {'; '.join(described)}. Put every image of both into class folders, or none"
        return ConfigError("dataset.root", f"{train} and {test} in '{files.root}' {problem}")


def _classes_of(tops: dict[str, int]) -> list[str]:
    """The classes of one split: its folders, if there are at least two and no image is beside them."""
    return sorted(tops) if len(tops) > 1 and "" not in tops else []


def _classes(tops: dict[str, dict[str, int]]) -> list[str]:
    """The classes of all splits, none if the splits differ."""
    each = [_classes_of(found) for found in tops.values()]
    return each[0] if all(classes == each[0] for classes in each) else []


def _notes(files: _Files, about: dict[str, Any]) -> Iterator[str]:
    """What a user may not expect of how a folder is read."""
    if files.unused:
        beside = " and ".join(f"'{top}'" for top in files.tops.values())
        yield f"{beside} are the split; {files.unused:,} images outside of them are not used"
    if about["bits"] < 16:
        values = f"the values of its 16-bit images take {about['bits']} bits"
        yield f"{values}, of which the upper eight are used (values divided by {2 ** (about['bits'] - 8)})"
    tops = about["tops"]["train"]
    if len(tops) > 2 and "" in tops:
        loose = f"{tops['']:,} {'image lies' if tops[''] == 1 else 'images lie'} beside {len(tops) - 1:,} folders"
        yield f"{loose} with images, so the folders are not read as classes and the images have no labels"
    elif len(tops) == 1 and "" not in tops and about["inner"] > 1:
        inside = f"all its images lie in the folder '{next(iter(tops))}', whose {about['inner']:,} folders are not read"
        yield f"{inside} as classes; dataset.root must be the folder directly above the classes"


def _difference(found: FolderContent, known: FolderContent) -> str:
    """What differs between the content of a folder and what was found when the trial was planned."""
    if found.images != known.images:
        return f"{found.images:,} images can be read instead of {known.images:,}"
    if found.test_images != known.test_images:
        before, now = (
            "without a split" if each.test_images is None else f"with {each.test_images:,} test images"
            for each in (known, found)
        )
        return f"it was read {before} and is now read {now}"
    if found.classes != known.classes:
        return f"{found.classes:,} classes instead of {known.classes:,}"
    return f"its 16-bit images have {found.bits} bits instead of {known.bits}"


def _described(tops: dict[str, int]) -> str:
    folders = [f"'{name}'" for name in sorted(tops) if name]
    loose = f"{tops['']:,} images outside of folders" if "" in tops else ""
    inside = f"images in {len(folders):,} folders ({_some(folders)})" if folders else ""
    return " and ".join(each for each in (loose, inside) if each)


def _some(names: Sequence[str]) -> str:
    told = ", ".join(printable(name) for name in names[:NAMED])
    return told + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


class _Files:
    """The files below a folder, by split. Everything here follows from their paths and sizes.

    ``splits`` has their paths as they are on the disk. All else is in Unicode's composed form, so that a copy on
    another system is the same dataset.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = sorted((composed(name), name, size) for name, size in walk(root))
        names = [name for name, _, _ in listed]
        others = {name.split("/")[0] for name in names} - {name.split("/")[0] for name in filter(may_be_image, names)}
        folders = {composed(entry.name) for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."}
        if not {"train", "test"} <= folders:
            folders -= others  # such as folders of annotations
        try:
            split = find_split(folders, images_beside=any("/" not in name and is_named_image(name) for name in names))
            tops = {"train": split.training, "test": split.held_out} if split else {"train": ""}
            self.unused = 0
            if split:
                prefixes = tuple(f"{top}/" for top in tops.values())
                beside = [name for name, _, _ in listed if not name.startswith(prefixes)]
                self.unused = sum(map(is_named_image, beside))
                listed = [each for each in listed if each[0].startswith(prefixes)]
            refuse_inner_splits([name for name, _, _ in listed])
        except Unclear as problem:
            raise self.unclear(str(problem)) from None
        self.has_split = split is not None
        self.tops = tops
        listing = "".join(f"{size} {name}\n" for name, _, size in listed)
        self.digest = hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]
        self.splits: dict[str, list[str]] = {split: [] for split in tops}
        for name, raw, _ in sorted(listed, key=lambda each: hashlib.sha256(os.fsencode(each[0])).digest()):
            is_test = self.has_split and name.startswith(f"{tops['test']}/")
            self.splits["test" if is_test else "train"].append(raw)
        if empty := [split for split, names in self.splits.items() if not names]:
            raise ConfigError("dataset.root", f"there are no files in '{root / tops[empty[0]]}'")
        self.count = len(listed)

    def unclear(self, problem: str) -> ConfigError:
        """An error for folders that may be a split or classes."""
        advice = "name the two folders train and test, directly in dataset.root, or give another dataset.root"
        return ConfigError("dataset.root", f"'{self.root}': {problem}; {advice}; a class needs another name")

    def folders(self, name: str) -> list[str]:
        """The folders that a file is in, below its split's."""
        return composed(name).split("/")[1 if self.has_split else 0 : -1]

"""Which folders of a dataset are its split into training and held-out images, by their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from trainers.data.decoding import composed

Role = Literal["training", "test", "validation"]
WORDS: dict[str, Role] = {
    **dict.fromkeys(["train", "training", "trn", "trainset", "trainval", "traindata"], "training"),
    **dict.fromkeys(["test", "testing", "tst", "testset", "testdata"], "test"),
    **dict.fromkeys(["val", "valid", "validation", "validate", "valset", "dev", "devset"], "validation"),
    **dict.fromkeys(["eval", "evaluation", "evaluate", "holdout", "heldout"], "validation"),
}
"""The words that say what the images of a folder are for."""
NEUTRAL = frozenset(
    ("set", "sets", "data", "dataset", "images", "image", "img", "imgs", "picture", "pictures", "photo", "photos")
)
"""Words beside them that change nothing, as in ``train_images``. Numbers do not either: ``train2017``."""

NEVER_IMAGES = frozenset(
    (
        *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".md", ".log"),
        *(".html", ".pdf", ".py", ".sh", ".ipynb", ".npy", ".npz", ".mat", ".pkl", ".pt", ".db", ".zip", ".gz", ".tar"),
    )
)
"""Endings of files that do not make a folder a folder of images."""


class Split(NamedTuple):
    """The names of the two folders."""

    training: str
    held_out: str


class Unclear(Exception):
    """The folders may be a split or classes. The message says what was found."""


def find_split(folders: Iterable[str], *, images_beside: bool = False) -> Split | None:
    """The split that folders beside each other are, or None if they are none.

    ``images_beside``: whether images lie beside the folders.
    ``train`` beside ``test`` always is. Otherwise one folder's name must say training, and one's test or, without such
    a folder, validation; apart from this word the names must be alike. Raises :class:`Unclear` if such words are there
    but do not tell.
    """
    names = sorted(folders)
    if "train" in names and "test" in names:
        return Split("train", "test")
    groups: dict[tuple[str, ...], dict[Role, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if (found := _role(name)) is not None:
            role, rest = found
            groups[rest][role].append(name)
    alone = groups.get((), {})
    named = sorted(name for roles in groups.values() for each in roles.values() for name in each)
    training = [name for roles in groups.values() for name in roles.get("training", [])]
    if not training:
        if alone and (len(names) > 1 or images_beside):
            raise Unclear(f"the names {_quoted(named)} say held-out images, but no folder's name says training images")
        return None
    if len(training) == len(named):
        if len(alone.get("training", [])) > 1:
            raise Unclear(f"the names {_quoted(named)} all say training images")
        return None  # such as a class of trains
    if 2 * len(named) < len(names) and not ("training" in alone and len(alone) > 1):
        return None  # a few classes among many, such as bullet_train and test_tube
    pairs = [roles for roles in groups.values() if "training" in roles and len(roles) > 1]
    if len(pairs) == len(training) == 1:
        held_out = pairs[0].get("test") or pairs[0]["validation"]
        if len(held_out) == 1:
            return Split(training[0], held_out[0])
    raise Unclear(f"the names {_quoted(named)} say a split, but not which two folders it is")


def refuse_inner_splits(names: Sequence[str]) -> None:
    """Raises :class:`Unclear` if a folder other than the top one holds a split. ``names`` are the files' paths."""
    inside: dict[str, set[str]] = defaultdict(set)
    for name in filter(may_be_image, names):
        folders = name.split("/")[:-1]
        for depth, folder in enumerate(folders):
            inside["/".join(folders[:depth])].add(folder)
    for folder, children in sorted(inside.items()):
        if folder and len(children) > 1:
            try:
                found = find_split(children)
            except Unclear as problem:
                raise Unclear(f"in '{folder}', {problem}") from None
            if found is not None:
                raise Unclear(f"the split '{found.training}' and '{found.held_out}' is in '{folder}', not at the top")


def may_be_image(name: str) -> bool:
    """Whether a file's ending does not rule out that it is an image."""
    return PurePosixPath(name).suffix.lower() not in NEVER_IMAGES


def _role(name: str) -> tuple[Role, tuple[str, ...]] | None:
    """What a folder's images are for, and the rest of its name. None if its name does not say, or says two things."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", composed(name))
    spaced = re.sub(r"\b(held|hold)[\W_]*out\b", "holdout", spaced.replace("_", " "), flags=re.IGNORECASE)
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    roles = {WORDS[word] for word in words if word in WORDS}
    if len(roles) != 1:
        return None
    return roles.pop(), tuple(word for word in words if word not in WORDS and word not in NEUTRAL)


def _quoted(names: Sequence[str]) -> str:
    shown = [f"'{name}'" for name in names[:6]]
    return ", ".join(shown) + (f" and {len(names) - 6:,} more" if len(names) > 6 else "")

"""Folders of images: split, classes, bad files, and the content as part of a trial's identity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import make_folder, needs_cifar, picture, save, unpack_cifar
from PIL import Image

import trainers
from trainers.config import TrialConfig
from trainers.data.decoding import decoded
from trainers.data.image_folder import FolderContent, ImageFolder
from trainers.datasets import Data
from trainers.evaluation.classifier import RECIPE, train_classifier
from trainers.parts import ConfigError
from trainers.training import Training

MakeTrial = Callable[..., TrialConfig]


@pytest.fixture(autouse=True)
def no_unexpected_warning() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def load(cache: Path, root: Path, **options: Any) -> tuple[ImageFolder, Data]:
    dataset = ImageFolder(root=str(root), **{"size": 8, **options}).filled_in(cache)
    data = dataset.load(cache)
    assert data.train.shape == (dataset.train_size, *dataset.shape)
    assert data.held_out.shape == (dataset.held_out_size, *dataset.shape)
    return dataset, data


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_folder_without_classes_is_split_by_the_fraction(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images")
    save(picture(9, 9, 99), root / "deep" / "er" / "last.png")
    expected = {decoded(path, 8, 3).tobytes() for path in root.rglob("*.*")}
    splits = []
    for held_out, count in [(0.1, 2), (0.5, 10), (0.001, 1), (0.999, 20)]:
        dataset, data = load(tmp_path / "cache", root, held_out=held_out)
        assert dataset.held_out_size == count
        assert rows(data.train) | rows(data.held_out) == expected
        assert not rows(data.train) & rows(data.held_out)
        assert (data.train_labels, data.held_out_labels, dataset.labelled) == (None, None, False)
        splits.append((rows(data.held_out), data.digest))
    assert len({digest for _, digest in splits}) == 4
    assert splits[2][0] < splits[0][0] < splits[1][0] < splits[3][0]
    assert len([path for path in (tmp_path / "cache" / "datasets").iterdir() if path.is_dir()]) == 1


def test_class_subfolders_are_labels_in_sorted_order(tmp_path: Path) -> None:
    for label, name in enumerate(["ant", "bee", "cat"]):
        for index in range(10):
            grey = np.full((8, 8), 50 * label + index, dtype=np.uint8)
            save(Image.fromarray(grey), tmp_path / "in" / name / "x" / f"{index}.png")
    dataset, data = load(tmp_path / "cache", tmp_path / "in", channels=1)
    assert dataset.labelled
    assert dataset.content is not None
    assert (dataset.content.classes, dataset.content.images) == (3, 30)
    for images, labels in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        assert labels is not None
        assert torch.equal(images[:, 0, 0, 0].long() // 50, labels)
    assert data.train_labels is not None
    assert data.train_labels[:10].unique().tolist() == [0, 1, 2]  # a fair sample, not the first class


def test_train_and_test_are_the_split(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for split, count in (("train", 6), ("test", 4)):
        for name in ("a", "b"):
            make_folder(root / split / name, count)
    (root / "README.txt").write_text("beside the split")
    dataset, data = load(tmp_path / "cache", root, held_out=0.9)
    assert (dataset.train_size, dataset.held_out_size, dataset.labelled) == (12, 8, True)
    assert data.train_labels is not None
    assert data.train_labels.bincount().tolist() == [6, 6]
    assert data.held_out_labels is not None
    assert data.held_out_labels.bincount().tolist() == [4, 4]
    shutil.move(root / "test" / "b", root / "test" / "c")
    with pytest.raises(ConfigError, match=r"^dataset\.root: train and test in .* different classes: .* folder 'b'"):
        load(tmp_path / "cache", root)
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    with pytest.raises(ConfigError, match=r"^dataset\.root: there are no files in '.*/test'"):
        load(tmp_path / "cache", root)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        *[("train", name) for name in ("val", "valid", "validation", "Test", "dev", "eval", "held_out", "hold-out")],
        *[
            ("Train", "Test"),
            ("TRAIN", "VAL"),
            ("training", "testing"),
            ("Training", "Validation"),
            ("trainval", "test"),
        ],
        *[
            ("train2017", "val2017"),
            ("train_images", "val"),
            ("seg_train", "seg_test"),
            ("DIV2K_train_HR", "DIV2K_valid_HR"),
        ],
        *[("imgs-train", "imgs-test"), ("Trainset", "Testset"), ("train", "HeldOut")],
    ],
)
@pytest.mark.parametrize("labelled", [True, False], ids=["classes", "flat"])
def test_a_split_by_any_usual_name_is_a_split(train: str, test: str, labelled: bool, tmp_path: Path) -> None:
    root, reference = tmp_path / "images", tmp_path / "reference"
    for index in range(12):
        held_out, label = index % 3 == 0, f"{index % 2}" if labelled else "."
        for folder, names in ((root, (train, test)), (reference, ("train", "test"))):
            save(picture(8, 8, index), folder / names[held_out] / label / f"{index}.png")
    dataset, data = load(tmp_path / "cache", root)
    assert dataset.content is not None
    assert (dataset.content.images, dataset.content.test_images, dataset.content.classes) == (12, 4, 2 * labelled)
    expected = load(tmp_path / "cache", reference)[1]
    assert (rows(data.train), rows(data.held_out)) == (rows(expected.train), rows(expected.held_out))
    if labelled:
        assert data.train_labels is not None
        assert data.train_labels.bincount().tolist() == [4, 4]


def make_tree(root: Path, *names: str) -> Path:
    """A folder with two pictures in each of these folders, no two alike."""
    for number, name in enumerate(names):
        for index in range(2):
            save(picture(8, 8, 2 * number + index), root / name / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["val", "test"], "the names 'test', 'val' say held-out images, but no folder's name says training images"),
        (["0", "1", "test"], "the names 'test' say held-out images, but no folder's name says training images"),
        (["test", "."], "the names 'test' say held-out images, but no folder's name says training images"),
        (["images/train", "images/val", "labels"], "the split 'train' and 'val' is in 'images', not at the top"),
        (["train", "training", "test_images"], "'test_images', 'train', 'training' say a split, but not which"),
        (["train", "val", "dev"], "the names 'dev', 'train', 'val' say a split, but not which two folders it is"),
        (["trainA", "trainB", "testA", "testB"], "'testA', 'testB', 'trainA', 'trainB' say a split, but"),
        (["cat_train", "cat_test", "dog_train", "dog_test"], "say a split, but not which two folders it is"),
        (["seg_train", "pred_test"], "the names 'pred_test', 'seg_train' say a split, but not which two folders"),
        (["train2014", "train2017"], "the names 'train2014', 'train2017' all say training images"),
        (["cat/train", "cat/val", "dog/train", "dog/val"], "the split 'train' and 'val' is in 'cat', not at the top"),
        (["data/train/0", "data/train/1", "data/val/0"], "the split 'train' and 'val' is in 'data', not at the top"),
    ],
)  # fmt: skip
def test_what_may_be_a_split_or_classes_is_refused(names: list[str], found: str, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", *names)
    with pytest.raises(ConfigError, match=rf"^dataset\.root: '{root}': .*") as error:
        ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache")
    assert found in error.value.problem
    assert "name the two folders train and test" in error.value.problem


@pytest.mark.parametrize(
    "names",
    [
        ["bus", "car", "train", "truck"],
        ["bullet_train", "cat", "dog", "test_tube", "trilobite"],
        ["0", "1", "2"],
        ["Testudo", "Trainer", "Valley"],
    ],
)
def test_classes_whose_names_sound_like_a_split_are_classes(names: list[str], tmp_path: Path) -> None:
    dataset, _ = load(tmp_path / "cache", make_tree(tmp_path / "images", *names))
    assert dataset.content is not None
    assert (dataset.content.classes, dataset.content.test_images) == (len(names), None)


def test_folders_without_images_are_neither_classes_nor_a_split(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "0", "1")
    for name in ("test/a.py", "annotations/train/a.json", "annotations/val/a.json", "Train/list.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no image")
    with pytest.warns(UserWarning, match="^4 of 8 files in .* are passed over"):
        content = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache").content
    assert content is not None
    assert (content.images, content.classes, content.test_images) == (4, 2, None)


def test_folders_beside_a_split_are_counted(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "Train", "Val", "Test", "extra")
    (root / "annotations").mkdir()
    (root / "annotations" / "all.json").write_text("{}")
    note = "'Train' and 'Test' are the split; 4 images outside of them are not used$"
    with pytest.warns(UserWarning, match=note):
        content = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache").content
    assert content is not None
    assert (content.images, content.test_images) == (4, 2)


@pytest.mark.parametrize("split", [False, True], ids=["no split", "split"])
@pytest.mark.parametrize("stray", ["labels.csv", "README.txt", "Thumbs.db", "notes/deep.json", "0/annotation.xml"])
def test_files_that_are_no_images_are_passed_over_and_labels_stay(split: bool, stray: str, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", *(["train/0", "train/1", "test/0", "test/1"] if split else ["0", "1"]))
    before = load(tmp_path / "cache", root)[1]
    file = root / ("train" if split else ".") / stray
    file.parent.mkdir(exist_ok=True)
    file.write_text("no image")
    (count, name) = (9, f"train/{stray}") if split else (5, stray)
    told = f"^1 of {count} files in '{root}' is passed over, since not an image: {name}$"
    with pytest.warns(UserWarning, match=told):
        dataset = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache")
    with pytest.warns(UserWarning, match=told):
        data = dataset.load(tmp_path / "cache")
    assert dataset.labelled
    assert torch.equal(data.train, before.train)
    assert data.train_labels is not None
    assert before.train_labels is not None
    assert torch.equal(data.train_labels, before.train_labels)


def test_annotations_beside_every_image_are_no_bad_files(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "0", "1")
    for path in list(root.rglob("*.png")):
        path.with_suffix(".txt").write_text("0.5 0.5 1 1")
    with pytest.warns(UserWarning, match="^4 of 8 files in .* are passed over"):
        content = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache").content
    assert content is not None
    assert (content.images, content.classes) == (4, 2)


def test_images_in_a_format_that_is_not_read_are_not_passed_over(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "0", "1")
    (root / "0" / "portrait.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    picture(8, 8).save(root / "1" / "drawing.eps")
    with pytest.raises(ConfigError, match=r"^dataset\.max_bad: 2 of 6 images in .* cannot be read: ") as error:
        ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache")
    assert "0/portrait.HEIC (not an image that is read)" in error.value.problem
    assert "1/drawing.eps (not an image that is read)" in error.value.problem


def test_images_beside_class_folders_are_told(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "0", "1", ".")
    note = "4 folders|2 images lie beside 2 folders with images, so the folders are not read as classes"
    with pytest.warns(UserWarning, match=note):
        content = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache").content
    assert content is not None
    assert (content.images, content.classes) == (6, 0)
    split = make_tree(tmp_path / "split", "train/a", "train/b", "test/a", "test/b", "train")
    with pytest.raises(ConfigError) as error:
        ImageFolder(root=str(split), size=8).filled_in(tmp_path / "cache")
    told = "train has 2 images outside of folders and images in 2 folders ('a', 'b'); test has images in 2 folders"
    assert told in error.value.problem


def test_classes_one_folder_down_are_told(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", "train/cats", "train/dogs")
    note = "all its images lie in the folder 'train', whose 2 folders are not read as classes; dataset.root must be"
    with pytest.warns(UserWarning, match=note):
        content = ImageFolder(root=str(root), size=8).filled_in(tmp_path / "cache").content
    assert content is not None
    assert (content.images, content.classes) == (4, 0)


def test_a_copy_with_names_as_macos_writes_them_is_the_same_trial(trial: MakeTrial, tmp_path: Path) -> None:
    roots = {form: tmp_path / form for form in ("NFC", "NFD")}
    for form, root in roots.items():
        for number, name in enumerate(["b\u00e9b\u00e9", "\uac00", "zebra"]):
            for index in range(3):
                path = root / unicodedata.normalize(form, name) / unicodedata.normalize(form, f"\u00e4{index}.png")
                save(picture(8, 8, 3 * number + index), path)
    (roots["NFD"] / "zebra" / "._0.png").write_bytes(b"\0\5\x16\7")  # what macOS adds on other file systems
    (roots["NFD"] / "__MACOSX").mkdir()
    (roots["NFD"] / "__MACOSX" / "._zebra").write_bytes(b"\0\5\x16\7")
    configs = [folder_trial(trial, root, tmp_path / f"cache {form}") for form, root in roots.items()]
    assert configs[0].identity == configs[1].identity
    data = [config.dataset.load(tmp_path / f"cache {form}") for config, form in zip(configs, roots, strict=True)]
    assert torch.equal(data[0].train, data[1].train)
    assert data[0].digest == data[1].digest
    assert torch.equal(data[0].train_labels, data[1].train_labels)  # type: ignore[arg-type]


def test_hidden_files_and_circles_of_links_are_passed_over(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", 5)
    (root / ".DS_Store").write_text("hidden")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.png").write_text("hidden")
    os.symlink(root, root / "circle")
    os.symlink(make_folder(tmp_path / "elsewhere", 3, side=9), root / "linked")
    assert load(tmp_path / "cache", root)[0].content == FolderContent(
        digest=ImageFolder(root=str(root)).filled_in(tmp_path / "cache").content.digest,  # type: ignore[union-attr]
        images=8,
    )


def spoil(root: Path) -> None:
    """Three bad files: not an image, a truncated image, a broken link."""
    (root / "notes.txt").write_text("no image at all")
    whole = save(picture(64, 64), root / "cut.jpg")
    os.truncate(whole, whole.stat().st_size // 2)
    os.symlink(root / "nowhere", root / "broken link.png")


def test_bad_files_are_named_and_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", 27)
    spoil(root)
    for _ in range(2):  # when the array is built, and from the cache
        with pytest.warns(UserWarning, match="cannot be read|passed over") as caught:
            dataset = ImageFolder(root=str(root), size=8, max_bad=0.1).filled_in(tmp_path / "cache")
        bad, others = [str(each.message) for each in caught]
        assert bad.startswith(f"2 of 29 images in '{root}' cannot be read: ")
        assert "cut.jpg (" in bad
        assert "broken link.png (not a regular file)" in bad
        assert others == f"1 of 30 files in '{root}' is passed over, since not an image: notes.txt"
    assert dataset.train_size + dataset.held_out_size == 27
    with pytest.warns(UserWarning, match="^2 of 29 images|passed over"):
        data = dataset.load(tmp_path / "cache")
    assert len(data.train) + len(data.held_out) == 27


def test_too_many_bad_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "images", 27)
    spoil(root)
    for number in range(6):
        (root / f"{number}.png").write_bytes(bytes(range(number + 1)))
    for _ in range(2):
        with pytest.raises(ConfigError) as error:
            ImageFolder(root=str(root), size=8, max_bad=0.2).filled_in(tmp_path / "cache")
        assert error.value.path == "dataset.max_bad"
        assert error.value.problem.startswith(f"8 of 35 images in '{root}' cannot be read: ")
        assert " and 3 more; that is more than the fraction 0.2; " in error.value.problem
        assert "\n" not in error.value.problem
    with pytest.warns(UserWarning, match="8 of 35|passed over"):  # the array is still there for a larger fraction
        load(tmp_path / "cache", root, max_bad=0.25)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("x"), "is not a folder"),
        (lambda root: root.mkdir(), "there are no files in"),
        (lambda root: make_folder(root, 1), "has too few images: at least two are needed"),
    ],
    ids=["nothing", "file", "empty", "one image"],
)
def test_what_is_no_folder_of_images(tmp_path: Path, make: Callable[[Path], Any], problem: str) -> None:
    make(tmp_path / "images")
    with pytest.raises(ConfigError, match=rf"^dataset\.root: .*'{tmp_path}/images'? ?{problem}|{problem}"):
        ImageFolder(root=str(tmp_path / "images"), size=8).filled_in(tmp_path / "cache")


def test_the_root_is_required_and_the_folder_must_be_read(trial: MakeTrial, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^dataset\.root: is missing: image_folder needs dataset\.root=FOLDER"):
        ImageFolder().filled_in(tmp_path)
    with pytest.raises(ConfigError, match=r"^dataset\.content: the folder has not been read: .*cache_dir"):
        trial(dataset={"name": "image_folder", "root": str(make_folder(tmp_path / "images"))})


def folder_trial(trial: MakeTrial, root: Path, cache: Path, **options: Any) -> TrialConfig:
    dataset = {"name": "image_folder", "root": str(root), "size": 8, **options}
    values = trial(batch_size=8).to_dict() | {"dataset": dataset}
    return TrialConfig.from_dict(values, cache)


def test_a_trial_is_its_content_and_not_its_path(trial: MakeTrial, tmp_path: Path) -> None:
    root, cache = make_folder(tmp_path / "one"), tmp_path / "cache"
    config = folder_trial(trial, root, cache)
    moved = shutil.copytree(root, tmp_path / "other")
    assert folder_trial(trial, moved, tmp_path / "cache 2", max_bad=0.5).identity == config.identity
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    others = [
        folder_trial(trial, root, cache, **options) for options in ({"size": 16}, {"channels": 1}, {"held_out": 0.2})
    ]
    save(picture(8, 8), moved / "another.png")
    others.append(folder_trial(trial, moved, cache))
    assert len({each.identity for each in [config, *others]}) == 5


def test_a_relative_root_is_stored_as_an_absolute_one(
    trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    config = folder_trial(trial, Path("images"), tmp_path / "cache")
    assert config.to_dict()["dataset"]["root"] == str(tmp_path / "images")


def test_a_folder_that_has_changed_is_an_error(trial: MakeTrial, tmp_path: Path) -> None:
    root, cache = make_folder(tmp_path / "images"), tmp_path / "cache"
    config = folder_trial(trial, root, cache)
    save(picture(8, 8), root / "another.png")
    problem = r"^dataset\.content: '.*/images' is not the folder that .* planned with \(the digest of its 21 files"
    with pytest.raises(ConfigError, match=problem):
        Training(config, cache_dir=cache)
    with pytest.raises(ConfigError, match=problem):
        TrialConfig.from_dict(config.to_dict(), cache)
    assert len([path for path in (cache / "datasets").iterdir() if path.is_dir()]) == 1  # no file was read for this
    (root / "another.png").unlink()
    Training(config, cache_dir=cache)
    values = config.to_dict()
    values["dataset"]["content"]["images"] = 19
    with pytest.raises(ConfigError, match=r"^dataset\.content: .*\(20 images can be read instead of 19\)"):
        Training(TrialConfig.from_dict(values), cache_dir=cache)


def test_labels_are_what_the_classifier_needs(trial: MakeTrial, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.name: classifier needs labels; image_folder has none here"):
        values = folder_trial(trial, make_folder(tmp_path / "images"), tmp_path / "cache").to_dict()
        TrialConfig.from_dict(values | {"evaluation": {"name": "classifier"}})


def test_planning_reads_the_folder_once_says_so_and_imports_no_torch(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    script = (
        "import sys\nfrom pathlib import Path\nfrom trainers.data.image_folder import ImageFolder\n"
        "dataset = ImageFolder(root='images', size=8).filled_in(Path('cache'))\n"
        "print(dataset.train_size, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(trainers.__file__).parent.parent)}
    command = [sys.executable, "-c", script]
    runs = [
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
        for _ in range(2)
    ]
    assert [run.stdout.split() for run in runs] == [["18", "False", "True"], ["18", "False", "False"]]
    note = f"image_folder: reading 20 files in '{tmp_path}/images', once; the images are then kept in 'cache'\n"
    assert [run.stderr for run in runs] == [note, ""]


@needs_cifar
def test_real_photographs_train_a_trial_and_a_classifier(trial: MakeTrial, tmp_path: Path) -> None:
    root = unpack_cifar(tmp_path / "cifar10-jpeg", 400)
    config = folder_trial(trial, root, tmp_path / "cache", size=32)
    assert (config.dataset.train_size, config.dataset.held_out_size) == (360, 40)
    training = Training(config, cache_dir=tmp_path / "cache")
    assert training.run_epoch() is not None
    assert 60 < training.data.train.double().mean() < 180  # photographs
    labels = torch.arange(360) % 2
    labelled = Data(training.data.train, training.data.held_out, labels, labels[:40])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPE, "steps", 2)
        assert train_classifier(labelled, tmp_path / "cache")[1]["shape"] == "3,32,32"

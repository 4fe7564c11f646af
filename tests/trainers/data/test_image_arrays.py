"""Arrays on disk: how a file is decoded, and that one process builds an array once and completely."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainers.data import image_arrays
from trainers.data.image_arrays import kept, open_images, open_labels, write_array, write_images


def build_small(folder: Path) -> dict[str, Any]:
    write_array(folder, "train", np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2))
    write_array(folder, "train_labels", np.arange(4))
    return {"told": "something"}


def test_arrays_are_mapped_with_their_digest_and_labels(tmp_path: Path) -> None:
    about = kept(tmp_path / "set", build_small)
    assert about["told"] == "something"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = open_images(tmp_path / "set", "train")
    assert torch.equal(images, torch.arange(48, dtype=torch.uint8).reshape(4, 3, 2, 2))
    labels = open_labels(tmp_path / "set", "train")
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3]
    assert labels.dtype == torch.int64
    assert open_labels(tmp_path / "set", "test") is None
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(tmp_path / "set" / "train.npy") in maps.read_text()


def test_what_is_there_is_not_built_again_and_needs_no_lock(tmp_path: Path) -> None:
    first = kept(tmp_path / "set", build_small)
    (tmp_path / "set.lock").unlink()
    assert kept(tmp_path / "set", lambda folder: pytest.fail("built again")) == first
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    def another(folder: Path) -> dict[str, Any]:
        build_small(folder)
        write_array(folder, "train_labels", np.arange(4) + 1)
        return {}

    digests = {kept(tmp_path / name, build)["digest"] for name, build in [("a", build_small), ("b", build_small)]}
    assert len(digests) == 1
    assert kept(tmp_path / "c", another)["digest"] not in digests


@pytest.mark.parametrize("damage", ["cut short", "missing array", "no about", "about cut", "about no mapping"])
def test_a_damaged_folder_is_built_anew(tmp_path: Path, damage: str) -> None:
    first = kept(tmp_path / "set", build_small)
    array, about = tmp_path / "set" / "train.npy", tmp_path / "set" / "about.json"
    if damage == "cut short":
        os.truncate(array, 100)
    elif damage == "missing array":
        array.unlink()
    elif damage == "no about":
        about.unlink()
    else:
        about.write_text("[]" if damage == "about no mapping" else about.read_text()[:20])
    assert kept(tmp_path / "set", build_small) == first
    assert open_images(tmp_path / "set", "train").sum() == sum(range(48))


def flip(file: Path, place: int) -> None:
    """Flips one bit, and leaves the times of the file as a bad disk does."""
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def reopened(folder: Path) -> dict[str, Any]:
    """What another process gets, with the warnings that it gives."""
    image_arrays._verified.clear()
    return kept(folder, build_small)


@pytest.mark.parametrize(
    ("file", "place"), [("train.npy", -1), ("train.npy", 70), ("train_labels.npy", -8), ("about.json", 15)]
)
def test_a_flipped_bit_is_told_and_the_folder_is_built_again(tmp_path: Path, file: str, place: int) -> None:
    first = kept(tmp_path / "set", build_small)
    flip(tmp_path / "set" / file, place)
    with pytest.warns(UserWarning, match=r"set' does not match the digest .* is damaged, and is made again"):
        assert reopened(tmp_path / "set") == first
    assert open_images(tmp_path / "set", "train").sum() == sum(range(48))
    labels = open_labels(tmp_path / "set", "train")
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reopened(tmp_path / "set")


def test_damaged_arrays_whose_source_has_gone_are_not_used(tmp_path: Path) -> None:
    def gone(folder: Path) -> dict[str, Any]:
        raise FileNotFoundError("the images are not there any more")

    kept(tmp_path / "set", build_small)
    flip(tmp_path / "set" / "train.npy", -1)
    image_arrays._verified.clear()
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(FileNotFoundError, match="not there any more"):
        kept(tmp_path / "set", gone)


def test_a_process_compares_the_files_again_only_when_they_have_changed(tmp_path: Path) -> None:
    kept(tmp_path / "set", build_small)
    array = tmp_path / "set" / "train.npy"
    flip(array, -1)  # with the same size and time: this process has read the file and does not read it again
    kept(tmp_path / "set", lambda folder: pytest.fail("built again"))
    array.touch()
    with pytest.warns(UserWarning, match="is damaged"):
        kept(tmp_path / "set", build_small)


def test_a_folder_of_an_earlier_version_is_used_as_it_is(tmp_path: Path) -> None:
    first = kept(tmp_path / "set", build_small)
    file = tmp_path / "set" / "about.json"
    earlier = {key: value for key, value in first.items() if key != "about_digest"}
    file.write_text(json.dumps(earlier))
    assert reopened(tmp_path / "set") == earlier
    file.write_text(json.dumps({key: value for key, value in earlier.items() if key != "digest"}))
    assert reopened(tmp_path / "set") == first  # made again: nobody knows whether the arrays are whole


def test_a_builder_that_fails_or_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        build_small(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        kept(tmp_path / "set", fails)
    assert [file.name for file in tmp_path.iterdir()] == ["set.lock"]
    (tmp_path / ".set.building").mkdir()  # as after kill -9
    (tmp_path / ".set.building" / "train.npy").write_bytes(b"half")
    (tmp_path / ".set.building" / "test.npy").write_bytes(b"half")
    assert list(kept(tmp_path / "set", build_small)["bytes"]) == ["train.npy", "train_labels.npy"]


def build_slowly(folder: Path) -> dict[str, Any]:
    with (folder.parent / "builders").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    return build_small(folder)


def ask(folder: Path, barrier: Any, answers: Any) -> None:
    barrier.wait(timeout=60)
    about = kept(folder, build_slowly)
    answers.put((json.dumps(about), int(np.load(folder / "train.npy", mmap_mode="r").sum())))


def test_processes_that_ask_together_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path / "set", barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    results = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert len(results) == 1
    assert len((tmp_path / "builders").read_text().split()) == 1


@pytest.mark.parametrize("count", [9, 2500])
def test_images_are_written_in_order_without_the_bad_ones(tmp_path: Path, count: int) -> None:
    def decode(value: int) -> np.ndarray:
        if value % 1000 == 3:
            raise ValueError(f"no {value}\nand more")
        return np.full((1, 2, 2), value % 256, dtype=np.uint8)

    problems = write_images(tmp_path / "train.npy", range(count), decode, (1, 2, 2))
    bad = [value for value in range(count) if value % 1000 == 3]
    assert problems == {value: f"no {value}" for value in bad}
    images = np.load(tmp_path / "train.npy", mmap_mode="r")
    assert images.shape == (count - len(bad), 1, 2, 2)
    assert images[:, 0, 0, 0].tolist() == [value % 256 for value in range(count) if value not in problems]

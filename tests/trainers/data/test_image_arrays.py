"""Arrays on disk: what a file becomes, and that an array is built once, whole, by one process."""

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
from image_files import picture, save
from PIL import Image

from trainers.data.decoding import decoded
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


def test_a_builder_that_fails_or_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        build_small(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        kept(tmp_path / "set", fails)
    assert [file.name for file in tmp_path.iterdir()] == ["set.lock"]
    (tmp_path / ".set.building").mkdir()  # as kill -9 leaves it
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


GREY = Image.fromarray(np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8))
COLOUR = picture(8, 8)


def test_an_image_of_the_size_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = decoded(save(COLOUR, tmp_path / "a.png"), 8, 3)
    assert np.array_equal(pixels, np.asarray(COLOUR).transpose(2, 0, 1))
    assert np.array_equal(decoded(save(GREY, tmp_path / "g.png"), 8, 1)[0], np.asarray(GREY))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
    else:
        image = GREY.convert("RGB").convert(mode)
    ending = "jpg" if mode == "CMYK" else "png"
    path = tmp_path / f"image.{ending}"
    image.save(path, **({"quality": 100} if ending == "jpg" else {}))
    with Image.open(path) as saved:
        assert saved.mode == mode
    pixels = decoded(path, 8, channels)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (channels, 8, 8))
    expected = np.asarray(GREY.convert("1")) * 255 if mode == "1" else np.asarray(GREY)
    near = 40 if mode == "P" else 4 if ending == "jpg" else 0  # a palette of few greys, a lossy format
    assert np.abs(pixels.astype(int) - expected).max() <= near


def test_transparency_is_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    image.paste((200, 100, 0, 255), (0, 0, 8, 4))
    pixels = decoded(save(image, tmp_path / "a.png"), 8, 3)
    assert pixels[:, 0, 0].tolist() == [200, 100, 0]
    assert pixels[:, 7, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (40, 30), (33, 20)])
def test_the_middle_of_the_longer_side_is_kept(tmp_path: Path, width: int, height: int) -> None:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (left, top, left + side, top + side))
    pixels = decoded(save(image, tmp_path / "a.png"), 10, 3)
    assert pixels.shape == (3, 10, 10)
    assert pixels[0, 2:-2, 2:-2].max() <= 1  # no red left
    assert pixels[0].max() < 20  # but for what the filter sees beyond the border, as before a crop


def test_it_is_resizing_the_shorter_side_and_cropping(tmp_path: Path) -> None:
    image = picture(64, 40)
    resized = image.resize((16, 10), Image.Resampling.LANCZOS).crop((3, 0, 13, 10))
    pixels = decoded(save(image, tmp_path / "a.png"), 10, 3)
    assert np.abs(pixels.astype(int) - np.asarray(resized).transpose(2, 0, 1)).max() <= 1


def test_shrinking_averages_and_tiny_images_are_magnified(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255  # without antialiasing all black or all white
    pixels = decoded(save(Image.fromarray(stripes), tmp_path / "stripes.png"), 8, 1)
    assert np.abs(pixels[0, 1:-1, 1:-1].astype(int) - 127).max() <= 3
    assert decoded(save(Image.new("L", (1, 3), 77), tmp_path / "tiny.png"), 8, 1).tolist() == [[[77] * 8] * 8]


def test_photographs_stand_upright(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # light above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    assert decoded(tmp_path / "a.png", 8, 1)[0, :, 0].tolist() == [0] * 4 + [255] * 4

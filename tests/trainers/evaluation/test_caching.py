"""Cached files: made once, keyed by all their inputs, and made again if they cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainers.evaluation.caching import Content, cache_key, cached


class Maker:
    """Makes content and counts the calls."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Content:
        self.times += 1
        return {"a": torch.arange(6).reshape(2, 3).T, "b": torch.tensor(0.1)}, {"what": "é, 1/3"}


def assert_content(content: Content) -> None:
    tensors, metadata = content
    assert torch.equal(tensors["a"], torch.arange(6).reshape(2, 3).T)
    assert torch.equal(tensors["b"], torch.tensor(0.1))
    assert metadata == {"what": "é, 1/3"}


def test_content_is_made_once(tmp_path: Path) -> None:
    maker, path = Maker(), tmp_path / "some" / "folder" / "x.safetensors"
    for _ in range(3):
        assert_content(cached(path, maker))
    assert maker.times == 1


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "gone"])
def test_what_cannot_be_read_is_made_again(damage: str, tmp_path: Path) -> None:
    maker, path = Maker(), tmp_path / "x.safetensors"
    cached(path, maker)
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "garbage": b"\xff" * 500, "cut": whole[:-3]}[damage])
    assert_content(cached(path, maker))
    assert maker.times == 2
    assert path.stat().st_size == len(whole)


@pytest.mark.parametrize("what", ["a tensor", "the metadata"])
def test_a_flipped_bit_is_told_and_the_file_is_made_again(what: str, tmp_path: Path) -> None:
    maker, path = Maker(), tmp_path / "x.safetensors"
    cached(path, maker)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[-1 if what == "a tensor" else whole.index(b"1/3")] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match=r"x\.safetensors' does not match the digest .* damaged, and is made again"):
        assert_content(cached(path, maker))
    assert maker.times == 2
    assert path.stat().st_size == len(whole)


def test_a_file_of_an_earlier_version_gets_a_digest(tmp_path: Path) -> None:
    maker, path = Maker(), tmp_path / "x.safetensors"
    tensors, metadata = maker()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    assert_content(cached(path, maker))
    assert maker.times == 1
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.warns(UserWarning, match="does not match the digest"):
        assert_content(cached(path, maker))


def test_a_failure_leaves_no_file_and_no_lock(tmp_path: Path) -> None:
    path, maker = tmp_path / "x.safetensors", Maker()

    def fail() -> Content:
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="no power"):
        cached(path, fail)
    assert not path.exists()
    assert_content(cached(path, maker))


def test_keys_depend_on_every_part_and_on_no_order() -> None:
    parts = {"data": "abc", "count": 500, "recipe": {"steps": 1, "lr": 0.1}}
    key = cache_key(**parts)
    assert cache_key(**dict(reversed(parts.items()))) == key
    others = [parts | {"data": "abd"}, parts | {"count": 501}, parts | {"recipe": {"steps": 2, "lr": 0.1}}]
    assert len({key, *(cache_key(**other) for other in others)}) == 4

"""Paths that a user gives: ``~`` and variables are replaced, an empty path is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from trainers.data.image_folder import ImageFolder
from trainers.parts import ConfigError, build, is_path_option, path_option
from trainers.paths import full_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "path"),
    [
        pytest.param("x", "x", id="relative"),
        pytest.param("/x=1/ä b", "/x=1/ä b", id="any letters"),
        pytest.param("~/x", "{home}/x", id="home"),
        pytest.param("~", "{home}", id="home alone"),
        pytest.param("$DATA/x", "/data/x", id="variable"),
        pytest.param("${DATA}/x", "/data/x", id="variable in braces"),
        pytest.param("./~x", "./~x", id="a name with a tilde"),
    ],
)
def test_a_path_with_home_and_variables_replaced(home: Path, written: str, path: str) -> None:
    assert full_path(written) == path.format(home=home)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("", "the path is empty", id="empty"),
        pytest.param("  ", "the path is empty", id="spaces"),
        pytest.param("$EMPTY", "the variable has no value", id="a variable without a value"),
        pytest.param("$UNSET/x", "the variable UNSET is not set", id="a variable that is not set"),
        pytest.param("a/${UNSET}", "the variable UNSET is not set", id="in braces"),
        pytest.param("~nobody-here/x", "no user 'nobody-here'", id="no such user"),
    ],
)
def test_a_path_that_means_nothing_is_an_error(written: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        full_path(written)


def test_a_path_that_exists_as_it_is_written_is_taken(home: Path) -> None:
    for name in ("$UNSET", "~nobody-here"):
        (home / name).mkdir()
        assert full_path(name) == name


def test_a_part_s_path_becomes_absolute(home: Path) -> None:
    @dataclass(frozen=True)
    class Has:
        file: str | None = path_option()

    assert build(Has, {}).file is None
    assert build(Has, {"file": "x"}).file == str(home / "x")
    assert build(Has, {"file": "~/x"}).file == str(home / "x")
    with pytest.raises(ConfigError, match="file: the path is empty"):
        build(Has, {"file": ""})


def test_the_options_that_are_paths() -> None:
    assert [name for name in ("dataset.root", "evaluation.feature_weights") if is_path_option(name)] == [
        "dataset.root",
        "evaluation.feature_weights",
    ]
    assert not any(is_path_option(name) for name in ("dataset.size", "dataset", "root", "device", ""))
    assert ImageFolder().root is None

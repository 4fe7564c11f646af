"""The lines of ``metrics.jsonl``: each is written once and read once, also after a crash."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.store.epochs import EpochLog, Tail


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_an_epoch_is_a_line_with_its_time(metrics: Path) -> None:
    log = EpochLog(metrics)
    assert log.append({"epoch": 0, "iteration": 0, "loss": 0.5}) == []
    (record,) = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert record.pop("timestamp") > 1.7e12  # in milliseconds
    assert record == {"epoch": 0, "iteration": 0, "loss": 0.5}


@pytest.mark.parametrize(
    ("again", "differing"),
    [
        pytest.param(
            {"epoch": 1, "iteration": 0, "loss": 0.5, "epoch_seconds": 2.0}, [], id="equal apart from timings"
        ),
        pytest.param({"epoch": 1, "iteration": 0, "loss": 0.25, "epoch_seconds": 1.0}, ["loss"], id="another value"),
        pytest.param({"epoch": 1, "iteration": 0, "epoch_seconds": 1.0}, ["loss"], id="a metric less"),
        pytest.param(
            {"epoch": 1, "iteration": 0, "loss": 0.5, "fid": 3.0, "kid": 1.0}, ["fid", "kid"], id="two metrics more"
        ),
        pytest.param({"epoch": 1, "iteration": 0, "loss": 0.5000000000000001}, ["loss"], id="another last bit"),
        pytest.param({"epoch": 1, "iteration": 0, "loss": float("nan")}, ["loss"], id="not a number"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True], ids=["same process", "after a crash"])
def test_an_epoch_that_comes_again_is_compared_and_dropped(
    metrics: Path, again: dict[str, Any], differing: list[str], reopened: bool
) -> None:
    log = EpochLog(metrics)
    log.append({"epoch": 1, "iteration": 0, "loss": 0.5, "epoch_seconds": 1.0})
    before = metrics.read_bytes()
    log = EpochLog(metrics) if reopened else log
    assert log.append(again) == differing
    assert metrics.read_bytes() == before


def test_not_a_number_equals_itself_when_it_comes_again(metrics: Path) -> None:
    EpochLog(metrics).append({"epoch": 1, "iteration": 0, "loss": float("nan")})
    assert EpochLog(metrics).append({"epoch": 1, "iteration": 0, "loss": float("nan")}) == []


def test_a_torn_last_line_is_cut_and_never_read(metrics: Path) -> None:
    EpochLog(metrics).append({"epoch": 0, "iteration": 0, "loss": 1.0})
    whole = metrics.read_bytes()
    with metrics.open("ab") as file:
        file.write(b'{"epoch": 1, "iteration": 0, "loss": 0.')
    assert [record["epoch"] for record in Tail(metrics).read()] == [0]
    log = EpochLog(metrics)
    assert metrics.read_bytes() == whole
    log.append({"epoch": 1, "iteration": 0, "loss": 0.25})
    assert [(record["epoch"], record["loss"]) for record in Tail(metrics).read()] == [(0, 1.0), (1, 0.25)]


@settings(deadline=None, max_examples=50)
@given(
    losses=st.lists(st.floats(allow_nan=False), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_a_tail_returns_each_line_once_however_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], cuts: list[int]
) -> None:
    lines = [{"epoch": epoch, "iteration": 0, "timestamp": 0, "loss": loss} for epoch, loss in enumerate(losses)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = tmp_path_factory.mktemp("tail") / "metrics.jsonl"
    tail = Tail(path)
    read = list(tail.read())
    assert read == []  # before the file is there
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for start, end in itertools.pairwise(places):
        with path.open("ab") as file:
            file.write(content[start:end])
        read += tail.read()
        assert read == lines[: content[:end].count(b"\n")]
    assert list(tail.read()) == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"epoch": 1, "los\n', id="cut short"),
        pytest.param(b"\0\0\0\0\0\0\0\n", id="zeros"),
        pytest.param(b'{"epoch": 1, "loss": \xff0.5}\n', id="no text"),
        pytest.param(b"\n", id="empty"),
        pytest.param(b"null\n", id="no epoch"),
        pytest.param(b'{"dpoch": 1}\n', id="an epoch without its number"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_the_file(metrics: Path, line: bytes) -> None:
    log = EpochLog(metrics)
    for epoch in range(3):
        log.append({"epoch": epoch, "iteration": 0, "loss": 0.5})
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[1] = line
    metrics.write_bytes(b"".join(lines))
    told = f"{re.escape(str(metrics))}: a line is damaged .* delete this line and all that follow, then resume"
    for read in (lambda: list(Tail(metrics).read()), lambda: EpochLog(metrics)):
        with pytest.raises(UserError, match=told):
            read()

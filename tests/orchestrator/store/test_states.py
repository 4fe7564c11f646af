"""``status.json``: what is written is read, and so is what other versions wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hand_made import attempt
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.store.states import Attempt, State, Status, attempt_from, status_from

ATTEMPTS = st.builds(
    Attempt,
    started=st.floats(0, 2e9),
    host=st.text(),
    pid=st.integers(1),
    commit=st.text(min_size=1),
    versions=st.dictionaries(st.text(), st.text()),
    unreadable=st.lists(st.text()),
    device=st.none() | st.text(),
    resumed_at=st.none() | st.integers(0),
    code=st.none() | st.text(),
    errno=st.none() | st.integers(1),
    ended=st.none() | st.floats(0, 2e9),
    state=st.none() | st.sampled_from([str(state) for state in State]),
    error=st.none() | st.text(),
    last_epoch=st.none() | st.integers(0),
)


@given(st.builds(Status, state=st.sampled_from(State), attempts=st.lists(ATTEMPTS), error=st.none() | st.text()))
def test_what_is_written_is_read(status: Status) -> None:
    assert status_from(status.to_json().encode()) == status


def test_what_is_not_known_yet_is_left_out() -> None:
    begun = Attempt(started=1.5, host="h", pid=7, commit="c", versions={})
    assert begun.to_dict() == {"started": 1.5, "host": "h", "pid": 7, "commit": "c", "versions": {}}
    ended = Attempt(started=1.5, host="h", pid=7, commit="c", ended=2.0, state="DONE", last_epoch=3)
    assert list(ended.to_dict().items())[5:] == [("ended", 2.0), ("state", "DONE"), ("error", None), ("last_epoch", 3)]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param({"started": 1.5}, Attempt(started=1.5), id="an old one has less"),
        pytest.param({"started": 1.5, "device": None, "pid": None}, Attempt(started=1.5), id="null is not known"),
        pytest.param({}, Attempt(), id="nothing"),
    ],
)
def test_what_an_older_version_wrote_is_read(written: dict[str, Any], read: Attempt) -> None:
    assert attempt_from(written) == read


def test_what_a_newer_version_wrote_is_kept() -> None:
    newer = {**attempt().to_dict(), "heartbeat": 12.5, "node": {"name": "a"}}
    assert attempt_from(newer).to_dict() == newer


def test_commits_code_and_devices_of_attempts() -> None:
    attempts = [attempt(commit="a", device=None), attempt(commit="b", code="1"), attempt(commit="a", code="2")]
    status = Status(attempts=attempts)
    assert status.commits == ["a", "b"]
    assert status.codes == ["1", "2"]  # older versions wrote none
    assert status.devices == ["cpu (x86_64)"] * 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"state": "FINE"}', b'{"attempts": []}', b'{"state": "DONE", "attempts": [3]}'],
)
def test_a_damaged_file_is_lost(content: bytes) -> None:
    assert status_from(content) == Status(State.LOST, error="status.json was damaged")


def test_it_is_readable_json() -> None:
    status = Status(State.FAILED, [attempt(state="FAILED", error="OSError: no")], "OSError: no", restarts=1)
    values = json.loads(status.to_json())
    assert list(values) == ["state", "attempts", "error", "copied_from", "continued_from", "restarts"]
    assert values["attempts"][0]["error"] == "OSError: no"

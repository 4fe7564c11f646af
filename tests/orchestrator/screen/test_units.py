"""Quantities in words."""

from __future__ import annotations

import pytest

from orchestrator.screen.units import duration, in_bytes


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (42.4, "42s"), (59.6, "1m00s"), (185, "3m05s"), (3599.7, "1h00m"), (7800, "2h10m"), (90000, "25h00m")],
)
def test_durations_for_people(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        pytest.param(0, "0.0 kB", id="nothing"),
        pytest.param(430, "0.4 kB", id="bytes"),
        pytest.param(9_949, "9.9 kB", id="two digits"),
        pytest.param(9_951, "10 kB", id="rounded up"),
        pytest.param(999_499, "999 kB", id="three digits"),
        pytest.param(999_500, "1.0 MB", id="the next unit"),
        pytest.param(1_435_000_000, "1.4 GB", id="powers of ten"),
        pytest.param(2.5e15, "2500 TB", id="no larger unit"),
    ],
)
def test_bytes_for_people(count: float, shown: str) -> None:
    assert in_bytes(count) == shown

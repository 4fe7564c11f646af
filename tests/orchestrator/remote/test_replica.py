"""A copy of an object store on a file system without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from orchestrator.remote.lease import STALE_SECONDS
from orchestrator.remote.replica import Replica


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """An object store in this process's memory, with one file of a sweep."""
    files = fsspec.filesystem("memory")
    files.pipe("/replica-test/small/sweep.yaml", b"name: small")
    yield Replica("memory://replica-test", tmp_path)
    files.rm("/replica-test", recursive=True)


@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("heartbeat", [None, 0.0, 2 * STALE_SECONDS])
def test_a_copy_is_pulled_unless_a_driver_keeps_it(
    replica: Replica, number: int | None, heartbeat: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = replica.copy / "small"
    folder.mkdir()
    driver, ended = folder / "driver.json", time.time() - (heartbeat or 0)
    with (folder / "driver.lock").open("w") as lock:
        if heartbeat is not None:
            driver.touch()
            os.utime(driver, (ended, ended))
        if heartbeat == 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if number is not None:

            def refused(*_: object) -> None:
                raise OSError(number, "no such locks here")

            monkeypatch.setattr(fcntl, "flock", refused)
        replica.pull_unless_driven("small")
        assert (folder / "sweep.yaml").exists() == (heartbeat != 0)
        replica.pull_as_driver("small")
    assert (folder / "sweep.yaml").exists()

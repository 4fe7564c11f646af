"""One process at a time makes a shared file, on file systems without locks too."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainers.config import TrialConfig
from trainers.evaluation.classifier import RECIPE
from trainers.training import Training

COUNT = """
import errno, fcntl, sys, time
from pathlib import Path
number, path = int(sys.argv[1]), Path(sys.argv[2])
if number:
    def refused(*_):
        raise OSError(number, "no such locks here")
    fcntl.flock = refused
from trainers.locks import locked
for _ in range(20):
    with locked(path):
        before = int(path.read_text())
        time.sleep(0.001)
        path.write_text(str(before + 1))
"""
HOLD = COUNT.partition("for _")[0] + "with locked(path):\n    print('held', flush=True)\n    time.sleep(600)\n"
KINDS = [0, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


def start(program: str, number: int, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(number), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", KINDS, ids=["flock", *(errno.errorcode[number] for number in KINDS[1:])])
def test_nothing_that_is_written_under_the_lock_is_lost(number: int, tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    processes = [start(COUNT, number, path) for _ in range(3)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert path.read_text() == "60", told
    assert told == [""] * 3


@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_a_killed_owner_s_lock_is_free(number: int, tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    owner = start(HOLD, number, path)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    waiting = start(COUNT, number, path)
    time.sleep(0.5)
    assert waiting.poll() is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate(timeout=60)
    assert waiting.communicate(timeout=60) == ("", "")
    assert path.read_text() == "20"


def test_a_trial_makes_its_caches_without_flock(
    trial: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images, the classifier and reference features."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setitem(RECIPE, "steps", 1)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(100):
            image = Image.new("L", (8, 8), color=number + 100 * (label == "b"))
            image.save(tmp_path / "images" / label / f"{number}.png")
    dataset = {"name": "image_folder", "root": str(tmp_path / "images"), "size": 8, "held_out": 0.5}
    values = trial().to_dict() | {"dataset": dataset, "evaluation": {"name": "classifier", "samples": 100}}
    training = Training(TrialConfig.from_dict(values, tmp_path), cache_dir=tmp_path)
    assert training.evaluator is not None
    assert training.evaluator.floor()
    made = {path.parent.name for path in (tmp_path).rglob("*") if path.suffix in (".npy", ".safetensors")}
    assert {"extractors", "features"} < made
    assert not list(tmp_path.rglob("*.exists.lock"))

"""Full, read-only and moved disks: real file systems in memory."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import PROGRAM, Cluster, CommandLine, environment, orchestrator, started, wait_until
from hand_made import TWO_CELLS, finish, make_sweep, write_file
from PIL import Image
from small_trials import assert_equal_to_the_bit, contents, create, half_written, run

from orchestrator.store import checkpoints
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial

SWEEP = """\
name: disk
base:
  - dataset=digits
  - evaluation=none
  - network.generator_widths=[16]
  - network.critic_widths=[16]
  - budget=400
  - device=cpu
  - checkpoint_epochs=1
seeds: 2
"""


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def umount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(folder: Path, *arguments: object) -> Iterator[None]:
    """Mounts a file system at a folder and unmounts it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount(*arguments, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mount is not permitted here: {getattr(error, 'stderr', b'') or error}")
    try:
        yield
    finally:
        umount(folder)


class Disk:
    """A disk of a few MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, left: int = 0) -> None:
        """Fills the disk until only this many bytes are free, even if other processes write at the same time."""
        with self._ballast.open("ab") as file:
            while (room := self._room() - left) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)
                except OSError as error:
                    if error.errno != errno.ENOSPC:  # another process took the space since we looked
                        raise

    def _room(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def free(self) -> None:
        self._ballast.unlink()

    @contextlib.contextmanager
    def only_to_be_read(self) -> Iterator[None]:
        """Mounts the same files read-only over the disk, as the kernel does after disk errors."""
        mount("--bind", self.folder, self.folder)
        try:
            mount("-o", "remount,bind,ro", self.folder)
            yield
        finally:
            umount(self.folder)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 2 MB at ``tmp_path / "runs"``."""
    with mounted(tmp_path / "runs", "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        yield Disk(tmp_path / "runs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    """The small trial with a picture every epoch, run in one go."""
    trial = create(tmp_path_factory.mktemp("undisturbed") / "trial", evaluation={"times": 50})
    assert run(trial) is State.DONE
    return trial


def assert_everything_is_whole(trial: TrialStore) -> None:
    """Asserts that there is no temporary file and that every file is readable, apart from a torn last line."""
    assert half_written(trial.path) == []
    for file in trial.path.glob("*.pt"):
        checkpoints.read(file)
    for file in trial.sample_files():
        with Image.open(file) as picture:
            picture.load()
    assert isinstance(json.loads((trial.path / "status.json").read_text()), dict)
    assert [record["epoch"] for record in trial.epochs()] == list(range(len(trial.epochs())))


def whole_lines(trial: TrialStore) -> bytes:
    content = trial.metrics_file.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def outcome(trial: TrialStore, cache: Path, on_epoch: Callable[[dict[str, Any]], None]) -> State | OSError:
    try:
        return run_trial(trial, cache, on_epoch=on_epoch)
    except OSError as error:
        return error


def pad(path: Path) -> None:
    """Pads the last line with blanks until only 40 bytes of the file's last page are free."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b" " * (-(len(content) + 40) % 4096) + b"\n")


@pytest.mark.parametrize(
    ("pages", "torn"),
    [
        pytest.param(0, False, id="the state"),
        pytest.param(0, True, id="an epoch"),
        pytest.param(1, False, id="the beginning of a checkpoint"),
        pytest.param(9, False, id="a checkpoint"),
        pytest.param(12, False, id="a picture"),
        pytest.param(25, False, id="the next picture"),
    ],
)
def test_whatever_does_not_fit_any_more_nothing_stored_is_lost(
    disk: Disk, undisturbed: TrialStore, tmp_path: Path, pages: int, torn: bool
) -> None:
    trial = create(disk.folder / "trial", evaluation={"times": 50}, checkpoint_epochs=None if torn else 1)
    before = b""

    def after(record: dict[str, Any]) -> None:
        nonlocal before
        if record["epoch"] == 1:
            if torn:
                pad(trial.metrics_file)
            before = whole_lines(trial)
            disk.fill(pages * 4096)

    came = outcome(trial, tmp_path / "cache", after)
    if isinstance(came, OSError):  # not even the state could be written
        assert came.errno == errno.ENOSPC
        assert trial.status().state is State.RUNNING
    else:
        assert came is State.FAILED
        assert trial.status().error == "OSError: [Errno 28] No space left on device"
        assert trial.status().attempts[-1].errno == errno.ENOSPC
    assert before
    assert whole_lines(trial).startswith(before)
    assert (trial.metrics_file.read_bytes() != whole_lines(trial)) is torn
    assert_everything_is_whole(trial)

    disk.free()
    assert run_trial(trial, tmp_path / "cache") is State.DONE
    assert_equal_to_the_bit(trial, undisturbed)
    assert_everything_is_whole(trial)


def test_a_disk_that_can_suddenly_only_be_read_loses_nothing(
    disk: Disk, undisturbed: TrialStore, tmp_path: Path
) -> None:
    trial = create(disk.folder / "trial", evaluation={"times": 50})
    before: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:

        def after(record: dict[str, Any]) -> None:
            if record["epoch"] == 2:
                before.update(contents(trial.path))
                stack.enter_context(disk.only_to_be_read())

        with pytest.raises(OSError, match="Read-only file system"):
            run_trial(trial, tmp_path / "cache", on_epoch=after)
    assert contents(trial.path) == before
    assert_everything_is_whole(trial)
    assert run_trial(trial, tmp_path / "cache") is State.DONE
    assert trial.status().attempts[-1].resumed_at == 20
    assert_equal_to_the_bit(trial, undisturbed)


@pytest.mark.parametrize("pages", [3, 6], ids=["not even its state", "but its state"])
def test_a_single_trial_that_does_not_fit_says_so_without_a_traceback(
    disk: Disk, command_line: CommandLine, pages: int
) -> None:
    disk.fill(pages * 4096)
    overrides = ["dataset=digits", "evaluation=none", "budget=4", "device=cpu"]
    code, out, errors = command_line("train", *overrides, "--runs-dir", disk.folder)
    assert code == 1
    assert "No space left on device" in (out + errors).splitlines()[-1]


# --- sweeps ---------------------------------------------------------------------------------------------------------


def one_paragraph(errors: str) -> bool:
    return errors.startswith("orchestrator: ") and errors.count("\n") == 1


@pytest.fixture
def half_finished(disk: Disk, tmp_path: Path) -> SweepStore:
    """On the disk: a sweep of which one trial is done and one has failed."""
    store = make_sweep(tmp_path)
    done, failed, *_ = store.entries()
    finish(store, done, {"exact_w1": 0.5})
    finish(store, failed, {"exact_w1": 0.5}, state=State.FAILED, error="out of paper")
    return store


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["sweep", "sweep.yaml"], id="sweep"),
        pytest.param(["sweep", "sweep.yaml", "--name", "new"], id="a new sweep"),
        pytest.param(["resume", "hand"], id="resume"),
        pytest.param(["resume", "hand", "--restart"], id="restart"),
        pytest.param(["stop", "hand"], id="stop"),
        pytest.param(["prune", "hand"], id="prune"),
        pytest.param(["sync", "hand"], id="sync"),
        pytest.param(["train", "dataset=digits", "evaluation=none", "budget=2", "device=cpu"], id="train"),
    ],
)
def test_a_runs_directory_that_can_only_be_read_is_told_before_anything_starts(
    disk: Disk,
    half_finished: SweepStore,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(disk.folder)
    with disk.only_to_be_read():
        code, out, errors = command_line(*arguments, "--runs-dir", disk.folder)
    assert (code, out) == (2, "")
    assert one_paragraph(errors)
    assert str(disk.folder) in errors
    assert "cannot be written: Read-only file system" in errors
    assert contents(disk.folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "hand"],
        ["status", "hand", "--json"],
        ["export", "hand"],
        ["export", "hand", "--format", "json"],
        ["sweep", "sweep.yaml", "--dry-run"],
    ],
)
def test_what_only_reads_works_on_a_runs_directory_that_can_only_be_read(
    disk: Disk,
    half_finished: SweepStore,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    now = time.time()
    monkeypatch.setattr("orchestrator.screen.status.time", SimpleNamespace(time=lambda: now))  # "3s ago" stays so
    (half_finished.path / "driver.json").write_text(  # what a driver on another machine has left
        json.dumps({"host": "elsewhere", "machine": "another", "pid": 1, "started": 1, "mark": "0" * 12})
    )
    expected = command_line(*arguments, "--runs-dir", disk.folder)
    assert expected[0] == 0
    assert expected[1]
    with disk.only_to_be_read():
        assert command_line(*arguments, "--runs-dir", disk.folder) == expected


def copies_what_does_not_fit(disk: Disk, store: SweepStore) -> list[str]:
    """Another sweep has finished a trial with a large checkpoint."""
    other = make_sweep(store.runs_dir.parent, TWO_CELLS.replace("name: hand", "name: other"))
    store.trial(store.entries()[0].trial_id).checkpoint_file.write_bytes(bytes(200_000))
    return ["resume", other.name]


def restarts(disk: Disk, store: SweepStore) -> list[str]:
    return ["resume", store.name, "--restart"]


def was_left_by_a_driver_that_died(disk: Disk, store: SweepStore) -> list[str]:
    store.trial(store.entries()[1].trial_id).set_state(State.RUNNING)
    return ["resume", store.name]


@pytest.mark.parametrize("prepared", [copies_what_does_not_fit, restarts, was_left_by_a_driver_that_died])
@pytest.mark.parametrize("pages", [0, 1], ids=["nothing fits", "the driver's name fits"])
def test_a_disk_that_is_full_before_anything_runs_is_told_in_one_paragraph(
    disk: Disk,
    half_finished: SweepStore,
    command_line: CommandLine,
    tmp_path: Path,
    prepared: Callable[[Disk, SweepStore], list[str]],
    pages: int,
) -> None:
    arguments = prepared(disk, half_finished)
    before = {entry.trial_id: half_finished.trial(entry.trial_id).epochs() for entry in half_finished.entries()[:1]}
    disk.fill(pages * 4096)
    code, _, errors = command_line(*arguments, "--offline", "--runs-dir", disk.folder)
    assert code in (1, 2)
    assert one_paragraph(errors)
    assert "No space left on device" in errors
    assert str(disk.folder) in errors
    assert before == {trial_id: half_finished.trial(trial_id).epochs() for trial_id in before}


@contextlib.contextmanager
def becomes_full(disk: Disk) -> Iterator[None]:
    """The disk stays full: another process takes the space of every file that the sweep deletes."""
    ended = threading.Event()

    def keep_full() -> None:
        while not ended.wait(0.01):
            disk.fill()

    disk.fill()
    other = threading.Thread(target=keep_full)
    other.start()
    try:
        yield
    finally:
        ended.set()
        other.join()
    disk.free()


@pytest.mark.long
@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        pytest.param(becomes_full, "No space left on device", id="full"),
        pytest.param(Disk.only_to_be_read, "Read-only file system", id="read-only"),
    ],
)
def test_a_sweep_whose_disk_cannot_be_written_any_more_says_so_and_goes_on_later(
    disk: Disk,
    cluster: Cluster,
    tmp_path: Path,
    happens: Callable[[Disk], contextlib.AbstractContextManager[None]],
    reason: str,
) -> None:
    write_file(tmp_path, SWEEP)
    store = SweepStore(disk.folder, "disk")
    how = [*cluster.arguments, "--offline", "--max-concurrent", "1"]
    with started("sweep", "sweep.yaml", *how, cwd=tmp_path, **cluster.environment) as running:
        wait_until((store.path / "plan.json").exists)
        first, second = trials = [store.trial(entry.trial_id) for entry in store.entries()]
        wait_until(lambda: len(first.epochs()) > 2)
        with happens(disk):
            before = whole_lines(first)
            code, out, errors = running.end()
            told = orchestrator("status", "disk", cwd=tmp_path)
            after = whole_lines(first)
    assert "Traceback" not in errors + out
    assert code == 1
    assert f"Stopped early: runs/disk: {reason}" in out.splitlines()
    command = out.splitlines()[-1].removeprefix("Some trials did not finish; go on with: ")
    assert command == f"orchestrator resume disk {' '.join(how)}"
    assert told.returncode == 0
    assert after.startswith(before)
    assert_everything_is_whole(first)
    assert second.status().attempts == []  # it would have ended alike

    if happens is not becomes_full:
        return  # going on is the same
    resumed = orchestrator(*shlex.split(command)[1:], cwd=tmp_path, **cluster.environment)
    assert (resumed.returncode, resumed.stdout.splitlines()[-1]) == (0, "disk: 2 DONE"), resumed.stderr
    assert whole_lines(first).startswith(after)
    for trial in trials:
        twin = TrialStore(tmp_path / "twins" / trial.trial_id)
        twin.create(trial.config())
        assert run(twin) is State.DONE
        assert_equal_to_the_bit(trial, twin)


@pytest.mark.long
def test_a_worker_that_dies_while_the_disk_for_temporary_files_is_full_costs_no_result(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_file(tmp_path, SWEEP)
    small = tmp_path / "temporary"
    how = [*cluster.arguments, "--offline", "--max-concurrent", "1"]
    surroundings = {**cluster.environment, "TMPDIR": str(small)}
    with (
        mounted(small, "-t", "tmpfs", "-o", "size=4m", "tmpfs"),
        started("sweep", "sweep.yaml", *how, cwd=tmp_path, **surroundings) as running,
    ):
        store = SweepStore(tmp_path / "runs", "disk")
        wait_until((store.path / "plan.json").exists)
        first, second = trials = [store.trial(entry.trial_id) for entry in store.entries()]
        wait_until(lambda: len(first.epochs()) > 2)
        Disk(small).fill()
        os.kill(first.status().attempts[-1].pid, signal.SIGKILL)
        code, out, errors = running.end()
    assert (code, out.splitlines()[-1]) == (0, "disk: 2 DONE"), errors
    assert "LOST disk seed=0: the worker died: it was killed or crashed on node " in out
    assert [len(trial.status().attempts) for trial in trials] == [2, 1]
    assert second.status().state is State.DONE
    assert "Table: " in out


def test_a_runs_directory_moved_between_stop_and_resume_just_works(
    tmp_path: Path, disk: Disk, undisturbed: TrialStore
) -> None:
    """The directory moves even to another disk."""
    trial = create(tmp_path / "here" / "hand" / "trials" / "0", evaluation={"times": 50})
    run(trial, after=25)
    moved = shutil.move(tmp_path / "here", disk.folder / "there")
    trial = SweepStore(Path(moved), "hand").trial("0")
    assert run(trial) is State.DONE
    assert trial.status().attempts[-1].resumed_at == 25
    assert_equal_to_the_bit(trial, undisturbed)
    assert not any(str(tmp_path).encode() in content for content in contents(trial.path, "log.txt").values())
    assert not (tmp_path / "here").exists()


@pytest.mark.long
def test_where_ray_s_files_do_not_fit_it_is_told_before_anything_starts() -> None:
    if Path(sys.executable).is_relative_to("/tmp"):
        pytest.skip("this test mounts a small disk over /tmp")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        write_file(Path(folder), SWEEP)
        program = [PROGRAM, "sweep", "sweep.yaml", "--offline"]
        small = 'mount -t tmpfs -o size=5m,nr_inodes=20 tmpfs /tmp && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", small, "sh", *program],
            cwd=folder,
            env=environment(RAY_raylet_start_wait_time_s="3", TMPDIR="/tmp"),
            capture_output=True,
            text=True,
            check=False,
        )
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"mount is not permitted here: {done.stderr}")
        assert done.returncode == 2
        assert one_paragraph(done.stderr)
        assert re.search(r"Ray does not start: .*; '/tmp' has only \d MB left: set TMPDIR to a folder", done.stderr)
        store = SweepStore(Path(folder) / "runs", "disk")
        states = [store.trial(entry.trial_id).status() for entry in store.entries()]
        assert [(status.state, status.attempts) for status in states] == [(State.PENDING, [])] * 2

"""Sweeps on images from files. Files are checked before anything starts, read once, and identified by content."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import make_sweep, write_file

from orchestrator.store.runs import cache_dir
from orchestrator.store.trial import TrialStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan

sys.path.append(str(Path(__file__).parents[2] / "trainers"))
from image_files import make_folder

FOLDER = "[dataset=image_folder, dataset.size=8, batch_size=8, budget=4, device=cpu]"
SWEEP = f"name: s\nbase: {FOLDER}\ngrid: {{penalty.weight: [1, 2]}}\n"


@pytest.fixture(autouse=True)
def in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_reads_the_folder_once(tmp_path: Path, command_line: CommandLine) -> None:
    make_folder(tmp_path / "images")
    write_file(tmp_path, SWEEP)
    command = [
        "sweep",
        "sweep.yaml",
        "dataset.root=images",
        "--dry-run",
    ]  # the place of the files is not part of a trial's identity
    for note in ("image_folder: reading 20 files in", ""):
        code, out, errors = command_line(*command)
        assert code == 0, errors
        assert "2 trials to run. Nothing was started." in out
        assert errors.startswith(note)
        assert bool(errors) == bool(note)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cache"]


def test_a_plan_stores_the_content_and_the_absolute_path(tmp_path: Path) -> None:
    make_folder(tmp_path / "images")
    file = read_sweep_file(write_file(tmp_path, SWEEP))
    plan = make_plan(file, ["dataset.root=images"], cache_dir=cache_dir(tmp_path / "runs"))
    stored = plan.trials[0].config.to_dict()["dataset"]
    assert (stored["root"], stored["content"]["images"]) == (str(tmp_path / "images"), 20)
    (tmp_path / "images").rename(tmp_path / "moved")
    moved = make_plan(file, ["dataset.root=moved"], cache_dir=cache_dir(tmp_path / "runs"))
    assert [trial.trial_id for trial in moved.trials] == [trial.trial_id for trial in plan.trials]


def test_warnings_are_one_line_each_however_many_trials(tmp_path: Path, command_line: CommandLine) -> None:
    root = make_folder(tmp_path / "images")
    (root / "labels.csv").write_text("no image")
    write_file(tmp_path, SWEEP)
    code, _, errors = command_line("sweep", "sweep.yaml", "dataset.root=images", "--dry-run")
    reading, note = errors.splitlines()
    assert code == 0
    assert reading.startswith("image_folder: reading 21 files in")
    assert note == f"note: 1 of 21 files in '{root}' is passed over, since not an image: labels.csv"


@pytest.mark.parametrize("command", ["sweep", "train"])
def test_bad_folders_are_one_paragraph(tmp_path: Path, command_line: CommandLine, command: str) -> None:
    write_file(tmp_path, SWEEP)
    (tmp_path / "texts").mkdir()
    for number in range(30):
        (tmp_path / "texts" / f"{number}.txt").write_text("no image")
    problems = {
        "": "dataset.root: is missing: image_folder needs dataset.root=FOLDER",
        "dataset.root=nowhere": f"dataset.root: '{tmp_path}/nowhere' does not exist",
        "dataset.root=texts": "30 of 30 files in",
    }
    for override, problem in problems.items():
        arguments = ["sweep.yaml"] if command == "sweep" else ["dataset=image_folder"]
        code, _, errors = command_line(command, *arguments, *([override] if override else []))
        lines = [line for line in errors.splitlines() if not line.startswith("image_folder: reading")]
        assert (code, len(lines)) == (2, 1), errors
        assert problem in lines[0]
    assert not list((tmp_path / "runs").glob("s*"))


def test_resuming_without_the_folder_is_told_before_anything_starts(tmp_path: Path, command_line: CommandLine) -> None:
    make_folder(tmp_path / "images")
    make_sweep(tmp_path, SWEEP, "dataset.root=images", cache_dir=cache_dir(tmp_path / "runs"))
    (tmp_path / "images").rename(tmp_path / "away")
    code, out, errors = command_line("resume", "s", "--offline")
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert f"dataset.root: '{tmp_path}/images' does not exist" in errors


@pytest.mark.parametrize("command", ["sweep", "train"])
def test_a_missing_dataset_is_an_error_before_anything_starts(
    tmp_path: Path, command_line: CommandLine, command: str
) -> None:
    write_file(tmp_path, "name: s\nbase: [dataset=celeba, budget=4, device=cpu]\n")  # needs gdown, and a network
    code, _, errors = command_line(command, "sweep.yaml" if command == "sweep" else "dataset=celeba")
    assert code == 2
    assert errors.startswith("orchestrator: dataset.root: celeba is not on this machine and cannot be downloaded (")
    assert errors.count("\n") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cache"]


def test_a_cache_that_cannot_be_written_is_one_paragraph(tmp_path: Path, command_line: CommandLine) -> None:
    make_folder(tmp_path / "images")
    write_file(tmp_path, SWEEP)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cache").write_text("a file is in the way")
    code, _, errors = command_line("sweep", "sweep.yaml", "dataset.root=images", "--dry-run")
    assert code == 2
    assert errors.count("\n") == 1
    assert errors.endswith("the dataset cannot be read, or kept in the cache: 'runs/cache/datasets': Not a directory\n")


def test_a_folder_trains(tmp_path: Path, command_line: CommandLine) -> None:
    root = make_folder(tmp_path / "images", 60)
    (root / "notes.txt").write_text("no image")
    overrides = ["dataset=image_folder", "dataset.root=images", "dataset.size=8", "batch_size=8", "budget=4"]
    code, out, errors = command_line("train", *overrides, "dataset.max_bad=0.05", "device=cpu")
    assert code == 0, out + errors
    [folder] = (tmp_path / "runs" / "train").iterdir()
    trial = TrialStore(folder)
    assert [record["iteration"] for record in trial.epochs()] == [0, 4]
    assert "1 of 61 files in" in trial.log_file.read_text()
    assert (trial.config()["dataset"]["content"]["images"], trial.config()["dataset"]["root"]) == (60, str(root))

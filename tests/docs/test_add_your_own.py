"""The package on the page ``docs/add_your_own.md`` is installed, and a sweep runs with all of its parts."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "add_your_own.md"
BLOCK = re.compile(r"^```(?:python|yaml|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = Path(sys.executable).with_name("orchestrator")


def write_package(folder: Path) -> None:
    """The page's files, and data for its dataset."""
    for name, text in BLOCK.findall(PAGE.read_text()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "wgan_extras" / "__init__.py").touch()
    source = random.Random(0)
    lines = [f"{source.gauss(2, 1):.4f} {source.gauss(0, 1):.4f}" for _ in range(200)]
    (folder / "points.txt").write_text("\n".join(lines) + "\n")


def install(package: Path, target: Path) -> None:
    """As pip does it, into a folder that is put on the path of the processes that run the sweep."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(package)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr


def orchestrator(folder: Path, *arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH", "")]))}
    environment |= {"COLUMNS": "200", "RAY_worker_niceness": "0"}
    command = [str(PROGRAM), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extras")
    write_package(folder)
    install(folder, folder / "site")
    return folder


@pytest.mark.long
def test_a_sweep_runs_with_a_part_of_each_kind_from_another_package(folder: Path) -> None:
    site = folder / "site"
    ran = orchestrator(folder, "sweep", "sweep.yaml", "dataset.path=points.txt", path=site)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mean_gap" in ran.stdout
    assert "extras: 3 DONE" in ran.stdout
    trials = sorted((folder / "runs" / "extras" / "trials").iterdir())
    assert len(trials) == 3
    for trial in trials:
        values = yaml.safe_load((trial / "config.yaml").read_text())
        names = {key: values[key]["name"] for key in ("dataset", "network", "evaluation")}
        assert names == {"dataset": "point_file", "network": "two_layers", "evaluation": "mean_gap"}
        assert (values["objective"]["name"] == "minimax") != (values["penalty"]["name"] == "largest_slope")
        assert values["probes"] == ["critic_spread"]
        records = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
        assert {"mean_gap", "critic_spread"} <= records[0].keys() & records[-1].keys()
        assert records[-1]["iteration"] == 20
        references = json.loads((trial / "references.json").read_text())
        assert references["metrics"] == ["mean_gap", "critic_spread"]
        assert references["neutral"] == ["critic_spread"]
        assert references["floor"].keys() == {"mean_gap"}

    elsewhere = folder / "elsewhere.txt"
    shutil.copyfile(folder / "points.txt", elsewhere)
    again = orchestrator(folder, "sweep", "sweep.yaml", f"dataset.path={elsewhere}", path=site)
    assert again.returncode == 0, again.stderr
    assert sorted((folder / "runs" / "extras" / "trials").iterdir()) == trials
    assert all(len(json.loads((trial / "status.json").read_text())["attempts"]) == 1 for trial in trials)
    other = orchestrator(folder, "sweep", "sweep.yaml", "dataset.count=100", "--dry-run", path=site)
    assert other.returncode == 2
    assert "another sweep" in other.stderr

    # What is there can be read by somebody who has not installed the package.
    for command in (["status", "extras"], ["export", "extras", "--format", "csv"]):
        bare = orchestrator(folder, *command, path=folder / "nowhere")
        assert bare.returncode == 0, bare.stderr
    assert "mean_gap" in bare.stdout


def test_a_norm_of_another_shape_is_an_error_that_names_the_penalty(folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(folder / "site", site)
    file = site / "wgan_extras" / "penalties.py"
    file.write_text(file.read_text().replace(".amax(dim=1)", ""))
    arguments = ["dataset=point_file", "network=two_layers", "evaluation=none", "penalty=largest_slope", "budget=4"]
    arguments += ["batch_size=16", f"dataset.path={folder / 'points.txt'}", "device=cpu"]
    ran = orchestrator(tmp_path, "train", *arguments, path=site)
    assert ran.returncode == 1
    assert "the penalty 'largest_slope' (wgan_extras.penalties.LargestSlope): norm has shape (3, 2)" in ran.stdout

"""The disk space that --dry-run estimates for the trials to run, and its warning if less is free."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import POINTS, TWO_CELLS, Planner, finish, make_sweep, write_file

from orchestrator.screen.preview import EPOCH_BYTES, disk_lines, disk_shares
from orchestrator.screen.units import in_bytes
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig
from trainers.footprint import checkpoint_bytes

RUN = """
import sys
from orchestrator.cli import main
try:
    main()
except SystemExit:
    print(*sorted({"torch", "numpy", "ray", "mlflow"} & set(sys.modules)))
"""
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def disk_of(output: str) -> list[str]:
    """The lines about disk space, which come last."""
    lines = output.splitlines()
    return lines[next((i for i, line in enumerate(lines) if line.startswith("disk:")), len(lines)) :]


def estimated(line: str) -> float:
    number, unit = re.match(r"disk: about ([\d.]+) (\w+) for", line).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def test_a_dry_run_tells_the_space_of_all_trials(tmp_path: Path, command_line: CommandLine, plan_of: Planner) -> None:
    path = write_file(tmp_path, TWO_CELLS)
    code, out, errors = command_line("sweep", path, "--dry-run", "--runs-dir", tmp_path / "runs")
    assert (code, errors) == (0, "")
    configs = [trial.config for trial in plan_of(TWO_CELLS).trials]
    [line] = disk_of(out)
    each = in_bytes(checkpoint_bytes(configs[0]))
    assert line.endswith(f" for the 4 trials to run (mostly three checkpoints of {each} each trial)")
    assert estimated(line) == pytest.approx(sum(sum(disk_shares(config).values()) for config in configs), rel=0.05)
    assert not (tmp_path / "runs").exists()


def test_only_trials_to_run_count(store: SweepStore, tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, TWO_CELLS)
    arguments = ["sweep", path, "--dry-run", "--runs-dir", store.runs_dir]
    [of_four] = disk_of(command_line(*arguments)[1])
    entries = store.entries()
    for entry, state in zip(entries, [State.DONE, State.STOPPED, State.DIVERGED], strict=False):
        finish(store, entry, {"exact_w1": 0.5}, state=state)
    store.trial(entries[3].trial_id).set_state(State.FAILED, "OSError: out of paper")
    [of_one] = disk_of(command_line(*arguments)[1])
    assert " for the trial to run (" in of_one
    assert estimated(of_one) == pytest.approx(estimated(of_four) / 4, rel=0.1)
    finish(store, entries[3], {"exact_w1": 0.5})
    out = command_line(*arguments)[1]
    assert "0 trials to run" in out
    assert disk_of(out) == []


def test_trials_of_different_size_are_summed_and_their_range_told(plan_of: Planner, tmp_path: Path) -> None:
    text = f"name: s\nbase: {POINTS}\ngrid: {{network.critic_widths: [[8, 8], [900, 900], [300, 300]]}}\n"
    configs = [trial.config for trial in plan_of(text).trials]
    small, large, middle = map(checkpoint_bytes, configs)
    assert small < middle < large
    [line] = disk_lines(configs, tmp_path)
    assert line.endswith(f"(mostly three checkpoints of {in_bytes(small)} to {in_bytes(large)} each trial)")
    assert estimated(line) == pytest.approx(3 * (small + middle + large), rel=0.1)


def test_without_a_metric_there_is_no_best_checkpoint(plan_of: Planner, tmp_path: Path) -> None:
    configs = [trial.config for trial in plan_of(f"name: s\nbase: {POINTS[:-1]}, evaluation=none]\n").trials]
    [line] = disk_lines(configs, tmp_path)
    assert "(mostly two checkpoints of " in line


def test_the_largest_share_may_be_another(plan_of: Planner, tmp_path: Path) -> None:
    tiny = f"{POINTS[:-1]}, 'network.generator_widths=[2]', 'network.critic_widths=[2]'"
    [trial] = plan_of(f"name: s\nbase: {tiny}, budget=170000, evaluation.times=1]\n").trials
    [line] = disk_lines([trial.config], tmp_path)
    assert "(mostly metrics)" in line
    assert estimated(line) == pytest.approx(10_000 * EPOCH_BYTES, rel=0.05)
    [trial] = plan_of(f"name: s\nbase: {tiny}, budget=1700, evaluation.times=100]\n").trials
    assert "(mostly sample grids)" in disk_lines([trial.config], tmp_path)[0]


def test_a_real_trial_takes_about_as_much(tmp_path: Path) -> None:
    store = make_sweep(
        tmp_path, "base: [evaluation=none, 'probes=[distance]', budget=60, device=cpu, checkpoint_epochs=1]\n"
    )
    [entry] = store.entries()
    trial = store.trial(entry.trial_id)
    assert run_trial(trial, store.cache_dir) is State.DONE
    shares = disk_shares(TrialConfig.from_dict(trial.config()))
    names = ("*.pt", "samples/epoch_??????.png", "samples/*_distance.png", "*.jsonl")
    real = {name: [file.stat().st_size for file in trial.path.glob(name)] for name in names}
    assert len(real["*.pt"]) == 2
    assert sum(real["*.pt"]) == pytest.approx(shares["checkpoints"], rel=0.01)
    assert 2 * sum(real["samples/epoch_??????.png"]) == pytest.approx(shares["sample grids"], rel=0.5)
    assert 2 * sum(real["samples/*_distance.png"]) == pytest.approx(shares["probes"], rel=0.5)
    assert shares["metrics"] / 20 < sum(real["*.jsonl"]) < shares["metrics"]  # most of it are MLflow's rows


def test_a_picture_of_examples_takes_their_bytes(plan_of: Planner) -> None:
    base = "evaluation=none, evaluation.times=1, budget=1, device=cpu"
    curves, examples = (
        disk_shares(plan_of(f"name: s\nbase: [{base}, 'probes=[{probe}]']\n").trials[0].config)["probes"]
        for probe in ("vertical_shift", "neighbours")
    )
    assert examples - curves == 2 * 2 * 6 * 19 * 64  # store and MLflow, epochs 0 and 1, six rows of 19 digits of 8×8


def test_the_estimate_imports_nothing_heavy(tmp_path: Path) -> None:
    write_file(tmp_path, TWO_CELLS)
    program = [sys.executable, "-c", RUN, "sweep", "sweep.yaml", "--dry-run"]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    *_, line, heavy = ran.stdout.splitlines()
    assert line.startswith("disk: about ")
    assert heavy == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small [disk]"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1000k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_too_little_free_space_is_a_warning(small_disk: Path, tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, TWO_CELLS)
    code, out, errors = command_line("sweep", path, "--dry-run", "--runs-dir", small_disk / "not" / "there yet")
    assert (code, errors) == (0, "")
    estimate, warning = disk_of(out)
    assert estimated(estimate) > 1e6
    assert warning == f"warning: only 1.0 MB are free in '{small_disk}'"

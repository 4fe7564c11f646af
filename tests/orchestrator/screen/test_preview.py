"""The disk space that --dry-run estimates for the trials to run, and its warning if less is free."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from grown_sweeps import HEAD, RACE, SEARCH, plan, run
from hand_made import POINTS, TWO_CELLS, Planner, finish, make_sweep, write_file

from orchestrator.screen.preview import EPOCH_BYTES, disk_lines, disk_shares, trials_to_come
from orchestrator.screen.units import in_bytes
from orchestrator.store.plan_changes import outlook_of
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


def dry_run(command_line: CommandLine, store: SweepStore) -> list[str]:
    """The lines of a dry run of a sweep's own file."""
    path = store.runs_dir.parent / "sweep.yaml"
    code, out, errors = command_line("sweep", path, "--dry-run", "--runs-dir", store.runs_dir)
    assert (code, errors) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines()]


def test_a_search_shows_its_proposals_and_what_is_decided_and_done(tmp_path: Path, command_line: CommandLine) -> None:
    store = plan(tmp_path, HEAD + SEARCH)
    lines = dry_run(command_line, store)
    assert lines[:8] == [
        "cell proposals decided seeds done",
        "g weight=1 3 0 1 0",
        "g weight=10 3 0 1 0",
        "confirmation of g weight=1 2 0",
        "confirmation of g weight=10 2 0",
        "search: 3 proposals of critic.lr by random for each of 2 cells, each trained with 1 seed",
        "confirmation: the best cell of each search once more, with 2 fresh seeds",
        "g: 2 cells, 10 trials, 400 critic iterations; 10 trials to run. Nothing was started.",
    ]
    assert " for the 10 trials to run (" in lines[8]
    run(store, 5)
    lines = dry_run(command_line, store)
    assert lines[1:5] == [
        "g weight=1 3 3 1 3",
        "g weight=10 3 3 1 2",
        "confirmation of g weight=1 2 0",
        "confirmation of g weight=10 2 0",
    ]
    assert lines[7] == "g: 2 cells, 10 trials, 400 critic iterations; 5 trials to run. Nothing was started."
    run(store)
    lines = dry_run(command_line, store)
    assert [line.rpartition(" ")[2] for line in lines[1:5]] == ["3", "3", "2", "2"]
    assert lines[7].endswith("10 trials, 400 critic iterations; 0 trials to run. Nothing was started.")
    assert len(lines) == 8


def test_a_race_shows_the_fewest_and_the_most_trials(tmp_path: Path, command_line: CommandLine) -> None:
    store = plan(tmp_path, HEAD + RACE)
    lines = dry_run(command_line, store)
    assert lines[1:3] == ["g weight=1 2 to 4 0", "g weight=10 2 to 4 0"]
    assert lines[4] == "race: 2 seeds for every cell, up to 4 for those that may be best"
    trials = "from 6 to 10 trials"
    assert lines[6] == f"g: 2 cells, {trials}, from 240 to 400 critic iterations; {trials} to run. Nothing was started."
    assert re.match(r"disk: at most about .* for the 10 trials to run \(", lines[7])
    run(store)
    ended = dry_run(command_line, store)
    there = len(store.entries())
    assert (
        ended[-1]
        == f"g: 2 cells, {there} trials, {40 * there} critic iterations; 0 trials to run. Nothing was started."
    )
    bounded = plan(tmp_path / "bounded", HEAD + RACE.replace("most: 4", "most: 4, trials: 7"))
    assert "from 6 to 9 trials" in dry_run(command_line, bounded)[6]


def test_a_dry_run_of_an_edited_file_says_what_stays_and_what_decisions_add(
    tmp_path: Path, command_line: CommandLine
) -> None:
    store = plan(tmp_path, HEAD + SEARCH)
    run(store)
    write_file(tmp_path, HEAD + SEARCH.replace("trials: 3", "trials: 5"))
    lines = dry_run(command_line, store)
    assert lines[1] == "g weight=1 5 3 1 3"
    assert lines[7].startswith(
        "g: 2 cells, from 14 to 18 trials, from 560 to 720 critic iterations; from 4 to 8 trials"
    )
    assert lines[8] == "'g' has a plan already: 10 of its 10 trials stay, 0 are added at once and 4 to 8 by decisions"
    assert lines[9].startswith("What may be decided changes: g weight=1, g weight=10: 5 proposals instead of 3.")


def test_the_estimate_of_a_search_is_that_of_its_largest_settings(plan_of: Planner, tmp_path: Path) -> None:
    widths = "network.critic_widths: [[8, 8], [900, 900]]"
    text = HEAD + f"search: {{trials: 2, sampler: random, space: {{{widths}}}}}\n"
    store = plan(tmp_path, text)
    plan_made = plan_of(text)
    least, most = trials_to_come(plan_made, outlook_of(store, plan_made))
    large = plan_of(f"name: s\nbase: {POINTS}\ngrid: {{{widths}}}\n").trials[1].config
    assert [checkpoint_bytes(config) for config in most] == [checkpoint_bytes(large)] * 2
    assert [config.to_dict()["network"]["critic_widths"] for config in least] == [[8, 8]] * 2

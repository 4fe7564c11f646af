"""The commands that read, and train one trial, in this process; whole sweeps are in test_sweep_end_to_end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine, environment, orchestrator, started, wait_until
from hand_made import TWO_CELLS, finish, make_sweep, write_file
from mlflow_dump import dump

from orchestrator.cli import _may_start_ray
from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import FORMATS
from orchestrator.results.frames import At
from orchestrator.results.pivot import lay_out
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore


@pytest.fixture
def half_finished(store: SweepStore) -> SweepStore:
    for entry in store.entries()[:2]:
        finish(store, entry, {"exact_w1": 0.5 * entry.axes["penalty.weight"]})
    store.trial(store.entries()[2].trial_id).set_state(State.FAILED, "OSError: out of paper")
    return store


def test_a_dry_run_tells_the_cells_and_makes_nothing(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, TWO_CELLS)
    code, out, errors = command_line("sweep", path, "--dry-run", "--runs-dir", tmp_path / "runs")
    assert (code, errors) == (0, "")
    assert re.search(r"hand weight=1\s+2\s+0", out)
    assert re.search(r"hand weight=2\s+2\s+0", out)
    assert "2 cells, 4 trials, 160 critic iterations; 4 trials to run. Nothing was started." in out
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_counts_what_is_done(half_finished: SweepStore, tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, TWO_CELLS)
    _, out, _ = command_line("sweep", path, "--dry-run", "--runs-dir", half_finished.runs_dir)
    assert re.search(r"hand weight=1\s+2\s+1", out)
    assert "2 trials to run" in out


def test_a_copied_file_that_takes_over_a_sweep_says_what_is_added_and_removed(
    tmp_path: Path, command_line: CommandLine
) -> None:
    store = make_sweep(tmp_path)
    runs, path = store.runs_dir, tmp_path / "sweep.yaml"
    _, out, _ = command_line("sweep", path, "--dry-run", "--runs-dir", runs)
    assert "has a plan already" not in out
    copy = write_file(tmp_path, TWO_CELLS.replace("[1, 2]", "[2, 5, 7]"), "copy.yaml")
    before = (store.path / "plan.json").read_bytes()
    code, out, _ = command_line("sweep", copy, "--dry-run", "--runs-dir", runs)
    assert code == 0
    told = "'hand' has a plan already: 2 of its 4 trials stay, 4 are added, 2 are removed from its plan and tables: "
    assert f"{told}hand weight=1\n" in out
    assert f"That plan was made from {path}, this one is made from {copy}; for a sweep of its own" in out
    assert (store.path / "plan.json").read_bytes() == before
    _, out, _ = command_line("sweep", copy, "--dry-run", "--runs-dir", runs, "--name", "other")
    assert "has a plan already" not in out
    seeds = write_file(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3"), "sweep.yaml")
    _, out, _ = command_line("sweep", seeds, "--dry-run", "--runs-dir", runs)
    assert "'hand' has a plan already: 4 of its 4 trials stay, 2 are added\n" in out
    assert "That plan was made from" not in out
    (store.path / "plan.json").write_text("{}")
    assert command_line("sweep", path, "--dry-run", "--runs-dir", runs)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "starts", "told"),
    [
        pytest.param(["-o", "t.tex"], "% \\usepackage", "", id="LaTeX"),
        pytest.param(["-o", "t.CSV"], "variant,", "", id="CSV, in capitals"),
        pytest.param(["-o", "t.html"], "<table>", "", id="HTML"),
        pytest.param(["-o", "t.htm"], "<table>", "", id="HTML, three letters"),
        pytest.param(["-o", "t.json"], "{", "", id="JSON"),
        pytest.param(["-o", "t.md"], "| method", "", id="Markdown"),
        pytest.param(["-o", "t"], "| method", "", id="no suffix"),
        pytest.param(["-o", "t.xlsx"], "| method", "no format has the suffix .xlsx", id="an unknown suffix"),
        pytest.param(
            ["-o", "t.tex", "--format", "csv"], "variant,", "but --format csv is written", id="a contradiction"
        ),
        pytest.param(["-o", "t.xlsx", "--format", "csv"], "variant,", "", id="an unknown suffix and a format"),
        pytest.param(["-o", "t.markdown", "--format", "markdown"], "| method", "", id="a suffix's other name"),
    ],
)
def test_the_suffix_of_the_output_decides_unless_a_format_is_given(
    half_finished: SweepStore,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    starts: str,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, errors = command_line("export", "hand", *arguments, "--runs-dir", half_finished.runs_dir)
    assert (code, out) == (0, "")
    assert Path(arguments[1]).read_text().startswith(starts)
    assert told in errors
    assert errors.count("\n") == bool(told)


def test_the_version_and_the_program_as_a_module(command_line: CommandLine, tmp_path: Path) -> None:
    code, out, errors = command_line("--version")
    assert (code, out, errors) == (0, f"orchestrator {version('orchestrator')}\n", "")
    for arguments, code, told in ((["--version"], 0, out), (["sweep"], 2, "python -m orchestrator sweep")):
        program = [sys.executable, "-m", "orchestrator", *arguments]
        ran = subprocess.run(program, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert ran.returncode == code
        assert told in ran.stdout + ran.stderr


def test_a_file_whose_name_is_no_name(tmp_path: Path, command_line: CommandLine) -> None:
    path = write_file(tmp_path, TWO_CELLS.replace("name: hand\n", ""), "my sweep.yaml")
    runs = ["--dry-run", "--runs-dir", tmp_path / "runs"]
    code, _, errors = command_line("sweep", path, *runs)
    assert code == 2
    assert "'my sweep' is not a name" in errors
    assert errors.endswith("Write name: NAME into the file, or give --name NAME\n")
    code, out, errors = command_line("sweep", path, *runs, "--name", "mine")
    assert (code, errors) == (0, "")
    assert re.search(r"mine weight=1 +2", out)
    assert "mine: 2 cells" in out
    write_file(tmp_path, TWO_CELLS, "my sweep.yaml")
    assert "hand: 2 cells" in command_line("sweep", path, *runs)[1]


@pytest.mark.parametrize("length", [201, 250, 300])
def test_a_name_that_is_too_long(tmp_path: Path, command_line: CommandLine, length: int) -> None:
    name = "a" * length
    long = f"has {length} letters; a name has at most 200"
    path = write_file(tmp_path, TWO_CELLS.replace("name: hand", f"name: {name}"))
    code, _, errors = command_line("sweep", path, "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert f"{path}:1: name: 'aaaaaaaaaaaaaaaaaaaa…' {long}" in errors
    path = write_file(tmp_path, TWO_CELLS + f"scale: {{{'b' * 197}: [seeds=1]}}\n")
    for words in (["--name", name], ["scale=" + "b" * 197]):
        code, _, errors = command_line("sweep", path, *words, "--runs-dir", tmp_path / "runs")
        assert code == 2
        assert "a name has at most 200" in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["seeds=3"], "write seed=NUMBER", id="seeds"),
        pytest.param(["~critic.lr"], "write critic.lr=VALUE", id="an option deleted"),
        pytest.param(["~penalty"], "write penalty=none", id="a part deleted"),
        pytest.param(["penalty.weight=interval(0,1)"], "write choice(0, 0.5, 1)", id="interval"),
        pytest.param(["penalty=glob(*)"], "write the names as a list", id="glob"),
        pytest.param(["device=gpu"], "write 'cuda' for a GPU", id="gpu"),
        pytest.param(["seed=-1"], "seed: must be at least 0", id="a negative seed"),
    ],
)
def test_what_is_written_wrong_is_answered_with_what_works(
    tmp_path: Path, command_line: CommandLine, arguments: list[str], told: str
) -> None:
    code, out, errors = command_line("train", "dataset=mixture", *arguments, "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert told in errors
    assert errors.count("\n") == 1


def test_the_seed_of_one_trial(tmp_path: Path, command_line: CommandLine) -> None:
    overrides = ["dataset=mixture", "evaluation=none", "budget=4", "device=cpu", "seed=3"]
    assert command_line("train", *overrides, "--runs-dir", tmp_path / "runs")[0] == 0
    (file,) = (tmp_path / "runs" / "train").glob("*/config.yaml")
    assert "seed: 3\n" in file.read_text()
    path = write_file(tmp_path, TWO_CELLS)
    code, _, errors = command_line("sweep", path, "seed=3", "--name", "t", "--runs-dir", tmp_path / "runs")
    assert code == 2
    assert "seeds=3 (0, 1 and 2) or seeds=[3]" in errors


def test_the_repository_s_own_sweep_files_can_be_planned(command_line: CommandLine, tmp_path: Path) -> None:
    folder = Path(__file__).parents[3] / "sweeps"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for file in files:
        code, out, errors = command_line("sweep", file, "--dry-run", "--runs-dir", tmp_path)
        assert (code, errors) == (0, "")
        assert "Nothing was started" in out


def test_status_of_a_sweep(half_finished: SweepStore, command_line: CommandLine) -> None:
    code, out, _ = command_line("status", "hand", "--runs-dir", half_finished.runs_dir)
    assert code == 0
    lines = out.splitlines()
    assert re.fullmatch(r"hand: 1 FAILED, 2 DONE, 1 PENDING · about \ds left · \d+\.\d kB", lines[0])
    rows = lines[2:6]
    for entry, line in zip(half_finished.entries(), rows, strict=True):
        assert entry.trial_id in line
        assert f" {half_finished.trial(entry.trial_id).status().state} " in line
        assert f" {entry.label} seed={entry.seed} " in line
    failed = half_finished.entries()[2].trial_id
    assert lines[6:] == [f"FAILED {failed}: OSError: out of paper"]


def test_status_of_all_sweeps(half_finished: SweepStore, tmp_path: Path, command_line: CommandLine) -> None:
    make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: another"))
    _, out, _ = command_line("status", "--runs-dir", half_finished.runs_dir)
    told = [line.partition(" · ")[0] for line in out.splitlines()]
    assert told == ["another: 4 PENDING", "hand: 1 FAILED, 2 DONE, 1 PENDING"]
    _, out, _ = command_line("status", "--json", "--runs-dir", half_finished.runs_dir)
    assert [summary["sweep"] for summary in json.loads(out)] == ["another", "hand"]
    empty = tmp_path / "empty"
    assert command_line("status", "--runs-dir", empty) == (0, "", f"there is no sweep in '{empty}' yet\n")


def test_status_for_programs(half_finished: SweepStore, command_line: CommandLine) -> None:
    _, out, _ = command_line("status", "hand", "--json", "--runs-dir", half_finished.runs_dir)
    summary = json.loads(out)
    assert summary["counts"] == {"FAILED": 1, "DONE": 2, "PENDING": 1}
    assert [trial["state"] for trial in summary["trials"]] == ["DONE", "DONE", "FAILED", "PENDING"]
    assert [trial["exact_w1"] for trial in summary["trials"]] == [0.5, 1.0, None, None]


@pytest.mark.parametrize("name", FORMATS)
def test_export(half_finished: SweepStore, tmp_path: Path, command_line: CommandLine, name: str) -> None:
    expected = FORMATS[name][1](comparison_table(half_finished))
    common = ["hand", "--format", name, "--runs-dir", half_finished.runs_dir]
    assert command_line("export", *common) == (0, expected, "")
    assert command_line("export", *common, "-o", tmp_path / "table") == (0, "", "")
    assert (tmp_path / "table").read_text() == expected
    code, _, errors = command_line("export", *common, "-o", tmp_path / "nowhere" / "table")
    assert code == 2
    assert "cannot be written" in errors


def test_export_of_what_is_asked_for(half_finished: SweepStore, tmp_path: Path, command_line: CommandLine) -> None:
    more = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: more"))
    for entry in more.entries():
        finish(more, entry, {"exact_w1": 2.0 + entry.seed})
    options = ["--at", "epoch=1", "--baseline", "more weight=1", "--metrics", "exact_w1, penalty"]
    options += ["--intervals", "log"]
    code, out, errors = command_line("export", "hand", "more", *options, "--runs-dir", half_finished.runs_dir)
    table = comparison_table(
        half_finished, more, at=At("epoch", 1), baseline="more weight=1", metrics=["exact_w1", "penalty"], scale="log"
    )
    assert (code, out, errors) == (0, FORMATS["markdown"][1](table), "")
    layout = ["--rows", "sweep=more", "--columns", "weight"]
    code, out, errors = command_line("export", "hand", "more", *layout, "--runs-dir", half_finished.runs_dir)
    assert (code, errors) == (0, "")
    assert out == FORMATS["markdown"][1](lay_out(comparison_table(half_finished, more), "sweep=more", "weight"))


def test_a_moved_runs_directory_still_answers(
    half_finished: SweepStore, tmp_path: Path, command_line: CommandLine
) -> None:
    before = command_line("export", "hand", "--format", "csv", "--runs-dir", half_finished.runs_dir)
    states = command_line("status", "hand", "--json", "--runs-dir", half_finished.runs_dir)
    moved = half_finished.runs_dir.rename(tmp_path / "elsewhere")
    assert command_line("export", "hand", "--format", "csv", "--runs-dir", moved) == before
    assert command_line("status", "hand", "--json", "--runs-dir", moved) == states


def test_sync_brings_mlflow_level(half_finished: SweepStore, tracking_uri: str, command_line: CommandLine) -> None:
    for _ in range(2):
        code, out, errors = command_line("sync", "hand", "--runs-dir", half_finished.runs_dir)
        assert (code, errors) == (0, "")
        assert "up to date with 'hand'" in out
        assert len(dump(tracking_uri, "hand")) == 3


def test_training_one_trial_tells_its_metrics_and_where_it_is(tmp_path: Path, command_line: CommandLine) -> None:
    overrides = ["dataset=mixture", "trainer=wgan", "budget=4", "evaluation.times=1", "device=cpu"]
    for number in (1, 2):  # each from the start, in a directory of its own
        code, out, errors = command_line("train", *overrides, "--runs-dir", tmp_path / "runs")
        assert (code, errors) == (0, "")
        (folder,) = (tmp_path / "runs" / "train").glob(f"*-{number}")
        assert str(folder) in out
        assert "epoch 0" in out
        assert "exact_w1=" in out.splitlines()[-2]
        assert out.splitlines()[-1].startswith("DONE")
        assert pd.read_json(folder / "metrics.jsonl", lines=True)["iteration"].max() == 4


@pytest.mark.parametrize(
    ("overrides", "code", "told"),
    [
        pytest.param(["critic.lr=1e30"], 0, "DIVERGED: ", id="diverged: a result"),
        pytest.param(["network.critic_widths=[1000000000000000]"], 1, "FAILED: ", id="failed"),
    ],
)
def test_training_one_trial_that_comes_to_a_bad_end(
    tmp_path: Path, command_line: CommandLine, overrides: list[str], code: int, told: str
) -> None:
    common = ["dataset=mixture", "evaluation=none", "budget=4", "device=cpu"]
    ended, out, errors = command_line("train", *common, *overrides, "--runs-dir", tmp_path / "runs")
    assert (ended, errors) == (code, "")
    assert told in out.splitlines()[-1]


def test_interrupting_a_single_trial_is_130_without_a_traceback(tmp_path: Path) -> None:
    overrides = ["dataset=digits", "evaluation=none", "budget=100000", "device=cpu"]
    with started("train", *overrides, cwd=tmp_path) as running:
        wait_until(lambda: list((tmp_path / "runs").glob("train/*/metrics.jsonl")))
        running.signal_group(signal.SIGINT)
        code, _, errors = running.end()
    assert code == 130
    assert "Traceback" not in errors


def test_interrupting_a_trial_that_trains_its_classifier_waits_for_nothing(tmp_path: Path) -> None:
    overrides = ["dataset=digits", "evaluation=classifier", "budget=100000", "device=cpu"]
    with started("train", *overrides, cwd=tmp_path) as running:
        wait_until(lambda: list((tmp_path / "runs").glob("cache/extractors/*.lock")))
        running.signal_group(signal.SIGINT)
        code, out, errors = running.end()
    assert (code, errors) == (130, "")
    assert not list((tmp_path / "runs").glob("cache/extractors/*.safetensors"))
    [trial] = (tmp_path / "runs" / "train").iterdir()
    told = f"Stopped; what there is of samples, metrics and log is in {trial.relative_to(tmp_path)}"
    assert out.splitlines()[-1] == told
    assert TrialStore(trial).status().state is State.PENDING


@pytest.mark.parametrize("arguments", [["sweep"], ["sweep", "s.yaml", "--max-concurrent", "0"], ["swep"]])
def test_what_is_no_command_is_exit_code_2(command_line: CommandLine, arguments: list[str]) -> None:
    code, out, errors = command_line(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in errors


def test_bad_input_is_exit_code_2_as_a_process_too(tmp_path: Path) -> None:
    ran = orchestrator("sweep", write_file(tmp_path, "gird: {}\n"), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("orchestrator: ")
    assert "did you mean 'grid'" in ran.stderr


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("status hand", "nothing is lost; run the same command again"),
        ("export hand", "nothing is lost; run the same command again"),
        ("report hand", "nothing is lost; run the same command again"),
        ("evaluate hand", "nothing is lost; run the same command again"),
        ("stop hand", "the sweep was not asked to stop"),
        ("sync hand", "what MLflow has got stays; run the same command again for the rest"),
        ("prune hand", "what was deleted stays deleted; run the same command again for the rest"),
        ("resume hand --offline", "what trials have stored stays; run the same command again to go on"),
    ],
)
def test_ctrl_c_is_told_in_one_line_with_what_it_means(
    store: SweepStore, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, words: str, then: str
) -> None:
    """The signal comes when the command opens the sweep."""
    opened = SweepStore.open

    def interrupted(*arguments: Any) -> SweepStore:
        os.kill(os.getpid(), signal.SIGINT)
        return opened(*arguments)

    monkeypatch.setattr(SweepStore, "open", interrupted)
    code, out, errors = command_line(*words.split(), "--runs-dir", store.runs_dir)
    assert (code, out, errors) == (130, "", f"\norchestrator: interrupted: {then}\n")


def test_ctrl_c_of_a_sync_leaves_the_sweep_to_the_next_command(half_finished: SweepStore, tmp_path: Path) -> None:
    with started("sync", "hand", cwd=tmp_path) as running:
        wait_until(half_finished.driver_file.exists)
        running.process.send_signal(signal.SIGINT)
        code, out, errors = running.end()
    assert (code, out) == (130, "")
    told = "interrupted: what MLflow has got stays; run the same command again for the rest"
    assert errors == f"\norchestrator: {told}\n"
    ran = orchestrator("sync", "hand", cwd=tmp_path)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, "MLflow is up to date with 'hand'."), ran.stderr


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("sweep FILE", True),
        ("resume NAME --address host:6379", True),
        ("sweep FILE --executor local", False),
        ("resume NAME --executor=local", False),
        ("status sweep", False),
        ("", False),
    ],
)
def test_only_a_command_that_may_start_ray_has_a_parent(command: str, expected: bool) -> None:
    assert _may_start_ray(command.split()) is expected

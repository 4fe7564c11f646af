"""Every path that a command takes is treated alike: ``~`` and variables are replaced, an empty path is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from hand_made import POINTS, finish, make_sweep, write_file

import orchestrator
from orchestrator.errors import UserError
from orchestrator.store.runs import runs_at
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.presets import compose, parse_override


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder and the working directory, which differ."""
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(here)
    return home


def finished(folder: Path) -> SweepStore:
    store = make_sweep(folder)
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 1.0})
    return store


COMMANDS = [
    pytest.param(["sweep", "{}"], "FILE", id="FILE"),
    pytest.param(["sweep", "s.yaml", "--dry-run", "--runs-dir", "{}"], "--runs-dir", id="sweep --runs-dir"),
    *(
        pytest.param([command, "s", "--runs-dir", "{}"], "--runs-dir", id=f"{command} --runs-dir")
        for command in ("resume", "status", "stop", "sync", "prune", "export", "plot", "report", "evaluate", "ui")
    ),
    pytest.param(["train", "dataset=mixture", "--runs-dir", "{}"], "--runs-dir", id="train --runs-dir"),
    pytest.param(["evaluate", "{}"], "TARGET", id="TARGET"),
    *(
        pytest.param([command, "s", "--output", "{}"], "--output", id=f"{command} --output")
        for command in ("export", "plot", "report")
    ),
    *(
        pytest.param([*command, "--feature-weights", "{}"], "--feature-weights", id=f"{command[0]} --feature-weights")
        for command in (["sweep", "s.yaml"], ["resume", "s"], ["train"], ["export", "s"], ["evaluate", "s"])
    ),
    pytest.param(["train", "dataset=mnist", "dataset.root={}"], "'dataset.root={}'", id="dataset.root"),
    pytest.param(
        ["train", "evaluation=inception", "evaluation.feature_weights={}"],
        "'evaluation.feature_weights={}'",
        id="evaluation.feature_weights",
    ),
    pytest.param(["sweep", "s.yaml", "--tracking-uri", "sqlite:///{}"], "--tracking-uri", id="--tracking-uri"),
]


@pytest.mark.parametrize(("arguments", "named"), COMMANDS)
def test_a_path_of_a_variable_that_is_not_set_is_an_error(
    home: Path, command_line: CommandLine, arguments: list[str], named: str
) -> None:
    write_file(Path(), f"base: {POINTS}\n", "s.yaml")
    tries = ["$UNSET/x"] if "sqlite" in arguments[-1] else ["", "$UNSET/x"]
    for text in tries:
        code, out, errors = command_line(*(word.replace("{}", text) for word in arguments))
        assert (code, out) == (2, "")
        assert errors.startswith(f"orchestrator: {named.replace('{}', text)}: ")
        assert ("the variable UNSET is not set" if text else "the path is empty") in errors
        assert errors.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("option", ["--tracking-uri", "--address"])
def test_an_empty_address_does_not_mean_the_default(home: Path, command_line: CommandLine, option: str) -> None:
    path = write_file(Path(), f"base: {POINTS}\n", "s.yaml")
    code, _, errors = command_line("sweep", path, option, "")
    assert code == 2
    assert errors == f"orchestrator: {option}: is empty; is it a variable that is not set?\n"
    assert not Path("runs").exists()


def test_the_home_folder_in_every_path(home: Path, command_line: CommandLine) -> None:
    finished(home)
    code, out, errors = command_line("export", "hand", "--runs-dir=~/runs", "--output=~/table.csv", "--format", "csv")
    assert (code, out, errors) == (0, "", "")
    assert (home / "table.csv").read_text().startswith("variant")
    code, out, _ = command_line("report", "hand", "--runs-dir=$HOME/runs", "-o", "~/report.html")
    assert (code, out) == (0, f"{home / 'report.html'}\n")
    code, out, errors = command_line("sweep", "~/sweep.yaml", "--dry-run", "--runs-dir", "${HOME}/runs")
    assert code == 0, errors
    assert "0 trials to run" in out
    code, out, errors = command_line("evaluate", "~/pictures", "--runs-dir=~/runs")
    assert f"'{home / 'pictures'}' is neither a sweep" in errors
    assert runs_at("~/runs") == home / "runs"
    assert len(orchestrator.load("~/runs/hand").trials) == 4
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/data/a=b", id="equals sign"),
        pytest.param("/data/a b", id="space"),
        pytest.param("/data/Bücher/画像", id="letters beyond ASCII"),
        pytest.param("/data/(1), [2] {3}", id="brackets and commas"),
        pytest.param("/data/it's", id="quote"),
        pytest.param('/data/a "b"', id="double quotes"),
        pytest.param("/data/a\\", id="backslash at the end"),
        pytest.param("/data/a\\'b", id="backslash before a quote"),
        pytest.param("/data/a: b #c%20?d", id="signs of YAML and URLs"),
    ],
)
def test_a_path_may_have_any_letters(path: str) -> None:
    for text in (f"dataset.root={path}", f"dataset.root='{path}'"):
        assert parse_override(text).value() == path
        assert compose(["dataset=image_folder", text])["dataset"]["root"] == path


def test_a_path_in_a_sweep_file_s_base(home: Path, command_line: CommandLine) -> None:
    base = "[dataset=mnist, evaluation=none, 'dataset.root=~/a=b']"
    path = write_file(Path(), f"base: {base}\n", "s.yaml")
    code, _, errors = command_line("sweep", path, "--dry-run")
    assert code == 2
    assert f"s.yaml:1: base: dataset.root: '{home / 'a=b'}' does not exist" in errors
    path = write_file(Path(), f"base: {base.replace('~/a=b', '')}\n", "s.yaml")
    code, _, errors = command_line("sweep", path, "--dry-run")
    assert "s.yaml:1: base: 'dataset.root=': the path is empty" in errors
    with pytest.raises(UserError, match="the path is empty"):
        parse_override("dataset.root=''")
    assert parse_override("dataset.root=null").value() is None

"""A runs directory that an older version wrote is shown, exported, mirrored and resumed as if nothing had changed.

``data/README.md`` tells how it was made.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine
from mlflow_dump import dump
from small_trials import contents

from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan
from orchestrator.tracking.address import default_uri
from trainers.config import identity_of

AT_AN_EPOCH = ("--at", "epoch=2", "--baseline", "wgan-gp weight=1", "--columns", "weight")
ARCHIVE = Path(__file__).parents[1] / "data" / "runs_8fb7cc7.tar.xz"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def older(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which the older version ran, as it left it; the working directory of this test."""
    shutil.copytree(unpacked, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trial_ids_are_what_they_were(older: Path) -> None:
    store = SweepStore(Path("runs"), "small")
    ids = [entry.trial_id for entry in store.entries()]
    assert ids == [
        "c52476a8c683",
        "cba8b4a91aa5",
        "795a10fe78f5",
        "8165b99d8be9",
        "97575ef2f197",
        "293df5041296",
    ]
    assert [identity_of(config) for _, config in store.configs()] == ids
    plan = make_plan(read_sweep_file(Path("runs/small/sweep.yaml")))
    assert [trial.trial_id for trial in plan.trials] == ids


@pytest.mark.parametrize("options", [("small", ()), ("columns", AT_AN_EPOCH)], ids=["the table", "laid out"])
def test_a_csv_has_the_same_values(
    older: Path, command_line: CommandLine, options: tuple[str, tuple[str, ...]]
) -> None:
    """Intervals apart: they were percentile bootstraps then, and are Student's t now."""
    name, more = options
    assert command_line("export", "small", "--format", "csv", *more, "-o", "table")[0] == 0
    now, before = (pd.read_csv(path) for path in ("table", f"expected/{name}.csv"))
    assert list(now) == list(before)
    values = [column for column in now if not column.endswith(("_low", "_high"))]
    pd.testing.assert_frame_equal(now[values], before[values], check_exact=True)


def test_json_has_the_same_values(older: Path, command_line: CommandLine) -> None:
    assert command_line("export", "small", "--format", "json", "-o", "table")[0] == 0
    now, before = (json.loads(Path(path).read_text()) for path in ("table", "expected/small.json"))
    assert set(now) - set(before) == {"verdict"}
    assert set(before["notes"]) - set(now["notes"]) == {
        "95 % intervals of the mean by bootstrap over seeds; of two or three seeds they are the range of what was seen"
    }
    for ours, theirs in zip(now["rows"], before["rows"], strict=True):
        for value in (*ours["values"].values(), *theirs["values"].values()):
            del value["low"], value["high"]
        assert {**ours, "best": theirs["best"]} == {**theirs, "alike": ours["alike"]}


@pytest.mark.parametrize("name", ["markdown", "latex", "html"])
def test_tables_for_people_have_the_same_columns(older: Path, command_line: CommandLine, name: str) -> None:
    assert command_line("export", "small", "--format", name, "-o", "table")[0] == 0
    now, before = (Path(path).read_text().splitlines() for path in ("table", f"expected/small.{name}"))
    heads = [next(line for line in lines if "classifier" in line) for lines in (now, before)]
    assert heads[0] == heads[1]


def test_the_report_is_the_same_from_the_figures_on_but_for_captions(older: Path, command_line: CommandLine) -> None:
    assert command_line("report", "small", "-o", "report.html")[0] == 0
    texts = [Path(path).read_text() for path in ("report.html", "expected/report.html")]
    now, before = (re.sub(r"<img [^>]*>|<figcaption>.*?</figcaption>", "", text) for text in texts)
    for section in ("figures", "problems", "cost", "repeat"):
        ours, theirs = (
            text.partition(f'<section id="{section}">')[2].partition("</section>")[0] for text in (now, before)
        )
        assert ours == theirs
        assert len(ours) > 100


def test_status_says_the_same(older: Path, command_line: CommandLine) -> None:
    code, out, _ = command_line("status", "small", "--json")
    now, before = json.loads(out), json.loads(Path("expected/status.json").read_text())
    assert code == 0
    assert (now.pop("damaged"), now.pop("growing")) == ([], None)
    assert {(trial.pop("stage"), trial.pop("proposal")) for trial in now["trials"]} == {("", None)}
    assert now | {"disk_bytes": 0} == before | {"disk_bytes": 0}  # some checkpoints are left out of the archive


@pytest.mark.long
def test_sync_mirrors_every_trial_that_began(older: Path, command_line: CommandLine, tracking_uri: str) -> None:
    code, _, err = command_line("sync", "small")
    assert (code, err) == (0, "")
    assert default_uri(Path("runs")) == tracking_uri
    runs = {run["tags"]["orchestrator.trial_id"]: run for run in dump(tracking_uri, "small").values() if run["params"]}
    states = {
        entry.trial_id: SweepStore(Path("runs"), "small").trial(entry.trial_id).status().state
        for entry in SweepStore(Path("runs"), "small").entries()
    }
    assert {trial_id: run["tags"]["state"] for trial_id, run in runs.items()} == {k: str(v) for k, v in states.items()}


@pytest.mark.long
def test_resume_finishes_what_failed_and_what_was_stopped_and_touches_nothing_else(
    older: Path, command_line: CommandLine
) -> None:
    store = SweepStore(Path("runs"), "small")
    *done, failed, stopped = [store.trial(entry.trial_id) for entry in store.entries()]
    before = [contents(trial.path) for trial in done]
    half_way = stopped.epochs()
    code, out, err = command_line("resume", "small", "--executor", "local", "--offline")
    assert (code, out.splitlines()[-1]) == (0, "small: 6 DONE"), err
    assert [contents(trial.path) for trial in done] == before
    assert [attempt.resumed_at for attempt in stopped.status().attempts] == [0, 30]
    assert stopped.epochs()[: len(half_way)] == half_way
    assert [attempt.state for attempt in failed.status().attempts] == ["FAILED", "DONE"]
    assert failed.status().state is stopped.status().state is State.DONE
    log = stopped.log_file.read_text()
    assert "came out different" not in log

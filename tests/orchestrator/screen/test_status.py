"""The state of a sweep, read from its directory, for programs and for people."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from pathlib import Path

import pytest
from command_line import PROGRAM, CommandLine, environment
from grown_sweeps import HEAD, RACE, SEARCH, plan, run
from hand_made import TWO_CELLS, attempt, finish, make_sweep, plan_file, write_file

from orchestrator.files import disk_usage
from orchestrator.store.epochs import EpochLog
from orchestrator.store.lock import driver_lock
from orchestrator.store.states import State, Status
from orchestrator.store.sweep import SweepStore

LONG_NAMES = """\
name: a_sweep_with_a_long_name
base: [dataset=digits, budget=40, device=cpu]
variants:
  a_variant_with_a_long_name: {grid: {critic_iterations: [1, 10], network.generator_widths: [[16], [128, 128]]}}
"""


@pytest.fixture
def running(store: SweepStore) -> SweepStore:
    """A trial that is done, one that runs, one that failed, one that waits; and a removed one."""
    done, runs, failed, _ = store.entries()
    finish(store, done, {"exact_w1": 0.123456789}, epochs=3)
    log = EpochLog(store.trial(runs.trial_id).metrics_file)
    for epoch in range(3):
        log.append(
            {"epoch": epoch, "iteration": 17 * epoch, "epoch_seconds": 2.0} | ({"exact_w1": 0.5} if epoch else {})
        )
    store.trial(runs.trial_id).write_status(Status(State.RUNNING, [attempt(), attempt(ended=None)]))
    store.trial(failed.trial_id).write_status(Status(State.FAILED, [attempt()], "OSError: out of [paper]"))
    (store.path / "trials" / "0123456789ab").mkdir()
    return store


def of_programs(command_line: CommandLine, store: SweepStore, *name: str) -> object:
    code, out, errors = command_line("status", *name, "--json", "--runs-dir", store.runs_dir)
    assert (code, errors) == (0, "")
    return json.loads(out)


def test_every_key_for_programs(running: SweepStore, command_line: CommandLine) -> None:
    known = of_programs(command_line, running, "hand")
    assert isinstance(known, dict)
    trials = known.pop("trials")
    left = known.pop("seconds_left")
    assert known == {
        "sweep": "hand",
        "driver": None,
        "counts": {"RUNNING": 1, "FAILED": 1, "DONE": 1, "PENDING": 1},
        "disk_bytes": disk_usage([running.path]),
        "removed": 1,
        "damaged": [],
        "metric": "exact_w1",
        "growing": None,
    }
    # 3 epochs of 0.25 s and one evaluation of 0.5 s, 2 epochs and the untrained one of 2 s; 1 + 3 + 3 epochs left
    assert left == pytest.approx(7 * (3 * 0.25 + 0.5 + 3 * 2.0) / 6)
    for entry, trial in zip(running.entries(), trials, strict=True):
        assert (trial["trial_id"], trial["cell"], trial["seed"]) == (entry.trial_id, entry.label, entry.seed)
        assert trial["epochs"] == 3
        stored = running.trial(entry.trial_id).epochs()
        assert trial["epoch_at"] == (stored[-1]["timestamp"] / 1000 if stored else None)
        assert (trial["stage"], trial["proposal"]) == ("", None)
    keys = ("state", "attempts", "epoch", "exact_w1", "error")
    assert [tuple(trial[key] for key in keys) for trial in trials] == [
        ("DONE", 1, 3, 0.123456789, None),
        ("RUNNING", 2, 2, 0.5, None),
        ("FAILED", 1, 0, None, "OSError: out of [paper]"),
        ("PENDING", 0, 0, None, None),
    ]
    assert {frozenset(trial) for trial in trials} == {
        frozenset({"trial_id", "cell", "seed", "epochs", "epoch_at", "peak_memory_mb", "stage", "proposal", *keys})
    }


def test_a_driver_is_known_while_it_lives_and_after_it_died(running: SweepStore, command_line: CommandLine) -> None:
    with driver_lock(running):
        known = of_programs(command_line, running, "hand")
        text = running.driver_file.read_text()
        _, human, _ = command_line("status", "hand", "--runs-dir", running.runs_dir)
    assert isinstance(known, dict)
    host = json.loads(text)["host"]
    assert known["driver"] == {"host": host, "pid": os.getpid(), "alive": True}
    assert human.splitlines()[0].endswith(f" · driven by process {os.getpid()} on {host}")

    running.driver_file.write_text(json.dumps(json.loads(text) | {"started": 1}))  # another process with its id
    known = of_programs(command_line, running, "hand")
    assert isinstance(known, dict)
    assert known["driver"] == {"host": host, "pid": os.getpid(), "alive": False}
    _, human, _ = command_line("status", "hand", "--runs-dir", running.runs_dir)
    assert human.splitlines()[0].endswith(f" · left by a driver that died, process {os.getpid()} on {host}")

    elsewhere = json.loads(text) | {"host": "elsewhere", "machine": "another"}
    running.driver_file.write_text(json.dumps(elsewhere))
    known = of_programs(command_line, running, "hand")
    assert isinstance(known, dict)
    assert known["driver"]["alive"]  # its heartbeat is fresh
    an_hour_ago = time.time() - 3600
    os.utime(running.driver_file, (an_hour_ago, an_hour_ago))
    known = of_programs(command_line, running, "hand")
    assert isinstance(known, dict)
    assert not known["driver"]["alive"]


def test_nothing_is_written_by_looking(running: SweepStore, command_line: CommandLine) -> None:
    before = {path: path.stat().st_mtime_ns for path in running.runs_dir.rglob("*")}
    command_line("status", "--runs-dir", running.runs_dir)
    command_line("status", "hand", "--runs-dir", running.runs_dir)
    assert {path: path.stat().st_mtime_ns for path in running.runs_dir.rglob("*")} == before


def test_every_sweep_is_told_and_an_unknown_one_refused_with_the_nearest(
    running: SweepStore, tmp_path: Path, command_line: CommandLine
) -> None:
    make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: another"))
    known = of_programs(command_line, running)
    assert isinstance(known, list)
    assert [summary["sweep"] for summary in known] == ["another", "hand"]
    code, out, errors = command_line("status", "hnad", "--runs-dir", running.runs_dir)
    assert (code, out) == (2, "")
    assert "did you mean 'hand'?" in errors


def on_a_terminal(width: int, *arguments: object, cwd: Path) -> list[str]:
    """The lines that a command shows on a terminal of this width, colours taken out."""
    ours, theirs = pty.openpty()
    changes = {"COLUMNS": str(width), "TERM": "xterm-256color"}
    process = subprocess.Popen([PROGRAM, *map(str, arguments)], cwd=cwd, env=environment(**changes), stdout=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # Linux reports the end of a terminal in this way
        pass
    os.close(ours)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def test_at_80_columns_nothing_is_cut_and_only_cells_are_folded(running: SweepStore, tmp_path: Path) -> None:
    plan = plan_file(write_file(tmp_path / "long", LONG_NAMES))
    long = SweepStore(running.runs_dir, plan.name)
    long.make()
    long.write_plan(plan)
    for entry in long.entries():
        finish(long, entry, {"classifier_fid": 1234.5678}, state=State.DIVERGED, error="a loss is not finite")
    for store in (running, long):
        headline, header, *rows = on_a_terminal(80, "status", store.name, cwd=tmp_path)
        assert headline.startswith(f"{store.name}: ")
        assert (
            header.split() == f"trial cell state epoch attempts {store.plan()['compare']['metric']} last epoch".split()
        )
        table = rows[: next(number for number, row in enumerate(rows) if re.match("[A-Z]", row))]
        assert all(len(row) <= 80 for row in [header, *table])
        assert "…" not in "".join(table)
        for entry in store.entries():
            line = next(row for row in table if row.startswith(entry.trial_id))
            assert f" {store.trial(entry.trial_id).status().state} " in line
            assert re.search(r" \d/\d ", line)
        cells = "".join(re.sub(f"({'|'.join(State)}).*", "", row[12:]).strip() for row in table).replace(" ", "")
        for entry in store.entries():
            assert f"{entry.label} seed={entry.seed}".replace(" ", "") in cells
    failed = running.entries()[2].trial_id
    last = on_a_terminal(80, "status", "hand", cwd=tmp_path)[-1]
    assert last == f"FAILED {failed}: OSError: out of [paper]"


def test_the_last_epoch_is_told_by_its_age(running: SweepStore, command_line: CommandLine) -> None:
    runs = running.trial(running.entries()[1].trial_id)
    records = runs.epochs()
    records[-1]["timestamp"] -= 3 * 3600 * 1000
    runs.metrics_file.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, out, _ = command_line("status", "hand", "--runs-dir", running.runs_dir)
    (line,) = [line for line in out.splitlines() if " RUNNING " in line]
    assert re.search(r" 2/3 +2 +0\.5 +3h00m ago$", line)
    (line,) = [line for line in out.splitlines() if " PENDING" in line and "seed" in line]
    assert line.split()[-2:] == ["0/3", "0"]  # neither metric nor age


def test_the_highest_peak_of_memory_is_told(running: SweepStore, command_line: CommandLine) -> None:
    first, second, *_ = running.entries()
    arguments = ["status", running.name, "--runs-dir", running.runs_dir]
    assert "peak memory" not in command_line(*arguments)[1]
    for entry, peaks in ((first, [40.0, 1234.5]), (second, [900.0])):
        with running.trial(entry.trial_id).metrics_file.open("a") as file:
            for number, peak in enumerate(peaks, start=4):
                record = {"epoch": number, "iteration": 17 * number, "timestamp": 1000 * number, "peak_memory_mb": peak}
                file.write(json.dumps(record) + "\n")
    assert "peak memory of a trial 1.2 GB" in command_line(*arguments)[1]
    known = json.loads(command_line(*arguments, "--json")[1])
    trials = (known[0] if isinstance(known, list) else known)["trials"]
    assert [trial["peak_memory_mb"] for trial in trials[:3]] == [1234.5, 900.0, None]


@pytest.mark.parametrize("content", ["{}", "[]", "{'name':"])
def test_a_damaged_sweep_hides_no_other(running: SweepStore, command_line: CommandLine, content: str) -> None:
    plan = running.runs_dir / "damaged" / "plan.json"
    plan.parent.mkdir()
    plan.write_text(content)
    code, out, told = command_line("status", "--json", "--runs-dir", running.runs_dir)
    assert code == 1
    assert told.startswith(f"orchestrator: {plan}: is damaged (")
    assert told.endswith("); run the sweep file again to write it anew\n")
    assert [summary["sweep"] for summary in json.loads(out)] == ["hand"]
    code, out, errors = command_line("status", "--runs-dir", running.runs_dir)
    assert (code, errors) == (1, told)
    assert out.startswith("hand")
    assert command_line("status", "damaged", "--runs-dir", running.runs_dir) == (2, "", told)


def test_where_there_is_no_sweep_one_is_told_so(tmp_path: Path, command_line: CommandLine) -> None:
    told = f"there is no sweep in '{tmp_path}' yet\n"
    assert command_line("status", "--runs-dir", tmp_path) == (0, "", told)
    assert command_line("status", "--json", "--runs-dir", tmp_path) == (0, "[]\n", told)


@pytest.mark.parametrize(
    ("width", "header", "left_out"),
    [
        (60, "trial cell state epoch classifier_fid", "attempts, last epoch"),
        (40, "trial cell state", "epoch, attempts, classifier_fid, last epoch"),
        (24, "cell state", "trial, epoch, attempts, classifier_fid, last epoch"),
    ],
)
def test_on_a_narrow_terminal_cell_and_state_stay(width: int, header: str, left_out: str, tmp_path: Path) -> None:
    store = make_sweep(tmp_path, LONG_NAMES)
    for entry in store.entries():
        finish(store, entry, {"classifier_fid": 1234.5678}, state=State.DIVERGED)
    _, headings, *rows = on_a_terminal(width, "status", store.name, cwd=tmp_path)
    assert headings.split() == header.split()
    assert all(len(row) <= width for row in rows)
    caption = next(number for number, row in enumerate(rows) if row.startswith("too narrow for"))
    assert " ".join(" ".join(rows[caption:]).split()).startswith(f"too narrow for: {left_out}")
    table = rows[:caption]
    assert sum("DIVERGED" in row for row in table) == len(store.entries())
    cells = re.sub("DIVERGED|1235|[0-9a-f]{12}|[0-9]/[0-9]|[0-9.]+s ago| ", "", "".join(table))
    for entry in store.entries():
        assert entry.label.partition(" ")[0] in cells


def status_lines(command_line: CommandLine, store: SweepStore) -> list[str]:
    code, out, errors = command_line("status", store.name, "--runs-dir", store.runs_dir)
    assert (code, errors) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines()]


def test_a_search_tells_what_is_decided_and_what_waits(tmp_path: Path, command_line: CommandLine) -> None:
    store = plan(tmp_path, HEAD + SEARCH)
    lines = status_lines(command_line, store)
    assert lines[0].startswith("g: 10 to come · ")
    assert lines[1] == "search of g weight=1: 0 of 3 proposals decided"
    assert lines[3] == "confirmation of g weight=1: waits for the search"
    run(store, 5)
    known = of_programs(command_line, store, "g")
    assert isinstance(known, dict)
    assert known["growing"]["to_come"] == [4, 4] or known["growing"]["to_come"] == [2, 2]
    assert [(each["cell"], each["decided"], each["proposals"]) for each in known["growing"]["searches"]] == [
        ("g weight=1", 3, 3),
        ("g weight=10", 3, 3),
    ]
    run(store)
    known = of_programs(command_line, store, "g")
    assert isinstance(known, dict)
    assert known["growing"]["to_come"] == [0, 0]
    [first, _] = known["growing"]["confirmations"]
    best = next(entry.label for entry in store.entries() if entry.stage == "confirm")
    assert first == {
        "of": "g weight=1",
        "seeds": 2,
        "best": 1,
        "cells": [best],
        "confirmed": 2,
        "waits_for": None,
        "problem": None,
    }
    stages = [(trial["stage"], trial["proposal"]) for trial in known["trials"]]
    assert stages == [(entry.stage, entry.proposal) for entry in store.entries()]
    lines = status_lines(command_line, store)
    assert lines[3] == f"confirmation of g weight=1: 2 trials of {best}"
    assert lines[5] == "trial cell stage state epoch attempts exact_w1 last epoch"
    assert " search 2 DONE " in lines[11]
    assert " confirm " in lines[12]


def test_a_race_tells_its_look_and_the_cells_that_are_left(tmp_path: Path, command_line: CommandLine) -> None:
    store = plan(tmp_path, HEAD + RACE)
    lines = status_lines(command_line, store)
    assert lines[0].startswith("g: 4 PENDING, 2 to 6 to come · ")
    assert lines[1:3] == [
        "race: 2 of 2 cells are left, with 2 seeds each, after 0 looks; it goes on to at most 4 seeds",
        "confirmation of g: waits for the race",
    ]
    run(store)
    known = of_programs(command_line, store, "g")
    assert isinstance(known, dict)
    looks = [each for each in store.grown().decisions if each.kind == "race"]  # type: ignore[union-attr]
    race = known["growing"]["race"]
    assert (race["looks"], race["ended"]) == (len(looks), looks[-1].about["ended"])
    assert race["left"] == sum(each["out"] is None for each in looks[-1].rests_on["cells"])
    lines = status_lines(command_line, store)
    assert lines[1].endswith(f"looks; it has ended: {race['ended']}") or "after 1 look;" in lines[1]
    assert lines[2] == "confirmation of g: 2 trials of g weight=1"


def test_a_search_that_has_no_setting_left_says_so(tmp_path: Path, command_line: CommandLine) -> None:
    text = HEAD + "search: {trials: 5, sampler: random, space: {penalty.weight: [1, 2]}}\n"
    with pytest.warns(UserWarning, match="the space has 2 settings"):
        store = plan(tmp_path, text)
    assert "2 to come" in status_lines(command_line, store)[0]
    run(store)
    lines = status_lines(command_line, store)
    assert "to come" not in lines[0]
    assert lines[1] == "search of g: 2 of 5 proposals decided, no setting is left to try"

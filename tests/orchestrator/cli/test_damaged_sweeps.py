"""One damaged sweep, or one damaged trial, stops no command: it is named and left out, and the rest is shown."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from hand_made import TWO_CELLS, finish, make_sweep

from orchestrator.results.export import exported
from orchestrator.screen.status import sweep_status
from orchestrator.store.lock import this_process
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import quiet_client

OTHER = TWO_CELLS.replace("name: hand", "name: other").replace("weight: [1, 2]", "weight: [3]")
Damage = Callable[[Path], Path]
"""Damages a trial, given its folder. Returns the path that must be named."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Two sweeps in one runs directory, whose trials are all DONE."""
    folder = tmp_path_factory.mktemp("whole")
    for text in (OTHER, TWO_CELLS):
        store = make_sweep(folder, text)
        for number, entry in enumerate(store.entries()):
            finish(store, entry, {"exact_w1": 0.5 + number})
            trial = store.trial(entry.trial_id)
            for file in (trial.checkpoint_file, trial.previous_checkpoint_file, trial.best_file):
                file.write_bytes(bytes(1000))
    return store


@pytest.fixture(scope="module")
def table(whole: SweepStore) -> str:
    """The table of the undamaged sweep as CSV."""
    text, left_out = exported(whole.runs_dir, [whole.name], "csv")
    assert left_out == []
    return text


@pytest.fixture(scope="module")
def states(whole: SweepStore) -> dict[str, Any]:
    """What ``status --json`` says of the undamaged sweep's trials, by id."""
    return {trial["trial_id"]: trial for trial in sweep_status(SweepStore(whole.runs_dir, whole.name))["trials"]}


@pytest.fixture
def runs(whole: SweepStore, tmp_path: Path) -> Path:
    """A copy of the two sweeps, to damage. Beside it there is a folder that nobody may touch."""
    shutil.copytree(whole.runs_dir, tmp_path / "runs", symlinks=True)
    shutil.copy(whole.runs_dir.parent / "sweep.yaml", tmp_path / "sweep.yaml")
    precious = tmp_path / "precious"
    shutil.copytree(whole.trial(whole.entries()[0].trial_id).path, precious)
    return tmp_path / "runs"


def write(name: str, content: bytes | str) -> Damage:
    def damage(trial: Path) -> Path:
        (trial / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return trial / name

    return damage


def in_the_place_of(name: str, what: str) -> Damage:
    def damage(trial: Path) -> Path:
        place = trial / name if name else trial
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if what == "a folder":
            place.mkdir()
        elif what == "a file":
            place.write_text("no folder")
        elif what == "a loop":
            place.symlink_to(place.name)
        elif what == "a link to nothing":
            place.symlink_to("nowhere")
        return place

    return damage


def line(number: int, change: Callable[[dict[str, Any]], object], *, again: bool = False) -> Damage:
    """Changes a line of the metrics, or adds a changed line behind it."""

    def damage(trial: Path) -> Path:
        file = trial / "metrics.jsonl"
        lines = file.read_text().splitlines()
        record = json.loads(lines[number])
        changed = change(record)
        text = changed if isinstance(changed, str) else json.dumps(record)
        lines[number + again : number + 1] = [text]
        file.write_text("\n".join(lines) + "\n")
        return file

    return damage


def plan(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the plan of the sweep that the trial is in. ``change`` may return the new text."""

    def damage(trial: Path) -> Path:
        file = trial.parents[1] / "plan.json"
        values = json.loads(file.read_text())
        changed = change(values)
        file.write_bytes(changed if isinstance(changed, bytes) else json.dumps(values).encode())
        return file

    return damage


def stray(name: str, what: str) -> Damage:
    def damage(trial: Path) -> Path:
        place = trial.parent / name
        if what == "a file":
            place.write_text("a note")
        elif what == "a folder":
            place.mkdir()
        else:
            place.symlink_to({"a link to nothing": "nowhere", "a link out": "../../../precious"}[what])
        return place

    return damage


LEFT_OUT = {
    "a file in the place of the folder": in_the_place_of("", "a file"),
    "a loop in the place of the folder": in_the_place_of("", "a loop"),
    "a link to nothing in the place of the folder": in_the_place_of("", "a link to nothing"),
    "a folder in the place of the status": in_the_place_of("status.json", "a folder"),
    "a loop in the place of the status": in_the_place_of("status.json", "a loop"),
    "a folder in the place of the metrics": in_the_place_of("metrics.jsonl", "a folder"),
    "a loop in the place of the metrics": in_the_place_of("metrics.jsonl", "a loop"),
    "a line cut short": line(1, lambda record: json.dumps(record)[:30]),
    "a line that is nested without end": line(1, lambda record: "[" * 100_000),
    "a line without its iteration": line(1, lambda record: record.pop("iteration")),
    "a line without its time": line(1, lambda record: record.pop("timestamp")),
    "a time that no calendar has": line(1, lambda record: record.update(timestamp=10**18)),
    "an epoch that is text": line(1, lambda record: record.update(epoch="1")),
    "an epoch that is a truth": line(1, lambda record: record.update(epoch=True)),
    "a metric that is text": line(2, lambda record: record.update(exact_w1="low")),
    "a metric that is nothing": line(2, lambda record: record.update(exact_w1=None)),
    "a metric beyond all numbers": line(2, lambda record: record.update(exact_w1=10**400)),
    "an epoch twice with other numbers": line(2, lambda record: record.update(exact_w1=9.0), again=True),
    "an epoch behind a later one": line(2, lambda record: record.update(epoch=1), again=True),
}
"""Damages because of which a trial is left out: its numbers are missing from whatever is shown."""

LOST = {
    "a status cut short": write("status.json", '{"state": "DO'),
    "a status without text": write("status.json", b"\xff\xfe\x00"),
    "a status nested without end": write("status.json", "[" * 100_000),
    "attempts that are none": write("status.json", '{"state": "DONE", "attempts": [5]}'),
    "a time that is text": write("status.json", '{"state": "DONE", "attempts": [{"started": "today"}]}'),
    "an origin that is none": write("status.json", '{"state": "DONE", "attempts": [], "continued_from": "../.."}'),
}
"""Damages because of which a trial is LOST."""

HARMLESS = {
    "an epoch twice with equal numbers": line(2, lambda record: None, again=True),
    "a metric that is not a number": line(1, lambda record: record.update(penalty=float("nan"))),
    "a key of a newer version": plan(lambda values: values["trials"][0].update(budget=5)),
    "a plan's key of a newer version": plan(lambda values: values.update(decisions=[])),
}
"""What looks strange and is none: nothing is told, and all numbers are there."""

TOLD = {
    "references cut short": write("references.json", '{"floor": {'),
    "references of the wrong kind": write("references.json", '{"floor": [1], "metrics": 5}'),
    "a folder in the place of the references": in_the_place_of("references.json", "a folder"),
    "a file in trials": stray("notes.txt", "a file"),
    "a link to nothing in trials": stray("0123456789ab", "a link to nothing"),
    "a link out of the runs directory in trials": stray("0123456789ab", "a link out"),
    "a folder of another name in trials": stray("copy of a trial", "a folder"),
}
"""Damages that cost no number."""


def first_of(values: dict[str, Any]) -> dict[str, Any]:
    return values["trials"][0]


PARTS = {
    "a trial without its epochs": plan(lambda values: first_of(values).pop("epochs")),
    "a trial whose seed is text": plan(lambda values: first_of(values).update(seed="0")),
    "a trial whose axes are a list": plan(lambda values: first_of(values).update(axes=[1])),
    "a trial_id that is a path": plan(lambda values: first_of(values).update(trial_id="../../../precious")),
    "a trial_id that is absolute": plan(lambda values: first_of(values).update(trial_id="/tmp")),
    "a trial that is text": plan(lambda values: values["trials"].insert(0, "0123456789ab")),
    "a trial twice": plan(lambda values: values["trials"].append(first_of(values))),
    "a plan without its retries": plan(lambda values: values.pop("retries")),
}
"""Damages of a plan of which the rest can be read."""

PLANS = {
    "a plan without text": plan(lambda values: b"\xff\xfe{}"),
    "a plan cut short": plan(lambda values: b'{"trials": ['),
    "a plan nested without end": plan(lambda values: b"[" * 100_000),
    "a plan without trials": plan(lambda values: values.pop("trials")),
    "a plan that compares by nothing": plan(lambda values: values["compare"].pop("metric")),
    "a plan whose retries are text": plan(lambda values: values.update(retries="two")),
    "a loop in the place of the plan": lambda trial: in_the_place_of("plan.json", "a loop")(trial.parents[1]),
}
"""Damages because of which nothing of the sweep can be read."""


def damaged(runs: Path, damage: Damage) -> tuple[SweepStore, str]:
    """The sweep, of whose first trial something is damaged, and the path of what is damaged."""
    store = SweepStore(runs, "hand")
    return store, str(damage(store.trial(store.entries()[0].trial_id).path))


def rows(out: str) -> dict[str, str]:
    """The rows of the cells in a CSV table, without the remarks."""
    return {text.split(",")[1]: text.rpartition(",")[0] for text in out.splitlines()[1:]}


def trials(out: str) -> dict[str, Any]:
    return {trial["trial_id"]: trial for trial in json.loads(out)["trials"]}


def assert_others_are_whole(command_line: CommandLine, runs: Path) -> None:
    """Commands about the other sweep end well and say nothing of the damage."""
    for command in (["export"], ["resume", "--offline"], ["status"], ["prune", "--dry-run"]):
        code, _, errors = command_line(command[0], "other", *command[1:], "--runs-dir", runs)
        assert (code, errors) == (0, ""), command


def assert_precious(runs: Path) -> None:
    precious = runs.parent / "precious"
    assert {file.name for file in precious.iterdir()} >= {"checkpoint.pt", "checkpoint-previous.pt", "best.pt"}


def pruned(command_line: CommandLine, runs: Path) -> tuple[int, str]:
    """Prunes all that can be pruned, first without deleting. Returns the exit code and the messages."""
    options = ["--checkpoints", "--removed", "--runs-dir", runs]
    code, out, errors = command_line("prune", "hand", "--dry-run", *options)
    assert code == 0
    told = [line_.split()[-1] for line_ in out.splitlines()[:-1]]
    before = {str(path) for path in runs.rglob("*")}
    assert set(told) <= before
    code, _, more = command_line("prune", "hand", *options)
    gone = before - {str(path) for path in runs.rglob("*")}
    assert gone == {each for each in before if any(each == one or each.startswith(f"{one}/") for one in told)}
    return code, errors + more


@pytest.mark.parametrize("damage", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_trial_that_cannot_be_read_is_named_and_left_out(
    runs: Path, table: str, states: dict[str, Any], command_line: CommandLine, damage: Damage
) -> None:
    store, place = damaged(runs, damage)
    bad, *others = store.entries()
    code, out, errors = command_line("export", "hand", "--format", "csv", "--runs-dir", runs)
    assert code == 1
    assert place in errors
    assert rows(out)["2"] == rows(table)["2"]
    assert rows(out)["1"].split(",")[4] == "1"  # the mean is over one seed, and says so
    for arguments in (["status"], ["status", "hand"], ["status", "hand", "--json"]):
        code, out, errors = command_line(*arguments, "--runs-dir", runs)
        assert code == 1
        assert str(store.trial(bad.trial_id).path) in errors
    found = trials(out)
    assert all(found[entry.trial_id] == states[entry.trial_id] for entry in others)
    assert found[bad.trial_id]["error"]
    pruned(command_line, runs)
    assert_precious(runs)


@pytest.mark.parametrize("name", ["a file in the place of the folder", "a line cut short"])
def test_a_sweep_whose_results_cannot_all_be_read_has_not_ended_well(
    runs: Path, command_line: CommandLine, name: str
) -> None:
    _, place = damaged(runs, LEFT_OUT[name])
    code, out, _ = command_line("resume", "hand", "--offline", "--executor", "local", "--runs-dir", runs)
    assert code == 1
    assert f"is skipped: {place}" in out
    assert_others_are_whole(command_line, runs)


@pytest.mark.parametrize("damage", LOST.values(), ids=LOST)
def test_a_damaged_status_is_named_and_the_trial_is_lost(runs: Path, command_line: CommandLine, damage: Damage) -> None:
    _, place = damaged(runs, damage)
    code, out, errors = command_line("export", "hand", "--format", "csv", "--runs-dir", runs)
    assert (code, place in errors, "1 of 2 LOST" in out) == (1, True, True)
    for arguments in (["status"], ["status", "hand"], ["status", "hand", "--json"]):
        code, _, errors = command_line(*arguments, "--runs-dir", runs)
        assert (code, Path(place).parent.name in errors) == (1, True)
    pruned(command_line, runs)


@pytest.mark.parametrize("damage", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_damage_changes_nothing(runs: Path, table: str, command_line: CommandLine, damage: Damage) -> None:
    damaged(runs, damage)
    assert command_line("export", "hand", "--format", "csv", "--runs-dir", runs) == (0, table, "")
    assert command_line("status", "hand", "--runs-dir", runs)[::2] == (0, "")


@pytest.mark.parametrize("damage", TOLD.values(), ids=TOLD)
def test_damage_that_costs_no_number_is_a_note(
    runs: Path, table: str, command_line: CommandLine, damage: Damage
) -> None:
    _, place = damaged(runs, damage)
    code, out, errors = command_line("export", "hand", "--format", "csv", "--runs-dir", runs)
    assert (code, out) == (0, table)
    code, _, more = command_line("status", "hand", "--runs-dir", runs)
    assert code == 0
    assert f"note: {place}: is" in errors + more
    code, _ = pruned(command_line, runs)
    assert code == 0
    assert os.path.lexists(place)
    assert command_line("resume", "hand", "--offline", "--runs-dir", runs)[0] == 0
    assert_precious(runs)


@pytest.mark.parametrize("damage", PARTS.values(), ids=PARTS)
def test_a_part_of_the_plan_that_cannot_be_read_is_named_and_left_out(
    runs: Path, whole: SweepStore, table: str, command_line: CommandLine, damage: Damage
) -> None:
    export = ["export", "hand", "--format", "csv"]
    folders = set((runs / "hand" / "trials").iterdir())
    store, place = damaged(runs, damage)
    for arguments in (export, ["status"], ["status", "hand", "--json"]):
        code, out, errors = command_line(*arguments, "--runs-dir", runs)
        assert (code, place in errors, "run the sweep file again" in errors) == (1, True, True)
        assert arguments != export or rows(out)["2"] == rows(table)["2"]
    assert json.loads(out)["removed"] == 0
    pruned(command_line, runs)
    assert set((runs / "hand" / "trials").iterdir()) == folders  # nobody knows that a trial was removed
    assert_precious(runs)
    assert command_line("sweep", runs.parent / "sweep.yaml", "--offline", "--runs-dir", runs)[0] == 0
    assert store.plan() == {**whole.plan(), "file": str(runs.parent / "sweep.yaml")}


@pytest.mark.parametrize("damage", PLANS.values(), ids=PLANS)
def test_a_damaged_plan_beside_a_dead_driver_stops_no_other_sweep_and_is_written_anew(
    runs: Path, whole: SweepStore, command_line: CommandLine, damage: Damage
) -> None:
    store, place = damaged(runs, damage)
    dead = replace(this_process(), started=1, host=socket.gethostname())
    for command in ("status", "export", "plot", "report", "prune", "resume", "sync", "stop"):
        code, _, errors = command_line(command, "hand", "--runs-dir", runs)
        assert code == 2, command
        assert errors.startswith(f"orchestrator: {place}: ") or command == "stop"
    store.driver_file.write_text(json.dumps(asdict(dead)))
    code, _, errors = command_line("status", "--runs-dir", runs)
    assert (code, place in errors) == (1, True)
    assert command_line("resume", "other", "--offline", "--runs-dir", runs)[0] == 0
    assert not store.driver_file.exists()
    assert_others_are_whole(command_line, runs)
    store.driver_file.write_text(json.dumps(asdict(dead)))
    code, out, errors = command_line("sweep", runs.parent / "sweep.yaml", "--offline", "--runs-dir", runs)
    assert (code, errors) == (0, ""), out
    assert store.plan()["trials"] == whole.plan()["trials"]


PICTURES = {
    "a torn picture": lambda trial: write(
        "samples/epoch_000002.png", (trial / "samples" / "epoch_000002.png").read_bytes()[:60]
    )(trial),
    "a picture that is none": write("samples/epoch_000002.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "a folder that is a picture": in_the_place_of("samples/epoch_000002.png", "a folder"),
    "a file in the place of the pictures": in_the_place_of("samples", "a file"),
    "a line without its iteration": LEFT_OUT["a line without its iteration"],
    "a trial_id that is a path": PARTS["a trial_id that is a path"],
    "a sweep file of aliases": lambda trial: write("sweep.yaml", BOMB)(trial.parents[1]),
    "a sweep file that is none": lambda trial: write("sweep.yaml", "just text")(trial.parents[1]),
    "a configuration of aliases": lambda trial: write("config.yaml", BOMB)(trial),
}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("damage", PICTURES.values(), ids=PICTURES)
def test_a_report_is_written_without_what_cannot_be_read(runs: Path, command_line: CommandLine, damage: Damage) -> None:
    _, place = damaged(runs, damage)
    code, out, errors = command_line("report", "hand", "--runs-dir", runs)
    assert code in (0, 1)
    assert code == 0 or place in errors
    assert Path(out.strip()).read_text().count("<figure") >= 3


def test_all_trials_that_cannot_be_read_are_told_and_nothing_is_shown(runs: Path, command_line: CommandLine) -> None:
    store = SweepStore(runs, "hand")
    for entry in store.entries():
        store.trial(entry.trial_id).metrics_file.write_text("{}\n")
    assert command_line("status", "hand", "--runs-dir", runs)[0] == 1
    for command in ("export", "plot", "report"):
        code, _, errors = command_line(command, "hand", "--runs-dir", runs)
        assert code == 2
        assert all(str(store.trial(entry.trial_id).metrics_file) in errors for entry in store.entries())
    assert command_line("resume", "hand", "--offline", "--runs-dir", runs)[0] == 1
    assert all(store.trial(entry.trial_id).status().state is State.DONE for entry in store.entries())


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Within the context this process has the rights of another user."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("what", ["the trial's folder", "status.json", "metrics.jsonl", "the sweep's folder"])
def test_what_another_user_may_not_read_is_named_and_left_out(runs: Path, command_line: CommandLine, what: str) -> None:
    command_line("export", "hand", "--runs-dir", runs)  # imports what the other user may not
    command_line("status", "--runs-dir", runs)
    with tempfile.TemporaryDirectory(prefix="orchestrator-test-") as folder:
        place = Path(folder) / "runs"
        shutil.copytree(runs, place)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        store = SweepStore(place, "hand")
        trial = store.trial(store.entries()[0].trial_id).path
        closed = {"the trial's folder": trial, "the sweep's folder": store.path}.get(what, trial / what)
        closed.chmod(0)
        with as_nobody():
            answers = {
                command: command_line(*command, "--runs-dir", place)
                for command in (("status",), ("status", "hand"), ("export", "hand"), ("export", "other"))
            }
        closed.chmod(0o755)
    assert answers.pop(("export", "other"))[::2] == (0, "")
    for command, (code, _, errors) in answers.items():
        assert code == (2 if what == "the sweep's folder" and command != ("status",) else 1)
        assert str(trial if "sweep" not in what else store.path) in errors
        assert "Permission denied" in errors


def test_sync_brings_everything_level_but_what_cannot_be_read(
    runs: Path, command_line: CommandLine, empty_database: Path
) -> None:
    shutil.copy(empty_database, runs / "mlflow.db")
    store = SweepStore(runs, "hand")
    first, second, third, fourth = (store.trial(entry.trial_id).path for entry in store.entries())
    cut = LEFT_OUT["a line without its iteration"](first)
    torn = PICTURES["a torn picture"](second)
    status = LOST["a status cut short"](third)
    code, out, errors = command_line("sync", "hand", "--runs-dir", runs)
    assert (code, errors) == (1, "")
    assert out.startswith("MLflow is up to date with 'hand', except for:\n")
    assert all(str(place) in out for place in (cut, torn, status.parent))
    client = quiet_client(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'hand'")
    found = {
        run.data.tags["orchestrator.trial_id"]: run.data
        for run in client.search_runs([experiment.experiment_id])
        if "orchestrator.trial_id" in run.data.tags
    }
    assert found[fourth.name].metrics["exact_w1"] == 3.5
    assert found[second.name].metrics["exact_w1"] == 1.5
    assert "exact_w1" in found[first.name].metrics  # that of the epoch before the damage
    plan(lambda values: first_of(values).pop("epochs"))(fourth)
    assert command_line("sync", "hand", "--runs-dir", runs)[0] == 1
    assert len(client.search_runs([experiment.experiment_id])) == len(found) + 1  # no run was deleted

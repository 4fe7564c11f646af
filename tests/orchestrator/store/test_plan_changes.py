"""A sweep file that is edited after decisions: what goes on, what comes and goes, and what needs another name."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine
from grown_sweeps import HEAD, RACE, SEARCH, grown, plan, run
from hand_made import plan_file, write_file

from orchestrator.errors import UserError
from orchestrator.store.plan_changes import changes
from orchestrator.store.sweep import SweepStore

VARIANTS = """\
variants:
  a: {grid: {penalty.weight: [1, 10]}}
  b: {base: [batch_size=9], grid: {penalty.weight: [1]}}
"""
GONE = "  b: {base: [batch_size=9], grid: {penalty.weight: [1]}}\n"
SEARCHED = HEAD + VARIANTS + SEARCH.partition("\n")[2]
CONFIRMED = HEAD + VARIANTS + "seeds: 2\nconfirm: {best: 1, seeds: 2}\n"


def ids(store: SweepStore, stage: str | None = None) -> list[str]:
    return [entry.trial_id for entry in store.entries() if stage in (None, entry.stage)]


def edit(text: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return text


def told(folder: Path, store: SweepStore, text: str) -> str:
    return "\n".join(changes(store, plan_file(write_file(folder, text))))


@pytest.mark.parametrize(
    ("text", "edits", "stage", "added", "words"),
    [
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 5")],
            "search",
            4,
            ["10 of its 10 trials stay, 0 are added at once and 4 to 8 by decisions", "5 proposals instead of 3"],
            id="more proposals",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 4"), ("interval(1e-4, 1e-2)", "interval(1e-6, 1e-5)")],
            "search",
            2,
            ["g weight=1, g weight=10: 4 proposals instead of 3, another space"],
            id="another space",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 4"), ("critic.lr:", "generator.lr:")],
            "search",
            2,
            ["another space"],
            id="another option",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 4"), ("random", "sobol")],
            "search",
            2,
            ["the sampler sobol with seed 0"],
            id="another sampler",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 4"), ("device=cpu", "device=cpu, critic.lr=0.5")],
            "search",
            2,
            ["4 proposals instead of 3"],
            id="another value of what is searched",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("trials: 3", "trials: 4"), ("[1, 10]", "[10.0, 1.0]")],
            "search",
            2,
            ["g weight=10, g weight=1: 4 proposals"],
            id="the same values written otherwise",
        ),
        pytest.param(
            HEAD + SEARCH,
            [("seeds: 2", "seeds: 4")],
            "confirm",
            4,
            ["confirm: {best: 1, seeds: 4} instead of {best: 1, seeds: 2}"],
            id="more seeds of confirmations",
        ),
        pytest.param(HEAD + SEARCH, [("best: 1", "best: 2")], "confirm", 4, ["best: 2"], id="more cells to confirm"),
        pytest.param(
            HEAD + RACE,
            [("most: 4", "most: 6")],
            "",
            4,
            ["0 to 6 by decisions", "race: {first: 2, most: 6} instead of {first: 2, most: 4}"],
            id="a longer race",
        ),
        pytest.param(
            HEAD + RACE,
            [("most: 4", "most: 6"), ("[1, 10]", "[10.0, 1.0]")],
            "",
            4,
            ["race: {first: 2, most: 6}"],
            id="a longer race, the same values written otherwise",
        ),
        pytest.param(CONFIRMED, [("[1, 10]", "[1, 10, 20]")], "", 2, ["2 are added"], id="another cell to choose from"),
    ],
)
def test_what_was_decided_stays_and_decisions_go_on(
    tmp_path: Path, text: str, edits: list[tuple[str, str]], stage: str, added: int, words: list[str]
) -> None:
    store = grown(tmp_path, text)
    before, log = ids(store), store.decisions_file.read_bytes()
    edited = edit(text, *edits)
    lines = told(tmp_path, store, edited)
    assert all(word in lines for word in words), lines
    store = plan(tmp_path, edited)
    assert set(before) <= set(ids(store))
    ended = run(store)
    assert len([entry for entry in ended if entry.stage == stage]) == added
    assert {entry.stage for entry in ended} <= {stage, "confirm"}  # another cell may be the best by now
    assert set(before) | {entry.trial_id for entry in ended} == set(ids(store))
    assert store.decisions_file.read_bytes().startswith(log)
    assert run(store) == []
    assert told(tmp_path, store, edited) == ""


@pytest.mark.parametrize(
    ("text", "edits", "what"),
    [
        pytest.param(
            HEAD + SEARCH, [("exact_w1", "critic_loss")], "another metric than exact_w1 (min)", id="another metric"
        ),
        pytest.param(HEAD + SEARCH, [("min", "max")], "another metric than exact_w1 (min)", id="another direction"),
        pytest.param(HEAD + SEARCH, [("confirm", "seeds: 2\nconfirm")], "other seeds than [0]", id="other seeds"),
        pytest.param(
            HEAD + SEARCH, [("budget=40", "budget=60")], "another configuration of 'g weight=1'", id="another base"
        ),
        pytest.param(HEAD + RACE, [("first: 2", "first: 3")], "another number of first seeds than 2", id="first seeds"),
        pytest.param(HEAD + RACE, [("[1, 10]", "[1, 10, 20]")], "other cells in its race", id="a cell more in a race"),
        pytest.param(HEAD + RACE, [("[1, 10]", "[1, 20]")], "other cells in its race", id="another cell in a race"),
        pytest.param(
            HEAD + RACE, [("budget=40", "budget=60")], "another configuration of 'g weight=1'", id="another race"
        ),
        pytest.param(
            CONFIRMED, [("[1, 10]", "[1, 20]")], "leaving out 'a weight=10'", id="another cell that was not the best"
        ),
        pytest.param(CONFIRMED, [("[1, 10]", "[10]")], "leaving out 'a weight=1'", id="the best cell left out"),
        pytest.param(
            CONFIRMED,
            [("budget=40", "budget=60")],
            "another configuration of 'a weight=1'",
            id="confirmed: another base",
        ),
    ],
)
def test_what_changes_the_meaning_of_decisions_needs_another_name(
    tmp_path: Path, command_line: CommandLine, text: str, edits: list[tuple[str, str]], what: str
) -> None:
    store = grown(tmp_path, text)
    before = (store.path / "plan.json").read_bytes()
    path = write_file(tmp_path, edit(text, *edits))
    made = len(store.decisions_file.read_text().splitlines())
    for more in (["--dry-run"], ["--offline", "--executor", "local"]):
        code, out, message = command_line("sweep", path, "--runs-dir", store.runs_dir, *more)
        assert (code, out) == (2, "")
        assert message == (
            f"orchestrator: {path}: the sweep 'g' has made {made} decisions, and {what} would change what they mean; "
            "undo that, or give the sweep another name with --name\n"
        )
    assert (store.path / "plan.json").read_bytes() == before


@pytest.mark.parametrize("text", [SEARCHED, CONFIRMED], ids=["searched", "confirmed"])
def test_a_variant_that_is_removed_takes_its_trials_along_and_brings_them_back(tmp_path: Path, text: str) -> None:
    store = grown(tmp_path, text)
    before = ids(store)
    without = edit(text, (GONE, ""))
    of_b = [entry.trial_id for entry in store.entries() if entry.variant == "b"]
    assert {entry.stage for entry in store.entries() if entry.variant == "b"} >= {"confirm"}
    assert f"{len(of_b)} are removed from its plan and tables: b weight=1" in told(tmp_path, store, without)
    store = plan(tmp_path, without)
    assert ids(store) == [each for each in before if each not in of_b]
    assert {trial.trial_id for trial in store.removed()} == set(of_b)
    assert run(store) == []
    assert f"{len(of_b)} are added" in told(tmp_path, store, text)
    store = plan(tmp_path, text)
    assert sorted(ids(store)) == sorted(before)
    assert run(store) == []


def test_a_variant_that_comes_back_with_another_base_needs_another_name(tmp_path: Path) -> None:
    grown(tmp_path, SEARCHED)
    plan(tmp_path, edit(SEARCHED, (GONE, "")))
    with pytest.raises(UserError, match="another configuration of 'b weight=1' would change"):
        plan(tmp_path, edit(SEARCHED, ("batch_size=9", "batch_size=10")))


def test_a_race_that_comes_back_has_its_own_cells(tmp_path: Path) -> None:
    store = grown(tmp_path, HEAD + RACE)
    before = ids(store)
    fixed = edit(HEAD + RACE, ("{first: 2, most: 4}", "3"))
    assert "race: none instead of {first: 2, most: 4}" in told(tmp_path, store, fixed)
    store = plan(tmp_path, fixed)
    assert len(ids(store, "")) == 6
    with pytest.raises(UserError, match="other cells in its race"):
        plan(tmp_path, edit(HEAD + RACE, ("[1, 10]", "[1, 20]")))
    assert sorted(ids(plan(tmp_path, HEAD + RACE))) == sorted(before)


def test_without_confirm_its_trials_leave_the_plan(tmp_path: Path) -> None:
    store = grown(tmp_path, HEAD + SEARCH)
    assert len(ids(store, "confirm")) == 4
    without = edit(HEAD + SEARCH, ("confirm: {best: 1, seeds: 2}\n", ""))
    assert "4 are removed" in told(tmp_path, store, without)
    assert ids(plan(tmp_path, without), "confirm") == []
    assert len(ids(plan(tmp_path, HEAD + SEARCH), "confirm")) == 4


def test_damaged_decisions_are_told_before_a_plan_is_written(tmp_path: Path, command_line: CommandLine) -> None:
    store = grown(tmp_path, HEAD + SEARCH)
    lines = store.decisions_file.read_text().splitlines(keepends=True)
    store.decisions_file.write_text("".join([lines[0], "{}\n", *lines[2:]]))
    before = (store.path / "plan.json").read_bytes()
    path = write_file(tmp_path, edit(HEAD + SEARCH, ("trials: 3", "trials: 4")))
    for more in (["--dry-run"], ["--offline", "--executor", "local"]):
        code, out, message = command_line("sweep", path, "--runs-dir", store.runs_dir, *more)
        assert (code, out) == (2, "")
        assert f"{store.decisions_file}: line 2 is damaged" in message
        assert "delete this line and all that follow, then resume" in message
    assert (store.path / "plan.json").read_bytes() == before

"""A sweep that grows has two tables, what was explored and what is confirmed, and their trials never share a row."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import CommandLine
from decided_sweeps import METRIC, RACE, SEARCH, end, grow, look, make_searched
from hand_made import finish, make_sweep
from rich.console import Console

import orchestrator
from orchestrator.driver.conclusion import _show_table
from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import FEW, FORMATS, few_proposals
from orchestrator.results.stages import stage_notes
from orchestrator.results.tables import EARLIER, Row, Table
from orchestrator.results.verdict_text import all_notes, answer, sentences
from orchestrator.store.sweep import Entry, SweepStore

CONFIRM = "confirm: {best: 1, seeds: 3}\n"


def tuned(entry: Entry) -> float | None:
    """The best critic.lr is 1e-3; the best weight is 1, and 10 with two critic iterations. Seeds differ a little.

    Above 5e-3 trials diverge.
    """
    axes = entry.axes
    rate = axes.get("critic.lr", 1e-3)
    if rate > 5e-3:
        return None
    best = axes.get("critic_iterations", 1) - 1
    far = 0.1 * abs(math.log10(rate) + 3) + abs(math.log10(axes.get("penalty.weight", 1)) - best)
    better = {1: 0.0, 2: 4.0}[axes.get("critic_iterations", 2)] + {1e-3: 0.0, 1e-4: 0.5}[axes.get("generator.lr", 1e-3)]
    return 2.0 + far + better + 0.1 * (entry.seed % 3)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Four searched cells of six proposals, one cell that is not searched; the best of each is confirmed."""
    return make_searched(tmp_path_factory.mktemp("searched"), tuned)


@pytest.fixture(scope="module")
def unconfirmed(searched: SweepStore, tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """The same search, whose sweep file asks for no confirmation."""
    folder = tmp_path_factory.mktemp("unconfirmed")
    shutil.copytree(searched.path, folder / "runs" / "searched")
    shutil.rmtree(folder / "runs" / "searched" / "tables", ignore_errors=True)
    return make_sweep(folder, SEARCH.replace(CONFIRM, ""))


def cells(table: Table) -> list[Row]:
    return [row for row in table.rows if not row.reference]


def seeds_of(store: SweepStore, row: Row) -> list[int]:
    return sorted(entry.seed for entry in store.entries() if entry.trial_id in row.trials)


# which table


def test_a_confirmed_table_has_fresh_seeds_alone(searched: SweepStore) -> None:
    rows = cells(comparison_table(searched))
    assert len(rows) == 5  # the best of each of four searches, and the one cell of the other method
    for row in rows:
        assert (row.stage, row.seeds, seeds_of(searched, row)) == ("confirm", 3, [1000, 1001, 1002])
        assert row.values[METRIC].count == 3


def test_an_explored_table_has_what_decisions_rested_on(searched: SweepStore) -> None:
    rows = cells(comparison_table(searched, stage="explored"))
    assert [row.stage for row in rows].count("search") == 4 * 6
    for row in rows:
        assert (row.stage in ("", "search"), row.seeds, seeds_of(searched, row)) == (True, 2, [0, 1])


def test_the_cell_of_a_race_that_is_confirmed_has_a_row_in_each_table(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, RACE + CONFIRM)
    grow(store, lambda entry: 1.0 + len(entry.setting) + 0.1 * entry.seed)
    explored, confirmed = comparison_table(store, stage="explored"), comparison_table(store)
    assert all(seeds_of(store, row) == list(range(row.seeds)) for row in cells(explored))
    assert len(cells(explored)) == 5
    assert {row.label: seeds_of(store, row) for row in cells(confirmed)}["wgan"] == [1000, 1001, 1002]


def test_the_explored_table_is_shown_until_a_confirmation_has_a_value(tmp_path: Path) -> None:
    text = SEARCH.replace(", generator.lr: [1e-3, 1e-4]", "")
    store = make_searched(tmp_path, tuned, text, until=lambda entry: entry.stage != "confirm")
    waiting = [entry for entry in store.entries() if entry.stage == "confirm"]
    assert waiting
    end(store, waiting[0], None)  # diverged: that is no value
    table = comparison_table(store)
    assert [each.shown for each in table.grown] == ["explored"]
    assert "the best ones are run again with 3 fresh seeds when everything here has ended" in " ".join(all_notes(table))
    with pytest.raises(UserError, match="has no confirmed cells: its confirmation has no value yet"):
        comparison_table(store, stage="confirmed")
    end(store, waiting[1], 2.5)
    table = comparison_table(store)
    assert [each.shown for each in table.grown] == ["confirmed"]
    assert {row.stage for row in cells(table)} == {"confirm"}


def test_asking_for_what_is_not_confirmed_is_an_error(
    unconfirmed: SweepStore, store: SweepStore, command_line: CommandLine
) -> None:
    for each in (unconfirmed, store):  # a search without a confirmation, and a sweep that does not grow
        for entry in each.entries() if each is store else []:
            finish(each, entry, {METRIC: 1.0})
        words = ("export", each.name, "--runs-dir", str(each.runs_dir), "--stage")
        code, output, errors = command_line(*words, "confirmed")
        assert (code, output) == (2, "")
        assert "--stage confirmed" in errors
        assert "add confirm: {best: 1, seeds: 10}" in errors
        assert command_line(*words, "explored")[0] == 0
    code, _, errors = command_line(*words, "confirmd")
    assert (code, "expected explored or confirmed" in errors) == (2, True)


def test_before_a_search_has_ended_its_confirmation_is_still_to_come(tmp_path: Path) -> None:
    text = SEARCH.replace(", generator.lr: [1e-3, 1e-4]", "")
    store = make_searched(tmp_path, tuned, text, until=lambda entry: entry.seed == 0)
    with pytest.raises(UserError, match="its confirmation begins when everything that it rests on has ended"):
        comparison_table(store, stage="confirmed")


def test_the_command_reaches_both_tables(searched: SweepStore, command_line: CommandLine) -> None:
    words = ("export", searched.name, "--runs-dir", str(searched.runs_dir), "--format", "csv")
    by_default, confirmed, explored = (
        pd.read_csv(io.StringIO(command_line(*words, *more)[1]))
        for more in ((), ("--stage", "confirmed"), ("--stage", "explored"))
    )
    pd.testing.assert_frame_equal(by_default, confirmed)
    assert set(confirmed["stage"].dropna()) == {"confirm"}
    assert explored["proposal"].dropna().astype(int).value_counts().to_dict() == dict.fromkeys(range(6), 4)


def test_reference_rows_are_those_of_the_table_s_seeds(searched: SweepStore) -> None:
    untrained = [
        next(row for row in comparison_table(searched, stage=stage).rows if row.reference).values[METRIC].mean
        for stage in ("explored", "confirmed")
    ]
    by_seed = [[99.0 + seed % 7 for seed in seeds] for seeds in ((0, 1), (1000, 1001, 1002))]
    # of those that diverged the untrained generator has another value
    assert untrained[1] == pytest.approx(np.mean(by_seed[1]))
    assert untrained[0] != pytest.approx(untrained[1])


def test_two_sweeps_choose_their_tables_each(searched: SweepStore, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(searched.path, runs / "searched")
    fixed = make_sweep(tmp_path, RACE.replace("{first: 3, most: 8}", "2").replace("name: raced", "name: fixed"))
    for entry in fixed.entries():
        finish(fixed, entry, {METRIC: 9.0 + entry.seed}, untrained={METRIC: 99.0})
    table = comparison_table(SweepStore(runs, "searched"), fixed)
    assert {(row.sweep, row.stage) for row in cells(table)} == {("searched", "confirm"), ("fixed", "")}
    assert "fresh" not in answer(table).splitlines()[0]  # one word for both would be wrong for one of them


# notes and verdict


def test_a_confirmed_table_says_how_its_cells_were_chosen(searched: SweepStore) -> None:
    (note,) = stage_notes(comparison_table(searched).grown, " --runs-dir there")
    assert note == (
        "confirmed: the search chose each cell as the best of 6 proposals, or of 1 cell of its method, "
        "which flatters its values there; "
        "here it is run again with 3 fresh seeds, which no decision has seen; "
        "all that was tried: orchestrator export searched --stage explored --runs-dir there"
    )
    for form in ("markdown", "latex", "html", "json"):
        assert "which no decision has seen" in FORMATS[form][1](comparison_table(searched))


def test_an_explored_table_says_that_its_best_is_flattered(searched: SweepStore, unconfirmed: SweepStore) -> None:
    (there,), (none,) = (stage_notes(comparison_table(s, stage="explored").grown) for s in (searched, unconfirmed))
    flattered = "the best of 6 proposals is flattered, because luck helps to choose it; "
    assert there == f"{flattered}the best ones again, with fresh seeds: orchestrator export searched"
    assert none == (
        f"{flattered}to run the best ones again with fresh seeds, add confirm: {{best: 1, seeds: 10}} "
        "to the sweep file, and run it again"
    )


def test_main_effects_of_confirmed_cells_are_those_at_tuned_settings(searched: SweepStore) -> None:
    verdict = comparison_table(searched).verdict
    assert verdict is not None
    assert verdict.stage == "confirmed"
    iterations, rate = verdict.effects
    assert (iterations.axis, rate.axis) == ("critic_iterations", "generator.lr")
    assert (iterations.tuned, iterations.tested, iterations.levels[1].worse) == (True, True, True)
    told = sentences(verdict)
    assert told[0].startswith("wgan-gp critic_iterations=1 ")
    assert "over 3 fresh seeds" in told[0]
    effect = "Main effect of critic_iterations in wgan-gp at tuned settings, mean over generator.lr:"
    assert any(sentence.startswith(effect) for sentence in told)
    assert any("(the one that was confirmed, " in sentence for sentence in told)


def test_an_explored_table_has_the_best_proposal_of_each_search_and_no_main_effects(searched: SweepStore) -> None:
    table = comparison_table(searched, stage="explored")
    verdict = table.verdict
    assert verdict is not None
    assert verdict.effects == ()
    assert [each.searched for each in verdict.variants].count(True) == 4
    names = {each.variant for each in verdict.variants}
    assert names == {
        "wgan",
        *(f"wgan-gp critic_iterations={n} generator.lr={r}" for n in (1, 2) for r in (0.001, 0.0001)),
    }
    for each in verdict.variants:
        group = [row for row in cells(table) if row.label.startswith(each.variant + " ") and not row.lacks(METRIC)]
        if each.searched:
            assert each.cell.value.mean == min(row.values[METRIC].mean for row in group)
    told = sentences(verdict)
    assert "proposals, which flatters it)" in told[0]
    assert any(
        sentence.startswith("Best proposal of each cell that was searched, and best cell of each other method")
        for sentence in told
    )


def test_proposals_that_happen_to_be_a_full_grid_have_no_main_effects(tmp_path: Path) -> None:
    text = SEARCH.replace(", generator.lr: [1e-3, 1e-4]", "").replace("trials: 6", "trials: 3")
    text = text.replace('        critic.lr: "tag(log, interval(1e-4, 1e-2))"\n', "").replace(CONFIRM, "")
    store = make_searched(tmp_path, tuned, text)
    table = comparison_table(store)
    assert len(cells(table)) == 2 * 3 + 1
    assert table.verdict is not None
    assert table.verdict.effects == ()


def test_a_proposal_of_which_a_seed_diverged_is_not_the_best(tmp_path: Path) -> None:
    def flattered(entry: Entry) -> float | None:
        lucky = entry.proposal == 3 and entry.axes["critic_iterations"] == 1
        return (None if entry.seed else 0.001) if lucky else 5.0 + (entry.proposal or 0) + 0.1 * entry.seed

    store = make_searched(tmp_path, flattered, SEARCH.replace(", generator.lr: [1e-3, 1e-4]", ""))
    verdict = comparison_table(store, stage="explored").verdict
    assert verdict is not None
    assert verdict.best.value.mean > 4
    assert len(verdict.flattered) == 1


def test_a_cell_that_a_longer_search_has_outdone_says_so(tmp_path: Path) -> None:
    def later_is_better(entry: Entry) -> float | None:
        return 10.0 - (entry.proposal or 0) + 0.1 * (entry.seed % 3)

    store = make_searched(tmp_path, later_is_better)
    again = make_sweep(tmp_path, SEARCH.replace("trials: 6", "trials: 7"))
    assert again.path == store.path
    grow(store, later_is_better)
    table = comparison_table(store)
    outdone = [row for row in cells(table) if EARLIER in row.remarks]
    assert {row.proposal for row in outdone} == {5}
    assert {row.proposal for row in cells(table) if row not in outdone and row.searched} == {6}
    assert table.verdict is not None
    assert len(table.verdict.effects) == 2  # of the four cells that are chosen now


# programs


def test_json_has_stage_and_proposal_of_each_row(searched: SweepStore) -> None:
    content = json.loads(FORMATS["json"][1](comparison_table(searched, stage="explored")))
    row = next(each for each in content["rows"] if each["stage"] == "search")
    assert (row["proposal"], row["searched"]) == (0, ["critic.lr", "penalty.weight"])
    assert content["verdict"]["stage"] == "explored"


def test_a_sweep_that_does_not_grow_has_no_word_of_it_in_any_format(store: SweepStore) -> None:
    for entry in store.entries():
        finish(store, entry, {METRIC: 1.0 + entry.seed})
    table = comparison_table(store)
    for _, render in FORMATS.values():
        assert not {word for word in ("stage", "proposal", "searched", "race", "tuned") if word in render(table)}


def test_frames_have_stage_and_proposal(searched: SweepStore, store: SweepStore) -> None:
    trials, epochs = orchestrator.load(searched.path)
    assert list(trials.columns[:7]) == ["trial_id", "cell", "variant", "setting", "seed", "stage", "proposal"]
    assert (str(trials["stage"].dtype), str(trials["proposal"].dtype)) == ("category", "Int64")
    entries = searched.entries()
    assert list(trials["stage"]) == [entry.stage for entry in entries]
    assert [None if pd.isna(value) else int(value) for value in trials["proposal"]] == [e.proposal for e in entries]
    assert set(epochs["stage"].unique()) == {"", "search", "confirm"}
    for frame in orchestrator.load(store.path):
        assert not {"stage", "proposal"} & {*frame.columns}


# at the end of a run


def shown(store: SweepStore, width: int) -> str:
    out = io.StringIO()
    _show_table(store, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_best_few_proposals_and_where_the_others_are(unconfirmed: SweepStore, width: int) -> None:
    text = shown(unconfirmed, width)
    assert f"the best {FEW} proposals of each cell that was searched are shown; the 4 others:" in text
    assert f"orchestrator export searched --stage explored --runs-dir {unconfirmed.runs_dir}" in text
    table, _ = few_proposals(comparison_table(unconfirmed))
    groups: dict[str, list[float]] = {}
    for row in cells(table):
        if row.stage == "search":
            fixed = json.dumps([row.axes["critic_iterations"], row.axes["generator.lr"]])
            groups.setdefault(fixed, []).append(row.values[METRIC].mean if not row.lacks(METRIC) else math.inf)
    assert [len(values) for values in groups.values()] == [FEW] * 4
    assert all(values == sorted(values) for values in groups.values())
    markdown = (unconfirmed.tables / "searched.md").read_text()
    assert sum(line.startswith("| wgan-gp |") for line in markdown.splitlines()) == 4 * 6  # files have all of them


def test_the_end_of_a_run_shows_what_is_confirmed_and_writes_both_tables(searched: SweepStore) -> None:
    text = shown(searched, 120)
    assert "over 3 fresh seeds" in text
    files = {name: (searched.tables / f"{name}.csv").read_text() for name in ("searched", "searched-explored")}
    assert files["searched"] == FORMATS["csv"][1](comparison_table(searched))
    assert files["searched-explored"] == FORMATS["csv"][1](comparison_table(searched, stage="explored"))
    assert {path.name for path in searched.tables.iterdir()} == {
        f"searched{stage}.{suffix}" for stage in ("", "-explored") for suffix in ("csv", "md", "tex")
    }


def test_where_nothing_is_confirmed_there_is_one_table(unconfirmed: SweepStore) -> None:
    shown(unconfirmed, 120)
    assert {path.suffix for path in unconfirmed.tables.glob("searched.*")} == {".csv", ".md", ".tex"}
    assert not list(unconfirmed.tables.glob("*-explored*"))


# races


def noisy(entry: Entry) -> float:
    """A clear order of cells: weight 1 before 10, one critic iteration before two, wgan last of all."""
    axes = entry.axes
    base = 2.0 + 3.0 * (axes.get("penalty.weight") == 10) + 0.1 * axes.get("critic_iterations", 99)
    return base + (0.0, 0.3, 0.1, 0.25, 0.2, 0.05, 0.15, 0.12)[entry.seed]


MOST = "the cells that are left have the most seeds"
ONE, TWO = "wgan-gp weight=1 critic_iterations=1", "wgan-gp weight=1 critic_iterations=2"
THREE, FOUR = "wgan-gp weight=10 critic_iterations=1", "wgan-gp weight=10 critic_iterations=2"


def raced(folder: Path, *looks: dict[str, str], ended: str | None = MOST) -> SweepStore:
    """A race of these looks, at 3, 5 and 8 seeds, whose cells are out as the looks say."""
    store = make_sweep(folder, RACE)
    new: Sequence[Entry] = store.entries()
    for number, out in enumerate(looks):
        for entry in new:
            end(store, entry, noisy(entry))
        last = number == len(looks) - 1 and ended is not None
        seeds = None if last else (5, 8)[number]
        new = look(store, number, out, seeds=seeds, ended=ended if last else None, level=0.99)
    return store


def test_a_cell_that_a_race_has_told_apart_is_worse_and_the_best_is_one_that_is_left(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse", FOUR: "worse"}, {THREE: "worse"}, {})
    table = comparison_table(store)
    verdict = table.verdict
    assert verdict is not None
    assert verdict.best.label == ONE
    assert {each.label for each in verdict.worse} == {"wgan", THREE, FOUR}
    assert {row.label: row.seeds for row in cells(table)} == {ONE: 8, TWO: 8, THREE: 5, FOUR: 3, "wgan": 3}
    looks = "The race has had 3 looks, at 3, 5 and 8 seeds a cell, and 2 of 5 cells are left; it has ended: "
    assert any(sentence.startswith(looks) for sentence in sentences(verdict))


def test_a_cell_that_is_out_stays_worse_whatever_its_numbers_are_now(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse", FOUR: "worse"}, {})
    for entry in store.entries():
        if entry.label == "wgan":
            store.trial(entry.trial_id).metrics_file.unlink()
            end(store, entry, 0.001)
    verdict = comparison_table(store).verdict
    assert verdict is not None
    assert verdict.best.label == ONE
    assert "wgan" in {each.label for each in verdict.worse}
    assert not verdict.flattered


def test_a_diverged_cell_of_a_race_is_judged_as_everywhere(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, RACE)
    for entry in store.entries():
        lucky = 0.001 + 0.0001 * entry.seed
        end(store, entry, (lucky if entry.seed else None) if entry.label == "wgan" else noisy(entry))
    look(store, 0, {"wgan": "diverged", FOUR: "worse"}, ended="one cell is left")
    verdict = comparison_table(store).verdict
    assert verdict is not None
    assert verdict.best.label == ONE
    assert [each.label for each in verdict.flattered] == ["wgan"]


def test_those_left_are_compared_at_the_level_of_the_last_look_among_all_that_began(tmp_path: Path) -> None:
    found = {}
    for level in (0.5, 0.9999999):
        store = raced(tmp_path / str(level), {"wgan": "worse"}, ended=None)
        for entry in store.entries():
            end(store, entry, noisy(entry))
        look(store, 1, {}, ended="the trials of the race are spent", level=level)
        verdict = comparison_table(store).verdict
        assert verdict is not None
        found[level] = {each.label for each in verdict.worse}
    assert found == {0.5: {"wgan", THREE, FOUR}, 0.9999999: {"wgan"}}


def test_between_looks_nothing_is_told_apart(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse"}, ended=None)
    for entry in store.entries():
        if entry.seed < 4:  # the race looks again at 5
            end(store, entry, noisy(entry))
    verdict = comparison_table(store).verdict
    assert verdict is not None
    assert {each.label for each in verdict.worse} == {"wgan"}
    assert any("and 4 of 5 cells are left; it goes on." in sentence for sentence in sentences(verdict))


def test_before_the_first_look_nothing_is_told_apart(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, RACE)
    for entry in store.entries():
        end(store, entry, noisy(entry))
    table = comparison_table(store)
    assert table.verdict is not None
    assert table.verdict.worse == ()
    assert "The race has not looked yet" in answer(table)


def test_the_note_of_marks_says_which_column_was_raced(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse", FOUR: "worse", THREE: "worse", TWO: "worse"}, ended="one cell is left")
    table = comparison_table(store)
    assert [row.label for row in cells(table) if METRIC in row.best] == [ONE]
    (note,) = [note for note in all_notes(table) if note.startswith("bold")]
    assert f"; {METRIC} by the race, whose looks together have a chance of at most 5 % of any error; other" in note
    assert "other columns by Games and Howell's test" in note


def test_main_effects_of_raced_cells_are_not_compared(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse", FOUR: "worse"}, {THREE: "worse"}, {})
    verdict = comparison_table(store).verdict
    assert verdict is not None
    assert len(verdict.effects) == 2
    assert not any(effect.tested for effect in verdict.effects)
    told = [sentence for sentence in sentences(verdict) if sentence.startswith("Main effect")]
    assert len(told) == 2
    assert all("not compared, because the race gave these cells seeds by their values" in each for each in told)


def test_json_has_the_looks_of_a_race(tmp_path: Path) -> None:
    store = raced(tmp_path, {"wgan": "worse"}, {FOUR: "worse"}, {})
    race = json.loads(FORMATS["json"][1](comparison_table(store)))["verdict"]["race"]
    assert [(look["seeds"], look["cells"], look["left"]) for look in race["looks"]] == [(3, 5, 4), (5, 4, 3), (8, 3, 3)]
    assert (race["metric"], race["cells"], race["ended"]) == (METRIC, 5, "the cells that are left have the most seeds")


def test_other_evaluations_than_those_that_a_race_saw_are_judged_without_it(tmp_path: Path) -> None:
    from orchestrator.results.frames import At

    store = raced(tmp_path, {"wgan": "worse"}, {FOUR: "worse"}, {})
    table = comparison_table(store, at=At("epoch", 2))
    assert table.race is None
    assert not any(row.out for row in table.rows)


def test_a_race_that_goes_on_because_more_seeds_are_allowed_has_not_looked_for_that(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, RACE.replace("most: 8", "most: 4"))
    alike = (0.0, 0.3, 0.1, 0.25, 0.2, 0.05, 0.15, 0.12)
    grow(store, lambda entry: 2.0 + alike[entry.seed])
    looks = comparison_table(store).race
    assert looks is not None
    assert ([look.seeds for look in looks.looks], looks.ended) == ([3, 4], MOST)
    store = make_sweep(tmp_path, RACE)
    grow(store, lambda entry: 2.0 + alike[entry.seed])
    race = comparison_table(store).race
    assert race is not None
    assert race.looks[:2] == looks.looks
    assert [look.seeds for look in race.looks][-1] == 8
    assert all(look.cells == 5 for look in race.looks)

"""Figures of searches and races show what the decisions saw, and other figures do not mix the two tables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from decided_sweeps import METRIC, RACE, end, look, make_searched
from hand_made import POINTS, make_sweep
from matplotlib.figure import Figure

from orchestrator.results.decided import told_decisions
from orchestrator.results.figures import sweep_pictures
from orchestrator.results.figures.curves import curve_panels
from orchestrator.results.figures.data import Sweep, curves, read_sweep
from orchestrator.results.figures.maps import heat_maps, parallel_coordinates
from orchestrator.results.figures.races import race
from orchestrator.results.figures.searches import (
    Searches,
    best_so_far,
    importance,
    importances_in,
    is_whole,
    searches_of,
    slices,
)
from orchestrator.results.figures.style import style
from orchestrator.results.report import report_html
from orchestrator.store.sweep import Entry, SweepStore

TEXT = f"""\
name: tuned
base: {POINTS}
grid: {{critic_iterations: [1, 2]}}
search:
  trials: 16
  sampler: random
  space:
    critic.lr: "tag(log, interval(1e-4, 1e-2))"
    penalty.weight: "choice(0.1, 1, 10)"
    batch_size: "range(8, 33, 8)"
seeds: 1
confirm: {{best: 1, seeds: 2}}
compare: {{metric: {METRIC}, mode: min}}
"""


def by_rate(entry: Entry) -> float | None:
    """Only critic.lr matters. Above 4e-3 trials diverge."""
    rate = entry.axes["critic.lr"]
    if rate > 4e-3:
        return None
    return 2.0 + 3 * abs(math.log10(rate) + 3) + entry.axes["critic_iterations"] + entry.seed / 1e4


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Two searches of sixteen proposals. Some of them diverge."""
    return make_searched(tmp_path_factory.mktemp("tuned"), by_rate, TEXT)


@pytest.fixture(scope="module")
def explored(tuned: SweepStore) -> Sweep:
    return read_sweep(tuned, stage="explored")


@pytest.fixture(scope="module")
def searches(explored: Sweep) -> Searches:
    found = searches_of(explored)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """A race of two looks: one cell diverges at the first, one is told apart."""
    store = make_sweep(tmp_path_factory.mktemp("raced"), RACE)
    new = store.entries()
    for number in range(2):
        for entry in new:
            lost = entry.label == "wgan" and entry.seed == 1
            end(store, entry, None if lost else 2.0 + len(entry.setting) / 9 + 0.1 * (entry.seed % 3))
        out = {"wgan": "diverged", "wgan-gp weight=10 critic_iterations=2": "worse"} if number == 0 else {}
        if number == 0:
            new = look(store, number, out, seeds=5)
        else:
            look(store, number, out, ended="the trials of the race are spent")
    return store


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def note_of(figure: Figure) -> str:
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def points(figure: Figure, marker: str = "") -> list[tuple[float, float]]:
    """The points of the first panel that no line joins."""
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and line.get_markersize() < 6]
    chosen = [line for line in lines if (line.get_marker() == "x") == (marker == "x")]
    return [(float(x), float(y)) for line in chosen for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


# which trials a figure shows


def test_curves_are_those_of_the_confirmed_table_unless_the_other_is_asked_for(
    tuned: SweepStore, explored: Sweep
) -> None:
    confirmed = read_sweep(tuned)
    assert [[trial.seed for trial in cell.trials] for cell in confirmed.cells] == [[1000, 1001]] * 2
    assert {trial.seed for cell in explored.cells for trial in cell.trials} == {0}
    assert len(explored.cells) == 32
    curve, _ = curves(confirmed, confirmed.cells[0], "epoch")
    assert curve is not None
    assert curve.mean[-1] == pytest.approx(confirmed.cells[0].value)
    with style():
        assert "confirmed: fresh seeds alone" in note_of(curve_panels(confirmed, "epoch"))
        assert "explored: the trials on which decisions rested" in note_of(curve_panels(explored, "epoch"))


def test_the_command_draws_searches_whichever_table_is_shown_and_writes_each_into_its_folder(
    tmp_path: Path, command_line: CommandLine
) -> None:
    text = TEXT.replace("grid: {critic_iterations: [1, 2]}\n", "").replace("trials: 16", "trials: 8")
    store = make_searched(tmp_path, lambda entry: 1.0 + (entry.proposal or 0) + entry.seed / 1e4, text)
    folders = [store.path / "figures", store.path / "figures" / "explored"]
    for more in ((), ("--stage", "explored")):
        assert command_line("plot", store.name, "--runs-dir", str(store.runs_dir), *more)[0] == 0
    confirmed, explored = ({path.stem: path.read_bytes() for path in folder.glob("*.svg")} for folder in folders)
    curve, searched = f"{METRIC}_by_epoch", {f"{METRIC}_{name}" for name in ("search", "importance", "slices")}
    assert searched < set(confirmed)
    assert confirmed[curve] != explored[curve]
    assert [confirmed[name] for name in searched] == [explored[name] for name in searched]  # byte for byte


def test_many_values_of_a_search_are_a_scale_and_not_a_list(explored: Sweep) -> None:
    with style():
        axes = drawn(parallel_coordinates(explored)).axes[0]
    rates = {cell.axes["critic.lr"] for cell in explored.cells}
    words = [text for text in axes.texts if text.get_position()[0] == pytest.approx(1.03)]
    heights = {float(text.get_text()): text.get_position()[1] for text in words}
    assert {min(rates), max(rates)} <= set(heights)
    assert len(heights) < len(rates)
    ordered = sorted(heights.values())
    assert np.diff(ordered).min() > 0.05
    level = {rate: math.log10(rate) for rate in heights}
    slope = np.polyfit(list(level.values()), [heights[rate] for rate in level], 1)
    assert np.allclose(np.polyval(slope, list(level.values())), [heights[rate] for rate in level], atol=1e-3)


def test_proposals_have_no_heat_map_and_confirmed_cells_have_one_at_tuned_settings(tmp_path: Path) -> None:
    text = TEXT.replace("critic_iterations: [1, 2]", "critic_iterations: [1, 2], generator.lr: [1e-3, 1e-4]")
    text = text.replace("trials: 16", "trials: 3").replace("interval(1e-4, 1e-2)", "interval(1e-4, 1e-3)")
    store = make_searched(tmp_path, by_rate, text)
    with style():
        assert heat_maps(read_sweep(store, stage="explored")) is None
        figure = drawn(heat_maps(read_sweep(store)))
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == ("critic_iterations", "generator.lr")


# searches


def test_the_best_so_far_is_that_of_the_proposals_up_to_each(searches: Searches) -> None:
    with style():
        figure = drawn(best_so_far(searches))
    lines = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post"]
    assert [line.get_label() for line in lines] == [group.label for group in searches.groups]
    for line, group in zip(lines, searches.groups, strict=True):
        values = {1 + (cell.proposal or 0): cell.value for cell in group.proposals if is_whole(cell)}
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert y == min(value for number, value in values.items() if value is not None and number <= x)
        assert max(line.get_xdata()) == 16


def test_every_proposal_is_a_point_and_those_that_diverged_are_at_the_edge(searches: Searches) -> None:
    with style():
        figure = drawn(best_so_far(searches))
    valued = [(1 + (c.proposal or 0), c.value) for group in searches.groups for c in group.valued]
    assert np.allclose(sorted(points(figure)), sorted(valued))
    diverged = [1 + (c.proposal or 0) for group in searches.groups for c in group.proposals if not is_whole(c)]
    assert diverged
    assert sorted(x for x, _ in points(figure, "x")) == sorted(diverged)
    assert {y for _, y in points(figure, "x")} == {figure.axes[0].get_ylim()[1]}
    assert "a seed DIVERGED or has no value" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_slices_have_the_scale_of_the_space(searches: Searches) -> None:
    with style():
        figure = drawn(slices(searches))
    rate, weight, batch = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["lr", "weight", "batch_size"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert [label.get_text() for label in weight.get_xticklabels()] == ["0.1", "1", "10"]
    valued = [(cell.axes["critic.lr"], cell.value) for group in searches.groups for cell in group.valued]
    assert np.allclose(sorted(points(figure)), sorted(valued))
    assert rate.get_xlim()[0] <= 1e-4
    assert rate.get_xlim()[1] >= 1e-2
    assert {x for line in batch.lines for x in line.get_xdata()} <= {8, 16, 24, 32}


def test_importance_finds_the_option_that_matters_and_is_the_same_every_time(searches: Searches) -> None:
    for group in searches.groups:
        shares = importances_in(searches, group)
        assert next(iter(shares)) == "critic.lr"
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["critic.lr"] > 0.6
        assert importances_in(searches, group) == shares
    with style():
        figure = drawn(importance(searches))
    assert "Optuna's fANOVA (64 trees, seed 0)" in note_of(figure)
    for axes, group in zip(figure.axes, searches.groups, strict=True):
        assert axes.get_xlabel() == f"importance ({len(group.valued)} proposals)"


def test_few_proposals_say_nothing_of_importance(tmp_path: Path) -> None:
    store = make_searched(tmp_path, by_rate, TEXT.replace("trials: 16", "trials: 5"))
    found = searches_of(read_sweep(store, stage="explored"))
    assert found is not None
    assert importance(found) is None


def test_a_metric_without_a_direction_has_no_figures_of_a_search(tuned: SweepStore) -> None:
    assert searches_of(read_sweep(tuned, "critic_loss", "explored")) is None


# races


def test_a_race_is_a_panel_a_look_with_what_the_look_saw(raced: SweepStore) -> None:
    sweep = read_sweep(raced)
    with style():
        figure = drawn(race(sweep))
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["look 1: 3 seeds", "look 2: 5 seeds"]
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names[-2:] == ["wgan", "wgan-gp weight=10 critic_iterations=2"]
    grown = raced.grown()
    assert grown is not None
    for axes, decision in zip((first, second), grown.decisions, strict=True):
        marks = [line for line in axes.lines if line.get_marker() in ("o", "x")]
        seen = decision.rests_on["cells"]
        assert sorted(line.get_xdata()[0] for line in marks) == pytest.approx(sorted(cell["mean"] for cell in seen))
        assert sum(line.get_marker() == "x" for line in marks) == sum(cell["out"] is not None for cell in seen)


def test_a_race_is_shown_by_the_metric_that_it_saw(raced: SweepStore) -> None:
    assert f"{METRIC}_race" in [picture.name for picture in sweep_pictures(raced, kinds=("svg",))]
    assert race(read_sweep(raced, "penalty")) is None


# reports


def test_a_report_has_the_confirmed_table_then_the_explored_one_then_the_decisions(tuned: SweepStore) -> None:
    page = report_html(tuned)
    parts = ("verdict", "table", "explored", "decisions", "figures")
    places = [page.index(f'id="{part}"') for part in parts]
    assert places == sorted(places)
    table, explored = page[places[1] : places[2]], page[places[2] : places[3]]
    assert table.count("<tr>") - 1 - 2 == 2  # two confirmed cells, besides the head and the two reference rows
    assert explored.count("<tr>") - 1 - 2 == 32
    assert "over 2 fresh seeds" in page[places[0] : places[1]]
    assert page.count("searched<br>") >= 2  # the grid does not list what a search chose


def test_a_report_tells_what_was_decided(tuned: SweepStore, raced: SweepStore) -> None:
    searches, confirmations = told_decisions(tuned)
    assert searches.rows[0] == ("tuned critic_iterations=1", "random", "0", "16 of 16", "all are made")
    assert searches.notes[0] == (
        "The space: batch_size: 8 to 32 in steps of 8, whole; critic.lr: 0.0001 to 0.01, logarithmic; "
        "penalty.weight: 0.1, 1, 10."
    )
    assert [row[1] for row in confirmations.rows] == ["16", "16"]
    assert confirmations.rows[0][0].startswith("tuned critic_iterations=1 lr=")
    (told,) = told_decisions(raced)
    left = [row[4] for row in told.rows]
    assert any(re.fullmatch(r"wgan: .*, a seed DIVERGED", each) for each in left)
    assert any(
        re.fullmatch(r"wgan-gp weight=10 critic_iterations=2: .*, told apart from the best", each) for each in left
    )
    assert (told.rows[-1][4], told.notes[-1]) == ("nobody", "The race has ended: the trials of the race are spent.")


def test_a_sweep_that_does_not_grow_has_no_decisions(store: SweepStore) -> None:
    assert told_decisions(store) == []

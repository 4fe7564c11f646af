"""Figures show the store's numbers, show or name every trial, and have the same bytes every time."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from drawn_sweeps import METRIC, VARIANTS, falling, make_drawn, some_fail, store_trial
from hand_made import POINTS, TWO_CELLS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.results.figures import Picture, sweep_pictures, write_pictures
from orchestrator.results.figures.curves import convergence, curve_panels
from orchestrator.results.figures.data import CellResult, Sweep, band, curves, read_sweep, varying_axes
from orchestrator.results.figures.maps import heat_maps, parallel_coordinates
from orchestrator.results.figures.samples import sample_grids
from orchestrator.results.figures.style import COLOURS, LINES, MARKERS, columns_for, saved, scale_of, shown, style
from orchestrator.results.formats import format_value
from orchestrator.results.tables import FLOOR, UNTRAINED
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore

ALL = [f"{METRIC}_by_epoch", f"{METRIC}_by_iteration", f"{METRIC}_by_seconds", f"{METRIC}_heat_map"]
ALL += [f"{METRIC}_parallel", "samples"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """Six cells of three seeds. In three cells not every seed has finished."""
    return make_drawn(tmp_path_factory.mktemp("drawn"), VARIANTS, some_fail)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    """One method with two axes and two seeds, enough for all figures."""
    text = TWO_CELLS.replace("penalty.weight: [1, 2]", "penalty.weight: [1, 2], critic_iterations: [1, 2]")
    return make_drawn(tmp_path_factory.mktemp("small"), text)


@pytest.fixture(scope="module")
def pictures(small: SweepStore) -> dict[str, Picture]:
    return {picture.name: picture for picture in sweep_pictures(small)}


def cell_of(sweep: Sweep, label: str) -> CellResult:
    return next(cell for cell in sweep.cells if cell.label == label)


def words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def note_of(figure: Figure) -> str:
    return figure.legends[0].get_title().get_text().replace("\n", " ")


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


# files


def test_a_sweep_has_its_curves_maps_coordinates_and_samples(pictures: dict[str, Picture]) -> None:
    assert list(pictures) == ALL
    for picture in pictures.values():
        assert picture.caption.startswith(picture.title)
        assert len(picture.alt.split()) > 5


def test_files_are_the_same_every_time_whatever_the_user_s_matplotlib_looks_like(
    small: SweepStore, pictures: dict[str, Picture], tmp_path: Path, command_line: CommandLine
) -> None:
    from matplotlib import rc_context

    folder = tmp_path / "a" / "b"
    with rc_context({"font.size": 30, "svg.hashsalt": "theirs", "axes.facecolor": "red", "figure.dpi": 33}):
        code, out, errors = command_line("plot", "hand", "--runs-dir", small.runs_dir, "-o", folder)
    assert (code, errors) == (0, "")
    written = {f"{name}.{kind}": content for name, each in pictures.items() for kind, content in each.files.items()}
    assert out.splitlines() == [str(folder / name) for name in written]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written


def test_an_svg_needs_nothing_beside_it_and_has_no_date(pictures: dict[str, Picture]) -> None:
    for picture in pictures.values():
        text = picture.files["svg"].decode()
        root = ET.fromstring(text)
        assert root.get("viewBox")
        links = [value for each in root.iter() for name, value in each.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
        assert "<dc:date>" not in text
        assert re.search(r"\b20[2-9]\d-\d\d", text) is None
        assert picture.caption in "".join(root.itertext())  # for a reader who finds the file alone


def test_a_png_is_wide_enough_for_print_and_tells_what_it_is(pictures: dict[str, Picture]) -> None:
    for picture in pictures.values():
        with Image.open(io.BytesIO(picture.files["png"])) as image:
            assert image.width == pytest.approx(200 * picture.inches, abs=1)
            assert image.info["Description"] == picture.caption


# curves


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        pytest.param(1, "no band", id="one seed"),
        pytest.param(2, "from minimum to maximum", id="two seeds"),
        pytest.param(
            3, "mean over 3 seeds, band ± standard deviation of the seeds (no interval of the mean)", id="three seeds"
        ),
    ],
)
def test_a_band_is_what_it_says(tmp_path: Path, seeds: int, told: str) -> None:
    store = make_drawn(tmp_path, TWO_CELLS.replace("seeds: 2", f"seeds: {seeds}"))
    sweep = read_sweep(store)
    for cell in sweep.cells:
        entries = [entry for entry in store.entries() if entry.label == cell.label]
        values = np.array([[each[METRIC] for each in falling(entry).values()] for entry in entries])
        curve, singles = curves(sweep, cell, "epoch")
        assert curve is not None
        assert singles == []
        np.testing.assert_allclose(curve.mean, values.mean(axis=0))
        if seeds == 1:
            assert (curve.low, curve.high) == (None, None)
            continue
        deviation = values.std(axis=0, ddof=1)
        low, high = (values.min(axis=0), values.max(axis=0)) if seeds == 2 else (-deviation, deviation)
        np.testing.assert_allclose(curve.low, low if seeds == 2 else curve.mean + low)
        np.testing.assert_allclose(curve.high, high if seeds == 2 else curve.mean + high)
    assert told in band(sweep)
    with style():
        assert band(sweep) in note_of(curve_panels(sweep, "epoch"))


def test_bands_of_cells_that_have_different_numbers_of_seeds(tmp_path: Path) -> None:
    text = TWO_CELLS.replace("[1, 2]", "[1, 2, 3, 4]").replace("seeds: 2", "seeds: 4")
    store = make_drawn(tmp_path, text, lambda e: State.DONE if e.seed < e.axes["penalty.weight"] else State.LOST)
    told = "mean over 3 or 4 seeds, band ± standard deviation of the seeds (no interval of the mean)"
    assert band(read_sweep(store)) == f"{told}, of 2 from minimum to maximum, of one seed no band"
    for entry in store.entries():
        if entry.axes["penalty.weight"] > 2:
            store.trial(entry.trial_id).set_state(State.FAILED, "why")
    told = "mean over 2 seeds, band from minimum to maximum (no interval of the mean)"
    assert band(read_sweep(store)) == f"{told}, of one seed no band"


def test_a_band_counts_the_seeds_that_have_the_metric(tmp_path: Path) -> None:
    store = make_drawn(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3"))
    for entry in store.entries():
        estimates = {"distance_estimate": 1.0, "distance_exact": 2.0} if entry.seed == 0 else {}
        values = {METRIC: math.nan if entry.seed == 2 else 1.0}
        store_trial(store, entry, dict.fromkeys(range(2), values | estimates))
    told = "mean over 2 seeds, band from minimum to maximum (no interval of the mean)"
    assert band(read_sweep(store)) == told
    captions = {picture.name: picture.caption for picture in sweep_pictures(store, kinds=())}
    assert told in captions[f"{METRIC}_by_epoch"]
    assert captions["distance_estimate"].endswith("of one seed no band.")


def test_iterations_and_training_seconds_are_those_of_the_store(store: SweepStore) -> None:
    for entry in store.entries():
        store_trial(store, entry, falling(entry), seconds=1.0 + entry.seed)
    sweep = read_sweep(store)
    by_iteration, by_seconds = (curves(sweep, sweep.cells[0], name)[0] for name in ("iteration", "seconds"))
    assert by_iteration is not None
    assert by_seconds is not None
    assert list(by_iteration.x) == [0, 17, 34, 51]
    assert list(by_seconds.x) == [0.0, 1.5, 3.0, 4.5]  # seeds of 1 and 2 seconds an epoch, evaluation apart


def test_trials_that_did_not_end_well_are_drawn_apart_and_named(drawn: SweepStore) -> None:
    sweep = read_sweep(drawn)
    curve, singles = curves(sweep, cell_of(sweep, "wgan"), "epoch")
    seeds = [entry for entry in drawn.entries() if entry.label == "wgan"][1:]
    assert curve is not None
    np.testing.assert_allclose(curve.mean, np.mean([[v[METRIC] for v in falling(e).values()] for e in seeds], axis=0))
    assert [(single.state, len(single.x)) for single in singles] == [(State.FAILED, 2)]
    nothing, singles = curves(sweep, cell_of(sweep, "wgan-gp weight=1 critic_iterations=2"), "epoch")
    assert nothing is None
    assert [single.state for single in singles] == [State.FAILED, State.LOST, State.DIVERGED]
    with style():
        figures = [curve_panels(sweep, "epoch"), heat_maps(sweep), parallel_coordinates(sweep)]
    for figure in figures:
        assert figure is not None
        for trial in ("wgan seed=0 (FAILED)", "wgan-gp weight=1 critic_iterations=1 seed=0 (DIVERGED)"):
            assert trial in note_of(figure)
    assert isinstance(figures[0], Figure)
    assert "a trial that failed, diverged or was lost" in [t.get_text() for t in figures[0].legends[0].get_texts()]
    panels = [each.replace("\n", " ") for axes in figures[0].axes for each in legend_of(axes)]
    assert "weight=1 critic_iterations=2 (1 of 3 FAILED, 1 of 3 LOST, 1 of 3 DIVERGED)" in panels


def test_a_mean_goes_as_far_as_all_of_its_seeds(store: SweepStore) -> None:
    """A trial whose evaluation has reached its target ends before the others."""
    for entry in store.entries():
        store_trial(store, entry, falling(entry, last=1 if entry.seed == 0 else 3))
    curve, singles = curves(read_sweep(store), read_sweep(store).cells[0], "epoch")
    assert curve is not None
    assert list(curve.x) == [0, 1]
    assert [(list(single.x), single.state) for single in singles] == [([1, 2, 3], State.DONE)]


def test_values_that_are_no_numbers_and_trials_that_run_away_leave_the_scale_alone(store: SweepStore) -> None:
    first, *others = store.entries()
    for entry in others:
        store_trial(store, entry, falling(entry, last=6))
    store_trial(store, first, {0: {METRIC: 20.0}, 1: {METRIC: 1e30}, 2: {METRIC: float("inf")}}, State.DIVERGED)
    with style():
        figure = curve_panels(read_sweep(store), "epoch")
    low, high = figure.axes[0].get_ylim()
    assert 0 < low < 0.5
    assert 20 < high < 100
    cross = next(line for line in figure.axes[0].lines if line.get_marker() == "x")
    assert list(cross.get_xdata()) == [1]
    assert list(cross.get_ydata()) == [high]


@pytest.mark.parametrize(
    ("ends", "value", "without"),
    [
        pytest.param((1.0, math.inf), 1.0, 1, id="one is infinite"),
        pytest.param((math.nan, 1.0), 1.0, 1, id="one is not a number"),
        pytest.param((math.inf, -math.inf), None, 2, id="their sum would be nothing"),
        pytest.param((1.0, 2.0), 1.5, 0, id="both are numbers"),
    ],
)
def test_a_value_that_is_no_number_is_no_result(
    store: SweepStore, ends: tuple[float, float], value: float | None, without: int
) -> None:
    for entry in store.entries():
        store_trial(store, entry, {0: {METRIC: 2.0}, 1: {METRIC: ends[entry.seed]}})
    sweep = read_sweep(store)
    assert [(cell.value, cell.without) for cell in sweep.cells] == [(value, without)] * 2
    with style():
        told = legend_of(curve_panels(sweep, "epoch").axes[0])[0].replace("\n", " ")
    assert told == "weight=1" + (f" ({without} of 2 without a value)" if without else "")
    assert len(sweep_pictures(store, kinds=())) == 4


def test_seeds_that_share_no_evaluation_have_no_mean(store: SweepStore) -> None:
    for entry in store.entries():
        store_trial(store, entry, {0: {}, 1 + entry.seed: {METRIC: 1.0}})
    curve, singles = curves(read_sweep(store), read_sweep(store).cells[0], "epoch")
    assert curve is None
    assert [(list(single.x), single.state) for single in singles] == [([1], State.DONE), ([2], State.DONE)]


def test_the_best_cell_of_each_method_and_a_panel_for_each_with_several(drawn: SweepStore) -> None:
    with style():
        figure = curve_panels(read_sweep(drawn), "epoch")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["best cell of each method", "wgan-gp"]
    best, every = (legend_of(axes) for axes in figure.axes)
    first = min(read_sweep(drawn).variants()["wgan-gp"], key=lambda cell: cell.value or 99)
    assert [label.replace("\n", " ") for label in best] == [first.label, "wgan (1 of 3 FAILED)"]
    assert len(every) == 5


def test_reference_lines_are_the_table_s(drawn: SweepStore) -> None:
    rows = {row.variant: row.values[METRIC].mean for row in comparison_table(drawn).rows if row.reference}
    sweep = read_sweep(drawn)
    assert sweep.references == {UNTRAINED: pytest.approx(rows[UNTRAINED]), FLOOR: rows[FLOOR]}
    with style():
        figure = curve_panels(sweep, "iteration")
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text.split(":")[0] for text in told[:2]] == [UNTRAINED, FLOOR]
    assert told[1].endswith(
        format_value(next(r for r in comparison_table(drawn).rows if r.variant == FLOOR).values[METRIC])
    )


def test_a_metric_without_a_floor_has_no_reference_lines(store: SweepStore) -> None:
    for entry in store.entries():
        store_trial(store, entry, falling(entry), floor=None)
    assert read_sweep(store).references == {}
    assert read_sweep(store, "critic_loss").references == {}


def test_of_many_cells_the_best_have_names_and_the_others_are_counted(tmp_path: Path) -> None:
    weights = [0.5 + number for number in range(30)]
    store = make_drawn(tmp_path, TWO_CELLS.replace("[1, 2]", str(weights)).replace("seeds: 2", "seeds: 1"))
    sweep = read_sweep(store)
    with style():
        figure = curve_panels(sweep, "epoch")
        samples = sample_grids(sweep)
    (axes,) = figure.axes
    labels = legend_of(axes)
    assert len(labels) == len(COLOURS)
    assert labels[-1] == f"{30 - len(labels) + 1} other cells"
    assert labels[0] == min(sweep.cells, key=lambda cell: cell.value or 0).setting
    assert sum(len(line.get_xdata()) == 4 for line in axes.lines) == 30
    assert samples is not None
    assert samples.axes[0].images[0].get_array().shape == (22, 22, 3)  # a quarter of 44 × 44


def test_curves_are_told_apart_without_colours_too() -> None:
    assert len(COLOURS) == len(LINES) == len(MARKERS)
    for looks in (COLOURS, LINES, MARKERS):
        assert len(set(looks)) == len(looks)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        pytest.param([1.0, 9.0], "linear", id="less than a decade"),
        pytest.param([1.0, 11.0], "log", id="more than a decade"),
        pytest.param([0.0, 11.0], "linear", id="zero has no logarithm"),
        pytest.param([-1.0, 11.0], "linear", id="nor has what is below"),
        pytest.param([-1.0, 0.0, 1.0, 2.0, 100.0], "symmetric log", id="both signs, one far from the others"),
    ],
)
def test_scales(store: SweepStore, values: Sequence[float], scale: str) -> None:
    for entry in store.entries():
        store_trial(store, entry, {epoch: {METRIC: value} for epoch, value in enumerate(values)}, floor=0.0)
    assert scale_of(np.array(values)) == scale
    with style():
        figure = curve_panels(read_sweep(store), "epoch")
    axes = figure.axes[0]
    assert axes.get_yscale() == {"linear": "linear", "log": "log", "symmetric log": "symlog"}[scale]
    assert axes.get_ylabel() == f"{METRIC} ↓" + ("" if scale == "linear" else f" ({scale} scale)")
    low, high = axes.get_ylim()
    assert low < min(values) < max(values) < high
    off = [text.get_text() for text in figure.legends[0].get_texts() if "off the scale" in text.get_text()]
    assert bool(off) is (scale == "log")  # real images have 0


# maps


def test_a_heat_map_has_the_table_s_numbers_and_says_where_there_are_none(drawn: SweepStore) -> None:
    sweep = read_sweep(drawn)
    with style():
        figure = heat_maps(sweep)
    assert figure is not None
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("critic_iterations", "weight")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.1", "1", "10"]  # numbers ascend
    places = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    rows = {row.setting: row for row in comparison_table(drawn).rows if row.variant == "wgan-gp"}
    for (column, weight), (row, number) in itertools.product(enumerate("12"), enumerate(["0.1", "1", "10"])):
        setting, text = f"weight={number} critic_iterations={weight}", places[column, row]
        if setting == "weight=10 critic_iterations=2":
            assert text == ""  # no such cell
        elif setting == "weight=1 critic_iterations=2":
            assert text == "no result"  # but three different ends, which the note names
        else:
            mean = format_value(rows[setting].values[METRIC]).split(" ± ")[0]
            assert text.splitlines() == [mean, *rows[setting].remarks]


def test_a_cell_whose_seeds_all_failed_alike_shows_the_state(tmp_path: Path) -> None:
    store = make_drawn(tmp_path, VARIANTS, lambda entry: State.FAILED if entry.axes else State.DONE)
    assert heat_maps(read_sweep(store)) is None  # without one value there is no map
    last = next(entry for entry in store.entries() if entry.axes)
    store_trial(store, last, falling(last))
    with style():
        figure = heat_maps(read_sweep(store))
    assert figure is not None
    assert sorted(words(figure.axes[0]))[1:] == ["2.79\n2 of 3 FAILED", *["FAILED"] * 4]


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        pytest.param("grid: {critic_iterations: [2, 1], penalty.weight: [1]}", ["critic_iterations"], id="one varies"),
        pytest.param(
            "zip: {critic.lr: [2e-4, 1e-4], generator.lr: [1e-4, 2e-4]}",
            ["critic.lr, generator.lr"],
            id="two that move together are one",
        ),
        pytest.param(
            "grid: {penalty.weight: [1, 2]}\nzip: {critic.lr: [2e-4, 1e-4], generator.lr: [1e-4, 2e-4]}",
            ["weight", "critic.lr, generator.lr"],
            id="and one beside them",
        ),
        pytest.param("grid: {penalty: [gradient, clipping]}", ["penalty"], id="a category"),
    ],
)
def test_axes_that_vary(tmp_path: Path, axes: str, names: list[str]) -> None:
    store = make_drawn(tmp_path, f"name: s\nbase: {POINTS}\n{axes}\n")
    found = varying_axes(read_sweep(store).cells)
    assert [axis.name for axis in found] == names
    values = {"critic_iterations": ("1", "2"), "critic.lr, generator.lr": ("0.0001, 0.0002", "0.0002, 0.0001")}
    values |= {"penalty": ("gradient", "clipping"), "weight": ("1", "2")}
    assert [axis.values for axis in found] == [values[name] for name in names]
    assert all(axis.of.keys() == {cell.label for cell in read_sweep(store).cells} for axis in found)
    with style():
        assert (heat_maps(read_sweep(store)) is None) == (len(names) < 2)
        assert (parallel_coordinates(read_sweep(store)) is None) == (len(names) < 2)


def test_a_logarithmic_colour_bar_has_plain_numbers(tmp_path: Path) -> None:
    text = TWO_CELLS.replace("penalty.weight: [1, 2]", "penalty.weight: [1, 2], critic_iterations: [1, 2]")
    store = make_drawn(tmp_path, text)
    for number, entry in enumerate(store.entries()):
        store_trial(store, entry, {0: {METRIC: 2.0}, 1: {METRIC: 0.3 * 5.0**number}})
    with style():
        figure = heat_maps(read_sweep(store))
        assert figure is not None
        figure.canvas.draw()
        labels = [text.get_text() for text in figure.axes[1].get_yticklabels(which="both")]
    assert {"100", "1000"} <= set(labels)
    for label in filter(None, labels):
        float(label)


def test_a_cell_without_one_of_the_axes_is_in_no_heat_map(tmp_path: Path, command_line: CommandLine) -> None:
    axes = "grid: {penalty: [gradient, none], penalty.weight: [1, 2]}"
    store = make_drawn(tmp_path, f"name: s\nbase: {POINTS}\n{axes}\ncompare: {{metric: {METRIC}, mode: min}}\n")
    labels = ["s penalty=gradient weight=1", "s penalty=gradient weight=2", "s penalty=none"]
    assert [cell.label for cell in read_sweep(store).cells] == labels
    code, out, errors = command_line("plot", "s", "--runs-dir", store.runs_dir)
    assert (code, errors) == (0, "")
    drawn = {Path(line).stem for line in out.splitlines()}
    assert f"{METRIC}_heat_map" not in drawn
    assert f"{METRIC}_parallel" in drawn
    assert command_line("report", "s", "--runs-dir", store.runs_dir)[0] == 0


def test_a_figure_that_names_a_best_cell_of_survivors_says_so(tmp_path: Path) -> None:
    text = TWO_CELLS.replace("penalty.weight: [1, 2]", "penalty.weight: [1, 2], critic_iterations: [1, 2]")
    first = {"penalty.weight": 1, "critic_iterations": 1}
    store = make_drawn(tmp_path, text, lambda e: State.DIVERGED if e.seed and e.axes == first else State.DONE)
    for entry in store.entries():
        if entry.axes == first and not entry.seed:
            store_trial(store, entry, {0: {METRIC: 2.0}, 1: {METRIC: 0.001}})
    with style():
        figure = parallel_coordinates(read_sweep(store))
    assert figure is not None
    note = " ".join(note_of(figure).split())
    assert "thick: the best mean, hand weight=1 critic_iterations=1 (0.0010; 1 of 2 DIVERGED)" in note
    by_epoch = sweep_pictures(store, kinds=())[0]
    assert "critic_iterations=1 (1 of 2 DIVERGED), the best by the mean of exact_w1, ends at" in by_epoch.alt


def test_parallel_coordinates_lead_every_cell_to_its_metric(drawn: SweepStore) -> None:
    sweep = read_sweep(drawn)
    with style():
        figure = parallel_coordinates(sweep)
    assert figure is not None
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["method", "weight", "critic_iterations", f"{METRIC} ↓"]
    ends = sorted(
        line.get_ydata()[-1] for line in axes.lines if line.get_xdata()[-1] == 3 and len(line.get_xdata()) > 2
    )
    values = np.array(sorted(cell.value for cell in sweep.cells if cell.value is not None))
    assert len(ends) == len(sweep.cells) == 6
    np.testing.assert_allclose(ends[1:], (values - values.min()) / np.ptp(values))
    assert ends[0] < 0  # the cell without a result
    assert {"wgan", "wgan-gp", "0.1", "1", "10", "2", "—", "no result"} <= set(words(axes))


def test_long_values_on_an_axis_can_still_be_told_apart(tmp_path: Path) -> None:
    names = [f"gradient-penalty-with-{number}-iterations-{number}" for number in (1, 2)]
    variants = "".join(f"  {name}: {{grid: {{penalty.weight: [1, 2]}}}}\n" for name in names)
    variants = variants.replace("[1, 2]", "[3, 4]", 1)
    store = make_drawn(tmp_path, f"name: s\nbase: {POINTS}\nvariants:\n{variants}")
    with style():
        figure = parallel_coordinates(read_sweep(store))
    assert figure is not None
    shortened = [word for word in words(figure.axes[0]) if "…" in word]
    assert shortened == ["gradient-pen…rations-1", "gradient-pen…rations-2"]


# samples


def test_samples_are_the_last_of_the_first_seed_of_every_cell(drawn: SweepStore) -> None:
    sweep = read_sweep(drawn)
    with style():
        figure = sample_grids(sweep)
    assert figure is not None
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles[0] == "wgan-gp weight=10 critic_iterations=1"
    assert titles[2] == "wgan-gp weight=1 critic_iterations=2 (FAILED, epoch 1)"
    for axes, entry, number in zip(figure.axes, drawn.entries()[:6], range(6), strict=True):
        last = 3 if drawn.trial(entry.trial_id).status().state is State.DONE else 1
        assert entry.seed == 0
        assert (axes.images[0].get_array() == number + last).all()  # each trial's pictures have a shade of their own


def test_a_cell_without_a_picture_keeps_its_place(store: SweepStore) -> None:
    first, *_ = store.entries()
    store_trial(store, first, falling(first))
    with style():
        figure = sample_grids(read_sweep(store))
        assert figure is not None
        assert [words(axes) for axes in figure.axes] == [[], ["no picture"]]
        for file in store.trial(first.trial_id).samples.iterdir():
            file.write_bytes(b"\x89PNG not really a picture")
        figure = sample_grids(read_sweep(store))
    assert figure is not None
    assert [words(axes) for axes in figure.axes] == [["no picture"], ["no picture"]]


def test_where_no_generator_was_trained_there_are_no_samples(tmp_path: Path) -> None:
    text = 'name: s\nbase: [dataset=gaussians, evaluation=none, "probes=[distance]", budget=40]\n'
    store = make_drawn(tmp_path, text)
    assert sample_grids(read_sweep(store, METRIC)) is None


# estimates of a distance


def test_an_estimate_and_what_it_estimates_at_every_evaluation(store: SweepStore) -> None:
    assert not [name for name in ALL if name.startswith("distance")]
    for entry in store.entries():
        both = {"distance_estimate": 1.0 + entry.seed, "distance_exact": 2.0}
        epochs = {0: {METRIC: 2.0} | both, 1: {"distance_estimate": 99.0}, 2: {METRIC: 1.0} | both}
        store_trial(store, entry, epochs)
    with style():
        figure = convergence(read_sweep(store), "distance_estimate", "distance_exact")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["hand weight=1", "hand weight=2"]
    for axes in figure.axes:
        estimate, exact = (line.get_xydata().tolist() for line in axes.lines)
        assert estimate == [[0, 1.5], [2, 1.5]]
        assert exact == [[0, 2.0], [2, 2.0]]
    assert "distance_estimate" in [picture.name for picture in sweep_pictures(store, kinds=())]
    for entry in store.entries():
        store.trial(entry.trial_id).set_state(State.FAILED if entry.label == "hand weight=1" else State.DONE)
    with style():
        axes = convergence(read_sweep(store), "distance_estimate", "distance_exact").axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata()) == 2]
    assert drawn == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]  # each seed's, in full


# words and the command


def test_words_are_not_taken_for_formulas_or_secrets(store: SweepStore) -> None:
    plan = json.loads((store.path / "plan.json").read_text())
    for trial in plan["trials"]:
        hostile = f"_w=${trial['axes']['penalty.weight']}_{{x^"
        trial |= {"setting": hostile, "axes": {"penalty.weight": hostile}}
    (store.path / "plan.json").write_text(json.dumps(plan))
    for entry in store.entries():
        store_trial(store, entry, falling(entry))
    with style():
        figure = curve_panels(read_sweep(store), "epoch")
        assert legend_of(figure.axes[0]) == ["_w=$1_{x^", "_w=$2_{x^"]
        assert saved(figure, "svg", "$", "$").count(b"<!-- _w=$1_{x^ -->") == 1  # how matplotlib notes a text's letters


def test_another_metric(drawn: SweepStore) -> None:
    sweep = read_sweep(drawn, "critic_loss")
    assert (sweep.mode, sweep.ranked_by) == (None, METRIC)  # neither more nor less of a loss is better
    names = [picture.name for picture in sweep_pictures(drawn, "critic_loss", kinds=())]
    assert names == [name.replace(METRIC, "critic_loss") for name in ALL]


def test_before_the_first_epoch_there_is_nothing_to_plot(store: SweepStore) -> None:
    with pytest.raises(UserError, match="no trial of 'hand' has finished an epoch"):
        read_sweep(store)
    first = store.entries()[0]
    store_trial(store, first, {0: {METRIC: 2.0}}, State.RUNNING)
    with pytest.raises(UserError, match="no trial of 'hand' has finished an epoch"):
        read_sweep(store)


def test_a_sweep_that_has_just_begun_has_figures(store: SweepStore) -> None:
    """One trial has trained an epoch and has not been evaluated since."""
    first = store.entries()[0]
    store_trial(store, first, {0: {METRIC: 2.0}, 1: {}}, State.RUNNING)
    names = [picture.name for picture in sweep_pictures(store, kinds=())]
    assert names == [f"{METRIC}_by_{name}" for name in ("epoch", "iteration", "seconds")] + ["samples"]


def test_the_command_writes_into_the_sweep_s_folder(store: SweepStore, command_line: CommandLine) -> None:
    first = store.entries()[0]
    store_trial(store, first, falling(first))
    code, out, errors = command_line("plot", "hand", "--runs-dir", store.runs_dir)
    assert (code, errors) == (0, "")
    names = [name for name in ALL if "map" not in name and "parallel" not in name]
    assert out.splitlines() == [str(store.path / "figures" / f"{n}.{kind}") for n in names for kind in ("svg", "png")]


def test_bad_input_of_the_command(store: SweepStore, command_line: CommandLine) -> None:
    def refused(*arguments: object) -> str:
        code, out, message = command_line("plot", "hand", *arguments, "--runs-dir", store.runs_dir)
        assert (code, out, message.count("\n")) == (2, "", 1)
        return message

    assert "has finished an epoch" in refused()
    for entry in store.entries():
        store_trial(store, entry, falling(entry))
    assert "no trial of 'hand' has logged 'exact_w2'; did you mean 'exact_w1'" in refused("--metric", "exact_w2")
    assert "has logged 'seed'" in refused("--metric", "seed")
    assert not (store.path / "figures").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    picture = Picture("p", "", "", "", 7.0, {"svg": b""})
    with pytest.raises(UserError, match="file/figures: cannot be written"):
        write_pictures([picture], tmp_path / "file" / "figures")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.345, "12.3"),
        (0.012345, "0.0123"),
        (0.001, "0.0010"),
        (0.00012345, "0.000123"),
        (-4.2e-5, "-4.2e-05"),
        (0.0, "0.00"),
    ],
)
def test_numbers_are_those_of_tables_and_small_ones_are_not_zero(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(("count", "most", "columns"), [(1, 3, 1), (4, 3, 2), (5, 3, 3), (16, 5, 4), (5, 5, 5)])
def test_panels_fill_their_rows(count: int, most: int, columns: int) -> None:
    assert columns_for(count, most) == columns

"""Comparison tables from hand-made stores: their numbers are those of the files, in every format."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import TWO_CELLS, finish, make_sweep, plan_file, write_file
from scipy import stats

from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import FORMATS, columns, format_value
from orchestrator.results.frames import At
from orchestrator.results.statistics import Scale, mean_interval
from orchestrator.results.tables import FLOOR, UNTRAINED, Row, Table, Value
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from trainers.metrics import Metric, names_of


def fill(
    store: SweepStore,
    values: Sequence[Sequence[float | State]],
    metric: str = "exact_w1",
    *,
    untrained: float = 9.0,
) -> None:
    """``values[cell][seed]``: the metric's last value, or the state of a trial that has none.

    The untrained generator has the value ``untrained`` plus the seed.
    """
    cells: dict[str, int] = {}
    for entry in store.entries():
        value = values[cells.setdefault(entry.label, len(cells))][entry.seed]
        if isinstance(value, State):
            finish(store, entry, {metric: 1000.0}, state=value, error="why")
        else:
            finish(store, entry, {metric: value}, untrained={metric: untrained + entry.seed})


def header(table: Table) -> list[str]:
    return [column.name for column in columns(table)]


def cell_rows(table: Table) -> list[Row]:
    return [row for row in table.rows if not row.reference]


def test_a_cell_is_the_mean_and_the_sample_deviation_of_its_seeds(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    by_cell: dict[float, list[float]] = {}
    for entry in store.entries():
        last = json.loads(store.trial(entry.trial_id).metrics_file.read_text().splitlines()[-1])
        by_cell.setdefault(entry.axes["penalty.weight"], []).append(last["exact_w1"])
    table = comparison_table(store)
    assert table.metrics[0] == Metric("exact_w1", "min")
    for row, (weight, numbers) in zip(cell_rows(table), by_cell.items(), strict=True):
        value = row.values["exact_w1"]
        assert row.axes == {"penalty.weight": weight}
        assert value.mean == pytest.approx(np.mean(numbers), rel=1e-12)
        assert value.deviation == pytest.approx(np.std(numbers, ddof=1), rel=1e-12)
        assert value.count == 2
        assert row.values["training_seconds"] == Value(
            0.5, 0.0, 2, (0.5, 0.5)
        )  # two epochs of a quarter, evaluation apart


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 1"))
    fill(store, [[0.5], [0.25]])
    assert [row.values["exact_w1"] for row in cell_rows(comparison_table(store))] == [
        Value(0.5, None, 1),
        Value(0.25, None, 1),
    ]


@pytest.mark.parametrize(
    ("values", "higher", "best"),
    [
        pytest.param([[1, 1.2], [3, 3.2]], False, [True, False], id="far apart, less is better"),
        pytest.param([[1, 1.2], [3, 3.2]], True, [False, True], id="far apart, more is better"),
        pytest.param([[1, 1.2], [1.9, 2.1]], False, [False, False], id="apart, but two seeds may be by chance"),
        pytest.param([[1, 3], [2, 4]], False, [False, False], id="overlapping"),
        pytest.param([[1, 1], [2, 2]], False, [True, False], id="no deviation"),
        pytest.param([[1, 1], [1, 1]], False, [False, False], id="equal"),
        pytest.param([[2, 2], [1, 9]], False, [False, False], id="the best is inside the other's wide range"),
        pytest.param([[1, State.FAILED], [2, State.LOST]], False, [False, False], id="one seed of two each"),
        pytest.param([[1, State.DIVERGED], [2, 2.1]], False, [False, False], id="a best of survivors"),
        pytest.param([[1, State.PENDING], [2, 2.1]], False, [False, False], id="a best that is not finished"),
        pytest.param([[1, float("nan")], [2, 2.1]], False, [False, False], id="a best of which a seed has no number"),
        pytest.param([[1, 1.1], [5, State.DIVERGED]], False, [False, False], id="one seed: nothing is known of it"),
        pytest.param([[5, 5.1], [State.DIVERGED, State.FAILED]], False, [False, False], id="nothing to compare with"),
    ],
)
def test_the_best_is_bold_if_every_other_cell_is_told_apart_from_it(
    tmp_path: Path, store: SweepStore, values: Sequence[Sequence[float | State]], higher: bool, best: list[bool]
) -> None:
    plan = json.loads((store.path / "plan.json").read_text())
    plan["compare"]["mode"] = "max" if higher else "min"
    (store.path / "plan.json").write_text(json.dumps(plan))
    fill(store, values, untrained=0.0 if higher else 9.0)
    table = comparison_table(store)
    assert ["exact_w1" in row.best for row in cell_rows(table)] == best
    assert not any(row.best & row.alike for row in table.rows)
    assert f"exact_w1 {'↑' if higher else '↓'}" in header(table)
    markdown = FORMATS["markdown"][1](table).splitlines()[2:]
    latex = [line for line in FORMATS["latex"][1](table).splitlines() if line.startswith("hand")]
    for row, in_markdown, in_latex, bold in zip(cell_rows(table), markdown, latex, best, strict=False):
        if "exact_w1" in row.values:
            shown = format_value(row.values["exact_w1"])
            assert (f"**{shown}**" in in_markdown) is bold
            assert ((r"\textbf{" + shown.replace("±", r"$\pm$") + "}") in in_latex) is bold
    assert not any(row.best for row in table.rows if row.reference)


@pytest.mark.parametrize(
    ("values", "untrained", "mode", "best"),
    [
        pytest.param([[9, 9.1], [20, 20.1]], 8.5, "min", False, id="worse than before training"),
        pytest.param([[9, 9], [20, 20.1]], 8.5, "min", False, id="equal to it"),
        pytest.param([[8, 8.1], [20, 20.1]], 8.5, "min", True, id="better"),
        pytest.param([[9, 9.1], [3, 3.1]], 9.5, "max", False, id="worse, more is better"),
        pytest.param([[11, 11.1], [3, 3.1]], 9.5, "max", True, id="better, more is better"),
    ],
)
def test_what_is_no_better_than_the_untrained_generator_is_not_bold(
    store: SweepStore, values: list[list[float]], untrained: float, mode: str, best: bool
) -> None:
    plan = json.loads((store.path / "plan.json").read_text())
    plan["compare"]["mode"] = mode
    (store.path / "plan.json").write_text(json.dumps(plan))
    fill(store, values, untrained=untrained)
    assert ["exact_w1" in row.best for row in cell_rows(comparison_table(store))] == [best, False]


def test_three_of_five_seeds_diverged_are_not_the_best(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 5"))
    fill(store, [[0.1, 0.11, *[State.DIVERGED] * 3], [1, 1.1, 1.2, 1.1, 1]])
    first, second = cell_rows(comparison_table(store))
    assert first.remarks == ("3 of 5 DIVERGED",)
    assert not first.best
    assert "exact_w1" not in second.best


def test_a_table_of_one_row_marks_nothing(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("[1, 2]", "[1]"))
    fill(store, [[0.5, 0.75]])
    assert not any(row.best for row in comparison_table(store).rows)
    assert "**" not in FORMATS["markdown"][1](comparison_table(store))


@pytest.mark.parametrize("state", [State.FAILED, State.DIVERGED, State.LOST, State.PENDING, State.RUNNING])
def test_a_seed_without_result_is_named_and_left_out_of_the_mean(store: SweepStore, state: State) -> None:
    fill(store, [[0.5, state], [0.25, 0.75]])
    first, second = cell_rows(comparison_table(store))
    assert first.values["exact_w1"] == Value(0.5, None, 1)
    assert first.remarks == (f"1 of 2 {state}",)
    assert second.values["exact_w1"].count == 2
    assert second.remarks == ()
    for render in (render for _, render in FORMATS.values()):
        assert f"1 of 2 {state}" in render(comparison_table(store))


def test_a_trial_that_was_stopped_early_counts(store: SweepStore) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 1.0 + entry.seed}, state=State.STOPPED)
    assert [row.values["exact_w1"].mean for row in cell_rows(comparison_table(store))] == [1.5, 1.5]


def test_a_cell_of_which_no_seed_has_a_result_still_has_a_row(store: SweepStore) -> None:
    fill(store, [[State.FAILED, State.DIVERGED], [0.25, 0.75]])
    first = cell_rows(comparison_table(store))[0]
    assert not first.values
    assert set(first.remarks) == {"1 of 2 FAILED", "1 of 2 DIVERGED"}


def test_mixed_code_is_told(store: SweepStore) -> None:
    for entry in store.entries():
        first = entry.axes["penalty.weight"] == 1
        finish(store, entry, {"exact_w1": 1.0}, commits=["aaaa" if entry.seed and first else "bbbb"])
    table = comparison_table(store)
    assert cell_rows(table)[0].remarks == ("mixed code: aaaa, bbbb",)
    assert cell_rows(table)[1].remarks == ()
    assert any("mixed code" in note for note in table.notes)


def test_a_trial_whose_attempts_ran_different_code_is_told(store: SweepStore) -> None:
    for number, entry in enumerate(store.entries()):
        finish(store, entry, {"exact_w1": 1.0}, commits=["aaaa", "bbbb"] if number == 0 else ["bbbb"])
    assert cell_rows(comparison_table(store))[0].remarks == ("mixed code: aaaa, bbbb",)


def test_cells_measured_against_another_reference_are_told_and_never_the_best(store: SweepStore) -> None:
    for entry in store.entries():
        first = entry.axes["penalty.weight"] == 1
        value, info = (0.5, {"samples": "100"}) if first else (1.0, {"samples": "500"})
        finish(store, entry, {"exact_w1": value}, info=info)
    plan = json.loads((store.path / "plan.json").read_text())
    plan["trials"].sort(key=lambda trial: -trial["axes"]["penalty.weight"])  # the first trial's reference counts
    (store.path / "plan.json").write_text(json.dumps(plan))
    table = comparison_table(store)
    here, other = cell_rows(table)
    assert (here.remarks, other.remarks) == ((), ("other reference",))
    assert not here.best  # nothing is left to compare with
    assert not other.best
    assert any("other reference" in note for note in table.notes)


def test_two_reference_rows(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    references = [row for row in comparison_table(store).rows if row.reference]
    assert [row.variant for row in references] == [UNTRAINED, FLOOR]
    assert references[0].values["exact_w1"] == Value(9.5, pytest.approx(np.std([9, 10], ddof=1)), 2)  # once a seed
    assert references[1].values["exact_w1"] == Value(0.125, None, 1)


def test_an_axis_and_a_metric_of_one_name_do_not_mix(tmp_path: Path) -> None:
    """Every trial has a metric called penalty, and a sweep may have an axis with the same name."""
    store = make_sweep(tmp_path, TWO_CELLS.replace("penalty.weight: [1, 2]", "penalty: [gradient, clipping]"))
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    table = comparison_table(store)
    assert [row.axes for row in cell_rows(table)] == [{"penalty": "gradient"}, {"penalty": "clipping"}]
    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)), keep_default_na=False)
    assert list(parsed["penalty"])[:2] == ["gradient", "clipping"]


def test_cells_that_look_alike_in_short_are_two_rows(tmp_path: Path) -> None:
    two = "[[{offset: [0, 1]}, {offset: [1, 0]}], [{offset: [0, 1]}, {offset: [1, 1]}]]"
    text = "name: hand\nbase: [trainer=wwgan]\ngrid: {penalty.neighbourhood: %s}\nseeds: 2\n" % two  # noqa: UP031
    store = make_sweep(tmp_path, text)
    for entry in store.entries():
        finish(store, entry, {"classifier_fid": 1.0 + (entry.axes["penalty.neighbourhood"][1]["offset"] == [1, 1])})
    assert [row.values["classifier_fid"] for row in cell_rows(comparison_table(store))] == [
        Value(1.0, 0.0, 2, (1.0, 1.0)),
        Value(2.0, 0.0, 2, (2.0, 2.0)),
    ]


def test_before_anything_has_run_a_table_has_rows_without_numbers(store: SweepStore) -> None:
    table = comparison_table(store)
    assert [(row.variant, row.remarks) for row in table.rows] == [("hand", ("2 of 2 PENDING",))] * 2
    for render in (render for _, render in FORMATS.values()):
        assert "2 of 2 PENDING" in render(table)


def test_a_paper_s_numbers_stand_beside_ours_in_columns_of_their_own(tmp_path: Path) -> None:
    paper = "paper: {source: 'Somebody, Table 1', rows: {hand weight=2: {fid: 80.7, exact_w1: 0.125}}}\n"
    store = make_sweep(tmp_path, TWO_CELLS + paper)
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    table = comparison_table(store)
    assert [row.paper for row in cell_rows(table)] == [{}, {"fid": 80.7, "exact_w1": 0.125}]
    assert table.paper == ("fid", "exact_w1")
    assert "fid" not in names_of(table.metrics)
    assert any(note.startswith("paper's: Somebody, Table 1") for note in table.notes)
    file = write_file(tmp_path / "other", TWO_CELLS + paper)
    other_data = plan_file(file, "dataset=gaussians", "evaluation=transport", name="other")
    assert other_data.paper is None  # it tells of another dataset
    assert plan_file(file).paper is not None
    without = comparison_table(make_sweep(tmp_path / "without"))
    assert (without.paper, [row.paper for row in cell_rows(without)]) == ((), [{}, {}])

    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)))
    assert list(parsed["paper_fid"].dropna()) == [80.7]
    assert json.loads(FORMATS["json"][1](table))["rows"][1]["paper"] == {"fid": 80.7, "exact_w1": 0.125}
    first, second = (line for line in FORMATS["markdown"][1](table).splitlines() if line.startswith("| hand"))
    assert first.removesuffix(" |").split(" | ")[-2:] == ["—", "—"]
    assert second.removesuffix(" |").split(" | ")[-2:] == ["80.7", "0.125"]
    assert r"paper's exact\_w1" in FORMATS["latex"][1](table)
    assert '<th scope="col">paper&#x27;s fid</th>' in FORMATS["html"][1](table)


def test_a_metric_of_a_probe_has_no_floor(store: SweepStore) -> None:
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 1.0, "noise_overlap": 0.5}, untrained={"exact_w1": 9.0, "noise_overlap": 0.9})
        trial = store.trial(entry.trial_id)
        references = trial.references()
        references["floor"].pop("noise_overlap", None)
        trial.write_references({**references, "metrics": ["exact_w1", "noise_overlap"]})
    rows = {row.variant: row.values for row in comparison_table(store).rows if row.reference}
    assert rows[UNTRAINED]["noise_overlap"].mean == 0.9
    assert set(rows[FLOOR]) == {"exact_w1"}


@pytest.mark.parametrize("scale", ["t", "log"])
def test_the_interval_is_the_one_that_is_asked_for_and_named_in_a_note(tmp_path: Path, scale: Scale) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3"))
    numbers = [[1.0, 2.0, 4.0], [3.0, -0.5, 8.0]]
    fill(store, numbers)
    table = comparison_table(store, scale=scale)
    for row, values in zip(cell_rows(table), numbers, strict=True):
        made = scale if min(values) > 0 else "t"  # a negative number has no logarithm
        expected = mean_interval(float(np.mean(values)), float(np.std(values, ddof=1)), 3, made)
        assert row.values["exact_w1"].interval == pytest.approx(expected)
    told = {
        "t": "95 % intervals of the mean over seeds: Student's t",
        "log": "95 % intervals of the mean over seeds: Student's t on the logarithm's scale; Student's t as it is, "
        "where a seed's value is not positive",
    }
    assert [note for note in table.notes if note.startswith("95 %")] == [told[scale]]


def test_two_seeds_make_intervals_wide_and_a_note_says_so(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    table = comparison_table(store)
    low, high = cell_rows(table)[0].values["exact_w1"].interval or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.625 - 12.7062 * 0.125, 0.625 + 12.7062 * 0.125), abs=1e-4)
    assert "95 % intervals of the mean over seeds: Student's t; two seeds make them wide" in table.notes


def test_a_table_has_the_verdict_of_its_values_in_every_format_for_people(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3"))
    fill(store, [[1.0, 1.1, 1.2], [3.0, 3.1, 3.2]])
    table = comparison_table(store)
    told = "hand weight=1 has the lowest exact_w1, 1.10 ± 0.10 over 3 seeds; the other cell is worse beyond chance."
    for name in ("markdown", "latex", "html"):
        assert told in FORMATS[name][1](table)
    assert json.loads(FORMATS["json"][1](table))["verdict"]["text"][0] == told


def test_differences_to_a_baseline_are_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 3").replace("[1, 2]", "[1, 2, 3]"))
    fill(store, [[1.0, 5.0, 9.0], [1.5, 5.5, 9.5], [State.FAILED, 4.0, State.DIVERGED]])
    table = comparison_table(store, baseline="hand weight=1")
    base, second, third = cell_rows(table)
    assert base.differences == {}
    welch = 2.77645 * 4 * np.sqrt(2 / 3)  # 4 degrees of freedom; both deviations are 4
    value = second.differences["exact_w1"]
    assert (value.mean, value.deviation, value.count) == (0.5, 0.0, 3)
    assert value.interval == pytest.approx((0.5 - welch, 0.5 + welch), rel=1e-5)
    assert third.differences["exact_w1"] == Value(-1.0, None, 1)
    assert "Δ exact_w1" in header(table)
    markdown = FORMATS["markdown"][1](table)
    assert "| +0.500 [-8.568, 9.568] |" in markdown
    assert "| -1.00 |" in markdown
    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)))
    assert list(parsed["exact_w1_difference"][1:3]) == [0.5, -1.0]
    assert list(parsed["exact_w1_difference_n"][1:3]) == [3, 1]
    in_full = json.loads(FORMATS["json"][1](table))
    assert in_full["baseline"] == "hand weight=1"
    assert in_full["rows"][1]["differences"]["exact_w1"]["high"] == pytest.approx(0.5 + welch, rel=1e-5)


@pytest.mark.parametrize(("shared", "paired"), [(4.0, True), (0.0, False)], ids=["seeds pair", "seeds do not pair"])
def test_a_difference_is_paired_by_seed_where_all_cells_show_that_it_helps(
    tmp_path: Path, shared: float, paired: bool
) -> None:
    """Two cells alone show too little, as in the test before."""
    store = make_sweep(tmp_path, TWO_CELLS.replace("seeds: 2", "seeds: 5").replace("[1, 2]", "[1, 2, 3, 4, 5, 6]"))
    source = np.random.default_rng(3)
    values = 10 + shared * source.normal(size=5) + source.normal(size=(6, 5))
    fill(store, values.tolist(), untrained=99.0)
    table = comparison_table(store, baseline="hand weight=1")
    test = stats.ttest_rel if paired else partial(stats.ttest_ind, equal_var=False)
    for row, ours in zip(cell_rows(table)[1:], values[1:], strict=True):
        assert row.differences["exact_w1"].interval == pytest.approx(tuple(test(ours, values[0]).confidence_interval()))
    (note,) = (
        note for note in table.notes if note.startswith("Δ exact_w1: difference to hand weight=1 over the seeds")
    )
    made = "its interval is paired by seed" if paired else "its interval is Welch's, not paired by seed"
    assert made in note
    measured = np.corrcoef(values)[np.triu_indices(6, 1)].mean()
    assert f"over 5 seeds exact_w1 correlates by {measured:.2f} ± 0.13 between 6 cells, and pairing helps from" in note


def test_a_baseline_that_is_no_cell_is_told_with_the_nearest(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    with pytest.raises(UserError, match="--baseline: there is no cell called 'hand weight=11'; did you mean 'hand wei"):
        comparison_table(store, baseline="hand weight=11")


def test_metrics_are_those_that_are_asked_for_each_with_its_interval(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    table = comparison_table(store, metrics=["critic_loss", "exact_w1"])
    assert table.metrics == (Metric("critic_loss"), Metric("exact_w1", "min"))
    assert header(table) == [
        "method",
        "setting",
        "critic_loss",
        "95 % interval",
        "seeds",
        "exact_w1 ↓",
        "95 % interval",
    ]
    with pytest.raises(UserError, match="--metrics: no trial of 'hand' has logged 'exact_w'; did you mean 'exact_w1'"):
        comparison_table(store, metrics=["exact_w"])
    with pytest.raises(UserError, match="--at fid=40: no trial of 'hand' has logged 'fid'"):
        comparison_table(store, at=At("fid", 40))


def test_before_anything_has_run_no_metric_has_been_logged(store: SweepStore) -> None:
    with pytest.raises(UserError, match="--metrics: no trial of 'hand' has logged 'exact_w1'"):
        comparison_table(store, metrics=["exact_w1"])


def test_a_finished_seed_without_the_metric_is_named(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    second = store.entries()[1]
    store.trial(second.trial_id).metrics_file.unlink()
    rows = cell_rows(comparison_table(store))
    named = next(row for row in rows if row.axes == second.axes)
    assert named.remarks == ("1 of 2 without exact_w1",)
    assert named.values["exact_w1"].count == 1


def test_seeds_that_ended_before_are_counted(store: SweepStore) -> None:
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    table = comparison_table(store, at=At("epoch", 3))
    assert [row.remarks for row in cell_rows(table)] == [("2 of 2 ended before 3 epochs",)] * 2
    assert "each trial at: the last evaluation up to epoch 3" in table.notes


def test_several_sweeps_make_one_table(tmp_path: Path) -> None:
    text = TWO_CELLS.replace("grid: {penalty.weight: [1, 2]}", "variants: {v: {grid: {penalty.weight: [1, 2]}}}")
    one = make_sweep(tmp_path, text)
    other = make_sweep(tmp_path, text.replace("name: hand", "name: more").replace("[1, 2]", "[2, 4]"))
    fill(one, [[0.5, 0.75], [1.25, 3.5]])
    fill(other, [[1.25, 3.5], [0.125, 0.25]])
    table = comparison_table(one, other)
    assert [(row.sweep, row.label) for row in cell_rows(table)] == [
        ("hand", "v weight=1"),
        ("hand", "v weight=2"),
        ("more", "v weight=2"),
        ("more", "v weight=4"),
    ]
    assert table.verdict is not None
    assert table.verdict.best.label == "more: v weight=4"
    assert table.title == "hand, more"
    assert header(table)[:3] == ["sweep", "method", "setting"]
    assert [row.variant for row in table.rows if row.reference] == [UNTRAINED, FLOOR]
    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)))
    assert list(parsed["sweep"].fillna("")) == ["hand", "hand", "more", "more", "", ""]
    assert list(parsed["exact_w1"][:4]) == [0.625, 2.375, 2.375, 0.1875]
    with pytest.raises(UserError, match="--baseline v weight=2: several cells match"):
        comparison_table(one, other, baseline="v weight=2")
    rows = cell_rows(comparison_table(one, other, baseline="more: v weight=2"))
    assert rows[1].differences["exact_w1"].mean == 0


def test_a_sweep_that_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    one = make_sweep(tmp_path)
    other = make_sweep(tmp_path, TWO_CELLS.replace("name: hand", "name: more"))
    fill(one, [[0.5, 0.75], [25.0, 25.5]])
    for entry in other.entries():
        finish(other, entry, {"exact_w1": 0.001}, info={"solver": "another"})
    rows = cell_rows(comparison_table(one, other))
    assert [row.remarks for row in rows] == [(), (), ("other reference",), ("other reference",)]
    assert "exact_w1" in rows[0].best


def test_sweeps_on_other_data_are_not_compared_though_they_are_measured_alike(tmp_path: Path) -> None:
    """Nor is a difference taken to a baseline among them."""
    one = make_sweep(tmp_path)
    other = make_sweep(
        tmp_path,
        TWO_CELLS.replace("name: hand", "name: more").replace(
            "dataset=mixture", "dataset=gaussians, evaluation=transport, opponent=generator"
        ),
    )
    fill(one, [[0.5, 0.75], [25.0, 25.5]])
    fill(other, [[0.01, 0.02], [0.03, 0.04]])
    table = comparison_table(one, other, baseline="more weight=1")
    assert [row.remarks for row in cell_rows(table)] == [(), (), ("other reference",), ("other reference",)]
    assert [bool(row.best) for row in cell_rows(table)] == [True, False, False, False]
    assert not any(row.differences for row in table.rows)
    assert next(row for row in table.rows if row.variant == FLOOR).values["exact_w1"].count == 1


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_value_that_is_no_number_is_left_out_and_named(store: SweepStore, bad: float) -> None:
    fill(store, [[0.5, bad], [1.25, 3.5]])
    table = comparison_table(store, baseline="hand weight=2")
    first, _ = cell_rows(table)
    assert first.values["exact_w1"] == Value(0.5, None, 1)
    assert first.remarks == ("1 of 2 without exact_w1",)
    assert first.differences["exact_w1"] == Value(-0.75, None, 1)
    assert any("whether pairing helps is known only from two cells or more" in note for note in table.notes)
    for render in (render for _, render in FORMATS.values()):
        assert "1 of 2 without exact_w1" in render(table).replace("\\_", "_")


def test_a_seed_without_another_metric_is_named_too(store: SweepStore) -> None:
    for entry in store.entries():
        metrics = (
            {"exact_w1": 1.0, "probed": 2.0} if entry.seed or entry.axes["penalty.weight"] == 2 else {"exact_w1": 1.0}
        )
        finish(store, entry, metrics)
    first, second = cell_rows(comparison_table(store, metrics=["exact_w1", "probed"]))
    assert first.remarks == ("1 of 2 without probed",)
    assert second.remarks == ()


def test_a_paper_s_source_stays_on_one_line(tmp_path: Path) -> None:
    """In LaTeX a comment ends at a line break, so that the rest would be printed."""
    paper = "paper:\n  source: |\n    Somebody\n    \\input{else}\n  rows: {hand weight=2: {exact_w1: 0.125}}\n"
    store = make_sweep(tmp_path, TWO_CELLS + paper)
    fill(store, [[0.5, 0.75], [1.25, 3.5]])
    latex = FORMATS["latex"][1](comparison_table(store))
    assert "Somebody \\input{else}" in latex
    assert all(line.startswith("%") for line in latex.splitlines() if "input" in line)

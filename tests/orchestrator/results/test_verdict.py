"""A verdict says what a table's values say: the best cell, what is told apart from it, and what is not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.results.formats import FORMATS
from orchestrator.results.tables import FLOOR, OTHER_REFERENCE, UNTRAINED, Row, Table, Value, value_of
from orchestrator.results.verdict import Effect, Level, Verdict, judged
from orchestrator.results.verdict_text import sentences
from trainers.metrics import Direction, Metric

FID = "fid"
GAP = (-0.1, 0.0, 0.1)
"""Three seeds about a mean."""


def cell(
    variant: str,
    setting: str = "",
    seeds: Sequence[float] = (),
    *,
    axes: Mapping[str, Any] | None = None,
    planned: int | None = None,
    remarks: tuple[str, ...] = (),
    sweep: str = "",
    ids: tuple[str, ...] = (),
) -> Row:
    """A row of a cell with these seeds' values. ``planned`` seeds more have none."""
    value = value_of(seeds)
    values = {} if value is None else {FID: value}
    count = len(seeds) if planned is None else planned
    return Row(
        variant, setting, axes or {}, values, frozenset(), remarks, sweep=sweep, seeds=count, trials=frozenset(ids)
    )


def about(mean: float, gap: Sequence[float] = GAP) -> list[float]:
    return [mean + each for each in gap]


def table_of(
    *rows: Row, direction: Direction = "min", untrained: float | None = 100.0, sweeps: tuple[str, ...] = ()
) -> Table:
    references = []
    if untrained is not None:
        references = [Row(UNTRAINED, "", {}, {FID: Value(untrained, None, 1)}, frozenset(), (), reference=True)]
    references.append(Row(FLOOR, "", {}, {FID: Value(0.01, None, 1)}, frozenset(), (), reference=True))
    return judged(Table("t", (), (Metric(FID, direction),), (*rows, *references), (), sweeps=sweeps))


def verdict_of(*rows: Row, **options: Any) -> Verdict:
    found = table_of(*rows, **options).verdict
    assert found is not None
    return found


def labels(verdict: Verdict) -> tuple[str, list[str], list[str], list[str]]:
    """The best cell, and those that are worse, not told apart, and flattered."""
    groups = (verdict.worse, verdict.alike, verdict.flattered)
    best = verdict.best.label
    return best, *([each.label for each in group] for group in groups)  # type: ignore[return-value]


def marks(table: Table) -> list[str]:
    """The mark of each row: bold, † or none."""
    return ["bold" if FID in row.best else "†" if FID in row.alike else "" for row in table.rows if not row.reference]


A, B, C = (cell(name, seeds=about(mean)) for name, mean in (("a", 1.0), ("b", 1.02), ("c", 9.0)))


def test_the_best_beats_all_others() -> None:
    table = table_of(C, A)
    assert marks(table) == ["", "bold"]
    assert table.verdict is not None
    assert labels(table.verdict) == ("a", ["c"], [], [])
    assert sentences(table.verdict) == [
        "a has the lowest fid, 1.00 ± 0.10 over 3 seeds; the other cell is worse beyond chance."
    ]


def test_some_cells_are_not_told_apart_from_the_best() -> None:
    table = table_of(C, B, A)
    assert marks(table) == ["", "†", "†"]
    assert table.verdict is not None
    assert labels(table.verdict) == ("a", ["c"], ["b"], [])
    first, second, *_ = sentences(table.verdict)
    assert first == (
        "a has the lowest fid, 1.00 ± 0.10 over 3 seeds; "
        "1 of the 2 other cells is worse beyond chance, 1 is not told apart from it."
    )
    assert second == "Not told apart from it: b."


def test_nothing_is_told_apart() -> None:
    table = table_of(A, B)
    assert marks(table) == ["†", "†"]
    assert sentences(table.verdict)[0] == (
        "Nothing is told apart: a has the lowest fid, 1.00 ± 0.10 over 3 seeds; "
        "the other cell is not worse beyond chance."
    )


def test_more_is_better_where_the_metric_says_so() -> None:
    verdict = verdict_of(A, C, direction="max", untrained=0.0)
    assert labels(verdict) == ("c", ["a"], [], [])
    assert sentences(verdict)[0].startswith("c has the highest fid, 9.00 ± 0.10 over 3 seeds;")


def test_with_one_seed_nothing_can_be_told() -> None:
    table = table_of(cell("a", seeds=[1.0]), cell("b", seeds=[50.0]))
    assert marks(table) == ["", ""]
    assert table.verdict is not None
    assert not table.verdict.tested
    assert sentences(table.verdict) == [
        "Nothing is told apart, because that takes at least two seeds of the best cell and of another one: "
        "a has the lowest fid, 1.00 over 1 seed."
    ]


def test_two_seeds_of_sixteen_cells_tell_little() -> None:
    """Not even a difference of 28 deviations is beyond chance, because some of 120 deviations are tiny by luck."""
    rows = [cell("a", seeds=[1.0, 1.1]), *(cell(f"b{i}", seeds=[3.0, 3.1]) for i in range(15))]
    assert len(verdict_of(*rows).alike) == 15
    rows = [cell("a", seeds=about(1.0)), *(cell(f"b{i}", seeds=about(3.0)) for i in range(15))]
    assert len(verdict_of(*rows).worse) == 15


def test_a_cell_that_lacks_seeds_is_not_the_best_and_is_named() -> None:
    diverged = cell("d", seeds=[0.1, 0.11], planned=5, remarks=("3 of 5 DIVERGED", "mixed code: aaaa, bbbb"))
    table = table_of(diverged, A, C)
    assert marks(table) == ["†", "†", ""]
    assert table.verdict is not None
    assert labels(table.verdict) == ("a", ["c"], [], ["d"])
    told = sentences(table.verdict)
    assert told[0] == (
        "a has the lowest fid of the cells with all seeds, 1.00 ± 0.10 over 3 seeds; "
        "1 of the 2 other cells is worse beyond chance."
    )
    assert told[1].startswith(
        "A better mean, but of survivors, which flatter their cell: d, 0.105 ± 0.007 over 2 seeds (3 of"
    )
    assert "(3 of 5 DIVERGED)" in told[1]


def test_a_worse_cell_that_lacks_seeds_is_worse() -> None:
    assert marks(table_of(A, cell("d", seeds=about(9.0), planned=5, remarks=("2 of 5 FAILED",)))) == ["bold", ""]


def test_if_all_cells_lack_seeds_the_best_of_them_says_so_and_is_not_bold() -> None:
    rows = (cell(name, seeds=about(mean), planned=4, remarks=("1 of 4 LOST",)) for name, mean in (("a", 1), ("c", 9)))
    table = table_of(*rows)
    assert marks(table) == ["†", ""]
    assert sentences(table.verdict)[0] == (
        "a has the lowest fid, 1.00 ± 0.10 over 3 seeds (of survivors, which flatter it: 1 of 4 LOST); "
        "the other cell is worse beyond chance."
    )


def test_a_cell_of_one_seed_is_not_told_apart() -> None:
    table = table_of(A, cell("d", seeds=[50.0], planned=3, remarks=("2 of 3 PENDING",)), C)
    assert marks(table) == ["†", "†", ""]
    assert "Not told apart from it: d (2 of 3 PENDING)." in sentences(table.verdict)


def test_a_cell_without_any_value_is_named() -> None:
    verdict = verdict_of(A, C, cell("d", planned=2, remarks=("2 of 2 DIVERGED",)))
    assert "Without any value: d (2 of 2 DIVERGED)." in sentences(verdict)
    only = verdict_of(A, cell("d", planned=2, remarks=("2 of 2 DIVERGED",)))
    assert sentences(only)[0].endswith("; no other cell has a value to compare it with.")


def test_no_better_than_the_untrained_generator_is_said_and_not_bold() -> None:
    table = table_of(A, C, untrained=0.5)
    assert marks(table) == ["†", ""]
    assert "(no better than the untrained generator)" in sentences(table.verdict)[0]


def test_what_was_measured_otherwise_is_not_compared() -> None:
    table = table_of(A, C, cell("x", seeds=about(0.1), remarks=(OTHER_REFERENCE,)))
    assert marks(table) == ["bold", "", ""]


@pytest.mark.parametrize("rows", [(), (cell("a", planned=2),)], ids=["no cell", "no value"])
def test_without_a_value_there_is_no_verdict(rows: tuple[Row, ...]) -> None:
    table = table_of(*rows)
    assert table.verdict is None
    assert sentences(table.verdict) == []
    assert json.loads(FORMATS["json"][1](table))["verdict"] is None


def test_the_verdict_is_by_the_first_metric_that_has_a_direction() -> None:
    rows = tuple(
        Row(name, "", {}, {"loss": Value(0.0, 0.1, 3), "fid": value, "is": value}, frozenset(), (), seeds=3)
        for name, value in (("a", Value(1.0, 0.1, 3)), ("b", Value(9.0, 0.1, 3)))
    )
    table = judged(Table("t", (), (Metric("loss"), Metric("fid", "min"), Metric("is", "max")), rows, ()))
    assert table.verdict is not None
    assert (table.verdict.metric.name, table.verdict.best.label) == ("fid", "a")
    assert [sorted(row.best) for row in table.rows] == [["fid"], ["is"]]
    none = judged(Table("t", (), (Metric("loss"),), rows, ()))
    assert (none.verdict, [row.best for row in none.rows]) == (None, [frozenset(), frozenset()])
    missing = judged(Table("t", (), (Metric("kid", "min"), Metric("fid", "min")), rows, ()))
    assert missing.verdict is None  # it would be by a metric that nobody asked for


def test_how_many_seeds_would_tell_the_best_from_the_closest() -> None:
    far = cell("d", seeds=about(1.5, (-1, 0, 1)))
    verdict = verdict_of(A, B, far)
    assert verdict.closest is not None
    assert verdict.closest.label == "b"
    assert verdict.seeds == int(np.ceil((1.95996 + 0.84162) ** 2 * 0.02 / 0.02**2 + 1.95996**2 / 4))
    (told,) = (each for each in sentences(verdict) if each.startswith("About"))
    assert told.startswith(
        f"About {verdict.seeds} seeds a cell would tell it from the closest, b (power 80 %, two-sided 5 %"
    )
    assert "n = (z₀.₉₇₅ + z₀.₈)² (s₁² + s₂²)/d²" in told
    equal = verdict_of(A, cell("e", seeds=about(1.0)))
    assert any(each.startswith("No number of seeds would tell it from the closest, e") for each in sentences(equal))
    assert verdict_of(A, C).closest is None


def test_the_best_cell_of_each_method_is_flattered() -> None:
    rows = [cell("v", f"x={i}", seeds=about(mean), axes={"x": i}) for i, mean in enumerate((2.0, 1.0))]
    verdict = verdict_of(
        *rows, cell("w", seeds=about(9.0)), cell("u", seeds=[1.05], planned=3, remarks=("2 of 3 LOST",))
    )
    told = [(each.variant, each.cell.label, each.cells, each.standing) for each in verdict.variants]
    assert told == [("v", "v x=1", 2, "best"), ("u", "u", 1, "alike"), ("w", "w", 1, "worse")]
    (sentence,) = (each for each in sentences(verdict) if each.startswith("Best cell of each method"))
    assert sentence == (
        "Best cell of each method (the best of several is flattered, because luck helps to choose it): "
        "v x=1 1.00 ± 0.10 (best of 2, the best of all); "
        "u 1.05 (its only cell, not told apart from the best, 2 of 3 LOST); "
        "w 9.00 ± 0.10 (its only cell, worse beyond chance)."
    )
    assert verdict_of(A, B).variants == ()  # the table says the same


def grid(effect_of_q: float = 3.0, effect_of_p: float = 0.0, **options: Any) -> list[Row]:
    return [
        cell(
            "qp",
            f"q={q} p={p}",
            seeds=about(1 + effect_of_q * (q == 2) + effect_of_p * p),
            axes={"o.q": q, "o.p": p},
            **options,
        )
        for q in (1, 2)
        for p in (1, 2, 3)
    ]


def test_main_effects_of_a_full_grid_are_means_over_its_other_axes() -> None:
    verdict = verdict_of(*grid(), cell("w", seeds=about(9.0)))
    assert verdict.effects == (
        Effect("qp", "p", ("q",), tuple(Level(str(p), pytest.approx(2.5), False) for p in (1, 2, 3)), True, False),
        Effect(
            "qp",
            "q",
            ("p",),
            (Level("1", pytest.approx(1.0), False), Level("2", pytest.approx(4.0), True)),
            True,
            False,
        ),
    )
    assert sentences(verdict)[-2:] == [
        "Main effect of p in qp, mean over q: 1: 2.50; 2: 2.50 (not told apart); 3: 2.50 (not told apart).",
        "Main effect of q in qp, mean over p: 1: 1.00; 2: 4.00 (worse beyond chance).",
    ]


def test_main_effects_find_what_single_cells_do_not() -> None:
    """The mean over three cells has a third of the variance."""
    verdict = verdict_of(*grid(effect_of_q=0.3))
    assert not verdict.worse
    assert [level.worse for level in verdict.effects[1].levels] == [False, True]


def test_a_grid_with_a_hole_has_no_main_effects() -> None:
    rows = grid()
    assert verdict_of(*rows[:-1]).effects == ()
    lacking = cell("qp", "q=2 p=3", axes={"o.q": 2, "o.p": 3}, planned=3)
    assert verdict_of(*rows[:-1], lacking).effects == ()
    one_axis = [row for row in rows if row.axes["o.p"] == 1]
    assert verdict_of(*one_axis).effects == ()


def test_main_effects_of_cells_that_lack_seeds_say_so() -> None:
    effects = verdict_of(*grid(planned=4, remarks=("1 of 4 FAILED",))).effects
    assert [effect.flattered for effect in effects] == [True, True]


def test_main_effects_of_one_seed_are_not_tested() -> None:
    rows = [cell("qp", f"q={q} p={p}", seeds=[float(q)], axes={"q": q, "p": p}) for q in (1, 2) for p in (1, 2)]
    (_, effect) = verdict_of(*rows).effects
    assert not effect.tested
    assert sentences(verdict_of(*rows))[-1] == "Main effect of q in qp, mean over p: 1: 1.00; 2: 2.00."


def test_axes_that_move_together_are_one_axis() -> None:
    rows = [
        cell("v", f"{i} {p}", seeds=about(i + 1.0), axes={"critic.lr": 10.0**-i, "generator.lr": 2 * 10.0**-i, "p": p})
        for i in (0, 1)
        for p in (1, 2)
    ]
    assert [effect.axis for effect in verdict_of(*rows).effects] == ["critic.lr, generator.lr", "p"]


def test_cells_of_several_sweeps_are_named_with_theirs() -> None:
    rows = [cell("v", seeds=about(mean), sweep=sweep) for sweep, mean in (("one", 1.0), ("two", 9.0))]
    assert labels(verdict_of(*rows, sweeps=("one", "two"))) == ("one: v", ["two: v"], [], [])


def test_many_cells_are_counted_after_the_first() -> None:
    verdict = verdict_of(*(cell(f"b{i:02}", seeds=about(1 + i / 1000)) for i in range(40)))
    assert len(verdict.alike) == 39
    assert sentences(verdict)[0].endswith("none of the 39 other cells is worse beyond chance.")
    some = verdict_of(*(cell(f"b{i:02}", seeds=about(1 + i / 1000)) for i in range(40)), C)
    assert sentences(some)[1] == ("Not told apart from it: b01, b02, b03, b04, b05, b06, b07, b08, and 31 more.")


@pytest.mark.parametrize("name", ["markdown", "latex", "html"])
def test_the_verdict_stands_first_among_the_notes(name: str) -> None:
    table = table_of(A, B, C)
    text = FORMATS[name][1](table)
    body, _, notes = text.partition({"markdown": "\n\n", "latex": r"\end{tabular}", "html": "</table>"}[name])
    mark = {"latex": r"1.00 $\pm$ 0.10$^\dagger$"}.get(name, "1.00 ± 0.10†")
    assert mark in body
    places = [notes.index(told.replace("'", "&#x27;") if name == "html" else told) for told in sentences(table.verdict)]
    assert places == sorted(places)
    assert notes.index("†: the best mean, or not told apart from it; by Games and Howell") > places[-1]


def test_json_has_the_verdict_as_values() -> None:
    table = table_of(A, B, C, *grid())
    content = json.loads(FORMATS["json"][1](table))
    found = content["verdict"]
    assert (found["metric"], found["best"]["label"], found["tested"]) == (FID, "a", True)
    assert [each["label"] for each in found["worse"]][-1] == "c"
    assert found["text"] == sentences(table.verdict)
    assert {"alike", "flattered", "without_value", "closest", "seeds", "variants", "effects"} <= set(found)
    assert content["rows"][0]["alike"] == [FID]


def test_the_order_of_the_rows_does_not_change_the_verdict() -> None:
    rows = [A, B, C, *grid(effect_of_p=0.01)]
    one, other = verdict_of(*rows), verdict_of(*reversed(rows))
    assert labels(one)[0] == labels(other)[0]
    assert {each.label for each in one.alike} == {each.label for each in other.alike}


def test_a_cell_that_two_sweeps_share_counts_once_and_has_its_mark_in_both() -> None:
    shared, other = about(1.0), about(9.0)
    rows = [
        cell("a", seeds=shared, sweep="one", ids=("1", "2", "3")),
        cell("b", seeds=other, sweep="one", ids=("4", "5", "6")),
        cell("a", seeds=shared, sweep="two", ids=("3", "2", "1")),
    ]
    assert marks(table_of(*rows[:2])) == ["bold", ""]
    table = table_of(*rows, sweeps=("one", "two"))
    assert marks(table) == ["bold", "", "bold"]
    assert table.verdict is not None
    assert labels(table.verdict) == ("one: a", ["one: b"], [], [])

"""Which cells a table shows and how: ``--rows`` and ``--columns``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import finish, make_sweep

from orchestrator.errors import UserError
from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import FORMATS, columns
from orchestrator.results.pivot import lay_out
from orchestrator.results.tables import Row, Table
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from trainers.metrics import names_of

GRID = """\
name: hand
base: [dataset=mixture, batch_size=8, budget=40]
variants:
  qp: {base: [trainer=qp_wgan], grid: {objective.q: [1, 2], objective.p: [1, 2], critic_iterations: [1, 5]}}
  clip: {base: [trainer=wgan], grid: {critic_iterations: [1, 5]}}
seeds: 2
compare: {metric: exact_w1, mode: min}
"""


def number(axes: dict[str, int], variant: str) -> float:
    """A number that tells its cell: q, p and N as digits."""
    q, p = axes.get("objective.q", 9), axes.get("objective.p", 9)
    return 100 * q + 10 * p + axes["critic_iterations"] + (0.5 if variant == "clip" else 0)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> SweepStore:
    store = make_sweep(tmp_path_factory.mktemp("grid"), GRID)
    for entry in store.entries():
        failed = entry.label == "qp q=2 p=1 N=5" or (entry.axes.get("objective.q") == 2 and entry.seed == 1)
        value = number(dict(entry.axes), entry.variant)
        state = State.FAILED if failed else State.DONE
        untrained = {"exact_w1": 1000.0, "other": 1000.0}
        finish(store, entry, {"exact_w1": value, "other": -value}, state=state, untrained=untrained)
    return store


@pytest.fixture(scope="module")
def table(grid: SweepStore) -> Table:
    return comparison_table(grid)


def cells(table: Table) -> list[Row]:
    return [row for row in table.rows if not row.reference]


def means(table: Table, metric: str = "exact_w1") -> list[float]:
    return [row.values[metric].mean for row in cells(table)]


def test_without_options_the_table_is_unchanged(table: Table) -> None:
    assert lay_out(table) == table


def test_a_value_selects_and_its_name_may_be_short(table: Table) -> None:
    assert means(lay_out(table, "q=1,critic_iterations=5")) == [115, 125]
    assert means(lay_out(table, "objective.q=1|2,p=2,critic_iterations=1")) == [121, 221]
    assert means(lay_out(table, "variant=clip")) == [991.5, 995.5]
    assert means(lay_out(table, "q=1.0,p=2.0,critic_iterations=5")) == [125]
    shown = lay_out(table, "variant=clip")
    assert [row.variant for row in shown.rows if row.reference] == [row.variant for row in table.rows if row.reference]
    assert "only variant=clip" in shown.notes


def test_verdict_and_marks_are_those_of_what_is_shown(table: Table) -> None:
    """Of the cells with q=2 one seed is left, which tells nothing apart."""
    first = "qp q=1 p=1 critic_iterations=1"
    assert table.verdict is not None
    assert table.verdict.best.label == first
    assert not any("exact_w1" in row.best for row in cells(table))
    marked = [row.label for row in cells(table) if "exact_w1" in row.alike]
    assert marked == [first, *(row.label for row in cells(table) if row.axes.get("objective.q") == 2)]
    shown = lay_out(table, "q=1")
    assert [row.label for row in cells(shown) if "exact_w1" in row.best] == [first]
    assert not any("exact_w1" in row.alike for row in cells(shown))
    shown = lay_out(table, "variant=clip")
    assert shown.verdict is not None
    assert (shown.verdict.best.label, len(shown.verdict.worse)) == ("clip critic_iterations=1", 1)
    assert [row.label for row in cells(shown) if "exact_w1" in row.best] == ["clip critic_iterations=1"]
    assert not any(row.best | row.alike for row in lay_out(table, "variant=clip,critic_iterations=1").rows)


def test_a_name_alone_sorts_by_the_order_of_its_values(table: Table) -> None:
    assert means(lay_out(table, "critic_iterations,variant=qp")) == [111, 121, 211, 221, 115, 125, 215, 225]


def test_columns_lie_side_by_side_and_whatever_else_differs_is_in_the_rows(table: Table) -> None:
    shown = lay_out(table, "variant=qp", "p")
    assert names_of(shown.metrics[:2]) == ("exact_w1 p=1", "exact_w1 p=2")
    assert [row.setting for row in shown.rows] == [
        "q=1 critic_iterations=1",
        "q=1 critic_iterations=5",
        "q=2 critic_iterations=1",
        "q=2 critic_iterations=5",
    ]
    assert [[row.values[f"exact_w1 p={p}"].mean for p in (1, 2)] for row in shown.rows] == [
        [111, 121],
        [115, 125],
        [211, 221],
        [215, 225],
    ]
    marked = [sorted(name for name in row.alike if name.startswith("exact_w1")) for row in shown.rows]
    assert marked == [["exact_w1 p=1"], [], *[["exact_w1 p=1", "exact_w1 p=2"]] * 2]
    assert "| 111 ± 0† |" in FORMATS["markdown"][1](shown)
    assert shown.rows[2].remarks == ("p=1: 1 of 2 FAILED", "p=2: 1 of 2 FAILED")
    assert [column.name for column in columns(shown)][:4] == ["method", "setting", "exact_w1 p=1 ↓", "exact_w1 p=2 ↓"]
    assert any(note.startswith("untrained generator: exact_w1 ") for note in shown.notes)


def test_no_number_gets_lost_by_laying_out(table: Table) -> None:
    for across in ("p", "q,p", "variant", "critic_iterations", "variant,critic_iterations", "q,p,critic_iterations"):
        shown = lay_out(table, "", across)
        found = [value for row in shown.rows for name, value in row.values.items() if name.startswith("exact_w1")]
        assert sorted(value.mean for value in found) == sorted(means(table)), across


def test_a_cell_that_is_not_there_is_empty(table: Table) -> None:
    shown = lay_out(table, "critic_iterations", "variant,q")
    text = FORMATS["markdown"][1](shown)
    assert " — " in text
    for render in (render for _, render in FORMATS.values()):
        assert "1 of 2 FAILED" in render(shown)


def test_rows_come_in_the_order_that_is_asked_for(table: Table) -> None:
    shown = lay_out(table, "variant=qp,critic_iterations,q", "p")
    assert [row.setting for row in shown.rows][:2] == ["critic_iterations=1 q=1", "critic_iterations=1 q=2"]


@pytest.mark.parametrize(
    ("rows", "across", "message"),
    [
        ("critic_iteration", "", r"--rows: the cells of 'hand' have no 'critic_iteration'; did you mean 'critic_iter"),
        ("", "lambda", r"--columns: the cells of 'hand' have no 'lambda'"),
        ("q=3", "", r"--rows: no cell has objective.q=3; there are 1, 2, —"),
        ("variant=clip|clap", "", r"--rows: no cell has variant=clap; there are qp, clip"),
        ("q=", "", r"--rows q=: expected NAME=VALUE or NAME=VALUE\|VALUE"),
        ("q", "p,q", r"--columns: 'objective.q' is also in --rows"),
        ("variant=clip,q=1", "", r"--rows: no cell has objective.q=1; there are —"),
    ],
)
def test_a_layout_that_is_impossible_is_an_error(table: Table, rows: str, across: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lay_out(table, rows, across)


def test_a_short_name_of_two_axes_is_not_guessed(tmp_path: Path) -> None:
    zipped = "zip: {critic.lr: [1e-4, 1e-3], generator.lr: [1e-4, 1e-3]}"
    text = f"name: hand\nbase: [dataset=mixture, batch_size=8, budget=40]\n{zipped}\ncompare: {{metric: exact_w1}}\n"
    with pytest.raises(UserError, match=r"--rows: 'lr' is ambiguous; write critic.lr or generator.lr"):
        lay_out(comparison_table(make_sweep(tmp_path, text)), "lr")


def test_a_list_is_selected_as_it_is_written(tmp_path: Path) -> None:
    text = (
        "name: hand\nbase: [dataset=mixture, batch_size=8, budget=40]\ngrid: {critic.betas: [[0, 0.9], [0.5, 0.9]]}\n"
    )
    table = comparison_table(make_sweep(tmp_path, text + "compare: {metric: exact_w1}\n"))
    for written in ("betas=[0.5, 0.9]", "critic.betas=[0.5,0.9]", "variant=hand,betas=[0.5,0.9]"):
        assert [row.axes["critic.betas"] for row in cells(lay_out(table, written))] == [[0.5, 0.9]]


@pytest.mark.parametrize(
    "written",
    [
        "(0,1)×1+(1,0)×2",
        '[{"offset": [0, 1], "weight": 1.0}, {"offset": [1, 0], "weight": 2.0}]',
        '[{"offset":[0,1],"weight":1},{"offset":[1,0],"weight":2}]',
    ],
)
def test_a_neighbourhood_is_selected_as_it_is_written(tmp_path: Path, written: str) -> None:
    edges = "[{offset: [0, 1], weight: 1.0}, {offset: [1, 0], weight: 2.0}]"
    text = f"name: hand\nbase: [dataset=digits, trainer=wwgan, budget=40]\ngrid: {{neighbourhood: [cross, {edges}]}}\n"
    table = comparison_table(make_sweep(tmp_path, text.replace("{neigh", "{penalty.neigh")))
    (chosen,) = cells(lay_out(table, f"variant=hand,neighbourhood={written}"))
    assert chosen.setting == "neighbourhood=(0,1)×1+(1,0)×2"
    assert len(cells(lay_out(table, f"neighbourhood={written}|cross,variant"))) == 2
    (other,) = cells(lay_out(table, 'neighbourhood="cross"'))
    assert other.setting == "neighbourhood=cross"


def test_null_is_selected_as_it_is_written(tmp_path: Path) -> None:
    text = "name: hand\nbase: [dataset=mixture, batch_size=8, budget=40]\ngrid: {generator.ema: [null, 0.9]}\n"
    table = comparison_table(make_sweep(tmp_path, text + "compare: {metric: exact_w1}\n"))
    for written in ("None", "null", "—"):
        assert [row.setting for row in cells(lay_out(table, f"ema={written}"))] == ["ema=None"]


def test_sweeps_side_by_side_have_no_column_of_their_own(grid: SweepStore, tmp_path: Path) -> None:
    more = make_sweep(tmp_path, GRID.replace("name: hand", "name: more"))
    for entry in more.entries():
        finish(more, entry, {"exact_w1": 1.0})
    table = comparison_table(grid, more)
    shown = lay_out(table, "", "sweep")
    assert names_of(shown.metrics[:2]) == ("exact_w1 hand", "exact_w1 more")
    assert {row.sweep for row in shown.rows} == {""}
    assert FORMATS["csv"][1](shown).startswith("variant,objective.q,")
    assert columns(shown)[0].name == "method"
    assert columns(lay_out(table, "", "p"))[0].name == "sweep"

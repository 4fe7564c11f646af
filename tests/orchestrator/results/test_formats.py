"""A comparison table in every format: the numbers are the same, and every special character is escaped."""

from __future__ import annotations

import html.parser
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_made import finish, make_sweep
from rich.console import Console

from orchestrator.results.comparison import comparison_table
from orchestrator.results.formats import (
    FORMATS,
    columns,
    format_difference,
    format_interval,
    format_value,
    rich_table,
    write_tables,
)
from orchestrator.results.pivot import lay_out
from orchestrator.results.tables import FLOOR, UNTRAINED, Row, Table, Value
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from trainers.metrics import Metric


@pytest.fixture
def rich_store(tmp_path: Path) -> SweepStore:
    """Variants with different axes and two metrics. Their names hold characters that LaTeX and Markdown interpret."""
    text = """\
name: hand
base: [dataset=mixture, batch_size=8, budget=40]
variants:
  a_b-100.x: {base: [trainer=wgan_gp], grid: {penalty.weight: [0.5, 10]}}
  clip_: {base: [trainer=wgan]}
seeds: 2
compare: {metric: exact_w1, mode: min}
"""
    store = make_sweep(tmp_path, text)
    for number, entry in enumerate(store.entries()):
        if number == 4:
            finish(store, entry, {}, state=State.FAILED, error="50% of {it} & more_")
        else:
            metrics = {"exact_w1": 0.01234567 * 7**number, "some_score": 1 / (number + 3)}
            finish(store, entry, metrics, higher_is_better=["some_score"])
    return store


def test_csv_has_every_number_in_full(rich_store: SweepStore) -> None:
    table = comparison_table(rich_store)
    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)))
    assert list(parsed.columns[:2]) == ["variant", "penalty.weight"]
    assert list(parsed["variant"]) == ["a_b-100.x", "a_b-100.x", "clip_", UNTRAINED, FLOOR]
    assert list(parsed["penalty.weight"])[:2] == [0.5, 10]
    assert np.isnan(parsed["penalty.weight"][2:]).all()
    for index, row in enumerate(table.rows):
        for metric in (each.name for each in table.metrics):
            value = row.values.get(metric)
            read = tuple(parsed.loc[index, metric + suffix] for suffix in ("", "_std", "_n"))
            expected = (np.nan,) * 3 if value is None else (value.mean, value.deviation or np.nan, value.count)
            if value is not None and value.deviation == 0:
                expected = (value.mean, 0.0, value.count)
            np.testing.assert_array_equal(read, expected)


class Cells(html.parser.HTMLParser):
    """The text of each cell of each row of an HTML table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    @classmethod
    def of(cls, text: str) -> list[list[str]]:
        parser = cls()
        parser.feed(text)
        return parser.rows

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_every_format_has_the_same_numbers(rich_store: SweepStore) -> None:
    table = comparison_table(rich_store)
    parsed = pd.read_csv(io.StringIO(FORMATS["csv"][1](table)))
    markdown = [
        [cell.strip().strip("*†") for cell in line.strip("|").split("|")]
        for line in FORMATS["markdown"][1](table).splitlines()
        if line.startswith("|")
    ][2:]
    latex = [
        [
            re.sub(r"\\textbf{(.*)}", r"\1", cell.strip()).removesuffix(r"$^\dagger$")
            for cell in line.removesuffix(r"\\").split(" & ")
        ]
        for line in FORMATS["latex"][1](table).splitlines()
        if line.endswith(r"\\")
    ][1:]
    html_rows = [[cell.removesuffix("†") for cell in row] for row in Cells.of(FORMATS["html"][1](table))[1:]]
    in_full = json.loads(FORMATS["json"][1](table))["rows"]
    assert len(markdown) == len(latex) == len(html_rows) == len(in_full) == len(table.rows) == 5
    for index in range(5):
        numbers = []
        for metric in (each.name for each in table.metrics):
            mean, deviation, count = (parsed.loc[index, metric + suffix] for suffix in ("", "_std", "_n"))
            value = None if np.isnan(count) else Value(mean, None if np.isnan(deviation) else deviation, int(count))
            numbers.append(format_value(value))
            low, high = (parsed.loc[index, metric + suffix] for suffix in ("_low", "_high"))
            interval = {"low": None, "high": None} if np.isnan(low) else {"low": low, "high": high}
            exact = value and {"mean": value.mean, "std": value.deviation, "n": value.count, **interval}
            assert in_full[index]["values"].get(metric) == exact
        at = [column.name.rstrip(" ↑↓") for column in columns(table)]
        places = [at.index(metric.name) for metric in table.metrics]
        assert [markdown[index][place] for place in places] == numbers
        assert [html_rows[index][place] for place in places] == numbers
        assert [latex[index][place].replace(r"$\pm$", "±").replace("---", "—") for place in places] == numbers


def test_latex_escapes_what_it_would_take_for_commands(rich_store: SweepStore) -> None:
    latex = FORMATS["latex"][1](comparison_table(rich_store))
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert r"a\_b-100.x" in body
    assert r"exact\_w1 $\downarrow$" in body
    assert r"some\_score $\uparrow$" in body
    assert not re.findall(r"(?<!\\)[_#%]", body)
    assert body.count("{") == body.count("}")
    assert "±" not in body
    columns = re.findall(r"begin{tabular}{(\w+)}", body)[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {len(columns) - 1}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_as_it_is(rich_store: SweepStore, tmp_path: Path) -> None:
    """With a baseline, remarks, a paper's numbers, arrows and names with special characters; also as a pivot."""
    plan = json.loads((rich_store.path / "plan.json").read_text())
    plan["paper"] = {"source": "50% of {it}", "rows": {"clip_": {"some_score": 0.5}}}
    (rich_store.path / "plan.json").write_text(json.dumps(plan))
    whole = comparison_table(rich_store, baseline="clip_")
    tables = [FORMATS["latex"][1](table) for table in (whole, lay_out(whole, "", "variant"))]
    preamble = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n"
    (tmp_path / "paper.tex").write_text(preamble + "\n\n".join(tables) + "\n\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "Undefined" not in ran.stdout
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")


def test_markdown_has_as_many_columns_in_every_line_whatever_is_in_them() -> None:
    row = Row("a|b", "x=1|2", {}, {"m": Value(1.0, 0.5, 2)}, frozenset({"m"}), ("1 of 2 FAILED",))
    lines = FORMATS["markdown"][1](Table("t", (), (Metric("m", "min"),), (row,), ("a note",))).splitlines()
    assert lines[2] == r"| a\|b | x=1\|2 | **1.00 ± 0.50** | 1 of 2 FAILED |"
    assert "- a note" in lines


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(Value(12.345, 0.45678, 3), "12.3 ± 0.5", id="three digits, the deviation to the same place"),
        pytest.param(Value(0.0123456, 0.0004, 3), "0.0123 ± 0.0004", id="at most four decimals"),
        pytest.param(Value(0.0000123, 0.000004, 3), "1.23e-05 ± 4.00e-06", id="less than that"),
        pytest.param(Value(0.00001, 0.0123, 2), "0.0000 ± 0.0123", id="a deviation that is more than that"),
        pytest.param(Value(1234.5, 67.8, 2), "1234 ± 68", id="thousands"),
        pytest.param(Value(-1.5, 0.25, 2), "-1.50 ± 0.25", id="negative"),
        pytest.param(Value(0.0, 0.0, 2), "0.00 ± 0.00", id="zero"),
        pytest.param(Value(3.0, None, 1), "3.00", id="one seed"),
        pytest.param(None, "—", id="nothing"),
    ],
)
def test_a_value_for_people(value: Value | None, shown: str) -> None:
    assert format_value(value) == shown


@pytest.mark.parametrize(
    ("value", "narrow", "wide"),
    [
        pytest.param(Value(26.3, 0.4, 3), "26.3±0.4", "26.3 ± 0.4", id="a decimal"),
        pytest.param(Value(26.3, 0.6, 3), "26.3±0.6", "26.3 ± 0.6", id="not rounded up either"),
        pytest.param(Value(1234.5, 0.5, 2), "1234.5±0.5", "1234.5 ± 0.5", id="thousands"),
        pytest.param(Value(26.3, 0.03, 3), "26.30±0.03", "26.30 ± 0.03", id="two decimals"),
        pytest.param(Value(26.3, 0.000003, 3), "26.3000±0.0000", "26.3000 ± 0.0000", id="at most four"),
        pytest.param(Value(26.3, 0.0, 3), "26±0", "26.3 ± 0.0", id="seeds that agree"),
        pytest.param(Value(26.3, 4.0, 3), "26±4", "26.3 ± 4.0", id="enough as it is"),
    ],
)
def test_seeds_that_differ_do_not_read_as_if_they_agreed(value: Value, narrow: str, wide: str) -> None:
    assert (format_value(value, "±", 2), format_value(value)) == (narrow, wide)


def test_small_intervals_and_differences_are_not_rounded_away() -> None:
    small = Value(-0.0000123, 0.000004, 3, (-0.00002, 0.000001))
    assert format_interval(small) == "[-2.00e-05, 1.00e-06]"
    assert format_difference(small) == "-1.23e-05 [-2.00e-05, 1.00e-06]"
    assert format_interval(Value(-0.0000123, 0.01, 3, (-0.02, 0.001))) == "[-0.0200, 0.0010]"


def test_tables_are_written_for_papers_and_programs(rich_store: SweepStore) -> None:
    table = comparison_table(rich_store)
    paths = write_tables(rich_store, table)
    assert {Path(path).suffix for path in paths} == {".csv", ".md", ".tex"}
    for path in paths:
        assert Path(path).parent == rich_store.tables
        render = next(render for suffix, render in FORMATS.values() if path.endswith(suffix))
        assert Path(path).read_text() == render(table)


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_a_terminal(rich_store: SweepStore, width: int) -> None:
    table = comparison_table(rich_store)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(table, width))
    text = console.export_text()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for row in table.rows[:3]:
        assert row.variant in text
        for metric in ("exact_w1", "some_score"):
            if metric in row.values:
                assert shown_in(text, row.values[metric]), (row.variant, metric)
    assert "…" not in text
    assert UNTRAINED.split(maxsplit=1)[0] in text


def shown_in(text: str, value: Value) -> bool:
    """Whether a text shows the mean of a value, rounded to at most four decimals."""
    return any(f"{value.mean:.{digits}f}" in text for digits in range(5) if float(f"{value.mean:.{digits}f}"))


def test_words_in_brackets_are_not_taken_for_styles() -> None:
    values: Mapping[str, Value] = {"m": Value(1.0, None, 1)}
    row = Row("v", "tail=[tanh, none]", {}, values, frozenset(), ())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rich_table(Table("t", (), (Metric("m", "min"),), (row,), ()), 120))
    assert "tail=[tanh, none]" in console.export_text()


def test_a_narrow_terminal_gets_as_many_columns_as_fit_and_the_names_of_the_others() -> None:
    names = tuple(f"a_rather_long_metric_{number}" for number in range(6))
    values = {name: Value(0.123456, 0.01, 3) for name in names}
    rows = (
        Row("a-variant-with-a-long-name", "weight=10", {}, values, frozenset(), ()),
        Row(UNTRAINED, "", {}, values, frozenset(), (), reference=True),
    )
    table = Table("wide", (), tuple(Metric(name, "min") for name in names), rows, ())
    for width, shown in ((80, 4), (40, 1), (200, 6)):
        console = Console(width=width, file=io.StringIO())
        console.print(rich_table(table, width))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        hidden = [line for line in text.splitlines() if line.startswith("too narrow for: ")]
        assert sum("0.12" in line for line in text.splitlines()) >= len(rows)
        assert text.count("0.12") == shown * len(rows)
        assert bool(hidden) is (shown < len(names))
        if hidden and width == 80:
            assert names[-1] in " ".join(text.split("too narrow for: ")[1].split())


def test_what_is_neither_good_nor_bad_has_no_arrow() -> None:
    table = Table("t", (), (Metric("fid", "min"), Metric("told")), (), ())
    assert [column.name for column in columns(table)] == ["method", "setting", "fid ↓", "told"]

"""Writes a comparison table as CSV, Markdown, LaTeX, HTML, JSON, or for a terminal."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.files import write_atomically
from orchestrator.printing import one_line, printable
from orchestrator.results.number_text import format_difference, format_interval, format_value
from orchestrator.results.stages import stage_notes
from orchestrator.results.tables import ALIKE, Row, Table, Value, heading
from orchestrator.results.verdict import group_of
from orchestrator.results.verdict_text import all_notes, mark_note, verdict_dict
from orchestrator.store.sweep import SweepStore
from trainers.metrics import Metric

LATEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "—": "---"}
    | {"±": r"$\pm$", "Δ": r"$\Delta$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
)
LABEL_WIDTH, REMARKS_WIDTH = 24, 18
"""Widths that are kept free on a terminal for the cells' labels, and for remarks if there are any."""


# --- columns for people ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Markup:
    """How a format writes a cell's text, the best value, one that is not told apart from it, a reference row's name."""

    text: Callable[[str], str] = str
    bold: Callable[[str], str] = str
    alike: Callable[[str], str] = f"{{}}{ALIKE}".format
    reference: Callable[[str], str] = str
    plus_minus: str = " ± "
    significant: int = 3


@dataclass(frozen=True)
class Column:
    """A column for people: its name, and the text of a row's cell."""

    name: str
    cell: Callable[[Row, Markup], str]
    is_number: bool = False


def columns(table: Table, *, intervals: bool = True) -> list[Column]:
    """A table's columns for people: method and setting first, remarks last if there are any."""
    found = [Column("sweep", lambda row, to: to.text(row.sweep))] if table.sweeps else []
    found += [
        Column("method", lambda row, to: (to.reference if row.reference else str)(to.text(row.variant))),
        Column("setting", lambda row, to: to.text(row.setting)),
    ]
    for number, stated in enumerate(table.metrics):
        metric = stated.name
        found.append(_metric_column(stated))
        if metric in table.intervals and intervals and _has_intervals(table, metric):
            found.append(_column("95 % interval", metric, format_interval))
            if number == 0:
                found.append(_column("seeds", metric, lambda value: "—" if value is None else str(value.count)))
        if table.baseline and (metric in table.intervals or not table.intervals):
            found.append(_difference_column(metric))
    found += [_paper_column(metric) for metric in table.paper]
    if any(row.remarks for row in table.rows):
        found.append(Column("remarks", lambda row, to: to.text("; ".join(row.remarks))))
    return found


def _has_intervals(table: Table, metric: str) -> bool:
    """Whether any cell has an interval, which takes at least two seeds."""
    return any(value.interval for row in table.rows if not row.reference and (value := row.values.get(metric)))


def _metric_column(metric: Metric) -> Column:
    def cell(row: Row, to: Markup) -> str:
        shown = to.text(format_value(row.values.get(metric.name), to.plus_minus, to.significant))
        return to.bold(shown) if metric.name in row.best else to.alike(shown) if metric.name in row.alike else shown

    return Column(heading(metric), cell, True)


def _difference_column(metric: str) -> Column:
    def cell(row: Row, to: Markup) -> str:
        return "" if row.reference else to.text(format_difference(row.differences.get(metric)))

    return Column(f"Δ {metric}", cell, True)


def _paper_column(metric: str) -> Column:
    def cell(row: Row, to: Markup) -> str:
        return to.text(f"{row.paper[metric]:g}" if metric in row.paper else "—")

    return Column(f"paper's {metric}", cell, True)


def _column(name: str, metric: str, form: Callable[[Value | None], str]) -> Column:
    return Column(name, lambda row, to: "" if row.reference else to.text(form(row.values.get(metric))), True)


# --- for programs ---------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """The table as CSV, with all digits.

    Each metric has the columns NAME, NAME_std, NAME_n, NAME_low and NAME_high (the interval). With a baseline
    NAME_difference has the same five. paper_NAME is the value that a paper reports. A sweep that grows has the columns
    stage and proposal too.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ["", "_difference"] if table.baseline else [""]
    numbers = [
        f"{metric.name}{part}{suffix}"
        for metric in table.metrics
        for part in parts
        for suffix in ("", "_std", "_n", "_low", "_high")
    ]
    sweep = ["sweep"] if table.sweeps else []
    grown = ["stage", "proposal"] if table.grown else []
    writer.writerow(
        [*sweep, "variant", *grown, *table.axes, *numbers, *(f"paper_{name}" for name in table.paper), "remarks"]
    )
    for row in table.rows:
        cells: list[Any] = [row.sweep, row.variant] if table.sweeps else [row.variant]
        cells += [row.stage, "" if row.proposal is None else row.proposal] if table.grown else []
        cells += [_written(row.axes.get(axis, "")) for axis in table.axes]
        for metric in (each.name for each in table.metrics):
            for values in [row.values, row.differences][: len(parts)]:
                of = _in_full(values.get(metric))
                cells += ["" if of.get(key) is None else of[key] for key in ("mean", "std", "n", "low", "high")]
        cells += [row.paper.get(metric, "") for metric in table.paper]
        writer.writerow([*cells, "; ".join(row.remarks)])
    return out.getvalue()


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_full(value: Value | None) -> dict[str, Any]:
    if value is None:
        return {}
    low, high = value.interval or (None, None)
    return {"mean": value.mean, "std": value.deviation, "n": value.count, "low": low, "high": high}


def to_json(table: Table) -> str:
    """The table as JSON, with all digits.

    A row's ``values`` holds mean, std, n, low and high of each metric, ``best`` and ``alike`` the metrics by which it
    is marked. ``verdict`` is :class:`~orchestrator.results.verdict.Verdict` as plain values, with its sentences.
    """
    rows = [
        {
            "sweep": row.sweep,
            "variant": row.variant,
            "setting": row.setting,
            **({"stage": row.stage, "proposal": row.proposal, "searched": row.searched} if table.grown else {}),
            "axes": row.axes,
            "values": {name: _in_full(value) for name, value in row.values.items()},
            "differences": {name: _in_full(value) for name, value in row.differences.items()},
            "best": sorted(row.best),
            "alike": sorted(row.alike),
            "paper": row.paper,
            "remarks": row.remarks,
            "reference": row.reference,
        }
        for row in table.rows
    ]
    content = {
        "title": table.title,
        "baseline": table.baseline,
        "verdict": verdict_dict(table.verdict),
        "rows": rows,
        "notes": [*stage_notes(table.grown), *mark_note(table), *table.notes],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# --- for people -----------------------------------------------------------------------------------------------------


def to_html(table: Table) -> str:
    """The table as an HTML element. Best values are bold, notes are below."""
    shown, markup = columns(table), Markup(text=_html, bold="<b>{}</b>".format, reference="<i>{}</i>".format)
    head = "".join(f'<th scope="col">{_html(column.name)}</th>' for column in shown)
    lines = [f"<table>\n<caption>{_html(table.title)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = "".join(f"<td>{column.cell(row, markup)}</td>" for column in shown)
        lines.append(f"<tr>{cells}</tr>")
    notes = "".join(f"<li>{_html(note)}</li>" for note in all_notes(table))
    return "\n".join([*lines, "</tbody>", "</table>", f"<ul>{notes}</ul>"]) + "\n"


def _html(text: str) -> str:
    return html.escape(printable(text))


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown. Best values are bold, notes are below."""
    shown = columns(table)
    markup = Markup(text=_markdown, bold="**{}**".format, reference="*{}*".format)
    lines = [_markdown_line([markup.text(column.name) for column in shown]), _markdown_line(["---"] * len(shown))]
    lines += [_markdown_line([column.cell(row, markup) for column in shown]) for row in table.rows]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {one_line(note)}" for note in all_notes(table)) + "\n"


def _markdown(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("|", r"\|")


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_latex(table: Table) -> str:
    r"""The table as a LaTeX tabular. Best values are bold, reference rows are below a rule.

    The document needs ``\usepackage{booktabs}``.
    """
    shown = columns(table)
    markup = Markup(
        text=_latex,
        bold=r"\textbf{{{}}}".format,
        alike=r"{}$^\dagger$".format,
        reference=r"\emph{{{}}}".format,
    )
    kinds = "".join("r" if column.is_number else "l" for column in shown)
    head = " & ".join(_latex(column.name) for column in shown)
    lines = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    ruled = False
    for row in table.rows:
        if row.reference and not ruled:
            lines.append(r"\midrule")
            ruled = True
        lines.append(" & ".join(column.cell(row, markup) for column in shown) + r" \\")
    notes = [f"% {one_line(note)}" for note in all_notes(table)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"


def _latex(text: str) -> str:
    return one_line(text).translate(LATEX)


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "csv": ("csv", to_csv),
    "markdown": ("md", to_markdown),
    "latex": ("tex", to_latex),
    "html": ("html", to_html),
    "json": ("json", to_json),
}


def write_tables(store: SweepStore, table: Table, named: str = "") -> list[str]:
    """Writes the table as CSV, Markdown and LaTeX into ``tables/``. Returns the paths.

    ``named`` is added to the sweep's name in the names of the files.
    """
    store.tables.mkdir(exist_ok=True)
    paths = []
    for suffix, render in (FORMATS[name] for name in ("csv", "markdown", "latex")):
        path = store.tables / f"{store.name}{named}.{suffix}"
        write_atomically(path, render(table))
        paths.append(str(path))
    return paths


# --- on a terminal --------------------------------------------------------------------------------------------------


FEW = 5
"""How many proposals of a searched cell a terminal shows."""


def few_proposals(table: Table, where: str = "") -> tuple[Table, list[str]]:
    """The table with the best few proposals of each cell that was searched, the best first, and a note on the others.

    Other cells follow, in their order. ``where`` is what the note's command needs besides the sweep's name.
    """
    groups: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.stage == "search":
            groups.setdefault(group_of(table, row), []).append(row)
    metric = next((each for each in table.metrics if each.direction is not None), None)
    kept = [row for rows in groups.values() for row in _best_first(rows, metric)[:FEW]]
    left = sum(max(0, len(rows) - FEW) for rows in groups.values())
    if not left:
        return table, []
    names = " ".join(each.sweep for each in table.grown)
    command = f"orchestrator export {names} --stage explored{where}"
    note = f"the best {FEW} proposals of each cell that was searched are shown; the {left} others: {command}"
    return replace(table, rows=(*kept, *(row for row in table.rows if row.stage != "search"))), [note]


def _best_first(rows: Sequence[Row], metric: Metric | None) -> list[Row]:
    if metric is None:
        return list(rows)
    sign = -1 if metric.direction == "max" else 1

    def key(row: Row) -> tuple[bool, float]:
        value = row.values.get(metric.name)
        return row.lacks(metric.name), math.inf if value is None else sign * value.mean

    return sorted(rows, key=key)


def rich_table(table: Table, width: int) -> Any:
    """The table for a terminal of ``width`` columns. Below 110 columns numbers are shorter.

    Intervals are shown only if all other columns fit too. The caption names the columns that do not fit.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable
    from rich.text import Text

    plain = Markup(printable) if width >= 110 else Markup(printable, plus_minus="±", significant=2)
    styled = replace(plain, text=lambda text: escape(printable(text)), bold="[bold green]{}[/]".format)
    for intervals in (True, False):
        shown = columns(table, intervals=intervals)
        labels = [column for column in shown if column.name in ("sweep", "method", "setting")]
        remarks = [column for column in shown if column.name == "remarks"]
        numbers = [column for column in shown if column not in (*labels, *remarks)]
        left = width - (REMARKS_WIDTH if remarks else 0) - _label_width(table, labels)
        fitting = _fitting(table, numbers, plain, left)
        if fitting == len(numbers):
            break
    table_shown = RichTable(title=table.title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    table_shown.padding, table_shown.pad_edge, table_shown.caption_justify = (0, 2, 0, 0), False, "left"
    table_shown.add_column("cell", overflow="fold")
    for column in numbers[:fitting]:
        table_shown.add_column(Text(broken(printable(column.name))), justify="right", no_wrap=True)
    for column in remarks:
        table_shown.add_column(column.name)
    if fitting < len(numbers):
        names = ", ".join(printable(column.name) for column in numbers[fitting:])
        table_shown.caption = Text(f"too narrow for: {names}")
    ruled = False
    for row in table.rows:
        if row.reference and not ruled:
            table_shown.add_section()
            ruled = True
        label = " ".join(column.cell(row, styled) for column in labels).strip()
        told = [column.cell(row, styled) for column in (*numbers[:fitting], *remarks)]
        table_shown.add_row(label, *told, style="dim" if row.reference else None)
    return table_shown


def broken(name: str) -> str:
    """A column's name, broken into lines."""
    return name.replace("_", "\n").replace(" interval", "\ninterval")


def _label_width(table: Table, labels: Sequence[Column]) -> int:
    widest = max(len(" ".join(column.cell(row, Markup()) for column in labels)) for row in table.rows)
    return min(LABEL_WIDTH, widest) + 4


def _fitting(table: Table, numbers: Sequence[Column], markup: Markup, width: int) -> int:
    """How many columns of numbers fit beside the cells' labels, at least one."""
    for index, column in enumerate(numbers):
        cells = max((len(column.cell(row, markup)) for row in table.rows), default=0)
        width -= max(*map(len, broken(column.name).split("\n")), cells, 0) + 2
        if width < 0:
            return max(1, index)
    return len(numbers)

"""A comparison table as text: CSV, Markdown, LaTeX, HTML, JSON, or for a terminal."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.files import write_atomically
from orchestrator.store import SweepStore
from orchestrator.tables import Row, Table, Value

LATEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "—": "---"}
)


LABEL_WIDTH, REMARKS_WIDTH = 24, 18
"""Of a terminal's columns: what labels of cells get before numbers have to go, and remarks where there are any."""


def format_value(value: Value | None, plus_minus: str = " ± ", significant: int = 3) -> str:
    """``12.3 ± 0.4``: significant digits of the mean, at most four decimals, the deviation to the same place."""
    if value is None:
        return "—"
    if not math.isfinite(value.mean):
        return str(value.mean)
    magnitude = math.floor(math.log10(abs(value.mean))) if value.mean else 0
    digits = min(4, max(0, significant - 1 - magnitude))
    text = f"{value.mean:.{digits}f}"
    return text if value.deviation is None else f"{text}{plus_minus}{value.deviation:.{digits}f}"


def to_csv(table: Table) -> str:
    """Every number in full: NAME, NAME_std and NAME_n for each metric, paper_NAME for what a paper reports."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{metric}{suffix}" for metric in table.metrics for suffix in ("", "_std", "_n")]
    writer.writerow(["variant", *table.axes, *columns, *(f"paper_{metric}" for metric in table.paper), "remarks"])
    for row in table.rows:
        cells: list[Any] = []
        for metric in table.metrics:
            value = row.values.get(metric)
            cells += (
                ["", "", ""]
                if value is None
                else [value.mean, "" if value.deviation is None else value.deviation, value.count]
            )
        cells += [row.paper.get(metric, "") for metric in table.paper]
        writer.writerow(
            [row.variant, *(_written(row.axes.get(axis, "")) for axis in table.axes), *cells, "; ".join(row.remarks)]
        )
    return out.getvalue()


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def to_json(table: Table) -> str:
    """A list of rows, every number in full: ``values`` holds mean, std and n of each metric."""
    rows = [
        {
            "variant": row.variant,
            "setting": row.setting,
            "axes": row.axes,
            "values": {
                name: {"mean": value.mean, "std": value.deviation, "n": value.count}
                for name, value in row.values.items()
            },
            "best": sorted(row.best),
            "paper": row.paper,
            "remarks": row.remarks,
            "reference": row.reference,
        }
        for row in table.rows
    ]
    return json.dumps({"title": table.title, "rows": rows, "notes": table.notes}, indent=1, ensure_ascii=False) + "\n"


def to_html(table: Table) -> str:
    """A table element, best in bold, the notes below."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*table.header(), "remarks"])
    lines = [f"<table>\n<caption>{html.escape(table.title)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = _cells(
            row, table, bold="<b>{}</b>".format, variant=lambda row: html.escape(row.variant), text=html.escape
        )
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return "\n".join([*lines, "</tbody>", "</table>", f"<ul>{notes}</ul>"]) + "\n"


def to_markdown(table: Table) -> str:
    """A GitHub table: the best in bold, the notes below."""
    lines = [_markdown_line([*table.header(), "remarks"]), _markdown_line(["---"] * (len(table.header()) + 1))]
    for row in table.rows:
        lines.append(_markdown_line(_cells(row, table, bold="**{}**".format, variant=_italic_reference)))
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {note}" for note in table.notes) + "\n"


def _italic_reference(row: Row) -> str:
    return f"*{row.variant}*" if row.reference else row.variant


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def to_latex(table: Table) -> str:
    """A tabular for booktabs, best in bold, references below a rule."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    header = []
    for name in table.header():
        text = _latex(name)
        for arrow, command in arrows.items():
            text = text.replace(arrow, command)
        header.append(text)
    kinds = "ll" + "r" * (len(table.metrics) + len(table.paper))
    lines = [r"\begin{tabular}{" + kinds + "}", r"\toprule", " & ".join(header) + r" \\", r"\midrule"]
    footnotes: list[str] = []
    ruled = False
    for row in table.rows:
        if row.reference and not ruled:
            lines.append(r"\midrule")
            ruled = True
        cells = _cells(
            row,
            table,
            bold=r"\textbf{{{}}}".format,
            variant=lambda row: _latex(row.variant),
            text=_latex,
            pm=r" $\pm$ ",
        )
        remarks = cells.pop()
        if remarks:
            footnotes.append(f"% {row.variant} {dict(row.axes)}: {remarks}")
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", *footnotes, *(f"% {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _cells(
    row: Row,
    table: Table,
    *,
    bold: Callable[[str], str],
    variant: Callable[[Row], str],
    text: Callable[[str], str] = str,
    pm: str = " ± ",
    significant: int = 3,
) -> list[str]:
    cells = [variant(row), text(row.setting)]
    for metric in table.metrics:
        shown = format_value(row.values.get(metric), pm, significant)
        cells.append(bold(shown) if metric in row.best else shown)
    cells += [f"{row.paper[metric]:g}" if metric in row.paper else "—" for metric in table.paper]
    return [*cells, text("; ".join(row.remarks))]


def _latex(text: str) -> str:
    return text.translate(LATEX)


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "csv": ("csv", to_csv),
    "markdown": ("md", to_markdown),
    "latex": ("tex", to_latex),
    "html": ("html", to_html),
    "json": ("json", to_json),
}


def write_tables(store: SweepStore, table: Table) -> list[str]:
    """The table as CSV, Markdown and LaTeX under ``tables/``. Returns the paths."""
    store.tables.mkdir(exist_ok=True)
    paths = []
    for suffix, render in (FORMATS[name] for name in ("csv", "markdown", "latex")):
        path = store.tables / f"{store.name}.{suffix}"
        write_atomically(path, render(table))
        paths.append(str(path))
    return paths


def rich_table(table: Table, width: int) -> Any:
    """The table for a terminal of ``width`` columns: below 110 with shorter numbers. What does not fit is named."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    precision: dict[str, Any] = {} if width >= 110 else {"pm": "±", "significant": 2}

    def rows(bold: Callable[[str], str], text: Callable[[str], str]) -> list[list[str]]:
        return [
            _cells(row, table, bold=bold, variant=lambda row: text(row.variant), text=text, **precision)
            for row in table.rows
        ]

    names = table.header()[2:]
    plain = rows(str, str)
    remarks = any(cells[-1] for cells in plain)
    fitting = _fitting(names, plain, width - (REMARKS_WIDTH if remarks else 0))
    shown = RichTable(title=table.title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    shown.padding, shown.pad_edge, shown.caption_justify = (0, 2, 0, 0), False, "left"
    shown.add_column("cell", overflow="fold")
    for name in names[:fitting]:
        shown.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    if remarks:
        shown.add_column("remarks")
    if fitting < len(names):
        shown.caption = f"too narrow for: {', '.join(names[fitting:])}"
    ruled = False
    for row, cells in zip(table.rows, rows("[bold green]{}[/]".format, escape), strict=True):
        if row.reference and not ruled:
            shown.add_section()
            ruled = True
        method, setting, *values = cells
        told = [*values[:fitting], *(values[-1:] if remarks else [])]
        shown.add_row(f"{method} {setting}", *told, style="dim" if row.reference else None)
    return shown


def _fitting(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns of numbers fit beside the cells' labels, at least one."""
    left = width - min(LABEL_WIDTH, max(len(f"{method} {setting}") for method, setting, *_ in rows)) - 4
    for index, name in enumerate(names):
        needed = max(*map(len, name.split("_")), *(len(cells[2 + index]) for cells in rows)) + 2
        left -= needed
        if left < 0:
            return max(1, index)
    return len(names)

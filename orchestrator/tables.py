"""Comparison tables: a row a cell, mean ± standard deviation over its seeds, and two reference rows."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.plan import short_value
from orchestrator.results import trials_frame
from orchestrator.store import State, SweepStore, write_atomically

UNTRAINED = "untrained generator"
FLOOR = "real training images"
LATEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "—": "---"}
)


@dataclass(frozen=True)
class Value:
    """Mean, standard deviation (of a sample; None for one) and count over the seeds of a cell."""

    mean: float
    deviation: float | None
    count: int

    @property
    def range(self) -> tuple[float, float]:
        """mean ∓ deviation."""
        spread = self.deviation or 0.0
        return self.mean - spread, self.mean + spread


@dataclass(frozen=True)
class Row:
    """A cell: its variant, its axis values in words and one by one, values by metric, and remarks."""

    variant: str
    setting: str
    axes: Mapping[str, str]
    values: Mapping[str, Value]
    best: frozenset[str]
    remarks: tuple[str, ...]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """What every format shows."""

    title: str
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: frozenset[str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def header(self) -> list[str]:
        """Column names for people: arrows say which way is better."""
        arrows = {metric: "↑" if metric in self.higher_is_better else "↓" for metric in self.metrics}
        plain = [metric if metric == "training_seconds" else f"{metric} {arrows[metric]}" for metric in self.metrics]
        return ["method", "setting", *plain]


def comparison_table(store: SweepStore) -> Table:
    """The table of a sweep as far as it has come: the last evaluation of every finished trial.

    A cell's mean is over its finished seeds; seeds that failed, diverged or are not finished are named in its remarks.
    The best mean of a metric is marked unless another cell's mean ± deviation overlaps it.
    """
    plan = store.plan()
    frame = trials_frame(store)
    compare, mode = plan["compare"]["metric"], plan["compare"]["mode"]
    references = next((r for entry in store.entries() if (r := store.trial(entry.trial_id).references())), {})
    measured = [name for name in references.get("floor", {}) if f"untrained.{name}" in frame]
    metrics = tuple(dict.fromkeys([compare, *measured, "training_seconds"]))
    metrics = tuple(name for name in metrics if name in frame)
    higher = set(references.get("higher_is_better", [])) - {compare} | ({compare} if mode == "max" else set())
    axes = tuple(dict.fromkeys(axis for entry in store.entries() for axis in entry.axes))

    rows = [
        _row(group, [axis for axis in axes if axis in group], metrics) for _, group in frame.groupby("cell", sort=False)
    ]
    rows = _with_best(rows, [name for name in metrics if name != "training_seconds"], higher)
    rows += _reference_rows(frame, measured)
    mixed = any("mixed code" in remark for row in rows for remark in row.remarks)
    notes = [f"mean ± standard deviation over seeds; {_scope(frame)}"]
    notes += [f"{name}: {value}" for name, value in references.get("info", {}).items()]
    if mixed:
        notes.append("mixed code: the seeds of this cell ran different commits")
    return Table(store.name, axes, metrics, frozenset(higher), tuple(rows), tuple(notes))


def _row(group: Any, axes: Sequence[str], metrics: Sequence[str]) -> Row:
    first = group.iloc[0]
    shown = {axis: short_value(first[axis]) for axis in axes if not _is_missing(first[axis])}
    finished = group[group["state"].isin([State.DONE, State.STOPPED])]
    values = {metric: value for metric in metrics if (value := _value(finished[metric]))}
    remarks = []
    others = group[~group["state"].isin([State.DONE, State.STOPPED])]["state"].value_counts()
    remarks += [f"{number} of {len(group)} {state}" for state, number in others.items()]
    commits = {commit for text in finished["commits"] for commit in text.split(", ")}
    if len(commits) > 1:
        remarks.append(f"mixed code: {', '.join(sorted(commits))}")
    return Row(first["variant"], first["setting"], shown, values, frozenset(), tuple(remarks))


def _value(series: Any) -> Value | None:
    numbers = [float(number) for number in series if number is not None and not math.isnan(number)]
    if not numbers:
        return None
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Value(statistics.fmean(numbers), deviation, len(numbers))


def _with_best(rows: Sequence[Row], metrics: Sequence[str], higher: set[str]) -> list[Row]:
    best: dict[int, set[str]] = {}
    for metric in metrics:
        sign = -1 if metric in higher else 1
        ranked = sorted(
            (i for i, row in enumerate(rows) if metric in row.values), key=lambda i: sign * rows[i].values[metric].mean
        )
        if not ranked:
            continue
        low, high = rows[ranked[0]].values[metric].range
        others = [rows[i].values[metric].range for i in ranked[1:]]
        if all(other_high < low or other_low > high for other_low, other_high in others):
            best.setdefault(ranked[0], set()).add(metric)
    return [
        Row(row.variant, row.setting, row.axes, row.values, frozenset(best.get(i, set())), row.remarks)
        for i, row in enumerate(rows)
    ]


def _reference_rows(frame: Any, metrics: Sequence[str]) -> list[Row]:
    untrained, floor = {}, {}
    for metric in metrics:
        # one untrained generator a seed and network: cells that share one count it once
        once = frame.drop_duplicates(["seed", f"untrained.{metric}"])
        if value := _value(once[f"untrained.{metric}"]):
            untrained[metric] = value
        if value := _value(frame[f"floor.{metric}"].drop_duplicates()):
            floor[metric] = value
    return [
        Row(name, "", {}, values, frozenset(), (), reference=True)
        for name, values in ((UNTRAINED, untrained), (FLOOR, floor))
        if values
    ]


def _scope(frame: Any) -> str:
    counts = frame["state"].value_counts()
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def format_value(value: Value | None, plus_minus: str = " ± ", significant: int = 3) -> str:
    """``12.3 ± 0.4``: significant digits of the mean, at most four decimals, the deviation to the same place."""
    if value is None:
        return "—"
    magnitude = math.floor(math.log10(abs(value.mean))) if value.mean else 0
    digits = min(4, max(0, significant - 1 - magnitude))
    text = f"{value.mean:.{digits}f}"
    return text if value.deviation is None else f"{text}{plus_minus}{value.deviation:.{digits}f}"


def to_csv(table: Table) -> str:
    """Every number in full: NAME, NAME_std and NAME_n for each metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{metric}{suffix}" for metric in table.metrics for suffix in ("", "_std", "_n")]
    writer.writerow(["variant", *table.axes, *columns, "remarks"])
    for row in table.rows:
        cells: list[Any] = []
        for metric in table.metrics:
            value = row.values.get(metric)
            cells += (
                ["", "", ""]
                if value is None
                else [value.mean, "" if value.deviation is None else value.deviation, value.count]
            )
        writer.writerow([row.variant, *(row.axes.get(axis, "") for axis in table.axes), *cells, "; ".join(row.remarks)])
    return out.getvalue()


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
        text, _, arrow = name.partition(" ")
        header.append(_latex(text) + (f" {arrows[arrow]}" if arrow in arrows else ""))
    kinds = "ll" + "r" * len(table.metrics)
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
    return [*cells, text("; ".join(row.remarks))]


def _latex(text: str) -> str:
    return text.translate(LATEX)


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "csv": ("csv", to_csv),
    "markdown": ("md", to_markdown),
    "latex": ("tex", to_latex),
}


def write_tables(store: SweepStore, table: Table) -> list[str]:
    """The table in every format under ``tables/``. Returns the paths."""
    store.tables.mkdir(exist_ok=True)
    paths = []
    for suffix, render in FORMATS.values():
        path = store.tables / f"{store.name}.{suffix}"
        write_atomically(path, render(table))
        paths.append(str(path))
    return paths


def rich_table(table: Table, width: int) -> Any:
    """The table for a terminal of ``width`` columns: below 110 with shorter numbers."""
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    shown.padding, shown.pad_edge = (0, 2, 0, 0), False
    shown.add_column("cell")
    for name in table.header()[2:]:
        shown.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    precision: dict[str, Any] = {} if width >= 110 else {"pm": "±", "significant": 2}
    remarks = any(row.remarks for row in table.rows)
    if remarks:
        shown.add_column("remarks")
    ruled = False
    for row in table.rows:
        if row.reference and not ruled:
            shown.add_section()
            ruled = True
        method, setting, *cells = _cells(
            row, table, bold="[bold green]{}[/]".format, variant=lambda row: row.variant, **precision
        )
        shown.add_row(
            f"{method} {setting}", *(cells if remarks else cells[:-1]), style="dim" if row.reference else None
        )
    return shown

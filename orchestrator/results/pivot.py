"""Applies ``--rows`` and ``--columns`` to a table: which cells it shows, and how it lays them out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import UserError
from orchestrator.results.tables import Row, Table
from orchestrator.results.verdict import judged
from orchestrator.sweep.setting import short_value
from trainers.parts import nearest


@dataclass(frozen=True)
class Item:
    """One part of ``--rows`` or ``--columns``: a coordinate to lay out, or with ``values`` one to select cells by."""

    name: str
    values: tuple[str, ...] = ()


def lay_out(table: Table, rows: str = "", columns: str = "") -> Table:
    """The table with only the selected cells, sorted by ``rows``, and with one column for each value of ``columns``.

    Both are written ``NAME,NAME=VALUE,NAME=VALUE|VALUE``. A name is ``sweep``, ``variant`` or an axis; an axis's last
    part is enough. A value is written as in the table or as in JSON. A name with values selects cells; a name without
    values is laid out. Every other coordinate in which the cells differ goes into the rows, so that no two cells fall
    into the same place. Raises :class:`UserError` for unknown names and values.
    """
    by_row, by_column = _items("--rows", rows, table), _items("--columns", columns, table)
    selected = table
    for option, items in (("--rows", by_row), ("--columns", by_column)):
        for item in items:
            selected = _selected(selected, option, item)
    table = table if selected is table else judged(selected)
    ordered = [item.name for item in by_row if not item.values]
    across = list(dict.fromkeys(item.name for item in by_column if not item.values))
    if twice := [name for name in across if name in ordered]:
        raise UserError(f"--columns: '{twice[0]}' is also in --rows; give it in one of the two")
    cells = [row for row in table.rows if not row.reference]
    for name in reversed(ordered):
        known = _known(cells, name)
        cells.sort(key=lambda row, name=name, known=known: known.index(_written(_coordinate(row, name))))  # type: ignore[misc]
    table = replace(table, rows=(*cells, *(row for row in table.rows if row.reference)))
    return _pivoted(table, ordered, across) if across else table


def _items(option: str, text: str, table: Table) -> list[Item]:
    items = []
    for part in filter(None, _split(text, ",")):
        name, equals, values = part.partition("=")
        chosen = tuple(_split(values, "|"))
        if equals and not all(chosen):
            raise UserError(f"{option} {part}: expected NAME=VALUE or NAME=VALUE|VALUE")
        items.append(Item(_full_name(option, name.strip(), table), chosen if equals else ()))
    return items


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text. Separators inside brackets or quotes do not divide it."""
    parts, depth = [""], 0
    for token in re.findall(r'"[^"]*"|\'[^\']*\'|.', text, re.DOTALL):
        if token == separator and not depth:
            parts.append("")
            continue
        depth = max(0, depth + (token in "([{") - (token in ")]}"))
        parts[-1] += token
    return [part.strip() for part in parts]


def _full_name(option: str, name: str, table: Table) -> str:
    names = ("sweep", "variant", *table.axes)
    if name in names:
        return name
    found = [axis for axis in table.axes if axis.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{option}: '{name}' is ambiguous; write {' or '.join(found)}")
    raise UserError(f"{option}: the cells of '{table.title}' have no '{name}'{nearest(name, names)}")


def _coordinate(row: Row, name: str) -> Any:
    return {"sweep": row.sweep, "variant": row.variant}.get(name, row.axes.get(name))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else "—" if value is None else json.dumps(value)


def _known(rows: Iterable[Row], name: str) -> list[str]:
    """The values of a coordinate, in order of appearance."""
    return list(dict.fromkeys(_written(_coordinate(row, name)) for row in rows))


def _selected(table: Table, option: str, item: Item) -> Table:
    if not item.values:
        return table
    cells = [row for row in table.rows if not row.reference]
    known = _known(cells, item.name)
    for value in item.values:
        if not any(_same(value, written) for written in known):
            raise UserError(f"{option}: no cell has {item.name}={value}; there are {', '.join(known)}")
    kept = [
        row
        for row in table.rows
        if row.reference or any(_same(value, _written(_coordinate(row, item.name))) for value in item.values)
    ]
    note = f"only {item.name}={'|'.join(item.values)}"
    return replace(table, rows=tuple(kept), notes=(*table.notes, note))


def _same(text: str, written: str) -> bool:
    """Whether a user's text means a written value. 1 means 1.0; lists and null may be as in the table or as in JSON."""
    try:
        return float(text) == float(written)
    except ValueError:
        pass
    if written == "—":
        return text in ("—", "None", "null")
    value = _read(written)
    return text in (written, short_value(value)) or (isinstance(value, list | dict | str) and _read(text) == value)


def _read(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return written


def _pivoted(table: Table, ordered: Sequence[str], across: Sequence[str]) -> Table:
    """The table with one column for each metric and each combination of the values of ``across``."""
    cells = [row for row in table.rows if not row.reference]
    varying = [name for name in ("sweep", "variant", *table.axes) if len(_known(cells, name)) > 1]
    down = [*ordered, *(name for name in varying if name not in (*ordered, *across))]
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in cells:
        key = tuple(_written(_coordinate(row, name)) for name in down)
        lines.setdefault(key, {})[_words(row, across)] = row
    labels = list(dict.fromkeys(label for line in lines.values() for label in line))
    rows = []
    for line in lines.values():
        first = next(iter(line.values()))
        named = [name for name in down if name not in ("sweep", "variant") and name in first.axes]
        rows.append(
            Row(
                variant=first.variant if "variant" in down or len(_known(cells, "variant")) == 1 else "",
                setting=_words(first, named),
                axes={name: first.axes[name] for name in named},
                values=_across(line, {label: row.values for label, row in line.items()}),
                best=frozenset(f"{metric} {label}" for label, row in line.items() for metric in row.best),
                alike=frozenset(f"{metric} {label}" for label, row in line.items() for metric in row.alike),
                remarks=tuple(f"{label}: {remark}" for label, row in line.items() for remark in row.remarks),
                paper=_across(line, {label: row.paper for label, row in line.items()}),
                sweep=first.sweep if "sweep" not in across or len(_known(cells, "sweep")) == 1 else "",
                differences=_across(line, {label: row.differences for label, row in line.items()}),
            )
        )
    notes = [
        f"{row.variant}: " + ", ".join(f"{name} {value.mean:.4g}" for name, value in row.values.items())
        for row in table.rows
        if row.reference
    ]

    def all_of(metrics: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{metric} {label}" for metric in metrics for label in labels)

    return replace(
        table,
        axes=tuple(axis for axis in table.axes if axis in down),
        metrics=tuple(replace(metric, name=name) for metric in table.metrics for name in all_of([metric.name])),
        rows=tuple(rows),
        notes=(*table.notes, *notes),
        paper=tuple(name for name in all_of(table.paper) if any(name in row.paper for row in rows)),
        sweeps=() if "sweep" in across else table.sweeps,
        intervals=(),
    )


def _across(line: Mapping[str, Row], values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{metric} {label}": value for label in line for metric, value in values[label].items()}


def _words(row: Row, names: Sequence[str]) -> str:
    """A row's coordinates as text: ``q=1 p=2`` for axes, by their last parts. A variant or a sweep has no name."""
    words = []
    for name in names:
        written = _written(_coordinate(row, name))
        words.append(written if name in ("sweep", "variant") else f"{name.rpartition('.')[2]}={written}")
    return " ".join(words)

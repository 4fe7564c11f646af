"""Comparison tables: a row a cell, mean ± standard deviation over its seeds, and two reference rows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.results import At, trials_frame
from orchestrator.store import Entry, State, SweepStore

UNTRAINED = "untrained generator"
FLOOR = "real training images"
MIXED_CODE = "mixed code"
OTHER_REFERENCE = "other reference"


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
    """A cell: its variant, its axis values in words and as they are, values by metric, remarks, a paper's numbers."""

    variant: str
    setting: str
    axes: Mapping[str, Any]
    values: Mapping[str, Value]
    best: frozenset[str]
    remarks: tuple[str, ...]
    reference: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """What every format shows."""

    title: str
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    higher_is_better: frozenset[str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    paper: tuple[str, ...] = ()
    """The metrics of which a paper reports numbers."""
    neutral: frozenset[str] = frozenset({"training_seconds"})
    """The metrics of which neither more nor less is better."""

    def header(self) -> list[str]:
        """Column names for people: arrows say which way is better."""
        arrows = {metric: "↑" if metric in self.higher_is_better else "↓" for metric in self.metrics}
        plain = [metric if metric in self.neutral else f"{metric} {arrows[metric]}" for metric in self.metrics]
        return ["method", "setting", *plain, *(f"paper's {metric}" for metric in self.paper)]


def comparison_table(store: SweepStore, at: At | None = None) -> Table:
    """The table of a sweep as far as it has come: the last evaluation of every finished trial, or the one ``at``.

    A cell's mean is over its finished seeds, those that were stopped early among them, as far as they came; seeds that
    were stopped, failed, diverged or are not finished are named in its remarks.
    The best mean of a metric is marked unless another cell's mean ± deviation overlaps it, or only others have one.
    """
    plan = store.plan()
    entries, frame = store.entries(), trials_frame(store, at)
    compare, mode = plan["compare"]["metric"], plan["compare"]["mode"]
    references = {entry.trial_id: store.trial(entry.trial_id).references() for entry in entries}
    told = next((each for each in references.values() if each), {})
    measured = [name for name in told.get("metrics", []) if f"untrained.{name}" in frame]
    metrics = tuple(
        name
        for name in dict.fromkeys([compare, *([at.metric] if at else []), *measured, "training_seconds"])
        if name in frame
    )
    higher = set(told.get("higher_is_better", [])) - {compare} | ({compare} if mode == "max" else set())
    axes = tuple(dict.fromkeys(axis for entry in entries for axis in entry.axes))

    paper = plan.get("paper") or {"source": "", "rows": {}}
    reported = paper["rows"]
    cells: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        cells.setdefault(json.dumps([entry.variant, entry.axes]), []).append(index)
    alike = [not each or each.get("info") == told.get("info") for each in references.values()]
    rows = []
    for indices in cells.values():
        row = _row(frame.iloc[indices], entries[indices[0]], metrics)
        remarks = row.remarks if all(alike[i] for i in indices) else (*row.remarks, OTHER_REFERENCE)
        rows.append(replace(row, remarks=remarks, paper=reported.get(entries[indices[0]].label, {})))
    neutral = {"training_seconds", *told.get("neutral", [])} - {compare}
    rows = _with_best(rows, [name for name in metrics if name not in neutral], higher)
    rows += _reference_rows(frame[alike], measured)
    notes = [f"mean ± standard deviation over seeds; {_scope(frame)}"]
    notes += [f"{name}: {value}" for name, value in told.get("info", {}).items()]
    if at is not None:
        notes.append(f"each trial at the evaluation whose {at.metric} is nearest to {at.value:g}")
    if reported:
        notes.append(f"paper's: {paper['source']}; its data, extractor and budget may not be ours")
    if any(remark.startswith(MIXED_CODE) for row in rows for remark in row.remarks):
        notes.append(f"{MIXED_CODE}: the seeds of this cell ran different commits")
    if not all(alike):
        notes.append(f"{OTHER_REFERENCE}: measured with another extractor or sample count, not comparable")
    by_paper = tuple(dict.fromkeys(metric for numbers in reported.values() for metric in numbers))
    return Table(store.name, axes, metrics, frozenset(higher), tuple(rows), tuple(notes), by_paper, frozenset(neutral))


def _row(group: Any, entry: Entry, metrics: Sequence[str]) -> Row:
    """The row of a cell; ``group`` are its trials, ``entry`` is one of them."""
    finished = group[group["state"].isin([State.DONE, State.STOPPED])]
    values = {metric: value for metric in metrics if (value := _value(finished[metric]))}
    remarks = []
    others = group[group["state"] != State.DONE]["state"].value_counts()
    remarks += [f"{number} of {len(group)} {state}" for state, number in others.items()]
    commits = {commit for text in finished["commits"] for commit in text.split(", ")}
    if len(commits) > 1:
        remarks.append(f"{MIXED_CODE}: {', '.join(sorted(commits))}")
    return Row(entry.variant, entry.setting, entry.axes, values, frozenset(), tuple(remarks))


def _value(series: Any) -> Value | None:
    numbers = [float(number) for number in series if number is not None and not math.isnan(number)]
    if not numbers:
        return None
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Value(statistics.fmean(numbers), deviation, len(numbers))


def _with_best(rows: Sequence[Row], metrics: Sequence[str], higher: set[str]) -> list[Row]:
    best: list[set[str]] = [set() for _ in rows]
    for metric in metrics:
        sign = -1 if metric in higher else 1
        there = [i for i, row in enumerate(rows) if metric in row.values and OTHER_REFERENCE not in row.remarks]
        if not there:
            continue
        first = min(there, key=lambda i: sign * rows[i].values[metric].mean)
        value, others = rows[first].values[metric], [rows[i].values[metric] for i in there if i != first]
        untold = value.deviation is None and any(other.deviation is not None for other in others)
        low, high = value.range
        if not untold and all(other.range[1] < low or other.range[0] > high for other in others):
            best[first].add(metric)
    return [replace(row, best=frozenset(marked)) for row, marked in zip(rows, best, strict=True)]


def _reference_rows(frame: Any, metrics: Sequence[str]) -> list[Row]:
    untrained, floor = {}, {}
    for metric in metrics:
        # one untrained generator a seed and network: cells that share one count it once
        once = frame.drop_duplicates(["seed", f"untrained.{metric}"])
        if value := _value(once[f"untrained.{metric}"]):
            untrained[metric] = value
        column = f"floor.{metric}"  # which metrics of probes have not
        if column in frame and (value := _value(frame[column].drop_duplicates())):
            floor[metric] = value
    return [
        Row(name, "", {}, values, frozenset(), (), reference=True)
        for name, values in ((UNTRAINED, untrained), (FLOOR, floor))
        if values
    ]


def _scope(frame: Any) -> str:
    counts = frame["state"].value_counts()
    return ", ".join(f"{number} {state}" for state, number in counts.items())

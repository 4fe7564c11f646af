"""Comparison tables: a row a cell, mean ± standard deviation over its seeds, and two reference rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.errors import UserError
from orchestrator.results.frames import LAST, At, check_metrics, trials_frame
from orchestrator.results.statistics import bootstrap_interval
from orchestrator.store.references import stored_metrics
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from trainers.config import without_runtime_options
from trainers.metrics import TRAINING_SECONDS
from trainers.parts import nearest

UNTRAINED = "untrained generator"
FLOOR = "real training images"
MIXED_CODE = "mixed code"
OTHER_REFERENCE = "other reference"
IDENTITY = frozenset({"trial_id", "cell", "variant", "setting", "seed", "state", "error", "commits", "short"})
"""Columns of the trials' frame that are no metrics, beside the dotted ones."""
USED = ("seed", "state", "commits", "short")
"""Those that a row is made of."""
_Trial = dict[Any, Any]


@dataclass(frozen=True)
class Value:
    """Mean, standard deviation (of a sample), count and 95 % bootstrap interval over seeds; None twice for one seed."""

    mean: float
    deviation: float | None
    count: int
    interval: tuple[float, float] | None = None

    @property
    def range(self) -> tuple[float, float]:
        """The interval, or the mean alone."""
        return self.interval or (self.mean, self.mean)


def value_of(numbers: Iterable[float], *, interval: bool = True) -> Value | None:
    """The numbers as one value, those that are missing or not finite left out; None where none is there."""
    import numpy as np

    there = [float(number) for number in numbers if number is not None and math.isfinite(number)]
    if not there:
        return None
    deviation = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return Value(math.fsum(there) / len(there), deviation, len(there), bootstrap_interval(there) if interval else None)


@dataclass(frozen=True)
class Row:
    """A cell: its variant, its axis values in words and as they are, values by metric, remarks, a paper's numbers.

    ``differences`` are to the table's baseline, paired by seed.
    """

    variant: str
    setting: str
    axes: Mapping[str, Any]
    values: Mapping[str, Value]
    best: frozenset[str]
    remarks: tuple[str, ...]
    reference: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)
    sweep: str = ""
    differences: Mapping[str, Value] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return f"{self.variant} {self.setting}".strip()


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
    neutral: frozenset[str] = frozenset({TRAINING_SECONDS.name})
    """The metrics of which neither more nor less is better."""
    sweeps: tuple[str, ...] = ()
    """Where the rows are of several sweeps."""
    baseline: str = ""
    """The cell that differences are to."""
    intervals: tuple[str, ...] = ()
    """The metrics whose intervals and differences have columns of their own for people; programs get all."""

    def arrow(self, metric: str) -> str:
        """The metric with an arrow that says which way is better."""
        if metric in self.neutral:
            return metric
        return f"{metric} {'↑' if metric in self.higher_is_better else '↓'}"


def comparison_table(
    *stores: SweepStore,
    at: At = LAST,
    metrics: Sequence[str] = (),
    baseline: str = "",
    again: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """The table of one or several sweeps as far as they have come: every finished trial as it was ``at`` some point.

    A cell's mean is over its finished seeds, those that were stopped early among them, as far as they came; seeds that
    were stopped, failed, diverged or are not finished are named in its remarks.
    The best mean of a metric is marked unless another cell's interval overlaps its own, or only others have one.
    ``metrics`` are shown instead of the evaluation's. ``again`` are values measured anew, by trial. Raises
    :class:`UserError` for metrics that nobody logged and a baseline that is no cell.
    """
    import pandas as pd

    plans = [store.plan() for store in stores]
    owners = [(store, entry) for store in stores for entry in store.entries()]
    frames = [trials_frame(store, at, again) for store in stores]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    names = ", ".join(store.name for store in stores)
    logged = [name for name in frame.columns if name not in IDENTITY and "." not in name]
    check_metrics("--metrics", metrics, logged, names)
    if at.what not in ("last", "best", "epoch", "seconds"):
        check_metrics(f"--at {at.what}={at.value:g}", [at.what], logged, names)

    references = [store.trial(entry.trial_id).references() for store, entry in owners]
    told = next((each for each in references if each), {})
    stated = {name: metric for each in reversed(references) for name, metric in stored_metrics(each).items()}
    measured = list(dict.fromkeys(name for each in references for name in stored_metrics(each)))
    measured = [name for name in measured if f"untrained.{name}" in frame]
    compares = {plan["compare"]["metric"]: plan["compare"]["mode"] for plan in plans}
    wanted = metrics or [*compares, *([at.what] if at.what in logged else []), *measured, TRAINING_SECONDS.name]
    shown = tuple(name for name in dict.fromkeys(wanted) if name in frame)
    higher = {name for name, metric in stated.items() if metric.direction == "max"} - set(compares)
    higher |= {name for name, mode in compares.items() if mode == "max"}
    neutral = {name for name, metric in stated.items() if metric.direction is None} - set(compares)
    neutral |= set(shown) - {*measured, *compares}  # losses, seconds: what nobody evaluated by is neither good nor bad

    reported = {
        store.name: (plan.get("paper") or {"rows": {}})["rows"] for store, plan in zip(stores, plans, strict=True)
    }
    cells: dict[str, list[int]] = {}
    for index, (store, entry) in enumerate(owners):
        cells.setdefault(json.dumps([store.name, entry.variant, entry.axes]), []).append(index)
    trials = frame.reindex(columns=[*USED, *shown]).to_dict("records")
    measured_on = {store.name: _measured_on(store) for store in stores}
    alike = [
        measured_on[store.name] == measured_on[stores[0].name] and (not each or each.get("info") == told.get("info"))
        for (store, _), each in zip(owners, references, strict=True)
    ]
    rows = []
    for indices in cells.values():
        store, entry = owners[indices[0]]
        row = _row([trials[i] for i in indices], entry, shown, at)
        remarks = row.remarks if all(alike[i] for i in indices) else (*row.remarks, OTHER_REFERENCE)
        paper = reported[store.name].get(entry.label, {})
        rows.append(replace(row, remarks=remarks, paper=paper, sweep=store.name))
    if baseline:
        groups = [[trials[i] for i in indices] for indices in cells.values()]
        rows = _with_differences(rows, groups, baseline, shown)
    rows += _reference_rows(frame[alike], [name for name in measured if name in shown])

    notes = _notes(plans, frame, told.get("info", {}), at, baseline)
    counts = {value.count for row in rows for value in row.values.values() if value.interval}
    if counts:
        few = "; of two or three seeds they are the range of what was seen" if counts & {2, 3} else ""
        notes.append(f"95 % intervals of the mean by bootstrap over seeds{few}")
    if any(remark.startswith(MIXED_CODE) for row in rows for remark in row.remarks):
        notes.append(f"{MIXED_CODE}: the seeds of this cell ran different commits")
    if not all(alike):
        notes.append(f"{OTHER_REFERENCE}: measured on another dataset, with another extractor or sample count")
    table = Table(
        title=names,
        axes=tuple(dict.fromkeys(axis for _, entry in owners for axis in entry.axes)),
        metrics=shown,
        higher_is_better=frozenset(higher),
        rows=tuple(rows),
        notes=tuple(notes),
        paper=tuple(dict.fromkeys(name for each in reported.values() for numbers in each.values() for name in numbers)),
        neutral=frozenset(neutral),
        sweeps=tuple(store.name for store in stores) if len(stores) > 1 else (),
        baseline=baseline,
        intervals=tuple(metrics) or shown[:1],
    )
    return mark_best(table)


def _notes(plans: Sequence[Mapping[str, Any]], frame: Any, info: Mapping[str, Any], at: At, baseline: str) -> list[str]:
    """What all rows have in common; each on one line, which LaTeX's comments need."""
    notes = [f"mean ± standard deviation over seeds; {_scope(frame)}"]
    notes += [f"{name}: {value}" for name, value in info.items()]
    if at != LAST:
        notes.append(f"each trial at: {at}")
    if baseline:
        notes.append(f"Δ: difference to {baseline}, paired by seed, with its interval")
    sources = [plan["paper"]["source"] for plan in plans if plan.get("paper")]
    notes += [f"paper's: {' '.join(text.split())}; its data, extractor and budget may not be ours" for text in sources]
    return notes


def _measured_on(store: SweepStore) -> Any:
    """What all trials of a sweep have in common and those of another may not: dataset and evaluation."""
    if (values := next((config for _, config in store.configs()), None)) is None:
        return None
    config = without_runtime_options(values)
    evaluation = {key: value for key, value in config["evaluation"].items() if key not in ("times", "stop_at")}
    return config["dataset"], evaluation


def _finished(group: Sequence[_Trial]) -> list[_Trial]:
    return [trial for trial in group if trial["state"] in (State.DONE, State.STOPPED)]


def _row(group: Sequence[_Trial], entry: Entry, metrics: Sequence[str], at: At) -> Row:
    """The row of a cell; ``group`` are its trials, ``entry`` is one of them."""
    finished = _finished(group)
    values = {metric: value for metric in metrics if (value := value_of(trial[metric] for trial in finished))}
    others = Counter(trial["state"] for trial in group if trial["state"] != State.DONE)
    remarks = [f"{number} of {len(group)} {state}" for state, number in others.most_common()]
    if short := sum(trial["short"] for trial in finished):
        remarks.append(f"{short} of {len(group)} ended before {at.value:g} {'epochs' if at.what == 'epoch' else 's'}")
    for metric in metrics:
        there = values[metric].count if metric in values else 0
        if there < len(finished) and (there or metric == metrics[0]):  # of what no seed has there is no mean to mistake
            remarks.append(f"{len(finished) - there} of {len(group)} without {metric}")
    commits = {commit for trial in finished for commit in trial["commits"].split(", ")}
    if len(commits) > 1:
        remarks.append(f"{MIXED_CODE}: {', '.join(sorted(commits))}")
    return Row(entry.variant, entry.setting, entry.axes, values, frozenset(), tuple(remarks))


def mark_best(table: Table) -> Table:
    """The table with the best of each metric marked, where no other cell's interval overlaps its own."""
    rows = table.rows
    best: list[set[str]] = [set() for _ in rows]
    comparable = [i for i, row in enumerate(rows) if not row.reference and OTHER_REFERENCE not in row.remarks]
    for metric in table.metrics:
        there = [i for i in comparable if metric in rows[i].values]
        if metric in table.neutral or not there:
            continue
        sign = -1 if metric in table.higher_is_better else 1
        first = min(there, key=lambda i: sign * rows[i].values[metric].mean)
        value, others = rows[first].values[metric], [rows[i].values[metric] for i in there if i != first]
        untold = value.interval is None and any(other.interval is not None for other in others)
        low, high = value.range
        if not untold and all(other.range[1] < low or other.range[0] > high for other in others):
            best[first].add(metric)
    return replace(
        table, rows=tuple(replace(row, best=frozenset(marked)) for row, marked in zip(rows, best, strict=True))
    )


def _with_differences(
    rows: Sequence[Row], groups: Sequence[Sequence[_Trial]], baseline: str, metrics: Sequence[str]
) -> list[Row]:
    """Cell minus baseline, seed by seed: what both seeds share, the data and the noise, cancels."""
    labels = [f"{row.sweep}: {row.label}" for row in rows]
    found = [i for i, row in enumerate(rows) if baseline in (row.label, labels[i])]
    if not found:
        raise UserError(
            f"--baseline: there is no cell called '{baseline}'{nearest(baseline, [row.label for row in rows])}"
        )
    if len(found) > 1:
        raise UserError(f"--baseline {baseline}: which one? {', '.join(repr(labels[i]) for i in found)}")
    base = {trial["seed"]: trial for trial in _finished(groups[found[0]])}
    told = []
    for index, (row, group) in enumerate(zip(rows, groups, strict=True)):
        differences = {}
        if index != found[0] and OTHER_REFERENCE not in (*row.remarks, *rows[found[0]].remarks):
            pairs = [(trial, base[trial["seed"]]) for trial in _finished(group) if trial["seed"] in base]
            for metric in metrics:
                if value := value_of(ours[metric] - theirs[metric] for ours, theirs in pairs):
                    differences[metric] = value
        told.append(replace(row, differences=differences))
    return told


def _reference_rows(frame: Any, metrics: Sequence[str]) -> list[Row]:
    untrained, floor = {}, {}
    for metric in metrics:
        # one untrained generator a seed and network: cells that share one count it once
        once = frame.drop_duplicates(["seed", f"untrained.{metric}"])
        if value := value_of(once[f"untrained.{metric}"], interval=False):
            untrained[metric] = value
        column = f"floor.{metric}"  # which metrics of probes have not
        if column in frame and (value := value_of(frame[column].drop_duplicates(), interval=False)):
            floor[metric] = value
    return [
        Row(name, "", {}, values, frozenset(), (), reference=True)
        for name, values in ((UNTRAINED, untrained), (FLOOR, floor))
        if values
    ]


def _scope(frame: Any) -> str:
    counts = frame["state"].value_counts()
    return ", ".join(f"{number} {state}" for state, number in counts.items())

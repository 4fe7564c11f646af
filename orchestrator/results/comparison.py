"""Compares a sweep's cells: a row a cell, with mean ± standard deviation over its seeds, and two reference rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.results.differences import with_differences
from orchestrator.results.frames import LAST, At, check_metrics, trials_frame
from orchestrator.results.stages import Grown, Out, Race, Shown, chosen_cells, entries_in, grown_as, race_of
from orchestrator.results.statistics import Scale
from orchestrator.results.tables import (
    EARLIER,
    FLOOR,
    MIXED_CODE,
    OTHER_REFERENCE,
    UNTRAINED,
    Row,
    Table,
    value_of,
)
from orchestrator.results.verdict import judged
from orchestrator.store.decision_log import CellKey, cell_key
from orchestrator.store.plan_file import GrownPlan
from orchestrator.store.references import stored_metrics
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from trainers.config import without_runtime_options
from trainers.metrics import TRAINING_SECONDS, Direction, Metric

IDENTITY = frozenset(
    {"trial_id", "cell", "variant", "setting", "seed", "stage", "proposal", "state", "error", "commits", "short"}
)
"""The columns of the trials' frame that are no metrics. Columns with a dot are no metrics either."""
USED = ("seed", "state", "commits", "short")
"""The columns, besides metrics, that a row is made from."""
INTERVALS: dict[Scale, str] = {
    "t": "Student's t",
    "log": "Student's t on the logarithm's scale; Student's t as it is, where a seed's value is not positive",
}
_Trial = dict[Any, Any]


@dataclass(frozen=True)
class _Trials:
    """The trials of the compared sweeps, in the order of their plans, each with its sweep, values and references."""

    stores: Sequence[SweepStore]
    plans: list[Mapping[str, Any]]
    owners: list[tuple[SweepStore, Entry]]
    frame: Any
    references: list[dict[str, Any]]
    grown: list[GrownPlan | None]
    stages: list[Shown]

    @property
    def logged(self) -> list[str]:
        """The metrics that at least one trial has logged."""
        return [name for name in self.frame.columns if name not in IDENTITY and "." not in name]

    @property
    def info(self) -> Mapping[str, Any]:
        """What the values depend on, such as the extractor, from the first trial that has references."""
        return next((each for each in self.references if each), {}).get("info", {})

    def told_growth(self) -> tuple[Grown, ...]:
        """What the table says of the sweeps that grow."""
        found = zip(self.stores, self.grown, self.stages, strict=True)
        return tuple(grown_as(store, plan, shown) for store, plan, shown in found if plan is not None)

    def cells(self) -> list[list[int]]:
        """The indices of each cell's trials."""
        found: dict[str, list[int]] = {}
        for index, (store, entry) in enumerate(self.owners):
            found.setdefault(json.dumps([store.name, entry.stage, entry.variant, entry.axes]), []).append(index)
        return list(found.values())


def comparison_table(
    *stores: SweepStore,
    at: At = LAST,
    metrics: Sequence[str] = (),
    baseline: str = "",
    again: Mapping[str, Mapping[str, float]] | None = None,
    scale: Scale = "t",
    stage: Shown | None = None,
) -> Table:
    """The comparison table of one or several sweeps. The sweeps need not be finished.

    ``at`` chooses the evaluation of each trial. A cell's mean is over its finished seeds, including those that were
    stopped early. Its remarks count the seeds that were stopped, failed, diverged or are not finished.
    :func:`~orchestrator.results.verdict.judged` adds the verdict and the marks.

    ``stage`` chooses one of the two tables of a sweep that grows, see :func:`~orchestrator.results.stages.entries_in`.
    ``metrics`` are shown instead of the evaluation's. ``again`` holds values that were measured again, by trial id.
    ``scale`` says how the intervals of means are made, see :func:`~orchestrator.results.statistics.mean_interval`.
    Raises :class:`UserError` for a metric that no trial has logged, for a baseline that is not a cell, and if the
    confirmed table is asked for and a sweep has none.
    """
    title = ", ".join(store.name for store in stores)
    trials = _read(stores, at, again, stage)
    check_metrics("--metrics", metrics, trials.logged, title)
    if at.what not in ("last", "best", "epoch", "seconds"):
        check_metrics(f"--at {at.what}={at.value:g}", [at.what], trials.logged, title)
    evaluated = _evaluated(trials)
    shown = _shown(trials, evaluated, metrics, at)
    alike = _alike(stores, trials)
    intervals = tuple(metrics) or tuple(metric.name for metric in shown[:1])
    rows, cells = _rows(trials, [metric.name for metric in shown], alike, at, scale)
    notes = _notes(trials, at)
    if baseline:
        rows, how = with_differences(rows, cells, baseline, [metric.name for metric in shown])
        notes += [
            f"Δ {metric}: difference to {baseline} over the seeds that both have; {how[metric]}" for metric in intervals
        ]
    notes += _notes_of_rows(rows, all(alike), scale)
    raced = _race(trials, at)
    rows = rows if raced is None else _with_out(rows, raced[1])
    rows += _reference_rows(trials.frame[alike], [metric.name for metric in shown if metric.name in evaluated])
    return judged(
        Table(
            title=title,
            axes=tuple(dict.fromkeys(axis for _, entry in trials.owners for axis in entry.axes)),
            metrics=shown,
            rows=tuple(rows),
            notes=tuple(notes),
            paper=tuple(dict.fromkeys(name for plan in trials.plans for row in _paper(plan).values() for name in row)),
            sweeps=tuple(store.name for store in stores) if len(stores) > 1 else (),
            baseline=baseline,
            intervals=intervals,
            grown=trials.told_growth(),
            race=None if raced is None else raced[0],
        )
    )


def _read(
    stores: Sequence[SweepStore], at: At, again: Mapping[str, Mapping[str, float]] | None, stage: Shown | None
) -> _Trials:
    import pandas as pd

    chosen = [entries_in(store, stage) for store in stores]
    owners = [(store, entry) for store, (entries, _) in zip(stores, chosen, strict=True) for entry in entries]
    frames = [trials_frame(store, at, again, entries) for store, (entries, _) in zip(stores, chosen, strict=True)]
    return _Trials(
        stores=stores,
        plans=[store.plan() for store in stores],
        owners=owners,
        frame=pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0],
        references=[store.trial(entry.trial_id).references() for store, entry in owners],
        grown=[store.grown() for store in stores],
        stages=[shown for _, shown in chosen],
    )


def _evaluated(trials: _Trials) -> dict[str, Metric]:
    """The metrics of evaluations and probes, in the order of the trials, each as the first trial states it.

    A metric is left out if it was not measured on an untrained generator, because then it has no reference.
    """
    stated: dict[str, Metric] = {}
    for references in trials.references:
        for name, metric in stored_metrics(references).items():
            stated.setdefault(name, metric)
    return {name: metric for name, metric in stated.items() if f"untrained.{name}" in trials.frame}


def _shown(trials: _Trials, evaluated: Mapping[str, Metric], wanted: Sequence[str], at: At) -> tuple[Metric, ...]:
    """The metrics of the table, each with the direction in which it is compared here.

    A sweep's ``compare`` decides for its metric. Losses and seconds, by which no trial was evaluated, have none.
    """
    compared: dict[str, Direction] = {plan["compare"]["metric"]: plan["compare"]["mode"] for plan in trials.plans}
    names = wanted or [
        *compared,
        *([at.what] if at.what in trials.logged else []),
        *evaluated,
        TRAINING_SECONDS.name,
    ]
    directions = {name: metric.direction for name, metric in evaluated.items()} | compared
    return tuple(Metric(name, directions.get(name)) for name in dict.fromkeys(names) if name in trials.frame)


def _alike(stores: Sequence[SweepStore], trials: _Trials) -> list[bool]:
    """For each trial, whether it was measured as the first one: with the same dataset, evaluation and extractor."""
    measured_on = {store.name: _measured_on(store) for store in stores}
    first = next((each for each in measured_on.values() if each is not None), None)  # of a sweep that can be read
    return [
        measured_on[store.name] == first and (not told or told.get("info") == trials.info)
        for (store, _), told in zip(trials.owners, trials.references, strict=True)
    ]


def _measured_on(store: SweepStore) -> Any:
    """A sweep's dataset and evaluation. All its trials share them; another sweep may have others."""
    if (values := next((config for _, config in store.configs()), None)) is None:
        return None
    config = without_runtime_options(values)
    evaluation = {key: value for key, value in config["evaluation"].items() if key not in ("times", "stop_at")}
    return config["dataset"], evaluation


def _rows(
    trials: _Trials, metrics: Sequence[str], alike: Sequence[bool], at: At, scale: Scale
) -> tuple[list[Row], list[list[_Trial]]]:
    """One row for each cell, and its trials that have a result."""
    records = trials.frame.reindex(columns=[*USED, *metrics]).to_dict("records")
    reported = {plan["name"]: _paper(plan) for plan in trials.plans}
    plans = zip(trials.stores, trials.grown, strict=True)
    chosen = {store.name: chosen_cells(plan) for store, plan in plans if plan is not None}
    cells = trials.cells()
    rows = []
    for indices in cells:
        store, entry = trials.owners[indices[0]]
        row = _row([records[i] for i in indices], entry, metrics, at, scale)
        remarks = row.remarks if all(alike[i] for i in indices) else (*row.remarks, OTHER_REFERENCE)
        if row.stage == "confirm" and cell_key(row.variant, row.axes) not in chosen[store.name]:
            remarks = (*remarks, EARLIER)
        paper = reported[store.name].get(entry.label, {})
        ids = frozenset(trials.owners[i][1].trial_id for i in indices)
        rows.append(replace(row, remarks=remarks, paper=paper, sweep=store.name, trials=ids))
    return rows, [_finished([records[i] for i in indices]) for indices in cells]


def _row(group: Sequence[_Trial], entry: Entry, metrics: Sequence[str], at: At, scale: Scale) -> Row:
    """The row of a cell. ``group`` holds its trials, ``entry`` is one of them."""
    finished = _finished(group)
    values = {metric: value for metric in metrics if (value := value_of((trial[metric] for trial in finished), scale))}
    others = Counter(trial["state"] for trial in group if trial["state"] != State.DONE)
    remarks = [f"{number} of {len(group)} {state}" for state, number in others.most_common()]
    if short := sum(trial["short"] for trial in finished):
        remarks.append(f"{short} of {len(group)} ended before {at.value:g} {'epochs' if at.what == 'epoch' else 's'}")
    for metric in metrics:
        there = values[metric].count if metric in values else 0
        if there < len(finished) and (there or metric == metrics[0]):  # without any seed there is no mean to explain
            remarks.append(f"{len(finished) - there} of {len(group)} without {metric}")
    commits = {commit for trial in finished for commit in trial["commits"].split(", ")}
    if len(commits) > 1:
        remarks.append(f"{MIXED_CODE}: {', '.join(sorted(commits))}")
    return Row(
        entry.variant,
        entry.setting,
        entry.axes,
        values,
        frozenset(),
        tuple(remarks),
        seeds=len(group),
        stage=entry.stage,
        proposal=entry.proposal,
        searched=tuple(entry.searched),
    )


def _race(trials: _Trials, at: At) -> tuple[Race, dict[CellKey, Out]] | None:
    """The race that the table's cells have run, as :func:`race_of`.

    None if the table does not have the values by which it decided: of several sweeps, of other evaluations, of fresh
    seeds.
    """
    if len(trials.stores) > 1 or at != LAST or trials.stages != ["explored"] or trials.grown[0] is None:
        return None
    return race_of(trials.grown[0], trials.plans[0]["compare"]["metric"])


def _with_out(rows: Sequence[Row], outs: Mapping[CellKey, Out]) -> list[Row]:
    """The rows, with why they are out of the race."""
    return [replace(row, out=outs.get(cell_key(row.variant, row.axes), "")) for row in rows]


def _finished(group: Sequence[_Trial]) -> list[_Trial]:
    return [trial for trial in group if trial["state"] in (State.DONE, State.STOPPED)]


def _reference_rows(frame: Any, metrics: Sequence[str]) -> list[Row]:
    untrained, floor = {}, {}
    for metric in metrics:
        # Cells with the same seed and network share an untrained generator, which counts once.
        once = frame.drop_duplicates(["seed", f"untrained.{metric}"])
        if value := value_of(once[f"untrained.{metric}"], None):
            untrained[metric] = value
        column = f"floor.{metric}"  # metrics of probes have none
        if column in frame and (value := value_of(frame[column].drop_duplicates(), None)):
            floor[metric] = value
    return [
        Row(name, "", {}, values, frozenset(), (), reference=True)
        for name, values in ((UNTRAINED, untrained), (FLOOR, floor))
        if values
    ]


def _paper(plan: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """The numbers that a paper reports, by cell and metric."""
    return plan["paper"]["rows"] if plan.get("paper") else {}


def _notes(trials: _Trials, at: At) -> list[str]:
    """The notes that concern all rows. Each is one line, because LaTeX's comments need that."""
    counts = trials.frame["state"].value_counts()
    scope = ", ".join(f"{number} {state}" for state, number in counts.items())
    notes = [f"mean ± standard deviation over seeds; {scope}"]
    left_out = [trial_id for store in trials.stores for trial_id in store.left_out]
    notes += [f"left out, because they cannot be read: {', '.join(left_out)}"] if left_out else []
    notes += [f"{name}: {value}" for name, value in trials.info.items()]
    if at != LAST:
        notes.append(f"each trial at: {at}")
    sources = [plan["paper"]["source"] for plan in trials.plans if plan.get("paper")]
    notes += [f"paper's: {' '.join(text.split())}; its data, extractor and budget may not be ours" for text in sources]
    return notes


def _notes_of_rows(rows: Sequence[Row], alike: bool, scale: Scale) -> list[str]:
    """The notes that explain the intervals and remarks of these rows."""
    notes = []
    counts = {value.count for row in rows for value in row.values.values() if value.interval}
    if counts:
        two = "; two seeds make them wide" if 2 in counts else ""
        notes.append(f"95 % intervals of the mean over seeds: {INTERVALS[scale]}{two}")
    if any(remark.startswith(MIXED_CODE) for row in rows for remark in row.remarks):
        notes.append(f"{MIXED_CODE}: the seeds of this cell ran different commits")
    if not alike:
        notes.append(f"{OTHER_REFERENCE}: measured on another dataset, with another extractor or sample count")
    return notes

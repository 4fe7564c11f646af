"""The numbers that figures show: cells, curves over seeds, axes, reference values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.errors import UserError
from orchestrator.results.frames import epochs_frame, trials_frame
from orchestrator.results.stages import Shown, entries_in
from orchestrator.results.tables import FLOOR, UNTRAINED
from orchestrator.store.entry import Entry, Stage
from orchestrator.store.epochs import POSITION
from orchestrator.store.references import stored_metrics
from orchestrator.store.runs import runs_argument
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import short_names, short_value
from trainers.metrics import Metric
from trainers.parts import nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Horizontal = Literal["epoch", "iteration", "seconds"]
ABOUT: dict[Shown, str] = {
    "explored": "explored: the trials on which decisions rested, whose best is flattered",
    "confirmed": "confirmed: fresh seeds alone, which no decision has seen",
}
NO_METRICS = frozenset({"trial_id", "cell", "variant", "setting", "seed", "stage", "proposal", "seconds", *POSITION})
"""The columns of the epochs' frame that are no metrics. Columns of axes are excluded by their prefix."""
RESULTS = frozenset({State.DONE, State.STOPPED})
"""The states whose trials count in a cell's value, as in tables."""
BAD_ENDS = (State.FAILED, State.DIVERGED, State.LOST)
MOST_WORDS = 12
"""An axis that a search chose, with more numbers than this, is a scale and no list of values."""
NAMED = 12
"""How many trials a figure names. It counts the rest."""


@dataclass(frozen=True)
class Trial:
    """One seed of a cell."""

    trial_id: str
    seed: int
    state: State


@dataclass(frozen=True)
class CellResult:
    """A cell of the plan.

    ``value`` is the metric's mean over its seeds with a result (DONE or STOPPED), as in tables. Cells are ordered by
    ``rank``, where less is better. Both are None if no seed has a value. ``without`` is the number of seeds with a
    result but without a finite value. ``stage``, ``proposal`` and ``searched`` are those of its trials, see
    :class:`~orchestrator.store.entry.Entry`.
    """

    variant: str
    setting: str
    axes: Mapping[str, Any]
    trials: tuple[Trial, ...]
    value: float | None
    rank: float | None
    without: int = 0
    stage: Stage = ""
    proposal: int | None = None
    searched: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The cell in words: ``qp-wgan q=1 p=2``."""
        return cell_label(self.variant, self.setting)

    @property
    def missing(self) -> list[State]:
        """The states of the seeds without a result."""
        return [trial.state for trial in self.trials if trial.state not in RESULTS]

    @property
    def remark(self) -> str:
        """The seeds that have no value, as text: ``1 of 3 FAILED`` for each state without a result."""
        states = [f"{self.missing.count(state)} of {len(self.trials)} {state}" for state in dict.fromkeys(self.missing)]
        without = [f"{self.without} of {len(self.trials)} without a value"] if self.without else []
        return ", ".join([*states, *without])


@dataclass(frozen=True)
class Curve:
    """The mean over seeds at each x, and the band around it. One seed has no band (None)."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True)
class Single:
    """One trial's own curve: a trial that is in no mean, or the part of a trial beyond the end of the mean."""

    x: np.ndarray
    y: np.ndarray
    state: State


@dataclass(frozen=True)
class Axis:
    """An axis: its values as text, in order, and the value of each cell (by label) that has the axis.

    ``numbers`` are the values by their text, if the axis is to be a scale and not a list.
    """

    name: str
    values: tuple[str, ...]
    of: Mapping[str, str]
    numbers: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep, seen through one metric.

    ``mode`` is min or max, or None if neither less nor more is better. ``logged`` are all metrics. ``epochs`` holds
    each trial's stored epochs, with the training time until their ends as ``seconds``.
    """

    store: SweepStore
    metric: str
    mode: str | None
    ranked_by: str
    cells: tuple[CellResult, ...]
    references: Mapping[str, float]
    logged: frozenset[str]
    epochs: Mapping[str, pd.DataFrame]
    shown: Shown | None = None
    """Which of the two tables of a sweep that grows the figures show; None for other sweeps."""

    @property
    def about(self) -> str:
        """Which trials of a sweep that grows are shown, as text. Empty for other sweeps."""
        return "" if self.shown is None else ABOUT[self.shown]

    def variants(self) -> dict[str, list[CellResult]]:
        """The cells of each variant, in the plan's order."""
        found: dict[str, list[CellResult]] = {}
        for cell in self.cells:
            found.setdefault(cell.variant, []).append(cell)
        return found

    def unfinished(self, in_means: Collection[State]) -> list[str]:
        """The trials in states other than ``in_means``, as text.

        Trials that failed, diverged or were lost are named; trials in each other state are counted.
        """
        bad = [
            f"{cell.label} seed={trial.seed} ({trial.state})"
            for cell in self.cells
            for trial in cell.trials
            if trial.state in BAD_ENDS
        ]
        more = [f"{len(bad) - NAMED} more that failed, diverged or were lost"] if len(bad) > NAMED else []
        states = [trial.state for cell in self.cells for trial in cell.trials]
        others = [state for state in State if state not in in_means and state not in BAD_ENDS and state in states]
        return [*bad[:NAMED], *more, *(f"{states.count(state)} {state}" for state in others)]


def read_sweep(store: SweepStore, metric: str | None = None, stage: Shown | None = None) -> Sweep:
    """Reads a sweep for figures of ``metric``; by default the metric that the sweep compares by.

    ``stage`` chooses one of the two tables of a sweep that grows, see :func:`~orchestrator.results.stages.entries_in`.
    Raises :class:`UserError` if no epoch is finished, or if no trial has logged the metric.
    """
    entries, shown = entries_in(store, stage)
    epochs = epochs_frame(store, entries)
    if epochs.empty or not (epochs["epoch"] > 0).any():
        raise UserError(
            f"no trial of '{store.name}' has finished an epoch, so that there is nothing to plot; "
            f"orchestrator status {store.name}{runs_argument(store.runs)} tells how far it has come"
        )
    trials, plan = trials_frame(store, entries=entries), store.plan()
    compare = plan["compare"]
    logged = frozenset(name for name in map(str, epochs) if name not in NO_METRICS and not name.startswith("axis."))
    name = metric or compare["metric"]
    if name not in logged:
        option = f"--metric {metric}: " if metric else ""
        raise UserError(f"{option}no trial of '{store.name}' has logged '{name}'{nearest(name, logged)}")
    if "epoch_seconds" not in epochs:
        epochs["epoch_seconds"] = 0.0
    epochs["seconds"] = epochs["epoch_seconds"].fillna(0.0).groupby(epochs["trial_id"]).cumsum()
    mode = _mode(store, name)
    ranked_by = name if mode else compare["metric"]
    sign = -1 if (mode or compare["mode"]) == "max" else 1
    cells = _cells(entries, trials, name, ranked_by, sign)
    by_trial = {str(trial_id): frame for trial_id, frame in epochs.groupby("trial_id")}
    references = _references(trials, name)
    return Sweep(
        store, name, mode, ranked_by, cells, references, logged, by_trial, None if plan["growing"] is None else shown
    )


def _mode(store: SweepStore, metric: str) -> str | None:
    compare = store.plan()["compare"]
    if metric == compare["metric"]:
        return compare["mode"]
    for entry in store.entries():
        if told := store.trial(entry.trial_id).references():
            return stored_metrics(told).get(metric, Metric(metric)).direction
    return None


def _cells(
    planned: Sequence[Entry], trials: pd.DataFrame, metric: str, ranked_by: str, sign: int
) -> tuple[CellResult, ...]:
    rows = {row["trial_id"]: row for row in trials.to_dict("records")}
    groups: dict[str, list[Any]] = {}
    for entry in planned:
        groups.setdefault(entry.label, []).append(entry)
    cells = []
    for entries in groups.values():
        members = tuple(Trial(e.trial_id, e.seed, State(rows[e.trial_id]["state"])) for e in entries)
        finished = [rows[each.trial_id] for each in members if each.state in RESULTS]
        rank = _mean(_finite(row.get(ranked_by) for row in finished))
        values = _finite(row.get(metric) for row in finished)
        first = entries[0]
        cells.append(
            CellResult(
                first.variant,
                first.setting,
                first.axes,
                members,
                _mean(values),
                None if rank is None else sign * rank,
                len(finished) - len(values),
                first.stage,
                first.proposal,
                tuple(first.searched),
            )
        )
    return tuple(cells)


def _finite(values: Iterable[Any]) -> list[float]:
    """The finite values. None, NaN and infinity are left out."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _references(trials: pd.DataFrame, metric: str) -> dict[str, float]:
    """The metric's mean over untrained generators, each counted once, and over real training images.

    Empty if real images have no value of the metric. Such a metric belongs to a critic or a loss, whose untrained
    values differ from cell to cell.
    """
    found = {}
    for name, column in ((UNTRAINED, f"untrained.{metric}"), (FLOOR, f"floor.{metric}")):
        if {column, f"floor.{metric}"} <= set(trials):
            once = trials.drop_duplicates(["seed", column] if name == UNTRAINED else [column])
            if (value := _mean(_finite(once[column]))) is not None:
                found[name] = value
    return found


def best_first(cells: Sequence[CellResult]) -> list[CellResult]:
    """The cells by rank. Cells without a rank come last, in their order."""
    return sorted(cells, key=lambda cell: (cell.rank is None, cell.rank or 0.0))


def curves(
    sweep: Sweep, cell: CellResult, horizontal: Horizontal, metric: str | None = None
) -> tuple[Curve | None, list[Single]]:
    """A cell's mean curve over its DONE seeds, up to the last epoch that all of them have, and its single curves.

    Values of the same epoch are averaged. x is the mean over seeds of ``horizontal`` at that epoch. The band of two
    seeds reaches from minimum to maximum; that of more seeds is mean ± standard deviation (of a sample).
    """
    import numpy as np

    metric = metric or sweep.metric
    done, singles = [], []
    for trial in cell.trials:
        if trial.trial_id not in sweep.epochs:
            continue
        frame = sweep.epochs[trial.trial_id].set_index("epoch", drop=False)
        own = frame.loc[np.isfinite(frame[metric].astype(float)), [horizontal, metric]].astype(float)
        if trial.state is State.DONE and len(own):
            done.append(own)
        elif len(own):
            singles.append(Single(own[horizontal].to_numpy(), own[metric].to_numpy(), trial.state))
    epochs = [set(each.index) for each in done]
    shared = sorted(set.intersection(*epochs)) if done else []
    for each in done:  # a trial may go on after another has reached its target
        rest = each.loc[shared[-1] :] if shared else each
        if not shared or len(rest) > 1:
            singles.append(Single(rest[horizontal].to_numpy(), rest[metric].to_numpy(), State.DONE))
    if not shared:
        return None, singles
    x = np.mean([each.loc[shared, horizontal] for each in done], axis=0)
    y = np.array([each.loc[shared, metric] for each in done])
    mean = y.mean(axis=0)
    if len(done) == 1:
        return Curve(x, mean, None, None), singles
    if len(done) == 2:
        return Curve(x, mean, y.min(axis=0), y.max(axis=0)), singles
    deviation = y.std(axis=0, ddof=1)
    return Curve(x, mean, mean - deviation, mean + deviation), singles


def band(sweep: Sweep, metric: str | None = None) -> str:
    """What the curves' bands show, as text. Only DONE seeds with the metric count, as in the curves."""
    import numpy as np

    metric = metric or sweep.metric
    counts = {
        sum(
            trial.state is State.DONE
            and trial.trial_id in sweep.epochs
            and bool(np.isfinite(sweep.epochs[trial.trial_id][metric].to_numpy(dtype=float)).any())
            for trial in cell.trials
        )
        for cell in sweep.cells
    }
    many = " or ".join(str(count) for count in sorted(counts) if count > 2)
    if many:
        two = ["of 2 from minimum to maximum"] if 2 in counts else []
        parts = [f"mean over {many} seeds, band ± standard deviation of the seeds (no interval of the mean)", *two]
    else:
        parts = ["mean over 2 seeds, band from minimum to maximum (no interval of the mean)"] if 2 in counts else []
    return ", ".join([*parts, *(["of one seed no band"] if 1 in counts else [])]) or f"no DONE seed has {metric}"


def varying_axes(cells: Sequence[CellResult], *, searched: bool = True) -> list[Axis]:
    """The axes in which cells differ. Axes that always change together are merged into one.

    ``searched``: whether axes that a search chose are among them.

    Numbers are in ascending order, other values in the plan's order.
    """
    names = list(dict.fromkeys(axis for cell in cells for axis in cell.axes))
    short = short_names(names)
    partitions: dict[tuple[frozenset[str], ...], list[str]] = {}
    chosen = set() if searched else {name for cell in cells for name in cell.searched}
    for name in names:
        if name in chosen:
            continue
        groups: dict[str, set[str]] = {}
        for cell in cells:
            if name in cell.axes:
                groups.setdefault(short_value(cell.axes[name]), set()).add(cell.label)
        if len(groups) > 1:
            partitions.setdefault(tuple(map(frozenset, groups.values())), []).append(name)
    axes = []
    for together in partitions.values():
        of = {
            cell.label: ", ".join(short_value(cell.axes[name]) for name in together)
            for cell in cells
            if together[0] in cell.axes
        }
        raw = {of[cell.label]: cell.axes[together[0]] for cell in cells if cell.label in of}
        numbers = all(isinstance(value, int | float) for value in raw.values())
        words = sorted(raw, key=lambda word: raw[word]) if numbers else list(raw)
        scaled = numbers and len(words) > MOST_WORDS and any(together[0] in cell.searched for cell in cells)
        axes.append(Axis(", ".join(short[name] for name in together), tuple(words), of, raw if scaled else None))
    return axes

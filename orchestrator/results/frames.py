"""The store as pandas DataFrames: one row an epoch, one row a trial."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.errors import UserError
from orchestrator.store.epochs import POSITION
from orchestrator.store.readable import leave_out_unreadable
from orchestrator.store.references import stored_metrics
from orchestrator.store.runs import runs_at
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from trainers.metrics import TRAINING_SECONDS
from trainers.parts import nearest
from trainers.paths import full_path

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1000
"""How many trials' epochs are held as dictionaries at once. A DataFrame takes a tenth of their memory."""
TEXT = ("trial_id", "error", "commits")
CATEGORIES = ("cell", "variant", "setting", "stage", "state")
INTEGERS = {"seed": "UInt64", "proposal": "Int64", "epoch": "Int64", "iteration": "Int64"}


class Results(NamedTuple):
    """A sweep for a notebook. ``docs/results.md`` lists every column with its type and unit."""

    trials: pd.DataFrame
    epochs: pd.DataFrame


def load(path: str | Path) -> Results:
    """Reads a sweep into two typed DataFrames: one row a trial, and one row an epoch.

    ``path`` is the sweep's directory, for example ``runs/ground_metrics`` or ``s3://bucket/runs/ground_metrics``.
    Names and states are categories, counts are nullable integers, ``timestamp`` is a time in UTC, and every other
    column is a float. An axis keeps the type of its values, except that integers become floats if a variant lacks the
    axis. ``~`` and variables in the path are replaced. A trial that cannot be read is left out, with a warning. Raises
    :class:`UserError` if there is no sweep.
    """
    try:
        path = full_path(str(path))
    except ValueError as error:
        raise UserError(f"load: {error}") from None
    if "://" in str(path):
        runs, _, name = str(path).rstrip("/").rpartition("/")
    else:
        runs, name = str(Path(path).parent), Path(path).name
    store = SweepStore.open(runs_at(runs), name)
    leave_out_unreadable(store)
    return Results(_typed(trials_frame(store).drop(columns="short", errors="ignore")), _typed(epochs_frame(store)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    for name in frame.columns:
        if name in TEXT:
            frame[name] = frame[name].astype("string")
        elif name in CATEGORIES:
            frame[name] = pd.Categorical(frame[name], categories=frame[name].unique())
        elif name in INTEGERS:
            frame = frame.astype({name: INTEGERS[name]})
        elif name == "timestamp":
            frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
        elif name.startswith("axis."):
            frame[name] = frame[name].infer_objects()
        else:
            frame[name] = frame[name].astype("float64")
    return frame


def epochs_frame(store: SweepStore, entries: Sequence[Entry] | None = None) -> pd.DataFrame:
    """One row a stored epoch: trial_id, cell, variant, setting, seed, axis.NAME, epoch, iteration, every metric.

    Of all trials, or of ``entries`` alone.
    A sweep that grows also has the columns stage and proposal.
    """
    import pandas as pd

    frames, rows = [], list[dict[str, Any]]()
    entries, grows = store.entries() if entries is None else entries, _grows(store)
    for number, entry in enumerate(entries, start=1):
        rows += [{**_identity(entry, grows), **record} for record in store.trial(entry.trial_id).epochs()]
        if rows and (number % CHUNK == 0 or number == len(entries)):
            frames.append(pd.DataFrame(rows))
            rows.clear()
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


@dataclass(frozen=True)
class At:
    """Which evaluation of each trial counts.

    ``what`` is one of these. ``last``: the last evaluation. ``best``: the best one, by the evaluation's first metric.
    ``epoch`` or ``seconds``: the last one within ``value`` epochs, or seconds of training. The name of a metric: the
    first one at which the metric was nearest to ``value``.
    """

    what: str = "last"
    value: float = math.nan

    def __str__(self) -> str:
        if self.what == "last":
            return "the last evaluation"
        if self.what == "best":
            return "its best evaluation, the checkpoint measured again on fresh noise"
        if self.what == "epoch":
            return f"the last evaluation up to epoch {self.value:g}"
        if self.what == "seconds":
            return f"the last evaluation within {self.value:g} s of training"
        return f"the evaluation whose {self.what} is nearest to {self.value:g}"


LAST = At()


def parse_at(text: str) -> At:
    """Parses ``last``, ``best``, ``epoch=K``, ``seconds=S`` or ``METRIC=VALUE``.

    Raises :class:`UserError` for anything else. :func:`check_metrics` checks whether the metric has been logged.
    """
    if text in ("last", "best"):
        return At(text)
    what, _, value = text.partition("=")
    if what == TRAINING_SECONDS.name:
        raise UserError(f"--at {text}: {what} is a sum over epochs; write seconds={value or 'S'}")
    with contextlib.suppress(ValueError):
        at = At(what, float(value))
        if (
            what not in ("", "last", "best")
            and math.isfinite(at.value)
            and (what not in ("epoch", "seconds") or at.value >= 0)
        ):
            return at
    raise UserError(f"--at {text}: expected last, best, epoch=K, seconds=S, or METRIC=VALUE such as fid=40")


def check_metrics(option: str, metrics: Sequence[str], logged: Sequence[str], sweeps: str) -> None:
    """Raises :class:`UserError`, with the nearest name, for a metric that no trial has logged."""
    for metric in metrics:
        if metric not in logged:
            known = nearest(metric, logged) if logged else "; nothing has been logged yet"
            raise UserError(f"{option}: no trial of '{sweeps}' has logged '{metric}'{known}")


def trials_frame(
    store: SweepStore,
    at: At = LAST,
    again: Mapping[str, Mapping[str, float]] | None = None,
    entries: Sequence[Entry] | None = None,
) -> Any:
    """A DataFrame with one row a trial, in the plan's order: of all trials, or of ``entries`` alone.

    Its columns are identity and axes (``axis.NAME``), ``state``, ``error``, ``commits`` of the attempts, ``epoch``,
    every metric's last stored value, ``training_seconds`` (the sum over epochs), ``untrained.NAME`` (the untrained
    generator's metrics) and ``floor.NAME`` (those of real images). ``at`` chooses the evaluation that counts; ``short``
    says that a trial ended before it. ``again`` holds metrics by trial id that replace the stored ones.
    """
    import pandas as pd

    rows, grows = [], _grows(store)
    for entry in store.entries() if entries is None else entries:
        trial = store.trial(entry.trial_id)
        row = _trial_row(entry, trial, at, grows)
        if again is not None:
            measured = stored_metrics(trial.references())
            row |= dict.fromkeys((name for name in measured if name in row), math.nan)
            row |= again.get(entry.trial_id, {})
        rows.append(row)
    return pd.DataFrame(rows)


def _trial_row(entry: Entry, trial: TrialStore, at: At, grows: bool) -> dict[str, Any]:
    status, references = trial.status(), trial.references()
    row: dict[str, Any] = {
        **_identity(entry, grows),
        "state": str(status.state),
        "error": status.error,
        "commits": ", ".join(status.commits),
    }
    records = trial.epochs()
    kept = _until(records, at, references)
    # Metrics that were logged only after the evaluation that counts have a column too.
    row |= dict.fromkeys((name for record in records[len(kept) :] for name in record), math.nan)
    training_seconds = 0.0
    for record in kept:
        if record["epoch"] == 0:
            row |= {f"untrained.{name}": value for name, value in record.items() if name not in POSITION}
        else:
            row |= record
            training_seconds += record.get("epoch_seconds", math.nan)
    row[TRAINING_SECONDS.name] = training_seconds
    ended = len(kept) == len(records)
    row["short"] = ended and (
        (at.what == "epoch" and row.get("epoch", 0) < at.value)
        or (at.what == "seconds" and training_seconds < at.value)
    )
    row |= {f"floor.{name}": value for name, value in references.get("floor", {}).items()}
    return row


def _until(records: list[dict[str, Any]], at: At, references: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The epochs up to the evaluation that counts. All epochs if none has the metric that ``at`` asks for."""
    if at.what == "last":
        return records
    if at.what == "epoch":
        return [record for record in records if record["epoch"] <= at.value]
    if at.what == "seconds":
        kept, seconds = [], 0.0
        for record in records:
            seconds += record.get("epoch_seconds", 0.0)
            if seconds > at.value:
                break
            kept.append(record)
        return kept
    stated = stored_metrics(references)
    metric = next(iter(stated), "") if at.what == "best" else at.what
    measured = [
        index for index, each in enumerate(records) if each["epoch"] and math.isfinite(each.get(metric, math.nan))
    ]
    if not measured:
        return records
    if at.what == "best":  # of equal values the last one: its checkpoint is kept
        sign = -1 if stated[metric].direction == "max" else 1
        found = min(measured, key=lambda index: (sign * records[index][metric], -index))
    else:
        found = min(measured, key=lambda index: abs(records[index][metric] - at.value))
    return records[: found + 1]


def _grows(store: SweepStore) -> bool:
    return store.plan()["growing"] is not None


def _identity(entry: Entry, grows: bool) -> dict[str, Any]:
    return {
        "trial_id": entry.trial_id,
        "cell": entry.label,
        "variant": entry.variant,
        "setting": entry.setting,
        "seed": entry.seed,
        **({"stage": entry.stage, "proposal": entry.proposal} if grows else {}),
        **{f"axis.{name}": value for name, value in entry.axes.items()},
    }

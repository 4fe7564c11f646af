"""The store as pandas DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store import SweepStore
from trainers.parts import nearest

if TYPE_CHECKING:
    import pandas as pd


def epochs_frame(store: SweepStore) -> pd.DataFrame:
    """One row a stored epoch: trial_id, cell, variant, setting, seed, axis.NAME, epoch, iteration, every metric."""
    import pandas as pd

    rows = [
        {**_identity(entry), **record} for entry in store.entries() for record in store.trial(entry.trial_id).epochs()
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class At:
    """The evaluation of each trial at which a metric was nearest to a value, the first of several."""

    metric: str
    value: float


def parse_at(store: SweepStore, text: str) -> At | None:
    """``last`` or ``METRIC=VALUE``. Raises :class:`UserError` for anything else and for a metric nobody logged."""
    if text == "last":
        return None
    metric, _, value = text.partition("=")
    try:
        at = At(metric, float(value))
    except ValueError:
        raise UserError(f"--at {text}: expected last, or METRIC=VALUE such as fid=40") from None
    logged = {name for entry in store.entries() for record in store.trial(entry.trial_id).epochs() for name in record}
    if metric not in logged:
        raise UserError(f"--at {text}: no trial of '{store.name}' has logged '{metric}'{nearest(metric, logged)}")
    return at


def trials_frame(store: SweepStore, at: At | None = None) -> pd.DataFrame:
    """One row a trial, in the plan's order.

    Beside identity and axes (``axis.NAME``): ``state``, ``error``, ``commits`` of its attempts, ``epoch``, every
    metric's last stored value, ``training_seconds`` (the sum over epochs), the untrained generator's metrics as
    ``untrained.NAME`` and the floor's as ``floor.NAME``. With ``at`` a trial is seen as it was then.
    """
    import pandas as pd

    rows = []
    for entry in store.entries():
        trial = store.trial(entry.trial_id)
        status = trial.status()
        row: dict[str, Any] = {
            **_identity(entry),
            "state": str(status.state),
            "error": status.error,
            "commits": ", ".join(dict.fromkeys(attempt["commit"] for attempt in status.attempts)),
        }
        training_seconds = 0.0
        for record in _until(trial.epochs(), at):
            if record["epoch"] == 0:
                row |= {f"untrained.{name}": value for name, value in record.items()}
            else:
                row |= record
                training_seconds += record["epoch_seconds"]
        row["training_seconds"] = training_seconds
        row |= {f"floor.{name}": value for name, value in trial.references().get("floor", {}).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _until(records: list[dict[str, Any]], at: At | None) -> list[dict[str, Any]]:
    """The epochs up to the evaluation that is asked for; all where no epoch has the metric."""
    measured = (
        [] if at is None else [index for index, each in enumerate(records) if each["epoch"] and at.metric in each]
    )
    if at is None or not measured:
        return records
    nearest = min(measured, key=lambda index: abs(records[index][at.metric] - at.value))
    return records[: nearest + 1]


def _identity(entry: Any) -> dict[str, Any]:
    return {
        "trial_id": entry.trial_id,
        "cell": entry.label,
        "variant": entry.variant,
        "setting": entry.setting,
        "seed": entry.seed,
        **{f"axis.{name}": value for name, value in entry.axes.items()},
    }

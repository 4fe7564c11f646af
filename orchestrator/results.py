"""The store as pandas DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.store import SweepStore

if TYPE_CHECKING:
    import pandas as pd


def epochs_frame(store: SweepStore) -> pd.DataFrame:
    """One row a stored epoch: trial_id, cell, variant, setting, seed, axis.NAME, epoch, iteration, every metric."""
    import pandas as pd

    rows = [
        {**_identity(entry), **record} for entry in store.entries() for record in store.trial(entry.trial_id).epochs()
    ]
    return pd.DataFrame(rows)


def trials_frame(store: SweepStore) -> pd.DataFrame:
    """One row a trial, in the plan's order.

    Beside identity and axes (``axis.NAME``): ``state``, ``error``, ``commits`` of its attempts, ``epoch``, every
    metric's last stored value, ``training_seconds`` (the sum over epochs), the untrained generator's metrics as
    ``untrained.NAME`` and the floor's as ``floor.NAME``.
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
        for record in trial.epochs():
            if record["epoch"] == 0:
                row |= {f"untrained.{name}": value for name, value in record.items()}
            else:
                row |= record
                training_seconds += record["epoch_seconds"]
        row["training_seconds"] = training_seconds
        row |= {f"floor.{name}": value for name, value in trial.references().get("floor", {}).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _identity(entry: Any) -> dict[str, Any]:
    return {
        "trial_id": entry.trial_id,
        "cell": entry.label,
        "variant": entry.variant,
        "setting": entry.setting,
        "seed": entry.seed,
        **{f"axis.{name}": value for name, value in entry.axes.items()},
    }

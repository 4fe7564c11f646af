"""Sweeps of Wasserstein-GAN trials: from a YAML file through Ray Tune to a comparison table.

The way through: ``sweep_file`` reads, ``plan`` lists the trials, ``store`` keeps the only truth about what has
happened, ``executor`` hands trials to Ray Tune, ``worker`` runs one, ``tracking`` mirrors the store into MLflow,
``results`` and ``tables`` compare. ``driver`` ties them together for one sweep; ``cli`` is thin.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.results import Results


def load(path: str | Path) -> Results:
    """A sweep's directory, ``runs/ground_metrics`` say, as two DataFrames: ``.trials`` and ``.epochs``.

    See :func:`orchestrator.results.load`.
    """
    from orchestrator.results import load as load_results

    return load_results(path)

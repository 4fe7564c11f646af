"""Sweeps of Wasserstein-GAN trials: from a YAML file through Ray Tune to a comparison table.

The way through: ``sweep`` reads a file and plans its trials, ``store`` keeps the only truth about what has happened,
``engine`` hands trials to Ray Tune, ``trial`` runs one, ``tracking`` mirrors the store into MLflow, ``results``
compares, ``driver`` ties them together for one sweep, ``screen`` shows it, ``cli`` is thin. Imports run in one
direction::

    cli → driver → engine → results → {screen, trial, tracking} → store → {sweep, remote} → errors, files, …
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in typing, which is not imported: ``__main__`` has not set the search path yet

if sys.version_info < (3, 11):  # noqa: UP036 - pip checks it, a copy of the folder does not
    raise ImportError(f"orchestrator needs Python 3.11 or 3.12, and this is Python {sys.version.split()[0]}")

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.results.frames import Results


def load(path: str | Path) -> Results:
    """A sweep's directory, ``runs/ground_metrics`` say, as two DataFrames: ``.trials`` and ``.epochs``.

    See :func:`orchestrator.results.frames.load`.
    """
    from orchestrator.errors import check_platform

    check_platform()
    from orchestrator.results.frames import load as load_results

    return load_results(path)

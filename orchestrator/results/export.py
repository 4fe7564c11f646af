"""Writes a comparison table as text, from the options of ``orchestrator export``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.results.comparison import INTERVALS, comparison_table
from orchestrator.results.formats import FORMATS
from orchestrator.results.frames import parse_at
from orchestrator.results.pivot import lay_out
from orchestrator.results.stages import stage_named
from orchestrator.store.readable import leave_out_unreadable
from orchestrator.store.runs import Runs
from orchestrator.store.sweep import SweepStore
from trainers.parts import nearest

OTHER_SUFFIXES = {"markdown": "markdown", "latex": "latex", "htm": "html"}
"""Suffixes, besides those of :data:`~orchestrator.results.formats.FORMATS`, that name a format."""


def format_for(output: Path | None, asked: str, tell: Callable[[str], None] = lambda text: None) -> str:
    """The name of the format in which to write ``output``: the one that is asked for, or the one of its suffix.

    Without both it is Markdown. ``tell`` is called if a suffix means another format, and if it means none.
    """
    suffix = "" if output is None else output.suffix.removeprefix(".").lower()
    meant = {known: name for name, (known, _) in FORMATS.items()} | OTHER_SUFFIXES
    chosen = asked or meant.get(suffix, "markdown")
    if suffix and asked in FORMATS and meant.get(suffix, asked) != asked:
        tell(f"{output}: has the suffix of {meant[suffix]}, but --format {asked} is written")
    if suffix and not asked and suffix not in meant:
        tell(f"{output}: no format has the suffix .{suffix}, so Markdown is written; choose one with --format")
    return chosen


def exported(
    runs: Runs,
    names: Sequence[str],
    format_name: str,
    *,
    rows: str = "",
    columns: str = "",
    metrics: str = "",
    at: str = "last",
    baseline: str = "",
    intervals: str = "t",
    stage: str = "",
    feature_weights: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[str, list[str]]:
    """The table of one sweep or several, in one of :data:`~orchestrator.results.formats.FORMATS`.

    Also returns what is left out of it because it cannot be read (:func:`leave_out_unreadable`).

    The options are those of ``orchestrator export``. With ``at="best"`` checkpoints are measured again, and ``tell`` is
    called with a line for each. Raises :class:`UserError` for unknown names, and if no trial has ended.
    """
    if format_name not in FORMATS:
        raise UserError(f"--format: there is no format called '{format_name}'{nearest(format_name, FORMATS)}")
    if intervals not in INTERVALS:
        raise UserError(f"--intervals {intervals}: expected {' or '.join(INTERVALS)}")
    when, shown = parse_at(at), stage_named(stage)
    stores = [SweepStore.open(runs, name, ["best.pt"] if when.what == "best" else []) for name in dict.fromkeys(names)]
    wanted = tuple(name.strip() for name in metrics.split(",") if name.strip())
    again = None
    if feature_weights is not None and when.what != "best":
        raise UserError("--feature-weights needs --at best: no other evaluation is measured again")
    damaged = leave_out_unreadable(*stores)
    if not any(store.has_results() for store in stores):
        raise UserError(f"there is nothing to show yet: no trial of '{', '.join(names)}' has ended")
    if when.what == "best":
        from orchestrator.results.best import best_again

        # Raises UserError for unknown names before anything is measured.
        lay_out(comparison_table(*stores, metrics=wanted, baseline=baseline, stage=shown), rows, columns)
        again = best_again(stores, feature_weights, shown, tell=tell)
    table = comparison_table(
        *stores, at=when, metrics=wanted, baseline=baseline, again=again, scale=intervals, stage=shown
    )
    return FORMATS[format_name][1](lay_out(table, rows, columns)), damaged

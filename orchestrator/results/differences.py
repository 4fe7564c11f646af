"""The differences of a table's cells to one of them, its baseline, over the seeds that both have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.errors import UserError
from orchestrator.results.statistics import SeedCorrelation, difference_interval, seed_correlation
from orchestrator.results.tables import OTHER_REFERENCE, Row, value_of
from trainers.parts import nearest

Finished = Sequence[Mapping[Any, Any]]
"""The trials of a cell that have a result: their seeds, and their values by metric."""


def with_differences(
    rows: Sequence[Row], cells: Sequence[Finished], baseline: str, metrics: Sequence[str]
) -> tuple[list[Row], dict[str, str]]:
    """The rows with their differences to the baseline, and for each metric how the differences' intervals were made.

    Mean and deviation are those of the differences of the same seed. An interval is paired by seed where the metric's
    correlation over all cells says that pairing shortens it; otherwise it is Welch's. Raises :class:`UserError` if the
    baseline is no cell or several.
    """
    base = _baseline(rows, baseline)
    comparable = [OTHER_REFERENCE not in row.remarks for row in rows]
    found: list[dict[str, Any]] = [{} for _ in rows]
    how = {}
    for metric in metrics:
        values = [{each["seed"]: each[metric] for each in cell if _is_number(each[metric])} for cell in cells]
        there = [values[i] for i in range(len(rows)) if comparable[i]]
        correlation = seed_correlation(
            [[each[seed] for seed in values[base]] for each in there if values[base].keys() <= each.keys()]
        )
        paired = correlation is not None and correlation.pairing_helps
        how[metric] = _told(metric, correlation)
        for i in range(len(rows)):
            shared = [seed for seed in values[i] if seed in values[base]]
            if i == base or not (comparable[i] and comparable[base]) or not shared:
                continue
            ours, theirs = ([values[j][seed] for seed in shared] for j in (i, base))
            value = value_of((one - other for one, other in zip(ours, theirs, strict=True)), None)
            if value is not None:  # infinite if the numbers were too large to subtract
                found[i][metric] = replace(value, interval=difference_interval(ours, theirs, paired=paired))
    return [replace(row, differences=differences) for row, differences in zip(rows, found, strict=True)], how


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _baseline(rows: Sequence[Row], baseline: str) -> int:
    labels = [f"{row.sweep}: {row.label}" for row in rows]
    found = [i for i, row in enumerate(rows) if baseline in (row.label, labels[i])]
    if not found:
        raise UserError(
            f"--baseline: there is no cell called '{baseline}'{nearest(baseline, [row.label for row in rows])}"
        )
    if len(found) > 1:
        raise UserError(
            f"--baseline {baseline}: several cells match; write {' or '.join(repr(labels[i]) for i in found)}"
        )
    return found[0]


def _told(metric: str, correlation: SeedCorrelation | None) -> str:
    if correlation is None:
        return (
            "its interval is Welch's, not paired by seed: whether pairing helps is known only from two cells or more "
            "that have the same three seeds or more"
        )
    measured = (
        f"over {correlation.seeds} seeds {metric} correlates by {correlation.mean:.2f} ± {correlation.error:.2f} "
        f"between {correlation.cells} cells, and pairing helps from {correlation.needed:.2f} on"
    )
    if correlation.pairing_helps:
        return f"its interval is paired by seed: {measured}"
    return f"its interval is Welch's, not paired by seed: {measured}"

"""Writes the numbers of a table for people: a mean with its deviation, an interval, a difference."""

from __future__ import annotations

import math

from orchestrator.results.tables import Value


def format_value(value: Value | None, plus_minus: str = " ± ", significant: int = 3) -> str:
    """A mean and its deviation as text: ``12.3 ± 0.4``.

    The mean has ``significant`` digits and at most four decimals, and the deviation has as many decimals. There are
    more decimals if the deviation would otherwise read as 0. Values that four decimals cannot show are written as
    ``1.23e-05 ± 4.00e-06``.
    """
    if value is None:
        return "—"
    if not math.isfinite(value.mean):
        return str(value.mean)
    form = _form(value, significant)
    text = f"{value.mean:{form}}"
    return text if value.deviation is None else f"{text}{plus_minus}{value.deviation:{form}}"


def format_interval(value: Value | None) -> str:
    """The interval as text, ``[11.9, 12.8]``, with as many decimals as the mean."""
    if value is None or value.interval is None or not math.isfinite(value.mean):
        return "—"
    low, high = (f"{bound:{_form(value)}}" for bound in value.interval)
    return f"[{low}, {high}]"


def format_difference(value: Value | None) -> str:
    """A difference as text, ``-1.2 [-1.9, -0.4]``. A difference of one pair has no interval."""
    if value is None:
        return "—"
    text = f"{value.mean:+{_form(value)}}"
    return text if value.interval is None else f"{text} {format_interval(value)}"


def _form(value: Value, significant: int = 3) -> str:
    """The format specification that all numbers of a value share."""
    if 0 < max(map(abs, (value.mean, value.deviation or 0.0, *(value.interval or ())))) < 0.5e-4:
        return f".{significant - 1}e"
    magnitude = math.floor(math.log10(abs(value.mean))) if value.mean else 0
    decimals = max(0, significant - 1 - magnitude)
    deviation = value.deviation or 0.0
    if 0 < deviation <= (1 if significant < 3 else 0.5 * 0.1**decimals):  # seeds that differ must not look equal
        decimals = max(decimals, -math.floor(math.log10(deviation)))
    return f".{min(4, decimals)}f"

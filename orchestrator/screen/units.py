"""Quantities as text for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds for people: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def in_bytes(count: float) -> str:
    """Bytes for people, in powers of ten: 0.4 kB, 12 MB, 1.4 GB."""
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.{0 if value >= 9.95 else 1}f} {units[0]}"

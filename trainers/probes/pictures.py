"""Draws a probe's curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

STYLES = ("-", "--", ":", "-.")
"""Line styles, so that curves differ without colours too."""


def save_curves(labels: tuple[str, str], curves: Mapping[str, list[float]], path: Path) -> None:
    """Draws the curves of one probe into a PNG file. ``labels`` are the axes' labels. The file appears by rename."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel=labels[0], ylabel=labels[1])
    for style, (label, values) in zip(STYLES, curves.items(), strict=False):
        axes.plot(range(len(values)), values, style, label=label.replace("_", " "))
    if len(curves) > 1:
        axes.legend()
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)

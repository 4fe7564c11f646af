"""A probe's curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainers.probes import ProbeName

AXES: dict[ProbeName, tuple[str, str]] = {
    "distance": ("pair of minibatches", "W(q,p)"),
    "vertical_shift": ("rows moved down", "φ, centred"),
    "salt_and_pepper": ("bin of φ", "share of images"),
    "nearest": ("percentile", "distance to the nearest training example"),
    "transport_map": ("pair of minibatches", "W(q,p)"),
}
STYLES = ("-", "--", ":", "-.")
"""Told apart without colours, too."""


def save_curves(name: ProbeName, curves: Mapping[str, list[float]], path: Path) -> None:
    """The curves of one probe as a PNG, one line each. The file appears whole, by rename."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), dpi=100, layout="constrained")
    horizontal, vertical = AXES[name]
    axes = figure.add_subplot(xlabel=horizontal, ylabel=vertical)
    for style, (label, values) in zip(STYLES, curves.items(), strict=False):
        axes.plot(range(len(values)), values, style, label=label.replace("_", " "))
    if len(curves) > 1:
        axes.legend()
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    temporary.replace(path)

"""Draws a race: what each look saw of each cell, and which cells went on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.results.figures.data import RESULTS, Sweep
from orchestrator.results.figures.style import (
    COLOURS,
    FINE,
    LOG,
    PALE,
    WIDTH,
    add_note,
    columns_for,
    metric_label,
    scale_of,
    set_log_ticks,
)
from orchestrator.results.stages import looks_in
from orchestrator.results.statistics import mean_interval
from orchestrator.store.decision_log import CellKey, Decision, cell_key
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUT = {"worse": "told apart from the best, and out", "diverged": "a seed DIVERGED, and out"}


def looks_of(sweep: Sweep) -> list[Decision]:
    """The looks of a sweep's race. Empty if there is none, or if it was run by another metric."""
    grown = sweep.store.grown()
    if grown is None or sweep.metric != sweep.store.plan()["compare"]["metric"]:
        return []
    return looks_in(grown)


def race(sweep: Sweep) -> Figure | None:
    """A panel a look, a line a cell: its mean with its interval, and whether it went on. None without a look."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks = looks_of(sweep)
    seen = [cell["mean"] for look in looks for cell in look.rests_on["cells"] if cell.get("mean") is not None]
    if not seen:
        return None
    names = _names(sweep, looks)
    columns = columns_for(len(looks), 4)
    rows = -(-len(looks) // columns)
    height = min(9.0, rows * (0.14 * len(names) + 0.8) + 0.7)
    figure = Figure(figsize=(WIDTH, height), dpi=FINE, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = scale_of(np.array(seen))
    low, high = min(seen), max(seen)
    room = 0.25 * (high - low) or 0.05 * abs(high) or 1.0
    grid[0, 0].set_xlim(low - room, high + room)  # the intervals of two seeds would leave no room for anything else
    if scale == LOG:
        grid[0, 0].set_xscale("log")
        grid[0, 0].set_xlim(low / 1.5, high * 1.5)
        set_log_ticks(grid[0, 0].xaxis, (1.0,) if high / low > 50 else (1.0, 2.0, 5.0))
    for index, look in enumerate(looks):
        axes = grid[index // columns, index % columns]
        axes.set_title(f"look {index + 1}: {look.about['had']} seeds", loc="left", fontweight="bold")
        _draw_look(axes, look, list(names))
        if index + columns >= len(looks):
            axes.set_xlabel(metric_label(sweep, scale))
            axes.tick_params(labelbottom=True)
    grid[0, 0].set_yticks(range(len(names)), names.values(), fontsize=6 if len(names) <= 30 else 4)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    for index in range(len(looks), rows * columns):
        grid[index // columns, index % columns].remove()
    handles = [Line2D([], [], color=COLOURS[0], marker="o", linestyle="-", label="goes on, or is left at the end")]
    outs = {cell["out"] for look in looks for cell in look.rests_on["cells"]}
    handles += [
        Line2D([], [], marker="x", linestyle="-" if name == "worse" else "", label=words, color=_colour(name))
        for name, words in OUT.items()
        if name in outs
    ]
    told = ["a bar: the 95 % interval of a mean (Student's t); a race tells apart at stricter levels"]
    add_note(figure, sweep, told, RESULTS, handles)
    return figure


def _names(sweep: Sweep, looks: list[Decision]) -> dict[CellKey, str]:
    """The cells of the first look, by their keys: those that went furthest first, the best of them first."""
    grown = sweep.store.grown()
    short = {} if grown is None else grown.growing.short
    sign = -1 if sweep.mode == "max" else 1
    last: dict[CellKey, tuple[int, bool, float]] = {}
    names: dict[CellKey, str] = {}
    for number, look in enumerate(looks):
        for cell in look.rests_on["cells"]:
            key = cell_key(cell["variant"], cell["axes"])
            names.setdefault(key, cell_label(cell["variant"], setting_text(cell["axes"], short)))
            mean = cell.get("mean")
            last[key] = (-number, cell["out"] is not None, float("inf") if mean is None else sign * mean)
    return {key: names[key] for key in sorted(names, key=last.__getitem__)}


def _colour(out: str | None) -> str:
    return COLOURS[0] if out is None else COLOURS[1] if out == "worse" else "#000000"


def _draw_look(axes: Axes, look: Decision, order: list[CellKey]) -> None:
    axes.grid(True, axis="x")
    for cell in look.rests_on["cells"]:
        place, out = order.index(cell_key(cell["variant"], cell["axes"])), cell["out"]
        if cell.get("mean") is None:
            left = axes.get_yaxis_transform()
            axes.text(0.02, place, "no value", transform=left, va="center", fontsize=5, color=PALE)
            continue
        style: Any = {"color": _colour(out), "zorder": 3}
        axes.plot([cell["mean"]], [place], "o" if out is None else "x", **style)
        if cell["deviation"] is not None:
            low, high = mean_interval(cell["mean"], cell["deviation"], cell["count"])
            axes.plot([low, high], [place, place], "-", linewidth=0.8, **style)

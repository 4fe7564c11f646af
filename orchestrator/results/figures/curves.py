"""Draws a metric against time, and an estimate with its exact value."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.results.figures.data import (
    BAD_ENDS,
    CellResult,
    Curve,
    Horizontal,
    Single,
    Sweep,
    band,
    best_first,
    curves,
)
from orchestrator.results.figures.style import (
    COLOURS,
    LINES,
    LOG,
    MARKERS,
    PALE,
    WIDTH,
    add_note,
    columns_for,
    metric_label,
    scale_of,
    set_scale,
    shown,
)
from orchestrator.results.tables import UNTRAINED
from orchestrator.store.states import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HORIZONTALS: dict[Horizontal, str] = {
    "epoch": "epoch",
    "iteration": "critic iterations",
    "seconds": "training time [s]",
}
IN_MEANS = frozenset({State.DONE})
"""The states whose trials are in the mean. A stopped trial is not: the mean would jump where the trial ends."""
POINTS = 20
"""A curve with more points than this has markers only at some of them."""
LABEL = 36
"""The number of characters in a legend's line."""
Drawn = Mapping[str, tuple[Curve | None, list[Single]]]


def curve_panels(sweep: Sweep, horizontal: Horizontal) -> Figure:
    """A panel with the best cell of each variant, then a panel for each variant with several cells."""
    from matplotlib.figure import Figure

    panels = _panels(sweep)
    columns = columns_for(len(panels), 3)
    rows = -(-len(panels) // columns)
    drawn = {cell.label: curves(sweep, cell, horizontal) for _, cells in panels for cell in cells}
    tallest = max(_lines(cells, with_variant=index == 0 and len(panels) > 1) for index, (_, cells) in enumerate(panels))
    size = (WIDTH if columns > 1 else 4.6, (2.1 + 0.11 * tallest) * rows + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = _set_scale(grid[0, 0], sweep, drawn)
    for index, (title, cells) in enumerate(panels):
        axes = grid[index // columns, index % columns]
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel(HORIZONTALS[horizontal])
        axes.grid(True)
        axes.tick_params(labelbottom=True)
        axes.locator_params(axis="x", integer=horizontal != "seconds")
        _draw_panel(axes, cells, drawn, with_variant=index == 0 and len(panels) > 1)
        if index % columns == 0:
            axes.set_ylabel(metric_label(sweep, scale))
    for index in range(len(panels), rows * columns):
        grid[index // columns, index % columns].remove()
    handles = _reference_lines(figure, sweep, scale)
    handles += _marks({single.state for _, singles in drawn.values() for single in singles})
    words = [f"best: by the mean of {sweep.ranked_by}; the table says what is told apart"] if len(panels) > 1 else []
    words += ["x: mean over seeds"] if horizontal == "seconds" else []
    add_note(figure, sweep, [band(sweep), *words], IN_MEANS, handles)
    return figure


def _panels(sweep: Sweep) -> list[tuple[str, list[CellResult]]]:
    variants = sweep.variants()
    if len(variants) == 1:
        return [("", list(sweep.cells))]
    several = [(name, cells) for name, cells in variants.items() if len(cells) > 1]
    best = [best_first(cells)[0] for cells in variants.values()]
    return [("best cell of each method" if several else "", best), *several]


def _draw_panel(axes: Axes, cells: Sequence[CellResult], drawn: Drawn, *, with_variant: bool) -> None:
    """Draws each cell's line and band. If there are many cells, only the best have colours and the rest are grey."""
    told = _told(cells)
    handles, labels = [], []
    for cell in (cell for cell in cells if cell not in told):
        curve, singles = drawn[cell.label]
        if curve is not None:
            axes.plot(curve.x, curve.mean, color=PALE, linewidth=0.5, zorder=1.5)
        _draw_singles(axes, singles, PALE, axes.get_ylim())
    for number, cell in enumerate(told):
        colour, line, marker = COLOURS[number], LINES[number], MARKERS[number]
        curve, singles = drawn[cell.label]
        _draw_singles(axes, singles, colour, axes.get_ylim())
        handles.append(_draw_curve(axes, curve, colour, line, marker))
        labels.append(_label(cell, with_variant=with_variant))
    if len(told) < len(cells):
        handles += axes.plot([], [], color=PALE, linewidth=0.5)
        labels.append(f"{len(cells) - len(told)} other cells")
    _legend_below(axes, handles, labels)


def _told(cells: Sequence[CellResult]) -> Sequence[CellResult]:
    """The cells that have a colour and a name in a panel."""
    return cells if len(cells) <= len(COLOURS) else best_first(cells)[: len(COLOURS) - 1]


def _label(cell: CellResult, *, with_variant: bool) -> str:
    words = cell.label if with_variant else cell.setting or cell.label
    return textwrap.fill(words + (f" ({cell.remark})" if cell.remark else ""), LABEL, break_on_hyphens=False)


def _lines(cells: Sequence[CellResult], *, with_variant: bool) -> int:
    """How many lines a panel's legend has."""
    return 1 + sum(1 + _label(cell, with_variant=with_variant).count("\n") for cell in _told(cells))


def _legend_below(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Puts the legend below the axis' name, where it covers no curve."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    below = axes.transAxes + ScaledTranslation(-0.1, -0.32, figure.dpi_scale_trans)
    axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, labelspacing=0.25, borderpad=0
    )


def _draw_curve(axes: Axes, curve: Curve | None, colour: str, line: Any, marker: str) -> Any:
    """Draws the mean and its band. Returns the legend's handle."""
    every = 1 if curve is None else -(-len(curve.x) // POINTS)
    points: tuple[Any, Any] = ([], []) if curve is None else (curve.x, curve.mean)
    (handle,) = axes.plot(*points, color=colour, linestyle=line, marker=marker, markevery=every, zorder=3)
    if curve is not None and curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    return handle


def _draw_singles(axes: Axes, singles: Sequence[Single], colour: str, limits: tuple[float, float]) -> None:
    """Draws single trials as thin lines.

    A cross marks the end of a trial that failed, diverged or was lost, and a bar that of a stopped one. An end outside
    the panel is marked at its edge.
    """
    import numpy as np

    for single in singles:
        y = np.clip(single.y, *limits)
        axes.plot(single.x, y, color=colour, linewidth=0.5, alpha=0.8, zorder=1.8)
        if mark := _mark(single.state):
            edge = "#000000" if mark == "x" else colour
            axes.plot(single.x[-1:], y[-1:], mark, color=edge, markersize=4, zorder=4, clip_on=False)


def _mark(state: State) -> str:
    return "x" if state in BAD_ENDS else "|" if state is State.STOPPED else ""


def _marks(states: Collection[State]) -> list[Any]:
    """The legend's entries for the marks at the ends of single trials."""
    from matplotlib.lines import Line2D

    told = {"x": "a trial that failed, diverged or was lost", "|": "a trial that was stopped early"}
    marks = sorted({mark for state in states if (mark := _mark(state))})
    kind: Any = {"color": "#000000", "linewidth": 0.5, "markersize": 4}
    return [Line2D([], [], marker=mark, label=told[mark], **kind) for mark in marks]


def _set_scale(axes: Axes, sweep: Sweep, drawn: Drawn) -> str:
    """Sets the vertical axis and returns its scale. Failed, diverged and lost trials do not stretch it."""
    import numpy as np

    means = [curve for curve, _ in drawn.values() if curve is not None]
    singles = [single for _, several in drawn.values() for single in several]
    good = [curve.mean for curve in means] + [each.y for each in singles if each.state not in BAD_ENDS]
    known = np.concatenate(good or [each.y for each in singles] or [np.zeros(1)])
    scale = scale_of(known)
    edges = [edge for curve in means for edge in (curve.low, curve.high) if edge is not None]
    values = np.concatenate([known, *edges, [*sweep.references.values()]])
    if scale == LOG:
        values = values[values > known.min() / 3]  # a band's lower edge may come close to zero or below
    set_scale(axes, scale, values)
    return scale


def _reference_lines(figure: Figure, sweep: Sweep, scale: str) -> list[Any]:
    """Draws the values of the untrained generator and of real training images into every panel."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for name, value in sweep.references.items():
        line: Any = (0, (1, 2)) if name == UNTRAINED else (0, (7, 2, 1, 2))
        kind: dict[str, Any] = {"color": "#555555", "linestyle": line, "linewidth": 0.9}
        off = scale == LOG and not min(figure.axes[0].get_ylim()) <= value
        for axes in [] if off else figure.axes:
            axes.axhline(value, zorder=1, **kind)
        handles.append(Line2D([], [], label=f"{name}: {shown(value)}" + (" (off the scale)" if off else ""), **kind))
    return handles


def convergence(sweep: Sweep, estimate: str, exact: str) -> Figure:
    """A panel a cell, with the critic's estimate of the distance and the exact distance at every evaluation."""
    import numpy as np
    from matplotlib.figure import Figure

    evaluated = {trial_id: frame[frame[exact].notna()] for trial_id, frame in sweep.epochs.items()}
    sweep = replace(sweep, epochs=evaluated)
    count = len(sweep.cells)
    columns = columns_for(count, 4 if count <= 16 else 6)
    rows = -(-count // columns)
    width = WIDTH if columns > 2 else 2.4 * columns + 1
    figure = Figure(figsize=(width, rows * (1.7 if columns < 6 else 1.2) + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    kinds = ((estimate, COLOURS[0], "-", "o"), (exact, COLOURS[1], "--", "s"))
    states, handles = set[State](), dict[str, Any]()
    for index, cell in enumerate(sweep.cells):
        axes = grid[index // columns, index % columns]
        title = cell.label + (f" ({cell.remark})" if cell.missing else "")
        axes.set_title(
            textwrap.fill(title, round(17 * width / columns), break_on_hyphens=False), loc="left", fontsize=6.5
        )
        axes.grid(True)
        apart = []
        for metric, colour, line, marker in kinds:
            curve, singles = curves(sweep, cell, "epoch", metric)
            handles[metric] = _draw_curve(axes, curve, colour, line, marker)
            handles[metric].set_label(metric)
            apart.append((singles, colour))
            states |= {single.state for single in singles}
        limits = axes.get_ylim() if any(len(line.get_xdata()) for line in axes.lines) else (0.0, np.inf)
        for singles, colour in apart:
            _draw_singles(axes, singles, colour, limits)
        axes.locator_params(axis="x", integer=True)
        axes.set_ylim(bottom=0.0)  # a distance is not negative, whatever a band says
        if index + columns >= count:
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)
    for index in range(count, rows * columns):
        grid[index // columns, index % columns].remove()
    add_note(figure, sweep, [band(sweep, exact)], IN_MEANS, [*handles.values(), *_marks(states)])
    return figure

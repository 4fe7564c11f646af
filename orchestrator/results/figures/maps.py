"""Draws a metric over the axes of a sweep: heat maps of two axes, and parallel coordinates of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orchestrator.results.figures.data import RESULTS, Axis, CellResult, Sweep, best_first, varying_axes
from orchestrator.results.figures.style import (
    LINEAR,
    LOG,
    PALE,
    SHADES,
    WIDTH,
    add_note,
    columns_for,
    metric_label,
    scale_of,
    set_log_ticks,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = "#777777"
NOWHERE = -0.12
"""The height, below the metric's axis, at which lines without a value end."""
LONGEST_WORD = 22
ROOM = 0.07
"""How far apart values are written on an axis that is a scale."""


def mapped(sweep: Sweep) -> list[tuple[str, list[CellResult], tuple[Axis, Axis]]]:
    """The variants that get a heat map, with their cells and two axes.

    Exactly two of the variant's axes vary, all of its cells have both, and at least one cell has a value.
    """
    found = []
    for name, cells in sweep.variants().items():
        axes = _mapped_axes(cells)
        everywhere = all(cell.label in axis.of for cell in cells for axis in axes)
        searched = any(cell.stage == "search" for cell in cells)  # a map of proposals would be one of holes
        if len(axes) == 2 and everywhere and not searched and any(cell.value is not None for cell in cells):
            found.append((name, cells, (axes[0], axes[1])))
    return found


def _mapped_axes(cells: Sequence[CellResult]) -> list[Axis]:
    """The axes that vary, without those that a search chose: confirmed cells are a grid at tuned settings."""
    axes = varying_axes(cells, searched=False)
    places = {tuple(axis.of.get(cell.label) for axis in axes) for cell in cells}
    return axes if len(places) == len(cells) else []


def heat_maps(sweep: Sweep) -> Figure | None:
    """Heat maps of the metric over two axes, one map a variant. None if no variant has two varying axes."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    maps = mapped(sweep)
    if not maps:
        return None
    values = np.array([cell.value for _, cells, _ in maps for cell in cells if cell.value is not None])
    logarithmic = scale_of(values) == LOG
    norm = (LogNorm if logarithmic else Normalize)(float(values.min()), float(values.max()))
    shapes = [(len(down.values), len(across.values)) for *_, (down, across) in maps]
    tallest, widest = (max(sizes) for sizes in zip(*shapes, strict=True))
    columns = columns_for(len(maps), 3) if widest <= 5 else 1
    rows = -(-len(maps) // columns)
    lines = sum(down for down, _ in shapes) if columns == 1 else rows * tallest
    size = (min(WIDTH, columns * (0.62 * widest + 1.0) + 0.7), 0.36 * lines + 0.75 * rows + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    ratios = [down for down, _ in shapes] if columns == 1 else None
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    shades = colormaps[SHADES]
    for index, (name, cells, (down, across)) in enumerate(maps):
        axes = grid[index // columns, index % columns]
        axes.set_title(name, loc="left", fontweight="bold")
        _heat_map(axes, sweep, cells, down, across, lambda value: shades(norm(value)))
    for index in range(len(maps), rows * columns):
        grid[index // columns, index % columns].remove()
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=figure.axes, shrink=0.9, aspect=25, pad=0.02)
    if logarithmic:
        set_log_ticks(bar.ax.yaxis)
    bar.set_label(metric_label(sweep, LOG if logarithmic else LINEAR))
    bar.outline.set_visible(False)
    outlined = ["outlined: the best mean of a map"] if sweep.mode else []
    told = ["mean over seeds with a result", *outlined, "hatched: no such cell, or no result"]
    add_note(figure, sweep, told, RESULTS)
    return figure


def _heat_map(axes: Axes, sweep: Sweep, cells: Sequence[CellResult], down: Axis, across: Axis, shade: Any) -> None:
    from matplotlib.patches import Rectangle

    at = {(down.of[cell.label], across.of[cell.label]): cell for cell in cells}
    best = best_first(cells)[0]
    size = 6 if len(across.values) <= 8 else 5
    for row, first in enumerate(down.values):
        for column, second in enumerate(across.values):
            cell = at.get((first, second))
            corner = (column - 0.5, row - 0.5)
            if cell is None or cell.value is None:
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="#f4f4f4", edgecolor=PALE, hatch="////", linewidth=0))
                states = set() if cell is None else set(cell.missing)
                words = "" if cell is None else str(*states) if len(states) == 1 else "no result"
                box = {"facecolor": "#f4f4f4", "edgecolor": "none", "pad": 1}
                axes.text(column, row, words, ha="center", va="center", fontsize=size, bbox=box if words else None)
                continue
            colour = shade(cell.value)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
            luminance = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
            words = shown(cell.value) + (f"\n{cell.remark}" if cell.remark else "")
            ink = "black" if luminance > 0.45 else "white"
            axes.text(column, row, words, ha="center", va="center", fontsize=size, color=ink)
    if sweep.mode and best.value is not None:
        row, column = down.values.index(down.of[best.label]), across.values.index(across.of[best.label])
        inside = (column - 0.46, row - 0.46)
        axes.add_patch(Rectangle(inside, 0.92, 0.92, fill=False, edgecolor="white", linewidth=2.2))
        axes.add_patch(Rectangle(inside, 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.0))
    axes.set(xlim=(-0.5, len(across.values) - 0.5), ylim=(len(down.values) - 0.5, -0.5))
    axes.set_xticks(range(len(across.values)), across.values)
    axes.set_yticks(range(len(down.values)), down.values)
    axes.set(xlabel=across.name, ylabel=down.name)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def parallel_coordinates(sweep: Sweep) -> Figure | None:
    """Parallel coordinates: a line a cell, through its values on every axis to the metric.

    None if fewer than two axes vary, or if no cell has a value.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    columns = _columns(sweep)
    valued = [cell for cell in best_first(sweep.cells) if cell.value is not None]
    if len(columns) < 2 or not valued:
        return None
    missing = [cell for cell in sweep.cells if cell.value is None]
    values = np.array([cell.value for cell in valued], dtype=float)
    logarithmic = scale_of(values) == LOG
    norm = (LogNorm if logarithmic else Normalize)(float(values.min()), float(values.max()))
    most = max(len(axis.values) if axis.numbers is None else 12 for axis in columns)
    figure = Figure(figsize=(WIDTH, min(5.0, max(2.4, 0.3 * most + 1.2))), layout="constrained")
    axes = figure.add_subplot()
    heights = [_heights(axis, sweep.cells) for axis in columns]
    thin = 1.0 if len(sweep.cells) <= 40 else 0.6
    for cell in missing:
        path = _path([height[cell.label] for height in heights] + [NOWHERE])
        axes.plot(*path, color=PALE, linestyle=":", linewidth=0.8)
    for index, cell in reversed(list(enumerate(valued))):  # the best is drawn last, above all others
        level = _level(norm, values[index])
        path = _path([height[cell.label] for height in heights] + [level])
        wide = 2.4 if index == 0 and sweep.mode else thin
        axes.plot(*path, color=colormaps[SHADES](0.92 * level), linewidth=wide, solid_capstyle="round")
    for position, axis in enumerate(columns):
        _draw_axis(axes, position, axis, sweep.cells)
    _draw_metric_axis(axes, len(columns), norm, with_nowhere=bool(missing))
    label = metric_label(sweep, LOG if logarithmic else LINEAR).replace(" (", "\n(")
    axes.set(xlim=(-0.1, len(columns) + 0.25), ylim=(NOWHERE - 0.06 if missing else -0.04, 1.04))
    axes.set_xticks(range(len(columns) + 1), [*(axis.name for axis in columns), label])
    axes.tick_params(length=0, labelsize=7)
    axes.xaxis.tick_top()
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    told = ["a line a cell, ending at its mean over seeds with a result"]
    best = "; ".join([shown(values[0]), *([valued[0].remark] if valued[0].remark else [])])
    told += [f"thick: the best mean, {valued[0].label} ({best})"] if sweep.mode else []
    told += ["dotted: no result"] if missing else []
    add_note(figure, sweep, told, RESULTS)
    return figure


def _columns(sweep: Sweep) -> list[Axis]:
    variants = list(sweep.variants())
    by_variant = Axis("method", tuple(variants), {cell.label: cell.variant for cell in sweep.cells})
    return [*([by_variant] if len(variants) > 1 else []), *varying_axes(sweep.cells)]


def _places(axis: Axis, cells: Sequence[CellResult]) -> dict[str | None, float]:
    """The height of each value on an axis, in [0, 1]. None, lowest, stands for cells that do not have the axis."""
    if axis.numbers is not None:
        nowhere: dict[str | None, float] = {None: 0.02} if any(cell.label not in axis.of for cell in cells) else {}
        low, level = 0.1 if nowhere else 0.03, _norm(axis.numbers)
        return nowhere | {word: low + (0.97 - low) * float(level(axis.numbers[word])) for word in axis.values}
    words = [*([None] if any(cell.label not in axis.of for cell in cells) else []), *axis.values]
    return {word: (index + 0.5) / len(words) for index, word in enumerate(words)}


def _heights(axis: Axis, cells: Sequence[CellResult]) -> dict[str, float]:
    """The height at which each cell crosses an axis: near its value, spread by rank so that lines stay distinct."""
    places = _places(axis, cells)
    room = 0.55 / len(places) if axis.numbers is None else 0.0
    heights: dict[str, float] = {}
    for word, place in places.items():
        here = [cell for cell in best_first(cells) if axis.of.get(cell.label) == word]
        heights |= {cell.label: place + room * ((index + 0.5) / len(here) - 0.5) for index, cell in enumerate(here)}
    return heights


def _level(norm: Any, value: float) -> float:
    """The height of a value on the metric's axis, in [0, 1]. If all cells have the same value, it is in the middle."""
    return 0.5 if norm.vmin == norm.vmax else float(norm(value))


def _path(heights: Sequence[float]) -> tuple[list[float], list[float]]:
    """The points of a smooth line through the heights at x = 0, 1, 2 …. The line is horizontal at each."""
    x, y = [], []
    for start, (here, there) in enumerate(pairwise(heights)):
        for step in range(25):
            part = step / 24
            x.append(start + part)
            y.append(here + (there - here) * (1 - math.cos(math.pi * part)) / 2)
    return x, y


def _draw_axis(axes: Axes, position: int, axis: Axis, cells: Sequence[CellResult]) -> None:
    axes.axvline(position, color=LINE, linewidth=0.7, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    places = _places(axis, cells)
    if axis.numbers is not None:
        places = _spaced(places)
    for word, place in places.items():
        text = "—" if word is None else _short(word)
        axes.text(position + 0.03, place, text, va="center", fontsize=6, bbox=box, zorder=5)


def _norm(numbers: Mapping[str, float]) -> Any:
    """The scale of numbers between the smallest and the largest, logarithmic where tables of them would be too."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    values = np.array(list(numbers.values()), dtype=float)
    return (LogNorm if scale_of(values) == LOG else Normalize)(float(values.min()), float(values.max()))


def _spaced(places: Mapping[str | None, float]) -> dict[str | None, float]:
    """Those of the places that have room for their text: the ends, and others between them."""
    *others, highest = sorted(places.items(), key=lambda item: item[1])
    kept: dict[str | None, float] = {}
    for word, place in others:
        if not kept or (place - max(kept.values()) > ROOM and highest[1] - place > ROOM):
            kept[word] = place
    return kept | dict([highest])


def _short(word: str) -> str:
    """A value, shortened to fit on its axis. It keeps its beginning and its end, where lists of offsets differ."""
    return word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD - 10]}…{word[-9:]}"


def _draw_metric_axis(axes: Axes, position: int, norm: Any, *, with_nowhere: bool) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, MaxNLocator

    axes.axvline(position, color=LINE, linewidth=0.7, zorder=1)
    locator = LogLocator(subs=(1.0, 2.0, 5.0)) if isinstance(norm, LogNorm) else MaxNLocator(5)
    ends = {norm.vmin, norm.vmax}
    ticks = {value for value in locator.tick_values(norm.vmin, norm.vmax) if 0.06 < float(norm(value)) < 0.94}
    for value in sorted(ends | (ticks if len(ends) == 2 else set())):
        level = _level(norm, value)
        axes.text(position + 0.04, level, f"{value:.3g}", va="center", fontsize=6)
        axes.plot([position - 0.02, position + 0.02], [level, level], color=LINE, linewidth=0.7)
    if with_nowhere:
        axes.text(position + 0.04, NOWHERE, "no result", va="center", fontsize=6)

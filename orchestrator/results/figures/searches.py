"""Draws what searches have found: the best so far, how much each option matters, the metric against each option."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.results.figures.data import RESULTS, CellResult, Sweep
from orchestrator.results.figures.style import (
    COLOURS,
    FINE,
    LINES,
    MARKERS,
    PALE,
    WIDTH,
    add_note,
    columns_for,
    metric_label,
    scale_of,
    set_log_ticks,
    set_scale,
)
from orchestrator.results.importance import METHOD, importances
from orchestrator.store.decision_log import cell_key
from orchestrator.store.states import State
from orchestrator.sweep.growing import Group
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.setting import setting_text, short_value
from orchestrator.sweep.space import Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMPORTANCE = f"{METHOD}, over the proposals of which every seed has a value"
POINTS = "a point: a proposal, its mean over seeds, ringed if it is the best of its search"
NO_VALUE = "a seed DIVERGED or has no value"


@dataclass(frozen=True)
class Searched:
    """A cell that was searched: its name, its space, and its proposals in their order."""

    label: str
    space: Mapping[str, Dimension]
    proposals: tuple[CellResult, ...]

    @property
    def valued(self) -> list[CellResult]:
        """The proposals of which every seed has a value: the survivors of others flatter them."""
        return [cell for cell in self.proposals if is_whole(cell)]


def is_whole(cell: CellResult) -> bool:
    """Whether every seed of a cell has a value."""
    return cell.value is not None and not cell.missing and not cell.without


def _has_ended(cell: CellResult) -> bool:
    return not {State.PENDING, State.RUNNING} & {*cell.missing}


@dataclass(frozen=True)
class Searches:
    """All searches of a sweep, seen through one metric that has a direction."""

    sweep: Sweep
    groups: tuple[Searched, ...]
    short: Mapping[str, str]

    @property
    def noted(self) -> Sweep:
        """The sweep for a figure's note, which names no trials: crosses show those without a value."""
        return replace(self.sweep, cells=())

    @property
    def options(self) -> list[str]:
        """The options that were searched."""
        return list(dict.fromkeys(name for group in self.groups for name in group.space))


def searches_of(explored: Sweep) -> Searches | None:
    """The searches of a sweep, from its explored trials. None if there are none, or if the metric has no direction."""
    grown = explored.store.grown()
    if grown is None or explored.mode is None:
        return None
    found = {cell_key(group.variant, group.axes): (group, list[CellResult]()) for group in grown.growing.groups}
    for cell in explored.cells:
        fixed = {axis: value for axis, value in cell.axes.items() if axis not in cell.searched}
        if cell.stage == "search" and (key := cell_key(cell.variant, fixed)) in found:
            found[key][1].append(cell)
    groups = tuple(
        _searched(group, cells, grown.growing.short)
        for group, cells in found.values()
        if any(cell.value is not None for cell in cells)
    )
    return Searches(explored, groups, grown.growing.short) if groups else None


def _searched(group: Group, cells: Sequence[CellResult], short: Mapping[str, str]) -> Searched:
    label = cell_label(group.variant, setting_text(group.axes, short))
    ordered = sorted(cells, key=lambda cell: cell.proposal or 0)
    return Searched(label, group.search.space, tuple(cell for cell in ordered if _has_ended(cell)))


def _styles(searches: Searches) -> list[tuple[Searched, tuple[str, Any, str]]]:
    """Each search with its colour, line and marker. With more searches than colours the worse ones are grey."""
    few = len(searches.groups) <= len(COLOURS)
    styles = [*zip(COLOURS, LINES, MARKERS, strict=True)][: len(COLOURS) if few else -1]
    groups = _best_first(searches)
    return [(group, styles[i] if i < len(styles) else (PALE, "-", ".")) for i, group in enumerate(groups)]


def _best_first(searches: Searches) -> list[Searched]:
    """The searches, those with the best proposals first. With few of them in their own order."""
    if len(searches.groups) <= len(COLOURS):
        return list(searches.groups)
    sign = -1 if searches.sweep.mode == "max" else 1

    def best(group: Searched) -> float:
        return min((sign * value_of(cell) for cell in group.valued), default=math.inf)

    return sorted(searches.groups, key=best)


def best_so_far(searches: Searches) -> Figure | None:
    """The best value so far against the number of the proposal, a line a search, and a point a proposal.

    None if no proposal has a value of all its seeds.
    """
    from matplotlib.figure import Figure

    if not (values := _values(searches)):
        return None
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    scale = _set_scale(axes, values)
    better = max if searches.sweep.mode == "max" else min
    handles = []
    for group, (colour, line, marker) in _styles(searches):
        _draw_points(axes, searches, group, colour, marker, {cell.label: _number(cell) for cell in group.proposals})
        x = [_number(cell) for cell in group.valued]
        y = list(accumulate((value_of(cell) for cell in group.valued), better))
        if x:
            x, y = [*x, max(map(_number, group.proposals))], [*y, y[-1]]
        style: Any = {"color": colour, "linestyle": line, "label": group.label, "drawstyle": "steps-post"}
        handles += axes.plot(x, y, zorder=3.5, **style)
    axes.set(xlabel="proposal", ylabel=metric_label(searches.sweep, scale))
    axes.locator_params(axis="x", integer=True)
    axes.grid(True)
    told = ["a line: the best so far of a search", POINTS]
    _add_note(figure, searches, told, handles)
    return figure


def slices(searches: Searches) -> Figure | None:
    """The metric against each option that was searched: a panel an option, a point a proposal.

    None if no proposal has a value of all its seeds.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not (values := _values(searches)):
        return None
    options = searches.options
    columns = columns_for(len(options), 3)
    rows = -(-len(options) // columns)
    figure = Figure(figsize=(WIDTH if columns > 1 else 4.6, 2.3 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    scale = _set_scale(grid[0, 0], values)
    for index, option in enumerate(options):
        axes = grid[index // columns, index % columns]
        places = _set_option_axis(axes, searches, option)
        for group, (colour, _, marker) in _styles(searches):
            there = [cell for cell in group.proposals if option in cell.searched]
            at = {cell.label: places.get(short_value(cell.axes[option]), cell.axes[option]) for cell in there}
            _draw_points(axes, searches, group, colour, marker, at)
        axes.set_xlabel(searches.short.get(option, option))
        axes.grid(True)
        if index % columns == 0:
            axes.set_ylabel(metric_label(searches.sweep, scale))
    for index in range(len(options), rows * columns):
        grid[index // columns, index % columns].remove()
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=group.label)
        for group, (colour, _, marker) in _styles(searches)
    ]
    _add_note(figure, searches, [POINTS], handles)
    return figure


def importance(searches: Searches) -> Figure | None:
    """How much each option matters for the metric, a panel a search. None if no search can say."""
    from matplotlib.figure import Figure

    found = [(group, shares) for group in searches.groups if (shares := importances_in(searches, group))]
    if not found:
        return None
    columns = columns_for(len(found), 3)
    rows = -(-len(found) // columns)
    most = max(len(shares) for _, shares in found)
    size = (WIDTH if columns > 1 else 4.6, rows * (0.22 * most + 0.75) + 0.3)
    figure = Figure(figsize=size, dpi=FINE, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for index, (group, shares) in enumerate(found):
        axes = grid[index // columns, index % columns]
        names = [searches.short.get(name, name) for name in shares]
        axes.barh(names, list(shares.values()), color=COLOURS[0], height=0.6)
        axes.set_title(textwrap.fill(group.label, 34, break_on_hyphens=False), loc="left", fontweight="bold")
        axes.set(xlim=(0, 1), xlabel=f"importance ({len(group.valued)} proposals)")
        axes.invert_yaxis()
        axes.tick_params(labelbottom=True)
    for index in range(len(found), rows * columns):
        grid[index // columns, index % columns].remove()
    add_note(figure, searches.noted, [IMPORTANCE], RESULTS)
    return figure


def importances_in(searches: Searches, group: Searched) -> dict[str, float]:
    """The importance of each option of a search, the largest first. Empty if it cannot be said."""
    mode: Literal["min", "max"] = "max" if searches.sweep.mode == "max" else "min"
    valued = [cell for cell in group.valued if group.space.keys() <= cell.axes.keys()]  # others had another space
    return importances(group.space, [cell.axes for cell in valued], [value_of(cell) for cell in valued], mode)


# --- parts of figures -----------------------------------------------------------------------------------------------


def value_of(cell: CellResult) -> float:
    """The value of a cell that has one."""
    assert cell.value is not None
    return cell.value


def _values(searches: Searches) -> list[float]:
    return [value_of(cell) for group in searches.groups for cell in group.valued]


def _number(cell: CellResult) -> int:
    """The number of a proposal for people, who count from 1."""
    return 1 + (cell.proposal or 0)


def _set_scale(axes: Axes, values: Sequence[float]) -> str:
    """Sets the vertical axis for these values, and returns its scale."""
    import numpy as np

    scale = scale_of(np.array(values))
    set_scale(axes, scale, np.array(values))
    return scale


def _set_option_axis(axes: Axes, searches: Searches, option: str) -> dict[str, int]:
    """Sets the horizontal axis of an option. Returns the places of its values by their text, if it is a choice."""
    dimensions = [group.space[option] for group in searches.groups if option in group.space]
    if any(each.kind == "choice" for each in dimensions):
        tried = (cell.axes[option] for group in searches.groups for cell in group.proposals if option in cell.searched)
        values = [value for each in dimensions for value in each.values]
        words = list(dict.fromkeys(map(short_value, [*values, *tried])))
        axes.set_xticks(range(len(words)), words)
        axes.set_xlim(-0.5, len(words) - 0.5)
        return {word: place for place, word in enumerate(words)}
    if all(each.log for each in dimensions):
        axes.set_xscale("log")
        low, high = min(each.low for each in dimensions), max(each.high for each in dimensions)
        axes.set_xlim(low / 1.1, high * 1.1)
        set_log_ticks(axes.xaxis, (1.0,) if high / low >= 50 else (1.0, 2.0, 5.0))
    elif all(each.kind == "int" for each in dimensions):
        axes.locator_params(axis="x", integer=True)
    return {}


def _draw_points(
    axes: Axes, searches: Searches, group: Searched, colour: str, marker: str, at: Mapping[str, float]
) -> None:
    """Draws the proposals that have a place. Those of which a seed has no value are crosses at the worst edge."""
    sign = -1 if searches.sweep.mode == "max" else 1
    valued = [cell for cell in group.valued if cell.label in at]
    style: Any = {"linestyle": "", "color": colour, "marker": marker}
    axes.plot([at[cell.label] for cell in valued], [value_of(cell) for cell in valued], alpha=0.8, **style)
    if valued:
        best = min(valued, key=lambda cell: sign * value_of(cell))
        ring: Any = {"markersize": 7, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 0.8}
        axes.plot([at[best.label]], [value_of(best)], "o", **ring)
    low, high = axes.get_ylim()
    if lost := [at[cell.label] for cell in group.proposals if cell.label in at and not is_whole(cell)]:
        crosses: Any = {"color": colour, "markersize": 4, "zorder": 4, "clip_on": False}
        axes.plot(lost, [low if sign < 0 else high] * len(lost), "x", **crosses)


def _add_note(figure: Figure, searches: Searches, told: Sequence[str], handles: Sequence[Any]) -> None:
    handles = [*_legend(handles), *_crosses(searches)]
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, round(20 * figure.get_figwidth()) // (longest + 9))
    add_note(figure, searches.noted, told, RESULTS, handles, min(4, columns))


def _legend(handles: Sequence[Any]) -> list[Any]:
    """The legend's entries of the searches that have colours; the others share one."""
    return [*handles[: len(COLOURS) - 1], *_others(handles)] if len(handles) > len(COLOURS) else list(handles)


def _others(handles: Sequence[Any]) -> list[Any]:
    last = handles[-1]
    last.set_label(f"{len(handles) - len(COLOURS) + 1} other searches")
    return [last]


def _crosses(searches: Searches) -> list[Any]:
    """The legend's entry for proposals without a value, if there are any."""
    from matplotlib.lines import Line2D

    if all(is_whole(cell) for group in searches.groups for cell in group.proposals):
        return []
    kind: Any = {"color": "#000000", "linewidth": 0, "markersize": 4}
    return [Line2D([], [], marker="x", label=NO_VALUE, **kind)]

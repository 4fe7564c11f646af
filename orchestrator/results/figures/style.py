"""The style of figures. They can be read without colours and by the colour-blind; the same store gives the same file.

Colours are those of Okabe and Ito (2008) without their yellow; each has its own line style and marker. Heat maps use
cividis (Nuñez, Anderton and Renslow 2018), whose lightness alone shows the order.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.results.figures.data import Sweep
from orchestrator.results.number_text import format_value
from orchestrator.results.tables import Value
from orchestrator.store.states import State

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINEAR, LOG, SYMMETRIC_LOG = "linear", "log", "symmetric log"
SHADES = "cividis"
PALE = "#9a9a9a"
WIDTH = 7.0
"""The width of a figure in inches: two columns of a paper."""
FINE = 200
"""Dots per inch at which letters have their printed width, for figures with long words beside an axis."""
NOTE_WIDTH = 150
"""Characters in a line of a figure's note."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so letters are the same everywhere
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "text.parse_math": False,  # a dollar in a label begins no formula
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "orchestrator",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Applies our style, whatever a user's matplotlibrc says. Both drawing and saving happen inside it."""
    from matplotlib.style import context

    with context(["default", STYLE]):
        yield


def saved(figure: Figure, kind: str, title: str, description: str) -> bytes:
    """The bytes of a figure as SVG or PNG, without a date. To be called inside :func:`style`."""
    if engine := figure.get_layout_engine():  # once for all kinds, because it takes as long as drawing
        engine.execute(figure)
        figure.set_layout_engine("none")
    words = {"Title": title, "Description": description}
    metadata = {**words, "Date": None} if kind == "svg" else {**words, "Software": None}
    for image in (image for axes in figure.axes for image in axes.images):
        image.set_interpolation("none" if kind == "svg" else "auto")  # SVG keeps every pixel; PNG as many as fit
    target = io.BytesIO()
    figure.savefig(target, format=kind, metadata=metadata)
    return target.getvalue()


def columns_for(count: int, most: int) -> int:
    """The number of columns of a grid of panels: as few rows as possible with ``most`` columns, then as few columns."""
    return -(-count // -(-count // most))


def shown(value: float) -> str:
    """A value as tables show it, with three digits and at most four decimals; below 0.001 always with three digits."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.3g}"
    return format_value(Value(value, None, 1))


def metric_label(sweep: Sweep, scale: str) -> str:
    """The metric with an arrow for the better direction, and the scale if it is not linear."""
    arrow = {"min": " ↓", "max": " ↑"}.get(sweep.mode or "", "")
    return sweep.metric + arrow + (f" ({scale} scale)" if scale != LINEAR else "")


def scale_of(values: np.ndarray) -> str:
    """The scale on which values can be distinguished: linear, logarithmic or symmetric-logarithmic.

    Logarithmic if all values are positive and span more than a decade. Symmetric-logarithmic (linear near zero,
    logarithmic beyond) if some values are not positive and the largest is far greater than most.
    """
    import numpy as np

    if (values > 0).all():
        return LOG if values.max() > 10 * values.min() else LINEAR
    sizes = np.abs(values[values != 0])
    return SYMMETRIC_LOG if len(sizes) and sizes.max() > 30 * np.median(sizes) else LINEAR


def set_scale(axes: Axes, scale: str, values: np.ndarray) -> None:
    """Gives the vertical axis this scale, limits for these values, and plain numbers."""
    import numpy as np

    low, high = float(values.min()), float(values.max())
    if scale == LINEAR:
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        return
    if scale == LOG:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        set_log_ticks(axes.yaxis)
    else:
        near = 10.0 ** round(np.log10(np.median(np.abs(values[values != 0]))))
        axes.set_yscale("symlog", linthresh=near)
        axes.set_ylim(low * 1.3 if low < 0 else -near / 10, high * 1.3 if high > 0 else near / 10)
        _set_plain_numbers(axes.yaxis)


def set_log_ticks(axis: Axis, at: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Sets the ticks of a logarithmic axis at 1, 2 and 5 of each decade, with plain numbers."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=at, numticks=12))
    _set_plain_numbers(axis)


def _set_plain_numbers(axis: Axis) -> None:
    """Labels ticks with plain numbers. Formulas would appear as source text, because the style parses none."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def add_note(
    figure: Figure,
    sweep: Sweep,
    told: Sequence[str],
    in_means: Collection[State],
    handles: Sequence[Any] = (),
    columns: int | None = None,
) -> None:
    """Adds small print below the panels: what is drawn, which trials are left out, and a legend for all panels."""
    left = sweep.unfinished(in_means)
    parts = [*told, sweep.about, f"not in the means: {', '.join(left)}" if left else ""]
    text = "; ".join(filter(None, parts))
    text = textwrap.fill(text, round(NOTE_WIDTH * figure.get_figwidth() / WIDTH), break_on_hyphens=False)
    legend = figure.legend(
        handles=handles,
        title=text,
        loc="outside lower left",
        ncols=columns or (2 if figure.get_figwidth() < WIDTH else 4),
        alignment="left",
        borderaxespad=0.1,
        title_fontproperties={"size": 5.5},
    )
    legend.get_title().set_color("#444444")

"""Samples of all cells side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.figures.data import Cell, Sweep
from orchestrator.figures.style import WIDTH, columns_for
from orchestrator.store import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHOLE = 20
"""Of more cells than this only the first 4 × 4 images are shown."""


def sample_grids(sweep: Sweep) -> Figure | None:
    """The last samples of one seed of every cell, side by side; None where no trial has a picture."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from PIL import Image

    seed = sweep.cells[0].trials[0].seed
    files = {cell.label: _last_samples(sweep, cell, seed) for cell in sweep.cells}
    if not any(files.values()):
        return None
    columns = columns_for(len(files), 5) if len(files) <= WHOLE else 8
    rows = -(-len(files) // columns)
    width = WIDTH if columns > 2 else 3.4
    side = width / columns
    size = 5.5 if columns < 8 else 4.5
    letters = round(side * 120 / size)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(width, rows * (side + 0.1)), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, cell in zip(grid.flat, [*sweep.cells, *[None] * (rows * columns - len(files))], strict=True):
        axes.axis("off")
        if cell is None:
            continue
        axes.set_title(textwrap.fill(_title(cell, seed, files[cell.label]), letters), fontsize=size, pad=2)
        file = files[cell.label]
        if file is None:
            axes.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=6, transform=axes.transAxes)
            continue
        with Image.open(file) as picture:
            quarter = columns == 8 and picture.mode != "RGBA"  # the first 4 × 4 images; a scatter plot stays whole
            part = picture.crop((0, 0, picture.width // 2, picture.height // 2)) if quarter else picture
            pixels = np.asarray(part.convert("RGB"))
        axes.imshow(pixels, aspect="equal")
    return figure


def _title(cell: Cell, seed: int, file: Path | None) -> str:
    """The cell; of a trial that is not DONE its state too, and how far it came."""
    state = next((trial.state for trial in cell.trials if trial.seed == seed), "no such seed")
    if state is State.DONE:
        return cell.label
    return f"{cell.label} ({state}{', epoch ' + str(int(file.stem.removeprefix('epoch_'))) if file else ''})"


def _last_samples(sweep: Sweep, cell: Cell, seed: int) -> Path | None:
    for trial in cell.trials:
        if trial.seed == seed:
            folder = sweep.store.trial(trial.trial_id).samples
            return max(folder.glob("epoch_" + "[0-9]" * 6 + ".png"), default=None)
    return None

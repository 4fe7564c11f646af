"""Draws the samples of all cells side by side."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.results.figures.data import CellResult, Sweep
from orchestrator.results.figures.style import WIDTH, columns_for
from orchestrator.store.states import State
from trainers.data.decoding import open_image
from trainers.parts import stored_class

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

EPOCHS = "epoch_" + "[0-9]" * 6 + ".png"
"""The names of sample grids. Pictures of probes in the same folder have longer names."""
WHOLE = 20
"""With more cells than this, only the first 4 × 4 images of each are shown."""


def sample_grids(sweep: Sweep) -> Figure | None:
    """The last samples of every cell's first seed, side by side.

    All cells' samples have the same latent points. None if no trial has a picture, or if no generator was trained.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    first = [sweep.store.trial(cell.trials[0].trial_id) for cell in sweep.cells]
    files = [max(trial.samples.glob(EPOCHS), default=None) for trial in first]
    stored = next((config for _, config in sweep.store.configs()), {})
    opponent = stored_class("opponent", stored.get("opponent"))
    if not any(files) or not getattr(opponent, "makes_samples", True):
        return None
    few = len(files) <= WHOLE
    columns = columns_for(len(files), 5) if few else 8
    rows = -(-len(files) // columns)
    width = WIDTH if columns > 2 else 3.4
    side, letters = width / columns, 5.5 if few else 4.5
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(width, rows * (side + 0.1)), layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, cell, file in zip(grid.flat, sweep.cells, files, strict=False):
        title = textwrap.fill(_title(cell, file), round(side * 120 / letters), break_on_hyphens=False)
        axes.set_title(title, fontsize=letters, pad=2)
        pixels = None if file is None else _pixels(file, whole=few)
        if pixels is None:
            axes.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=6, transform=axes.transAxes)
        else:
            axes.imshow(pixels, aspect="equal")
    return figure


def _pixels(file: Path, *, whole: bool) -> np.ndarray | None:
    """The picture's pixels, or those of the quarter with the first 4 × 4 images. None if it cannot be read."""
    import numpy as np

    try:
        with open_image(file) as picture:
            scatter = picture.mode == "RGBA"  # a scatter plot of points has no quarters
            part = 1 if whole or scatter else 2
            return np.asarray(picture.crop((0, 0, picture.width // part, picture.height // part)).convert("RGB"))
    except Exception:  # Pillow's plugins raise any error on a broken file
        return None


def _title(cell: CellResult, file: Path | None) -> str:
    """The cell's label. For a trial that is not DONE, its state and its last epoch with samples too."""
    state = cell.trials[0].state
    if state is State.DONE:
        return cell.label
    epoch = f", epoch {int(file.stem.removeprefix('epoch_'))}" if file else ""
    return f"{cell.label} ({state}{epoch})"

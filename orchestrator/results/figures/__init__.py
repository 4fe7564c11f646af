"""Draws a sweep's figures: a metric against time and over axes, samples side by side, estimates of distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.files import reason, replacing
from orchestrator.results.figures.data import Sweep, band, best_first, read_sweep
from orchestrator.results.figures.style import saved, shown, style
from orchestrator.results.stages import Shown
from orchestrator.store.sweep import SweepStore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("svg", "png")
ESTIMATES = (("distance_estimate", "distance_exact"), ("wasserstein_estimate", "exact_wqp"))
"""Pairs of an estimate and its exact value: those of the ``distance`` probe, or training's and exact transport's."""


@dataclass(frozen=True)
class Picture:
    """A figure: the stem of its files, its texts, its width, and its content by kind (svg or png)."""

    name: str
    title: str
    caption: str
    alt: str
    inches: float
    files: Mapping[str, bytes]


def sweep_pictures(
    store: SweepStore, metric: str | None = None, kinds: Sequence[str] = KINDS, stage: Shown | None = None
) -> list[Picture]:
    """All figures of a sweep. They show ``metric``; by default the one that the sweep compares by.

    ``stage`` chooses one of the two tables of a sweep that grows. Figures of a search or a race show the explored one
    in any case. The same store gives the same bytes. Raises :class:`UserError` if no epoch is finished, or no trial has
    logged the metric.
    """
    sweep = read_sweep(store, metric, stage)
    with style():
        return [
            Picture(
                name,
                title,
                caption,
                alt,
                round(figure.get_figwidth(), 2),
                {kind: saved(figure, kind, title, caption) for kind in kinds},
            )
            for name, title, caption, alt, figure in (*_figures(sweep), *_growth(sweep))
        ]


def write_pictures(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Writes the pictures into a folder and returns the paths. Raises :class:`UserError` if it cannot be written."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            for kind, content in picture.files.items():
                paths.append(folder / f"{picture.name}.{kind}")
                with replacing(paths[-1]) as file:
                    file.write(content)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written: {reason(error)}") from None
    return paths


def _figures(sweep: Sweep) -> Iterator[tuple[str, str, str, str, Figure]]:
    """Yields name, title, caption, alternative text and the figure itself."""
    from orchestrator.results.figures.curves import HORIZONTALS, convergence, curve_panels
    from orchestrator.results.figures.maps import heat_maps, mapped, parallel_coordinates
    from orchestrator.results.figures.samples import WHOLE, sample_grids

    metric = sweep.metric
    best = best_first(sweep.cells)[0]
    lacking = f" ({best.remark})" if best.remark else ""
    ends = f" {best.label}{lacking}, the best by the mean of {sweep.ranked_by}, ends at"
    at_end = "" if best.value is None else f"{ends} {shown(best.value)}."
    for horizontal, words in HORIZONTALS.items():
        title = f"{metric} against {words}"
        devices = f" On {_devices(sweep)}; evaluation apart." if horizontal == "seconds" else ""
        caption = f"{title}: {band(sweep)}.{devices}"
        alt = f"Lines of {metric} against {words}, one for each of {len(sweep.cells)} cells.{at_end}"
        yield f"{metric}_by_{horizontal}", title, caption, alt, curve_panels(sweep, horizontal)
    if figure := heat_maps(sweep):
        maps = ", ".join(f"{name} ({down.name} × {across.name})" for name, _, (down, across) in mapped(sweep))
        title = f"{metric} over two axes"
        alt = f"Heat maps of {metric}: {maps}. The table has the numbers."
        yield f"{metric}_heat_map", title, f"{title}: {maps}; mean over seeds with a result.", alt, figure
    if figure := parallel_coordinates(sweep):
        title = f"{metric} over all axes"
        alt = f"A line for each of {len(sweep.cells)} cells, through its values on every axis to its {metric}.{at_end}"
        caption = f"{title}: a line is a cell, its end the mean over seeds with a result."
        yield f"{metric}_parallel", title, caption, alt, figure
    for estimate, exact in ESTIMATES:
        if {estimate, exact} <= sweep.logged:
            title = f"{estimate} against {exact}"
            caption = f"{title}, per epoch: {band(sweep, exact)}."
            alt = f"A panel for each of {len(sweep.cells)} cells with two lines: {estimate} and {exact}."
            yield estimate, title, caption, alt, convergence(sweep, estimate, exact)
    if figure := sample_grids(sweep):
        seed = sweep.cells[0].trials[0].seed
        title = f"Samples of every cell, seed {seed}"
        first = "the first 16 of each, " if len(sweep.cells) > WHOLE else ""
        caption = f"{title}, {first}at its last evaluation, from the same latent points."
        alt = f"Generated samples of {len(sweep.cells)} cells side by side, labelled with the cell."
        yield "samples", title, caption, alt, figure


def _growth(sweep: Sweep) -> Iterator[tuple[str, str, str, str, Figure]]:
    """Yields the figures of searches and of a race as :func:`_figures` does, from the explored trials."""
    from orchestrator.results.figures.races import looks_of, race
    from orchestrator.results.figures.searches import (
        IMPORTANCE,
        best_so_far,
        importance,
        importances_in,
        searches_of,
        slices,
    )

    if sweep.shown is None:
        return
    explored = sweep if sweep.shown == "explored" else read_sweep(sweep.store, sweep.metric, "explored")
    metric = explored.metric
    if searches := searches_of(explored):
        of = f"{len(searches.groups)} searches"
        if figure := best_so_far(searches):
            title = f"Best {metric} so far against proposals"
            caption = f"{title}: a line a search, a point a proposal. The best of many is flattered."
            alt = f"Lines of the best {metric} so far, one for each of {of}, and a point for each proposal."
            yield f"{metric}_search", title, caption, alt, figure
        if figure := importance(searches):
            title = f"Importance of the options that were searched, for {metric}"
            numbers = sorted({len(group.valued) for group in searches.groups if importances_in(searches, group)})
            caption = f"{title}: {IMPORTANCE}: {' or '.join(map(str, numbers))} of each search."
            alt = f"A panel for each search, with a bar for each option: its importance for {metric}."
            yield f"{metric}_importance", title, caption, alt, figure
        if figure := slices(searches):
            title = f"{metric} against each option that was searched"
            caption = f"{title}: a point is a proposal, its mean over seeds; the best of each search is ringed."
            alt = f"A panel for each of {len(searches.options)} options, with a point for each proposal of {of}."
            yield f"{metric}_slices", title, caption, alt, figure
    if figure := race(explored):
        title = f"The race by {metric}"
        caption = f"{title}: a panel a look, a line a cell, with the mean and its 95 % interval that the look saw."
        alt = f"{len(looks_of(explored))} looks of a race: each cell's {metric}, and which cells went on."
        yield f"{metric}_race", title, caption, alt, figure


def _devices(sweep: Sweep) -> str:
    """The devices that the trials were trained on."""
    trials = [sweep.store.trial(trial.trial_id) for cell in sweep.cells for trial in cell.trials]
    devices = dict.fromkeys(device for each in trials for device in each.status().devices)
    return ", ".join(devices) or "an unknown device"

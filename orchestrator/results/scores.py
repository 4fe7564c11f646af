"""The scores that ``orchestrator evaluate`` has measured, and how it prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from orchestrator.printing import printable
from orchestrator.results.formats import LABEL_WIDTH, broken
from orchestrator.results.tables import FLOOR, heading
from orchestrator.screen.console import say, wide_console
from trainers.metrics import find_metric


@dataclass(frozen=True)
class Score:
    """The metrics of one checkpoint, or of a folder of images, which has no epoch."""

    label: str
    metrics: Mapping[str, float]
    trial_id: str | None = None
    checkpoint: str | None = None
    epoch: int | None = None
    iteration: int | None = None


@dataclass
class Scores:
    """All scores of one measurement.

    ``floor`` is the score of real training images. ``info`` says what the values depend on, such as the extractor.
    ``missing`` says for each checkpoint that could not be measured why.
    """

    dataset: str
    evaluation: str
    higher_is_better: frozenset[str]
    scores: list[Score] = field(default_factory=list)
    floor: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, str | float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain values for JSON."""
        return asdict(self) | {"higher_is_better": sorted(self.higher_is_better)}


def show_scores(scores: Scores) -> None:
    """Prints the scores: a line a checkpoint, then the score of real training images, then notes."""
    console = wide_console()
    console.print(_table(scores, console.width))
    for text in _notes(scores):
        say(console, text)


def _table(scores: Scores, width: int) -> Table:
    """A table with a column a metric. On a narrow terminal names are broken into lines, or each metric gets a line."""
    names = list(scores.scores[0].metrics)
    titles = [heading(find_metric(name)) for name in names]
    lines = [
        (score.label, "" if score.epoch is None else str(score.epoch), [f"{score.metrics[name]:.4g}" for name in names])
        for score in scores.scores
    ]
    lines.append((FLOOR, "", [f"{scores.floor[name]:.4g}" if name in scores.floor else "—" for name in names]))
    columns = [["epoch", *(epoch for _, epoch, _ in lines)]]
    columns += [[title, *(numbers[i] for *_, numbers in lines)] for i, title in enumerate(titles)]
    left = width - min(LABEL_WIDTH, max(len(label) for label, *_ in lines))
    if _widths(columns) > left:
        columns = [[broken(title), *cells] for title, *cells in columns]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    if _widths(columns) <= left:
        for title, *_ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for index, (label, epoch, numbers) in enumerate(lines):
            table.add_row(Text(printable(label)), epoch, *numbers, style="dim" if index == len(scores.scores) else None)
        return table
    table.show_header = False
    table.add_column("", justify="right", no_wrap=True)
    for label, epoch, numbers in lines:
        table.add_row(Text(printable(label), "bold"), epoch and f"epoch {epoch}")
        for title, number in zip(titles, numbers, strict=True):
            table.add_row(title, number)
    return table


def _widths(columns: Sequence[Sequence[str]]) -> int:
    """The width of these columns, with two spaces before each."""
    return sum(2 + max(len(line) for cell in cells for line in cell.split("\n")) for cells in columns)


def _notes(scores: Scores) -> Iterator[str]:
    yield f"{scores.evaluation} on {scores.dataset}; " + "; ".join(
        f"{key}: {value}" for key, value in scores.info.items()
    )
    yield from scores.missing

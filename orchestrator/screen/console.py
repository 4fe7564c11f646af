"""The console that commands print to."""

from __future__ import annotations

from rich.console import Console

from orchestrator.printing import printable

PIPE_WIDTH = 160


def wide_console() -> Console:
    """Standard output, as wide as the terminal. In a pipe it has at least 160 columns, so that lines are not broken."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints plain text: a path in brackets is no style, and long lines are left to the terminal.

    Control characters are shown, see :func:`~orchestrator.printing.printable`.
    """
    console.print(printable(text), style=style, highlight=False, markup=False, soft_wrap=True)

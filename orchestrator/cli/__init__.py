"""The commands, thin: what they do stands in the other folders and is imported when a command runs."""

from __future__ import annotations

import io
import sys

import typer

from orchestrator.cli.compare import evaluate, export, plot, report
from orchestrator.cli.keep import prune, sync
from orchestrator.cli.look import status, ui
from orchestrator.cli.run import conclude, resume, stop, sweep, train
from orchestrator.errors import Aborted, UserError, check_platform

COMMANDS = {
    "Run": (sweep, resume, stop, train),
    "Look": (status, ui),
    "Compare": (export, plot, report, evaluate),
    "Look after": (prune, sync),
}
app = typer.Typer(
    help="Experiment sweeps for Wasserstein GANs: which ground metric, which penalty, how many critic iterations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command(hidden=True)(conclude)

SECONDS_TO_LEAVE = 60.0


def program() -> None:
    """The program ``orchestrator``: :func:`main` in a process of its own, which ends when that has."""
    from orchestrator.leaving import leave_within

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no '·' ends no sweep
    code: object = 1
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or 0
        raise
    finally:
        leave_within(SECONDS_TO_LEAVE, code if isinstance(code, int) else 1)


def main() -> None:
    """What ``sys.argv`` asks for. 0: every trial has its result; 1: some did not finish; 2: bad input; 130: stopped."""
    from trainers.parts import ConfigError

    try:
        check_platform()
        app()
    except (UserError, ConfigError) as error:
        print(f"orchestrator: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Aborted):
        sys.exit(130)

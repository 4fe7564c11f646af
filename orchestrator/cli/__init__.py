"""The commands. They only read options; the work is done in the other folders, imported when a command runs."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from orchestrator.cli.compare import evaluate, export, plot, report
from orchestrator.cli.keep import prune, sync
from orchestrator.cli.look import status, ui
from orchestrator.cli.run import resume, stop, sweep, train
from orchestrator.errors import Aborted, UserError, check_platform, notes
from orchestrator.printing import printable

COMMANDS = {
    "Run": (sweep, resume, stop, train),
    "Look": (status, ui),
    "Compare": (export, plot, report, evaluate),
    "Maintain": (prune, sync),
}
AFTER_INTERRUPTION = {
    "sweep": "what trials have stored stays; run the same command again to go on",
    "resume": "what trials have stored stays; run the same command again to go on",
    "stop": "the sweep was not asked to stop",
    "sync": "what MLflow has got stays; run the same command again for the rest",
    "prune": "what was deleted stays deleted; run the same command again for the rest",
}
"""What is true after Ctrl-C has ended a command. Other commands change nothing that they do not make again."""

app = typer.Typer(
    help="Experiment sweeps for Wasserstein GANs: compare ground metrics, penalties and numbers of critic iterations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    from importlib.metadata import version

    if asked:
        typer.echo(f"orchestrator {version('orchestrator')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """The options of the program itself. Their callbacks do everything."""


def _telling_interruption(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which says after Ctrl-C what that means."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except (KeyboardInterrupt, Aborted):
            then = AFTER_INTERRUPTION.get(command.__name__, "nothing is lost; run the same command again")
            print(f"\norchestrator: interrupted: {then}", file=sys.stderr)
            raise Aborted from None

    return run


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(_telling_interruption(command))

SECONDS_TO_LEAVE = 60.0
SUPERVISED = ("sweep", "resume")
"""The commands that run in a child process, because Ray may end or hang their process."""


def program() -> None:
    """Runs the program ``orchestrator``: :func:`main`, after which the process ends.

    The commands in :data:`SUPERVISED` run in a child process. A process ends at the latest :data:`SECONDS_TO_LEAVE`
    after its command, whatever threads are left. If standard output cannot be written, the command goes on, and its
    exit code is not 0.
    """
    from orchestrator.driver.signals import signals
    from orchestrator.driver.supervisor import report, supervise
    from orchestrator.leaving import leave_within
    from orchestrator.screen.output import Output, output_lost

    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            setattr(sys, name, Output.instead_of(stream))
    supervised = _may_start_ray(sys.argv[1:])
    code: object = 1
    try:
        if supervised:
            supervise()
        with contextlib.ExitStack() as held:
            if supervised:
                held.enter_context(signals()).on_press = lambda count: report(heeded=count)
            main()
        code = 0
    except SystemExit as leaving:
        code = leaving.code or int(output_lost())
        sys.exit(code)
    finally:
        ending = code if isinstance(code, int) else 1
        report(code=ending)
        leave_within(SECONDS_TO_LEAVE, ending)


def _may_start_ray(arguments: list[str]) -> bool:
    """Whether a command may start Ray. Nothing ends a command that trains in its own process, or takes its Ctrl-C."""
    local = "--executor=local" in arguments or "--executor local" in " ".join(arguments)
    return sys.platform == "linux" and arguments[:1] != [] and arguments[0] in SUPERVISED and not local


def main() -> None:
    """Runs the command in ``sys.argv`` and exits with its code.

    0: every trial has its result. 1: some did not finish. 2: bad input. 130: interrupted.
    """
    from orchestrator.trial.code import check_one_copy
    from trainers.parts import ConfigError

    try:
        with notes():
            check_platform()
            check_one_copy()
            app()
    except (UserError, ConfigError) as error:
        print(f"orchestrator: {printable(error)}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Aborted):
        sys.exit(130)

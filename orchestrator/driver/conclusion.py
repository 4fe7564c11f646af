"""The end of a run: the table, the mirror's last pass, and what to do next."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options, as_arguments, resume_command
from orchestrator.files import reason
from orchestrator.screen.console import say
from orchestrator.screen.progress import Watch
from orchestrator.store.lock import Driver, driver_lock, end_marked
from orchestrator.store.sweep import SweepStore


def conclude(
    store: SweepStore,
    mirroring: MirrorThread | None,
    console: Console,
    options: Options,
    *,
    interrupted: bool = False,
    stopped_because: str | None = None,
) -> int:
    """Prints the table and what to do next, and mirrors a last time.

    Returns the exit code: 0, 1 (some trials did not finish) or 130 (interrupted).
    """
    watch = Watch(store)
    watch.refresh()
    counts = watch.counts()
    verdict = _show_table(store, console) if any(seen.epoch for seen in watch.trials) else ""
    where = as_arguments(store, options)
    if mirroring is None:
        say(console, f"Nothing was written to MLflow; update it with: orchestrator sync {store.name}{where}")
    else:
        if behind := mirroring.finish(generators=not interrupted and stopped_because is None, verdict=verdict):
            say(console, f"MLflow is behind ({behind}); update it with: orchestrator sync {store.name}{where}")
        if mirroring.note:
            say(console, mirroring.note)
        say(console, f"Curves, samples and generators in MLflow: orchestrator ui {store.name}{where}")
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    say(console, f"{store.name}: {told}")
    if all(state.is_result for state in counts):
        return 0
    if stopped_because:
        say(console, f"Stopped early: {stopped_because}")
    what = "Stopped" if interrupted else "Some trials did not finish"
    say(console, f"{what}; go on with: {resume_command(store, options)}")
    return 130 if interrupted else 1


def _show_table(store: SweepStore, console: Console) -> str:
    """Prints the comparison table with its verdict, and writes it into the sweep's directory. Returns the verdict."""
    from orchestrator.results.comparison import comparison_table
    from orchestrator.results.formats import rich_table, write_tables
    from orchestrator.results.verdict_text import mark_note, sentences

    table = comparison_table(store)
    console.print(rich_table(table, console.width))
    verdict = sentences(table.verdict)
    for number, sentence in enumerate(verdict):
        say(console, sentence, style="bold" if number == 0 else None)
    for note in (*mark_note(table), *table.notes):
        say(console, note, style="dim")
    try:
        first, *others = write_tables(store, table)
        store.publish()
        say(console, f"\nTable: {', '.join([os.path.relpath(first), *(Path(path).name for path in others)])}")
    except OSError as error:
        say(console, f"\nThe table could not be written into {store.tables}: {reason(error)}")
    return "\n".join(verdict)


def conclude_without_ray(store: SweepStore, options: Options, console: Console, why: str) -> int:
    """Concludes a sweep whose Ray has gone, in the process that was its driver. Returns the exit code."""
    with driver_lock(store):
        store.mend(why)
        mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
        return conclude(store, mirroring, console, options, stopped_because=why)


def leave_to_another(
    held: contextlib.ExitStack, driver: Driver, store: SweepStore, options: Options, why: str
) -> NoReturn:
    """Releases the lock and replaces this process by one that runs :func:`conclude_without_ray`.

    It is called from another thread when Ray has gone: the main thread hangs in Ray then, and Ray's own threads may
    end the process at any time.
    """
    end_marked(driver.mark)
    held.close()
    Console().show_cursor()
    sys.stdout.flush()
    program = [sys.executable, "-P", "-c", "from orchestrator.cli import program; program()"]
    words = shlex.split(resume_command(store, options, secret=True))[2:]
    os.execv(sys.executable, [*program, "conclude", "--because", why, *words])

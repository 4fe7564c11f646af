"""The end of a run: the table, the mirror's last pass, and what to do next."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options, as_arguments, resume_command
from orchestrator.driver.signals import signals
from orchestrator.driver.supervisor import report
from orchestrator.errors import Aborted, UserError, notes
from orchestrator.files import reason
from orchestrator.printing import printable
from orchestrator.screen.console import say
from orchestrator.screen.output import outlive_closed_pipes
from orchestrator.screen.progress import Watch
from orchestrator.store.lock import Driver, driver_lock, end_marked, read_driver
from orchestrator.store.readable import leave_out_unreadable
from orchestrator.store.runs import location, runs_argument, runs_at
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import PASSWORD, USER

LEFT_AT_ONCE = "the driver left at once"


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
    leave_out_unreadable(store)
    verdict = ""
    if any(seen.epoch for seen in watch.trials if seen.entry.trial_id not in store.left_out):
        verdict = _show_table(store, console)
    where, behind = as_arguments(store, options), None
    if mirroring is None:
        say(console, f"Nothing was written to MLflow; update it with: orchestrator sync {store.name}{where}")
    else:
        try:
            with signals():
                generators = not interrupted and stopped_because is None
                behind = mirroring.finish(generators=generators, verdict=verdict)
        except Aborted:
            behind, interrupted = "the last update was interrupted", True
        if behind:
            say(console, f"MLflow is behind ({behind}); update it with: orchestrator sync {store.name}{where}")
        if mirroring.note:
            say(console, mirroring.note)
        for problem in mirroring.problems:
            say(console, f"MLflow lacks what cannot be read: {problem}")
        say(console, f"Curves, samples and generators in MLflow: orchestrator ui {store.name}{where}")
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    say(console, f"{store.name}: {told}")
    if unread := len(watch.problems()):
        say(console, f"Results of {unread} trials cannot be read, see above")
    undecided = _is_undecided(store)
    if all(state.is_result for state in counts) and not undecided:
        return 130 if interrupted and behind else 1 if unread else 0
    if stopped_because:
        say(console, f"Stopped early: {stopped_because}")
    what = "Stopped" if interrupted else "Some trials did not finish"
    if undecided:
        what += ", and decisions are still to be made"
    say(console, f"{what}; go on with: {resume_command(store, options)}")
    return 130 if interrupted else 1


def _is_undecided(store: SweepStore) -> bool:
    """Whether decisions that would add trials are still to be made."""
    from orchestrator.decisions.growth import Growth

    try:
        return Growth(store).open
    except UserError:
        return True  # nobody knows what was decided, see above


def _show_table(store: SweepStore, console: Console) -> str:
    """Prints the comparison table with its verdict, and writes it into the sweep's directory. Returns the verdict."""
    from orchestrator.results.comparison import comparison_table
    from orchestrator.results.formats import few_proposals, rich_table, write_tables
    from orchestrator.results.stages import stage_notes
    from orchestrator.results.verdict_text import mark_note, sentences

    table, where = comparison_table(store), runs_argument(store.runs)
    shown, left_out = few_proposals(table, where)
    console.print(rich_table(shown, console.width))
    verdict = sentences(table.verdict)
    for number, sentence in enumerate(verdict):
        say(console, sentence, style="bold" if number == 0 else None)
    for note in (*left_out, *stage_notes(table.grown, where), *mark_note(shown), *table.notes):
        say(console, note, style="dim")
    try:
        for old in store.tables.glob(f"{store.name}-explored.*"):
            old.unlink()  # the sweep file may have no confirmation any more
        first, *others = write_tables(store, table)
        if any(each.shown == "confirmed" for each in table.grown):
            others += write_tables(store, comparison_table(store, stage="explored"), "-explored")
        store.publish()
        say(console, f"\nTable: {', '.join([os.path.relpath(first), *(Path(path).name for path in others)])}")
    except OSError as error:
        say(console, f"\nThe table could not be written into {store.tables}: {reason(error)}")
    return "\n".join(verdict)


def tell_supervisor(store: SweepStore, driver: Driver, options: Options) -> None:
    """Tells the supervisor what :func:`conclude_in_place_of` needs."""
    values = asdict(options) | {"feature_weights": options.feature_weights and str(options.feature_weights)}
    secrets = {name: os.environ[name] for name in (USER, PASSWORD) if name in os.environ}
    report(
        driving={
            "runs": location(store.runs),
            "name": store.name,
            "mark": driver.mark,
            "options": values,
            "secrets": secrets,
        }
    )


def conclude_in_place_of(driving: Mapping[str, Any], why: str, *, at_once: bool) -> int:
    """Concludes the sweep of a driver that did not end by itself. The supervisor calls it. Returns the exit code.

    ``driving`` is what :func:`tell_supervisor` told, and ``why`` is why the driver ended. ``at_once`` says that the
    user asked for it. The caller has blocked signals: none comes before the states of the trials are right.
    """
    outlive_closed_pipes()
    console = Console()
    console.show_cursor()
    os.environ.update(driving["secrets"])
    weights = driving["options"]["feature_weights"]
    options = Options(**{**driving["options"], "feature_weights": weights and Path(weights)})
    store = SweepStore(runs_at(driving["runs"], asking=False), driving["name"])
    end_marked(driving["mark"])
    try:
        if at_once and store.replica is not None:  # it would take long; the next command mends the sweep
            raise Aborted
        left = read_driver(store)
        if left is None or left.mark != driving["mark"]:
            return 1  # another driver has taken over, or the sweep was deleted: the driver has said so
        store.driver_file.unlink()
        with notes(), signals(), driver_lock(store):
            store.mend(LEFT_AT_ONCE if at_once else why)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
            if at_once:
                raise Aborted
            mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
            return conclude(store, mirroring, console, options, stopped_because=why)
    except Aborted:
        say(console, f"Left at once; go on with: {resume_command(store, options)}")
        return 130
    except (UserError, OSError) as error:  # OSError: nothing can be written; the next command mends the sweep
        way_on = f"go on with: {resume_command(store, options)}"
        print(f"orchestrator: {why}. Then: {printable(error)}; {way_on}", file=sys.stderr)
        return 1


def end_for(driver: Driver, why: str) -> NoReturn:
    """Ends the driver's Ray and this process at once, because ``why``. The supervisor concludes the sweep.

    It is called from another thread: the main thread hangs in Ray, and Ray's own threads may end the process.
    """
    if not report(gone=why):
        os.write(2, f"orchestrator: {why}\n".encode())
    end_marked(driver.mark)
    os._exit(1)

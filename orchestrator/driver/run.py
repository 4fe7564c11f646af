"""Runs one sweep: finds the trials to run, and runs them with lock, signals, mirror and progress display."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.driver.conclusion import LEFT_AT_ONCE, conclude, end_for, tell_supervisor
from orchestrator.driver.growing import Grower
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options, as_arguments, resume_command
from orchestrator.driver.preparation import prepare, prepare_parts, tell_removed
from orchestrator.driver.resources import demands, needed_resources
from orchestrator.driver.signals import signals
from orchestrator.driver.supervisor import report
from orchestrator.engine.executor import Executor, run_trials
from orchestrator.engine.head import watch_ray
from orchestrator.engine.local import LocalExecutor
from orchestrator.engine.placement import Demand, make_placement
from orchestrator.engine.tune import TuneExecutor, check_address, ray_session
from orchestrator.errors import Aborted, UserError
from orchestrator.files import reason
from orchestrator.screen.console import say
from orchestrator.screen.progress import show_progress
from orchestrator.store.forking import tell_ancestors
from orchestrator.store.lock import Driver, driver_lock
from orchestrator.store.plan_changes import changes, check_meaning
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.sweep import SweepStore
from orchestrator.store.weights import give_weights
from orchestrator.tracking.address import check_uri
from orchestrator.trial import code
from trainers.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan

Tell = Callable[[str], None]
OpenExecutor = Callable[
    [SweepStore, Sequence[str], Options, Driver, Tell, Collection[Demand]], contextlib.AbstractContextManager[Executor]
]
"""Opens an executor for these trials and for further ones with these demands. It is closed when the sweep has ended."""


def run_sweep(
    store: SweepStore,
    options: Options,
    console: Console,
    plan: Plan | None = None,
    selection: Selection = EVERYTHING,
    open_executor: OpenExecutor | None = None,
) -> int:
    """Runs the selected trials that have no result yet. Returns the exit code: 0, 1 (some did not finish) or 130.

    A new ``plan`` is written into the store first. ``open_executor`` replaces the executor that the options name.
    Errors are raised before anything starts. :class:`UserError`: another driver runs the sweep, no server answers at
    the tracking URI, resources do not exist, or a directory cannot be written. ConfigError: an evaluation lacks its
    weights, or a dataset its files.
    """
    tell = functools.partial(say, console)
    code.files()  # reads them now: workers are compared with the code with which this process began
    _check(store, options, plan)
    with signals() as on_signal, driver_lock(store, tell) as driver:
        tell_supervisor(store, driver, options)
        if plan is not None:
            tell_ancestors(store.runs, plan, tell)
            check_meaning(store, plan)
            for line in changes(store, plan):
                tell(line)
            store.write_plan(plan)
            tell_removed(store, tell)
        try:
            todo, grow = _todo(store, options, selection, tell)
            mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
            interrupted, stopped_because = bool(todo) and store.asked_to_stop(), None
            if todo and not interrupted:
                further = set() if grow is None else set(grow.demands.values())
                opening = (open_executor or EXECUTORS[options.executor])(store, todo, options, driver, tell, further)
                with on_signal.asking(store.stop_file), opening as executor:
                    report(stop_file=str(store.stop_file))
                    if mirroring is not None:
                        mirroring.start()
                    live = options.executor != "local"
                    with show_progress(store, console, executor.placement.at_once, live=live), store.exchanging_news():
                        stopped_because = run_trials(store, todo, executor, grow)
                report(stop_file=None)
                if stopped_because is not None:
                    _mend(store, stopped_because)
                interrupted = stopped_because is None and (on_signal.asked or store.stop_file.exists())
            return conclude(
                store, mirroring, console, options, interrupted=interrupted, stopped_because=stopped_because
            )
        except (Aborted, KeyboardInterrupt):
            if store.replica is None:  # with an object store it would take long; the next command does it
                _mend(store, LEFT_AT_ONCE)
            tell(f"Left at once; go on with: {resume_command(store, options)}")
            return 130


def _check(store: SweepStore, options: Options, plan: Plan | None) -> None:
    """Makes a new sweep's directory. Raises :class:`UserError` for what is known to fail before the sweep is locked."""
    check_address(options.address)
    if options.tracking_uri is not None:
        try:
            check_uri(options.tracking_uri)
        except UserError as error:
            later = f"orchestrator sync {store.name}{as_arguments(store, options)}"
            raise UserError(f"{error}; with --offline nothing is written to MLflow until: {later}") from None
    if plan is not None:
        file = plan.sweep_file
        devices = [trial.config.device for trial in plan.examples]
        needed_resources(
            file.resources, devices, options.address, lambda key, why: file.document.error(("resources", key), why)
        )
        store.make()


def _mend(store: SweepStore, why: str) -> None:
    """Calls the trials that still seem to run LOST. The next command does it if nothing can be written now."""
    with contextlib.suppress(OSError):
        store.mend(why)


def _todo(store: SweepStore, options: Options, selection: Selection, tell: Tell) -> tuple[list[str], Grower | None]:
    """The trials to run, with everything that they need, and what adds further ones. Raises :class:`UserError`.

    Nothing is decided while only some of the trials are to run.
    """
    grow = None
    try:
        todo = prepare(store, tell, selection)
        if store.plan()["growing"] is not None:
            if selection.is_whole:
                grow = Grower(store, options.address, options.feature_weights, tell)
                todo = grow.begin(todo)
            else:
                tell("Nothing is decided in this run, because only some of the trials are to run")
        if options.feature_weights is not None:
            give_weights(store, todo, options.feature_weights)
        with contextlib.suppress(Stopped), stoppable(store.stop_file.exists):  # then nothing is started
            prepare_parts(store, todo)
        store.publish()
    except OSError as error:
        raise UserError(f"the sweep's directory '{store.path}' cannot be written: {reason(error)}") from None
    return todo, grow


@contextlib.contextmanager
def _open_tune(
    store: SweepStore,
    trial_ids: Sequence[str],
    options: Options,
    driver: Driver,
    tell: Tell,
    further: Collection[Demand],
) -> Iterator[Executor]:
    """Opens an executor that runs trials by Ray Tune, on a local Ray or on the cluster at ``options.address``."""
    wanted = demands(store, trial_ids, options.address)
    tell(f"{store.name}: {len(trial_ids)} trials to run; starting Ray{' and MLflow' if options.tracking_uri else ''} …")
    with ray_session(options.address, driver.mark):
        placement = make_placement(wanted, options.address, options.max_concurrent, tell, further)
        with watch_ray(options.address, functools.partial(end_for, driver)):
            yield TuneExecutor(placement, driver.mark, sys.path if options.address is None else None)


@contextlib.contextmanager
def _open_local(
    store: SweepStore,
    trial_ids: Sequence[str],
    options: Options,
    driver: Driver,
    tell: Tell,
    further: Collection[Demand],
) -> Iterator[Executor]:
    """Opens an executor that runs trials in this process."""
    demands(store, trial_ids, None)
    tell(f"{store.name}: {len(trial_ids)} trials to run, one after the other in this process")
    yield LocalExecutor(trial_ids)


EXECUTORS: dict[str, OpenExecutor] = {"ray": _open_tune, "local": _open_local}

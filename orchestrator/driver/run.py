"""Runs one sweep: what is to do, the executor, and around it the lock, the signals, the mirror and the progress."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.driver.conclusion import conclude, leave_to_another
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options, resume_command
from orchestrator.driver.preparation import prepare, prepare_parts, tell_removed
from orchestrator.driver.resources import demands, needed_resources
from orchestrator.driver.signals import signals
from orchestrator.engine.executor import Executor, run_trials
from orchestrator.engine.head import watch_head
from orchestrator.engine.local import LocalExecutor
from orchestrator.engine.placement import make_placement
from orchestrator.engine.tune import TuneExecutor, check_address, ray_session
from orchestrator.errors import Aborted, UserError
from orchestrator.files import reason
from orchestrator.screen.console import say
from orchestrator.screen.progress import show_progress
from orchestrator.store.forking import tell_ancestors
from orchestrator.store.lock import Driver, driver_lock
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.sweep import SweepStore
from orchestrator.store.weights import give_weights
from orchestrator.tracking.address import check_uri

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan

Tell = Callable[[str], None]
OpenExecutor = Callable[[SweepStore, Sequence[str], Options, Driver, Tell], contextlib.AbstractContextManager[Executor]]
"""Opens an executor for these trials; it is closed when the sweep has ended."""


def run_sweep(
    store: SweepStore,
    options: Options,
    console: Console,
    plan: Plan | None = None,
    selection: Selection = EVERYTHING,
    open_executor: OpenExecutor | None = None,
) -> int:
    """Runs the selected trials that have no result yet. Returns the exit code: 0, 1 (some did not finish) or 130.

    A new ``plan`` is written into the store first. ``open_executor`` takes the place of the executor that the options
    name. Raises :class:`UserError` before anything starts: another driver, a tracking URI that no server answers,
    resources that do not exist, a directory that cannot be written. Raises ConfigError for an evaluation without its
    weights and a dataset without its files.
    """
    tell = functools.partial(say, console)
    _check(store, options, plan)
    with contextlib.ExitStack() as held:
        driver = held.enter_context(driver_lock(store, tell))
        if plan is not None:
            tell_ancestors(store.runs, plan, tell)
            store.write_plan(plan)
            tell_removed(store, tell)
        todo = _todo(store, options, selection, tell)
        mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
        interrupted, stopped_because = False, None
        if todo:
            opening = (open_executor or EXECUTORS[options.executor])(store, todo, options, driver, tell)
            leave = functools.partial(leave_to_another, held, driver, store, options)
            try:
                with signals(store.stop_file) as stopping, opening as executor:
                    if mirroring is not None:
                        mirroring.start()
                    with (
                        show_progress(store, console, executor.placement.at_once, live=options.executor != "local"),
                        store.exchanging_news(),
                        watch_head(options.address, leave),
                    ):
                        stopped_because = run_trials(store, todo, executor)
            except (Aborted, KeyboardInterrupt):
                if store.replica is None:  # for an object store the next command does it: leaving waits for nobody
                    with contextlib.suppress(OSError):
                        store.mend("the driver left at once")
                tell(f"Left at once; go on with: {resume_command(store, options)}")
                raise
            interrupted = stopped_because is None and (stopping.is_set() or store.stop_file.exists())
        return conclude(store, mirroring, console, options, interrupted=interrupted, stopped_because=stopped_because)


def _check(store: SweepStore, options: Options, plan: Plan | None) -> None:
    """Makes a new sweep's directory. Raises :class:`UserError` for what is known to fail before the sweep is locked."""
    check_address(options.address)
    if options.tracking_uri is not None:
        try:
            check_uri(options.tracking_uri)
        except UserError as error:
            raise UserError(f"{error}; --offline leaves MLflow for a later 'orchestrator sync'") from None
    if plan is not None:
        file = plan.sweep_file
        devices = [trial.config.device for trial in plan.trials]
        needed_resources(
            file.resources, devices, options.address, lambda key, why: file.document.error(("resources", key), why)
        )
        store.make()


def _todo(store: SweepStore, options: Options, selection: Selection, tell: Tell) -> list[str]:
    """The trials to run, with everything that they need. Raises :class:`UserError`."""
    try:
        todo = prepare(store, tell, selection)
        if options.feature_weights is not None:
            give_weights(store, todo, options.feature_weights)
        prepare_parts(store, todo)
        store.publish()
    except OSError as error:
        raise UserError(f"the sweep's directory '{store.path}' cannot be written: {reason(error)}") from None
    return todo


@contextlib.contextmanager
def _open_tune(
    store: SweepStore, trial_ids: Sequence[str], options: Options, driver: Driver, tell: Tell
) -> Iterator[Executor]:
    """Ray Tune, on a Ray of this driver's own or on the cluster at ``options.address``."""
    wanted = demands(store, trial_ids, options.address)
    tell(f"{store.name}: {len(trial_ids)} trials to run; starting Ray{' and MLflow' if options.tracking_uri else ''} …")
    with ray_session(options.address, driver.mark):
        placement = make_placement(wanted, options.address, options.max_concurrent, tell)
        yield TuneExecutor(placement, driver.mark)


@contextlib.contextmanager
def _open_local(
    store: SweepStore, trial_ids: Sequence[str], options: Options, driver: Driver, tell: Tell
) -> Iterator[Executor]:
    """This process."""
    demands(store, trial_ids, None)
    tell(f"{store.name}: {len(trial_ids)} trials to run, one after the other in this process")
    yield LocalExecutor(trial_ids)


EXECUTORS: dict[str, OpenExecutor] = {"ray": _open_tune, "local": _open_local}

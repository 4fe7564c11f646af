"""One sweep from plan to table: what is to run, the signals, the mirror, the progress, and Ray in the middle."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rich.console import Console

from orchestrator.engine.head import watched
from orchestrator.engine.placement import Request, place, request_of
from orchestrator.engine.tune import check_address, ray_session, run_trials
from orchestrator.errors import Aborted, UserError, disk_errors
from orchestrator.files import reason
from orchestrator.screen.progress import Progress, Watch
from orchestrator.store.forking import ancestors, tell_ancestors
from orchestrator.store.lock import Driver, driver_lock, end_marked
from orchestrator.store.runs import location
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import State, TrialStore
from orchestrator.store.weights import give_weights
from orchestrator.sweep.file import Resources
from orchestrator.tracking.address import check_uri, default_uri
from trainers.datasets import Dataset
from trainers.evaluation import Evaluation
from trainers.parts import build_part

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan

REFRESH_SECONDS = 0.5
MIRROR_SECONDS = 2.0


@dataclass(frozen=True)
class Options:
    """How, not what, to run. Without a tracking URI (``--offline``) MLflow is left for a later ``sync``."""

    tracking_uri: str | None
    address: str | None = None
    max_concurrent: int | None = None
    feature_weights: Path | None = None
    """For trials that have been planned already; a new plan brings its own."""


def run_sweep(
    store: SweepStore,
    options: Options,
    console: Console,
    plan: Plan | None = None,
    selection: Selection = EVERYTHING,
) -> int:
    """Runs the selected trials that have no result yet and returns the exit code: 0, 1 (some did not finish) or 130.

    A new ``plan`` is written into the store first. Raises :class:`UserError` before anything starts: another driver,
    a tracking URI nobody answers, resources that do not exist, a directory that cannot be written; and ConfigError
    for an evaluation that lacks its weights or a dataset that is nowhere.
    """

    def tell(text: str) -> None:
        _say(console, text)

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
    with contextlib.ExitStack() as held:
        driver = held.enter_context(driver_lock(store, tell))
        if plan is not None:
            tell_ancestors(store.runs, plan, tell)
            store.write_plan(plan)
            _tell_removed(store, tell)
        try:
            todo = prepare(store, tell, selection)
            if options.feature_weights is not None:
                give_weights(store, todo, options.feature_weights)
            _prepare_parts(store, todo)
            store.publish()
        except OSError as error:
            raise UserError(f"the sweep's directory '{store.path}' cannot be written: {reason(error)}") from None
        mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
        interrupted, stopped_because = False, None
        if todo:
            requests = _requests(store, todo, options.address)
            tell(f"{store.name}: {len(todo)} trials to run; starting Ray{' and MLflow' if mirroring else ''} …")
            try:
                with signals(store.stop_file) as stopping, ray_session(options.address, driver.mark):
                    placement = place(requests, options.address, options.max_concurrent, tell)
                    if mirroring is not None:
                        mirroring.start()
                    with (
                        following(store, console, placement.at_once),
                        store.followed(),
                        watched(options.address, functools.partial(_leave_to_another, held, driver, store, options)),
                    ):
                        stopped_because = run_trials(store, todo, placement=placement, mark=driver.mark)
            except (Aborted, KeyboardInterrupt):
                if store.replica is None:  # else the next command will: leaving at once waits for nobody
                    with contextlib.suppress(OSError):
                        store.mend("the driver left at once")
                tell(f"Left at once; go on with: {_resume_command(store, options)}")
                raise
            interrupted = stopped_because is None and (stopping.is_set() or store.stop_file.exists())
        return conclude(store, mirroring, console, options, interrupted=interrupted, stopped_because=stopped_because)


def _requests(store: SweepStore, trial_ids: Sequence[str], address: str | None) -> dict[str, Request]:
    """What each trial asks of its node. Raises :class:`UserError` for what this machine does not have."""
    device_of = {trial_id: config["device"] for trial_id, config in store.configs(trial_ids)}
    resources = needed_resources(Resources(**store.plan()["resources"]), list(device_of.values()), address)
    return {trial_id: request_of(resources, device_of.get(trial_id, "auto")) for trial_id in trial_ids}


def prepare(
    store: SweepStore, tell: Callable[[str], None] = lambda text: None, selection: Selection = EVERYTHING
) -> list[str]:
    """The selected trials without a result, in order; those that another sweep has finished are copied."""
    store.clear_stop()
    store.mend()
    entries = store.entries()
    untouched = {entry.trial_id for entry in entries if _is_untouched(store.trial(entry.trial_id))}
    origins = ancestors(store) if untouched else {}
    todo = []
    for entry in entries:
        trial = store.trial(entry.trial_id)
        state = trial.status().state
        if entry.trial_id in untouched:
            if source := store.copy_finished(entry):
                tell(f"{entry.trial_id}: finished in sweep '{source}', copied from there")
                continue
            if entry.trial_id in origins:
                origins[entry.trial_id].fork(store, entry)
        if not trial.path.exists():
            tell(f"{trial.path}: is not there any more, and left out; running the sweep's file again makes it anew")
            continue
        if state is State.DONE and trial.lacks_epochs():
            why = "epochs that it had are missing"
            state = trial.set_state(State.LOST, why).state
            tell(f"{entry.trial_id}: {why}; it has no result any more")
        if not selection.takes(entry.trial_id, state):
            continue
        if selection.restart and (trial.status().attempts or state is State.LOST):
            trial.restart()
        elif state is State.DIVERGED:
            trial.set_state(State.PENDING)
        todo.append(entry.trial_id)
    return todo


def _prepare_parts(store: SweepStore, trial_ids: Sequence[str]) -> None:
    """Datasets and evaluations make sure of what they need, once for all trials that have the same."""
    configs = [config for _, config in store.configs(trial_ids)]
    with disk_errors():
        for values in {json.dumps(config["dataset"]): config["dataset"] for config in configs}.values():
            cast(Dataset, build_part("dataset", values)).prepare(store.cache_dir)
    for values in {json.dumps(config["evaluation"]): config["evaluation"] for config in configs}.values():
        cast(Evaluation, build_part("evaluation", values)).prepare()


def _is_untouched(trial: TrialStore) -> bool:
    return trial.status().state is State.PENDING and not trial.metrics_file.exists()


def _tell_removed(store: SweepStore, tell: Callable[[str], None]) -> None:
    """The trials that the sweep file used to have: kept, and named."""
    if removed := store.removed():
        names = ", ".join(trial.trial_id for trial in removed[:5]) + (", …" if len(removed) > 5 else "")
        tell(
            f"{len(removed)} trials are no longer in the sweep file and are kept as they are ({names}); "
            f"orchestrator prune {store.name} --removed deletes them"
        )


def conclude(
    store: SweepStore,
    mirroring: MirrorThread | None,
    console: Console,
    options: Options,
    *,
    interrupted: bool = False,
    stopped_because: str | None = None,
) -> int:
    """The table, the mirror's last pass, and what to do next."""
    from orchestrator.results.formats import rich_table, write_tables
    from orchestrator.results.tables import comparison_table

    watch = Watch(store)
    watch.refresh()
    counts = watch.counts()
    if any(seen.epoch for seen in watch.trials):
        table = comparison_table(store)
        console.print(rich_table(table, console.width))
        for note in table.notes:
            _say(console, note, style="dim")
        try:
            first, *others = write_tables(store, table)
            store.publish()
            _say(console, f"\nTable: {', '.join([_short(first), *(Path(path).name for path in others)])}")
        except OSError as error:
            _say(console, f"\nThe table could not be written into {store.tables}: {reason(error)}")
    where = _as_arguments(store, options)
    if mirroring is None:
        _say(console, f"MLflow was left out; bring it level with: orchestrator sync {store.name}{where}")
    else:
        if behind := mirroring.finish(generators=not interrupted and stopped_because is None):
            _say(console, f"MLflow is behind ({behind}); bring it level with: orchestrator sync {store.name}{where}")
        _say(console, f"Curves, samples and generators in MLflow: orchestrator ui {store.name}{where}")
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    _say(console, f"{store.name}: {told}")
    if all(state.is_result for state in counts):
        return 0
    if stopped_because:
        _say(console, f"Stopped early: {stopped_because}")
    what = "Stopped" if interrupted else "Some trials did not finish"
    _say(console, f"{what}; go on with: {_resume_command(store, options)}")
    return 130 if interrupted else 1


def conclude_without_ray(store: SweepStore, options: Options, console: Console, why: str) -> int:
    """The end of a sweep whose Ray has gone, in the process of its driver. Returns the exit code."""
    with driver_lock(store):
        store.mend(why)
        mirroring = None if options.tracking_uri is None else MirrorThread(store, options.tracking_uri)
        return conclude(store, mirroring, console, options, stopped_because=why)


def _leave_to_another(
    held: contextlib.ExitStack, driver: Driver, store: SweepStore, options: Options, why: str
) -> NoReturn:
    """Gives the lock back and becomes :func:`conclude_without_ray`, from whatever thread: the main one hangs in Ray,
    whose own threads end the process at any time."""
    end_marked(driver.mark)
    held.close()
    Console().show_cursor()
    sys.stdout.flush()
    program = [sys.executable, "-P", "-c", "from orchestrator.cli import program; program()"]
    words = shlex.split(_resume_command(store, options))[2:]
    os.execv(sys.executable, [*program, "conclude", "--because", why, *words])


@contextlib.contextmanager
def signals(stop_file: Path) -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM once: running trials write a checkpoint and end; twice: :class:`Aborted`, at once.

    A SIGTERM less than a second after the first signal is the same one: ``timeout`` and others send it to a process
    and to its group.
    """
    stopping, aborting = threading.Event(), threading.Event()
    first = 0.0

    def handle(number: int, frame: Any) -> None:
        nonlocal first
        if stopping.is_set():
            if number == signal.SIGTERM and time.monotonic() - first < 1:
                return
            aborting.set()
            raise Aborted
        stopping.set()
        first = time.monotonic()
        try:
            stop_file.touch()
        except OSError:  # nothing can be written any more, a checkpoint neither
            aborting.set()
            raise Aborted from None
        os.write(2, b"\nStopping: running trials write a checkpoint. Once more to leave at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    except BaseException:
        if aborting.is_set():  # inside Ray it has become some other error
            raise Aborted from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def following(store: SweepStore, console: Console, at_once: Callable[[], int]) -> Iterator[None]:
    """Shows progress, read from the store by a thread of its own; ``at_once`` says how many trials run together."""
    watch = Watch(store)
    watch.refresh()  # what is known already is no news
    ended = threading.Event()
    with Progress(watch, console, at_once) as progress:
        progress.update(watch.refresh())

        def follow() -> None:
            while not ended.wait(REFRESH_SECONDS):
                progress.update(watch.refresh())

        thread = threading.Thread(target=follow, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            progress.update(watch.refresh())


class MirrorThread:
    """Keeps MLflow level with the store while a sweep runs, off the scheduling thread. MLflow may be slow or down."""

    def __init__(self, store: SweepStore, uri: str) -> None:
        self._store = store
        self._uri = uri
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._mirror: Any = None
        self._error: str | None = None

    def start(self) -> None:
        """Begins mirroring; importing MLflow and making its database happen in the thread as well."""
        self._thread.start()

    def finish(self, *, generators: bool = True) -> str | None:
        """The last pass. Returns the error that kept MLflow from being level, or None."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._attempt(lambda mirror: mirror.finish(generators=generators))
        return self._error

    def _run(self) -> None:
        while True:
            self._attempt(lambda mirror: mirror.sync())
            if self._ended.wait(MIRROR_SECONDS):
                return

    def _attempt(self, do: Callable[[Any], None]) -> None:
        from orchestrator.tracking.mirror import Mirror

        try:
            if self._mirror is None:
                self._mirror = Mirror(self._store, self._uri)
            do(self._mirror)
            self._error = None
        except Exception as error:  # whatever MLflow or its database raise, training goes on
            self._mirror = None  # what it knew may be gone: the next one asks MLflow again
            self._error = f"{type(error).__name__}: {error}".splitlines()[0]


def needed_resources(
    resources: Resources,
    devices: Sequence[str],
    address: str | None,
    error: Callable[[str, str], UserError] = lambda key, problem: UserError(f"resources.{key}: {problem}"),
) -> Resources:
    """What a trial takes. Raises :class:`UserError` for processors or GPUs that this machine does not have.

    Where every trial's device is cpu, no GPU is asked for. A cluster's resources are Ray's to count.
    """
    wanted = replace(resources, gpus=0.0) if set(devices) == {"cpu"} else resources
    if "cuda" in devices and not wanted.gpus:
        raise error("gpus", "device=cuda needs a GPU for each trial, or a fraction: resources: {gpus: 1}")
    if address is not None:
        return wanted
    if wanted.custom:
        raise error("custom", f"'{next(iter(wanted.custom))}' is what nodes of a cluster may offer: give --address")
    processors = os.cpu_count() or 1
    if wanted.cpus > processors:
        raise error("cpus", f"a trial asks for {wanted.cpus:g} processors and this machine has {processors}")
    if wanted.gpus:
        import torch

        there = torch.cuda.device_count()
        if wanted.gpus > there:
            has = there or "none"
            raise error(
                "gpus",
                f"a trial asks for {wanted.gpus:g} GPUs and this machine has {has}; set device=cpu or leave gpus out",
            )
    return wanted


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Plain text: a path in brackets is no style."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _as_arguments(store: SweepStore, options: Options) -> str:
    """What a command needs to find this sweep and its MLflow again."""
    words = "" if store.runs == Path("runs") else f" --runs-dir {shlex.quote(location(store.runs))}"
    if options.tracking_uri is not None and (store.replica or options.tracking_uri != default_uri(store.runs)):
        words += f" --tracking-uri {shlex.quote(str(options.tracking_uri))}"
    return words


def _resume_command(store: SweepStore, options: Options) -> str:
    """The command that goes on where this one ends."""
    words = f"orchestrator resume {store.name}{_as_arguments(store, options)}"
    words += f" --address {options.address}" if options.address else ""
    words += " --offline" if options.tracking_uri is None else ""
    return words + (f" --max-concurrent {options.max_concurrent}" if options.max_concurrent else "")


def _short(path: str) -> str:
    return os.path.relpath(path)

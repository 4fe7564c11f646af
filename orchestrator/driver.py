"""One sweep from plan to table: the lock, the signals, the mirror, the progress, and Ray in the middle."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from orchestrator.errors import UserError
from orchestrator.executor import check_address, concurrency, ray_session, run_trials
from orchestrator.progress import Progress, Watch
from orchestrator.store import State, SweepStore
from orchestrator.sweep_file import Resources
from orchestrator.tracking import check_uri

if TYPE_CHECKING:
    from orchestrator.plan import Plan

REFRESH_SECONDS = 0.5
MIRROR_SECONDS = 2.0


class Aborted(BaseException):
    """A second signal: leave at once."""


@dataclass(frozen=True)
class Options:
    """How, not what, to run."""

    tracking_uri: str
    address: str | None = None
    max_concurrent: int | None = None


def run_sweep(store: SweepStore, options: Options, console: Console, plan: Plan | None = None) -> int:
    """Runs every trial that has no result yet and returns the exit code: 0, 1 (some did not finish) or 130.

    A new ``plan`` is written into the store first. Raises :class:`UserError` before anything starts: another driver,
    a tracking URI nobody answers, resources that do not exist, a directory that cannot be written.
    """
    check_address(options.address)
    check_uri(options.tracking_uri)
    if plan is not None:
        check_gpus(plan.sweep_file.resources, [trial.config.device for trial in plan.trials], options.address)
        store.make()
    with driver_lock(store):
        if plan is not None:
            store.write_plan(plan)
        todo = prepare(store, console)
        mirroring = MirrorThread(store, options.tracking_uri)
        interrupted = False
        if todo:
            written = store.plan()
            devices = [store.trial(trial_id).config()["device"] for trial_id in todo]
            resources = check_gpus(Resources(**written["resources"]), devices, options.address)
            console.print(f"{store.name}: {len(todo)} trials to run; starting Ray and MLflow …", highlight=False)
            with ray_session(options.address) as available, signals(store.stop_file) as stopping:
                at_once = concurrency(resources, available, options.max_concurrent)
                mirroring.start()
                with following(store, console, at_once):
                    run_trials(store, todo, resources=resources, retries=written["retries"], at_once=at_once)
            interrupted = stopping.is_set()
        return conclude(store, mirroring, console, interrupted)


def prepare(store: SweepStore, console: Console) -> list[str]:
    """The trials without a result, in order, PENDING again; those that another sweep has finished are copied."""
    store.stop_file.unlink(missing_ok=True)
    todo = []
    for entry in store.entries():
        trial = store.trial(entry.trial_id)
        state = trial.status().state
        if state is State.PENDING and not trial.metrics_file.exists() and (source := store.copy_finished(entry)):
            console.print(f"{entry.trial_id}: finished in sweep '{source}', copied from there", highlight=False)
            continue
        if not state.is_result:
            if state is State.RUNNING:  # its driver died with it
                trial.set_state(State.LOST, "the driver of an earlier run died")
            todo.append(entry.trial_id)
    return todo


def conclude(store: SweepStore, mirroring: MirrorThread, console: Console, interrupted: bool) -> int:
    """The table, the mirror's last pass, and what to do next."""
    from orchestrator.tables import comparison_table, rich_table, write_tables

    watch = Watch(store)
    watch.refresh()
    counts = watch.counts()
    if any(seen.epoch for seen in watch.trials):
        table = comparison_table(store)
        paths = write_tables(store, table)
        console.print(rich_table(table, console.width))
        for note in table.notes:
            console.print(note, style="dim", highlight=False)
        console.print(f"\nTable: {', '.join(_short(path) for path in paths)}", highlight=False, soft_wrap=True)
    behind = mirroring.finish()
    if behind:
        console.print(
            f"MLflow is behind ({behind}); bring it level with: orchestrator sync {store.name}", highlight=False
        )
    ui = "orchestrator ui" + ("" if _is_default(store.runs_dir) else f" --runs-dir {store.runs_dir}")
    console.print(f"Curves, samples and configurations in MLflow: {ui}", highlight=False, soft_wrap=True)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    console.print(f"{store.name}: {told}", highlight=False)
    if all(state.is_result for state in counts):
        return 0
    runs = "" if _is_default(store.runs_dir) else f" --runs-dir {store.runs_dir}"
    reason = "Stopped" if interrupted else "Some trials did not finish"
    console.print(f"{reason}; go on with: orchestrator resume {store.name}{runs}", highlight=False, soft_wrap=True)
    return 130 if interrupted else 1


@contextlib.contextmanager
def driver_lock(store: SweepStore) -> Iterator[None]:
    """One driver a sweep. Raises :class:`UserError` naming the host and process of the other one."""
    with store.lock_file.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = json.loads(file.read() or "{}")
            raise UserError(
                f"'{store.name}' is being driven already, by process {holder.get('pid')} on {holder.get('host')}"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextlib.contextmanager
def signals(stop_file: Path) -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM once: running trials write a checkpoint and end; twice: :class:`Aborted`, at once.

    To be entered after ``ray.init``, which installs handlers of its own.
    """
    stopping = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stopping.is_set():
            raise Aborted
        stopping.set()
        stop_file.touch()
        os.write(2, b"\nStopping: running trials write a checkpoint. Once more to leave at once.\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def following(store: SweepStore, console: Console, at_once: int) -> Iterator[None]:
    """Shows progress, read from the store by a thread of its own."""
    watch = Watch(store)
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

    def finish(self) -> str | None:
        """The last pass. Returns the error that kept MLflow from being level, or None."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._attempt(lambda mirror: mirror.finish())
        return self._error

    def _run(self) -> None:
        while True:
            self._attempt(lambda mirror: mirror.sync())
            if self._ended.wait(MIRROR_SECONDS):
                return

    def _attempt(self, do: Callable[[Any], None]) -> None:
        from orchestrator.tracking import Mirror

        try:
            if self._mirror is None:
                self._mirror = Mirror(self._store, self._uri)
            do(self._mirror)
            self._error = None
        except Exception as error:  # whatever MLflow or its database raise, training goes on
            self._error = f"{type(error).__name__}: {error}".splitlines()[0]


def check_gpus(resources: Resources, devices: Sequence[str], address: str | None) -> Resources:
    """What a trial takes. Raises :class:`UserError` for GPUs that this machine does not have.

    Where every trial's device is cpu, no GPU is asked for. A cluster's GPUs are Ray's to count.
    """
    if not resources.gpus or set(devices) == {"cpu"}:
        return Resources(resources.cpus, 0.0)
    if address is None:
        import torch

        there = torch.cuda.device_count()
        if resources.gpus > there:
            raise UserError(
                f"resources.gpus: a trial asks for {resources.gpus:g} GPUs and this machine has {there or 'none'}; "
                "set device=cpu or leave gpus out"
            )
    return resources


def _is_default(runs_dir: Path) -> bool:
    return runs_dir == Path("runs")


def _short(path: str) -> str:
    return os.path.relpath(path)

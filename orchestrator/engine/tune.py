"""Ray Tune as an executor: starts or joins a Ray, and hands trials to Tune.

Tune only runs trials; its state is deleted at the end. Tune asks a searcher for the next trial, and the searcher asks
the queue. The queue decides from the store which trial is next, and whether and when to retry one.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.engine.head import check_head
from orchestrator.engine.placement import Demand, Placement, compared_versions, difference
from orchestrator.engine.queue import Queue
from orchestrator.errors import UserError
from orchestrator.store.lock import MARK, end_marked, make_temporary_folder
from orchestrator.store.runs import location, runs_at
from orchestrator.trial.surroundings import COMMIT, ROOT, git_commit

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none
    "SPT_NOENV": "1",  # a process that sets its title must not overwrite its environment, which holds the mark
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # no snapshots: nothing reads them
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the searcher hands out only what fits, so all of it may start at once
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_STATE_REFRESH_PERIOD": "1000000000",  # no questions to the head about resources: they hang if it is gone
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

LOCAL_ENVIRONMENT = {"RAY_task_events_report_interval_ms": "0"}
"""Makes a local head keep no record of tasks. Only a dashboard shows it, and it takes about 15 kB a trial."""


def check_address(address: str | None) -> None:
    """Raises :class:`UserError` for an address of Ray Client, one where no Ray answers, or one that refuses us."""
    if address is not None and "://" in address:
        raise UserError(
            f"--address {address}: expected host:port of a Ray cluster, from a machine in it; with ray:// (Ray Client) "
            "Tune's callbacks and signals would not run in this process"
        )
    if address is not None and address != "auto":
        prepare_environment(local=False)
        check_head(address)


def prepare_environment(*, local: bool) -> None:
    """Sets the environment variables that Ray reads once, when it is imported. A local Ray gets a random token."""
    os.environ.update(RAY_ENVIRONMENT | (LOCAL_ENVIRONMENT if local else {}))
    if local and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))


@contextlib.contextmanager
def ray_session(address: str | None, mark: str) -> Iterator[None]:
    """Starts a local Ray, which ends with the context, or joins a cluster, whose workers then run our code.

    A local Ray listens on every interface, so it asks for a random token. Its processes carry the driver's ``mark``:
    if this process is killed, the next driver finds and ends them. They ignore SIGTERM, which job managers send to all
    processes at once, because only the driver decides what a SIGTERM means. Raises :class:`UserError` if Ray does not
    start or the cluster cannot be joined.
    """
    prepare_environment(local=address is None)
    from orchestrator.engine import ray_private

    os.environ[MARK] = mark
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    temporary = None
    if address is None:
        temporary = make_temporary_folder("ray", mark, longest=ray_private.LONGEST_SESSION_FOLDER)
        quiet |= {"address": "local", "include_dashboard": False, **ray_private.session_folder(temporary)}
    else:
        quiet |= {"address": address, "runtime_env": our_code()}
    try:
        try:
            with _sigterm_later():
                ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            problem = f"--address {address}: this cluster cannot be joined" if address else "Ray does not start"
            raise UserError(f"{problem}: {error}") from None
        yield
    finally:
        _shut_down()
        del os.environ[MARK]
        if temporary is not None:
            end_marked(mark)


@contextlib.contextmanager
def _sigterm_later() -> Iterator[None]:
    """Blocks SIGTERM within the context and restores its handler at the end.

    Processes that are started within the context inherit that SIGTERM is blocked, and so do their children.
    """
    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has replaced it
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _shut_down() -> None:
    """Calls ``ray.shutdown`` without Ray's waiting times."""
    import ray

    from orchestrator.engine.ray_private import kill_at_shutdown

    gc.collect()  # Ray ends this process if another thread drops one of its references later
    kill_at_shutdown()
    ray.shutdown()


def our_code() -> dict[str, Any]:
    """The runtime environment that sends our two packages, as they are here, to every worker of a cluster."""
    return {
        "py_modules": [str(ROOT / name) for name in ("orchestrator", "trainers")],
        "excludes": ["__pycache__/"],
        "env_vars": {COMMIT: git_commit()},
    }


class TuneExecutor:
    """Runs trials by Ray Tune on the Ray that this process has joined, as many at once as the placement has room for.

    Memory does not grow with the sweep: Ray holds only the trials that fit at once, and Tune only the last ended ones.
    """

    def __init__(self, placement: Placement, mark: str, path: Sequence[str] | None = None) -> None:
        """``path`` is the search path for modules of a local Ray's workers. None leaves it to a cluster's nodes."""
        self.placement = placement
        self._mark = mark
        self._path = path

    def run(self, queue: Queue) -> None:
        """Runs trials until the queue is finished."""
        from ray import tune

        from orchestrator.engine.forgetting import Forgetting
        from orchestrator.engine.ray_private import telling_errors
        from orchestrator.engine.tune_searcher import TuneSearcher

        store = queue.store
        storage = make_temporary_folder("orchestrator-tune", self._mark)  # for Tune's pickles, which nothing reads
        runs = location(store.runs) if store.replica else str(store.runs_dir.resolve())
        early_stopping = store.plan()["early_stopping"]
        told = tune.with_parameters(
            begin_on_worker(),
            path=self._path,
            runs=runs,
            sweep=store.name,
            metric=early_stopping and early_stopping["metric"],
            versions=compared_versions(),
        )
        searcher = TuneSearcher(queue)
        tuner = tune.Tuner(
            tune.with_resources(told, bundles(self.placement.kinds)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=Forgetting(),
                num_samples=-1,  # until the queue is finished
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name=store.name, storage_path=str(storage), verbose=0),
        )
        for name in ("ray", "ray.tune"):  # the trial's state reports a killed worker; Ray's traceback is not shown
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if store.replica is not None:
                _fill_cache(queue, runs, self.placement)
            with telling_errors(searcher.on_error):
                tuner.fit()
        finally:
            shutil.rmtree(storage, ignore_errors=True)


def bundles(kinds: Sequence[Demand]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that Tune asks for a trial's placement group. Nested, because Ray sends it to workers too."""

    def bundle(config: Mapping[str, Any]) -> Any:
        from orchestrator.engine.placement import bundle_of

        return bundle_of(config["kind"], config["avoid"], kinds)

    return bundle


def _fill_cache(queue: Queue, runs: str, placement: Placement) -> None:
    """Makes the shared cache on one node first. Otherwise each machine would make its own.

    Does nothing if every trial has begun before, because then the cache exists. Ignores errors: trials meet them again.
    """
    import ray

    from orchestrator.trial.workplace import fill_cache

    store = queue.store
    new = [trial_id for trial_id in queue.trial_ids if not store.trial(trial_id).metrics_file.exists()]
    trial_id, config = next(store.configs(new), ("", None))
    if config is None:
        return
    demand = dict(placement.kind(trial_id))
    cpus, gpus = demand.pop("CPU", 0.0), demand.pop("GPU", 0.0)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, resources=demand, max_retries=0)(fill_cache)
    filled = task.remote(runs, config)
    while not ray.wait([filled], timeout=0.5)[0]:
        if store.stop_file.exists():
            ray.cancel(filled, force=True)
            return


def begin_on_worker() -> Callable[..., None]:
    """The function that a worker calls for each trial: :func:`tune_trial`, after the imports that it needs.

    The function is nested, so Ray sends its code instead of its module's name. A worker that cannot import our modules
    can therefore say why. By itself Ray puts the driver's working directory first in the search path for modules, where
    the driver has not looked for them: any file there could hide a library.
    """

    def begin(config: dict[str, Any], path: Sequence[str] | None, **told: Any) -> None:
        import importlib
        import sys

        from ray import tune

        if path is not None:
            sys.path[:] = path
        try:
            ours = importlib.import_module("orchestrator.engine.tune")
            for name in ("orchestrator.trial.run", "orchestrator.trial.workplace", "trainers.training"):
                importlib.import_module(name)
        except Exception as error:  # a broken library may raise anything
            tune.report({"broken": f"{type(error).__name__}: {error}"})
            return
        ours.tune_trial(config, **told)

    return begin


def tune_trial(config: dict[str, Any], runs: str, sweep: str, metric: str | None, versions: Mapping[str, str]) -> None:
    """Runs one trial on a worker. Reports to early stopping every stored epoch that has the ``metric`` it watches.

    If packages here have other versions than ``versions``, the driver's, the trial is refused and not touched.
    """
    import ray
    from ray import tune

    from orchestrator.trial.run import run_trial
    from orchestrator.trial.workplace import trial_at_hand

    if differing := difference(compared_versions(), versions):
        tune.report({"refused": differing, "node": ray.get_runtime_context().get_node_id()})
        return

    def report(record: dict[str, Any]) -> None:
        if metric is not None and metric in record:
            tune.report({"epoch": record["epoch"], "iteration": record["iteration"], metric: record[metric]})

    with trial_at_hand(runs_at(runs, asking=False), sweep, config["trial_id"]) as (trial, cache, should_stop):
        state = run_trial(trial, cache, should_stop=should_stop, on_epoch=report, gpus=config["gpus"])
    tune.report({"state": str(state)})

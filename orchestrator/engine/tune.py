"""Ray Tune as an executor: a Ray to run on, and trials handed to Tune.

Tune is the engine and is thrown away afterwards. It asks a searcher for the next trial; the searcher asks the queue,
which makes every decision (what comes next, whether to try again and when) from the store.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.engine.head import check_head
from orchestrator.engine.placement import Demand, Placement, bundle_of, compared_versions, difference
from orchestrator.engine.queue import Queue
from orchestrator.errors import UserError
from orchestrator.store.lock import MARK, end_marked, temporary_folder
from orchestrator.store.runs import location, runs_at
from orchestrator.trial.surroundings import COMMIT, ROOT, git_commit

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none
    "SPT_NOENV": "1",  # a process that gives itself a title leaves its environment, and so its mark, alone
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # its snapshots, which nobody reads
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # the searcher hands out what fits: all of it starts at once
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_STATE_REFRESH_PERIOD": "1000000000",  # for a warning it asks the head for resources, and hangs if it is gone
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

LOCAL_ENVIRONMENT = {"RAY_task_events_report_interval_ms": "0"}
"""A local head keeps no record of tasks, some 15 kB a trial, that only a dashboard would show."""


def check_address(address: str | None) -> None:
    """Raises :class:`UserError` for an address that Ray Client would serve, where nobody answers, or where we are not
    let in."""
    if address is not None and "://" in address:
        raise UserError(
            f"--address {address}: give host:port of a Ray cluster, from a machine in it; through ray:// Tune's "
            "callbacks and signals would leave this process"
        )
    if address is not None and address != "auto":
        prepare_environment(local=False)
        check_head(address)


def prepare_environment(*, local: bool) -> None:
    """What Ray reads when it is imported and keeps as long as the process lives; for a local Ray a random token."""
    os.environ.update(RAY_ENVIRONMENT | (LOCAL_ENVIRONMENT if local else {}))
    if local and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))


@contextlib.contextmanager
def ray_session(address: str | None, mark: str) -> Iterator[None]:
    """A local Ray that is gone at the end, or a cluster that is joined, whose workers run the code that runs here.

    The local Ray asks everybody for a random token, since it listens on every interface; its processes bear the
    driver's ``mark``, should this process be killed, and take no notice of SIGTERM, which job managers send to all
    processes at once: what follows from it is the driver's to say. Raises :class:`UserError` for an address that
    nobody answers or that Ray Client would serve.
    """
    prepare_environment(local=address is None)
    from orchestrator.engine import ray_private

    os.environ[MARK] = mark
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    temporary = None
    if address is None:
        temporary = temporary_folder("ray", mark)
        temporary.mkdir(mode=0o700)
        quiet |= {"address": "local", "include_dashboard": False, **ray_private.session_folder(temporary)}
    else:
        quiet |= {"address": address, "runtime_env": our_code()}
    try:
        try:
            with _sigterm_later():
                ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray does not start{f' at {address}' if address else ''}: {error}") from None
        yield
    finally:
        _shut_down()
        del os.environ[MARK]
        if temporary is not None:
            end_marked(mark)


@contextlib.contextmanager
def _sigterm_later() -> Iterator[None]:
    """SIGTERM waits until the end, and meets the handler that was there before; processes that are started meanwhile
    inherit that it is blocked, and hand that on."""
    before = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has put its own there
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _shut_down() -> None:
    """``ray.shutdown``, at once."""
    import ray

    from orchestrator.engine.ray_private import kill_at_shutdown

    gc.collect()  # should another thread drop one of Ray's references later, Ray would end this process
    kill_at_shutdown()
    ray.shutdown()


def our_code() -> dict[str, Any]:
    """The runtime environment that brings our two packages, as they are here, to every worker of a cluster."""
    return {
        "py_modules": [str(ROOT / name) for name in ("orchestrator", "trainers")],
        "excludes": ["__pycache__/"],
        "env_vars": {COMMIT: git_commit()},
    }


class TuneExecutor:
    """Runs trials by Ray Tune on the Ray that this process has joined: as many at once as the placement has room for.

    However many trials there are, Ray holds those that fit at once, and Tune the last ones that ended.
    """

    def __init__(self, placement: Placement, mark: str) -> None:
        self.placement = placement
        self._mark = mark

    def run(self, queue: Queue) -> None:
        """Runs trials until the queue is finished."""
        from ray import tune

        from orchestrator.engine.forgetting import Forgetting
        from orchestrator.engine.tune_searcher import TuneSearcher

        store = queue.store
        storage = temporary_folder("orchestrator-tune", self._mark)  # Tune pickles here; nothing is ever read again
        storage.mkdir(mode=0o700)
        runs = location(store.runs) if store.replica else str(store.runs_dir.resolve())
        early_stopping = store.plan()["early_stopping"]
        told = tune.with_parameters(
            tune_trial,
            runs=runs,
            sweep=store.name,
            metric=early_stopping and early_stopping["metric"],
            versions=compared_versions(),
        )
        tuner = tune.Tuner(
            tune.with_resources(told, functools.partial(_bundle, kinds=self.placement.kinds)),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(queue),
                scheduler=Forgetting(),
                num_samples=-1,  # until the queue is finished
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name=store.name, storage_path=str(storage), verbose=0),
        )
        for name in ("ray", "ray.tune"):  # a killed worker is told by its state, not by Ray's traceback
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            if store.replica is not None:
                _fill_cache(queue, runs, self.placement)
            tuner.fit()
        finally:
            shutil.rmtree(storage, ignore_errors=True)


def _bundle(config: Mapping[str, Any], kinds: Sequence[Demand]) -> Any:
    """Tune's placement group for a trial that the searcher suggested."""
    return bundle_of(config["kind"], config["avoid"], kinds)


def _fill_cache(queue: Queue, runs: str, placement: Placement) -> None:
    """Makes the shared cache on one node first; else each machine that shares the object store would make its own.

    Trials that have begun have had the cache. An error here is left to the trials, which meet it again.
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


def tune_trial(config: dict[str, Any], runs: str, sweep: str, metric: str | None, versions: Mapping[str, str]) -> None:
    """What Tune runs on a worker. Early stopping is told every stored epoch that has the ``metric`` it looks at.

    If the packages here have other ``versions`` than the driver's, the trial is not touched and goes back.
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

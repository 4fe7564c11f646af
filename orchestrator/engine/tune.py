"""Ray Tune as an executor: starts or joins a Ray, and hands trials to Tune.

Tune only runs trials; its state is deleted at the end. Tune asks a searcher for the next trial, and the searcher asks
the queue. The queue decides from the store which trial is next, and whether and when to retry one.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.engine.head import check_head
from orchestrator.engine.placement import Demand, Placement, what_we_run
from orchestrator.engine.queue import Queue
from orchestrator.engine.worker import begin_on_worker, fill_on_worker
from orchestrator.errors import UserError
from orchestrator.store.lock import MARK, end_marked, make_temporary_folder
from orchestrator.store.runs import location
from orchestrator.trial import code
from orchestrator.trial.run import last_line
from orchestrator.trial.surroundings import COMMIT, git_commit

RAY_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",  # what Ray and the workers start with ``python -m`` or ``-c`` must not import from here
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

SESSION = "s"
"""The folder for Ray's session. Ray lets every user write into it, so it lies in a folder that only we can enter."""

SESSION_BYTES = 50e6
"""What Ray's session may need to start: logs, and a file for each socket and worker."""


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
    """Sets the environment variables that Ray reads once, when it is imported.

    A local Ray gets a random token, whatever the environment says of a cluster's: it listens on every interface.
    """
    os.environ.update(RAY_ENVIRONMENT | (LOCAL_ENVIRONMENT | _own_token() if local else {}))


@functools.cache
def _own_token() -> dict[str, str]:
    """The variables that make a local Ray ask for a token that nobody else has. One a process: Ray reads it once."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}


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

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", **ray_private.own_search_path()}
    temporary = None
    if address is None:
        longest = ray_private.LONGEST_SESSION_FOLDER - len(f"/{SESSION}")
        temporary = make_temporary_folder("ray", mark, longest=longest)
        quiet |= {"address": "local", "include_dashboard": False, **ray_private.session_folder(temporary / SESSION)}
    else:
        quiet |= {"address": address, "runtime_env": our_code()}
    try:
        try:
            with _sigterm_later():
                ray.init(**quiet)
        except Exception as error:  # Ray raises many types, bare ones too
            problem = f"--address {address}: this cluster cannot be joined" if address else "Ray does not start"
            raise UserError(f"{problem}: {_told(error, temporary)}") from None
        yield
    finally:
        try:
            _shut_down()
        finally:
            del os.environ[MARK]
            if temporary is not None:
                end_marked(mark)


def _told(error: Exception, temporary: Path | None) -> str:
    """Why Ray does not start, in one line."""
    text = last_line(error).rstrip(".")
    if temporary is not None and (left := shutil.disk_usage(temporary.parent).free) < SESSION_BYTES:
        text += f"; '{temporary.parent}' has only {left / 1e6:.0f} MB left: set TMPDIR to a folder with free space"
    return text


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
        "py_modules": list(code.folders().values()),
        "excludes": ["__pycache__/"],
        "env_vars": {COMMIT: git_commit(), "PYTHONSAFEPATH": "1"},
    }


class TuneExecutor:
    """Runs trials by Ray Tune on the Ray that this process has joined, as many at once as the placement has room for.

    Memory does not grow with the sweep: Ray holds only the trials that fit at once, and Tune only the last ended ones.
    """

    def __init__(self, placement: Placement, mark: str, path: Sequence[str] | None = None) -> None:
        """``path`` is the search path for modules of a local Ray's workers. None leaves it to a cluster's nodes.

        An empty entry, which stands for the working directory, is left out.
        """
        self.placement = placement
        self._mark = mark
        self._path = None if path is None else [each for each in path if each]
        self._what = what_we_run()

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
            what=self._what,
            runs=runs,
            sweep=store.name,
            metric=early_stopping and early_stopping["metric"],
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
                self._fill_cache(queue, runs)
            with telling_errors(searcher.on_error):
                tuner.fit()
        except UserError:
            raise
        except Exception as error:  # Ray and Tune raise many types
            queue.stopped_because = queue.stopped_because or f"Ray ended the run: {last_line(error)}"
        finally:
            shutil.rmtree(storage, ignore_errors=True)

    def _fill_cache(self, queue: Queue, runs: str) -> None:
        """Makes the shared cache on one node first. Otherwise each machine would make its own.

        Does nothing if every trial has begun before, because then the cache exists. Ignores errors: trials meet them
        again.
        """
        import ray

        store = queue.store
        new = [trial_id for trial_id in queue.trial_ids if not store.trial(trial_id).metrics_file.exists()]
        trial_id, config = next(store.configs(new), ("", None))
        if config is None:
            return
        demand = dict(self.placement.kind(trial_id))
        cpus, gpus = demand.pop("CPU", 0.0), demand.pop("GPU", 0.0)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, resources=demand, max_retries=0)(fill_on_worker())
        filled = task.remote(self._path, self._what, runs, config)
        while not ray.wait([filled], timeout=0.5)[0]:
            if store.stop_file.exists():
                ray.cancel(filled, force=True)
                return


def bundles(kinds: Sequence[Demand]) -> Callable[[Mapping[str, Any]], Any]:
    """The function that Tune asks for a trial's placement group. Nested, because Ray sends it to workers too."""

    def bundle(config: Mapping[str, Any]) -> Any:
        from orchestrator.engine.placement import bundle_of

        return bundle_of(config["kind"], config["avoid"], kinds)

    return bundle

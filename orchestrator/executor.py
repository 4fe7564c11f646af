"""Hands trials to Ray Tune and follows them.

Tune is the engine and is thrown away afterwards: it asks a :class:`StoreSearcher` for the next trial, and every
decision (what comes next, whether to try again and when) is made from the store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.store import State, SweepStore
from orchestrator.sweep_file import Resources

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def check_address(address: str | None) -> None:
    """Raises :class:`UserError` for an address that Ray Client would serve, or where nobody answers."""
    if address is not None and "://" in address:
        raise UserError(
            f"--address {address}: give host:port of a Ray cluster, from a machine in it; through ray:// Tune's "
            "callbacks and signals would leave this process"
        )
    if address not in (None, "auto"):
        host, _, port = str(address).rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError) as error:
            raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from None


def prepare_environment(*, local: bool) -> None:
    """What Ray reads when it is imported and keeps as long as the process lives; for a local Ray a random token."""
    os.environ.update(RAY_ENVIRONMENT)
    if local and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16))


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[dict[str, float]]:
    """A local Ray that is gone at the end, or a cluster that is joined. Yields its resources (CPU, GPU).

    The local Ray asks everybody for a random token, since it listens on every interface. Raises
    :class:`UserError` for an address that nobody answers or that Ray Client would serve.
    """
    prepare_environment(local=address is None)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    temporary = None
    if address is None:
        temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a longer path breaks Ray's sockets
        quiet |= {"address": "local", "include_dashboard": False, "_temp_dir": temporary}
    else:
        quiet |= {"address": address}
    try:
        try:
            ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray does not start{f' at {address}' if address else ''}: {error}") from None
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def concurrency(resources: Resources, available: dict[str, float], limit: int | None) -> int:
    """How many trials fit at once. Raises :class:`UserError` if not even one does."""
    fits = [limit] if limit else []
    for name, wanted in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        there = available.get(name, 0.0)
        if wanted > there:
            raise UserError(
                f"resources.{name.lower()}s: a trial asks for {wanted:g} {name}s and Ray has {there:g}"
                + ("; without a GPU set device=cpu or leave gpus out" if name == "GPU" else "")
            )
        if wanted:
            fits.append(int(there / wanted + 1e-9))
    return max(1, min(fits))


def run_trials(
    store: SweepStore,
    trial_ids: Sequence[str],
    *,
    resources: Resources,
    retries: int,
    at_once: int,
    on_change: Callable[[str, State], None] = lambda trial_id, state: None,
) -> None:
    """Runs trials to their ends inside a :func:`ray_session`, retrying FAILED and LOST ones up to ``retries`` times.

    Returns when every trial has a result, has used up its retries, or has stopped because of the stop file.
    ``on_change`` is told a trial's new state whenever one leaves its worker.
    """
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter

    from orchestrator.searcher import StoreSearcher

    searcher = StoreSearcher(store, trial_ids, retries=retries, on_change=on_change)
    storage = tempfile.mkdtemp(prefix="orchestrator-tune-")  # Tune pickles here; none of it is ever read again
    request: dict[str, float] = {"cpu": resources.cpus}
    if resources.gpus:
        request["gpu"] = resources.gpus
    trainable = tune.with_resources(tune.with_parameters(tune_trial, sweep=str(store.path.resolve())), request)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=at_once),
            num_samples=len(trial_ids) * (retries + 1),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=store.name, storage_path=storage, verbose=0),
    )
    for name in ("ray", "ray.tune"):  # a killed worker is told by its state, not by Ray's traceback
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def tune_trial(config: dict[str, Any], sweep: str) -> None:
    """What Tune runs on a worker."""
    from ray import tune

    from orchestrator.worker import run_trial

    path = Path(sweep)
    store = SweepStore(path.parent, path.name)
    state = run_trial(
        store.trial(config["trial_id"]),
        store.cache_dir,
        should_stop=store.stop_file.exists,
    )
    tune.report({"state": str(state)})

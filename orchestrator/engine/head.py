"""Checks that a Ray cluster's head accepts our token, and watches that the head stays while a sweep runs.

Ray reports neither problem clearly. With a wrong token it retries for twenty seconds and then says that it cannot
connect. When the head is gone, Ray's calls hang, in the main thread too; a minute later Ray ends the process without a
message. A head that was restarted without its state (keeping it needs Redis) makes calls hang for ever, or Ray's own
checks abort the process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from orchestrator.errors import UserError
from orchestrator.threads import in_background

LOOK_SECONDS = 2.0
LEAVING_SECONDS = 5.0
LONGER_SECONDS = 600.0
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's own variable: for how many seconds nodes and drivers wait for a head that does not answer. Unset means 60."""


@functools.cache
def patience() -> float:
    """For how many seconds the head may fail to answer before we give it up.

    Ray itself is told to wait :data:`LONGER_SECONDS` longer, so that the driver ends with the reason before Ray ends it
    without one. Ray reads that when it is imported, so only a cluster's driver has it: for it this is called before.
    """
    seconds = float(os.environ.get(PATIENCE, "60"))
    os.environ[PATIENCE] = f"{seconds + LONGER_SECONDS:.0f}"
    return seconds


def check_head(address: str) -> None:
    """Raises :class:`UserError` if no server listens at the address, it is not Ray, or it refuses our token."""
    try:
        socket.create_connection(_host_and_port(address), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--address {address}: no server answers at this address ({error})") from None
    patience()
    from ray.exceptions import AuthenticationError, RayError

    from orchestrator.engine.ray_private import cluster_id

    try:
        with _silent_stderr():
            cluster_id(address)
    except AuthenticationError:
        raise UserError(
            f"--address {address}: the cluster refuses our token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH, a file) to the values with which its nodes were started"
        ) from None
    except RayError as error:
        raise UserError(f"--address {address}: the server at this address is not a Ray cluster ({error})") from None


@contextlib.contextmanager
def watch_ray(address: str | None, gone: Callable[[str], None]) -> Iterator[None]:
    """Calls ``gone`` with the reason, in a thread of its own, once the Ray that this process has joined is gone.

    A Ray is gone if its head has not answered for longer than :func:`patience`. A local Ray (None) is also gone if a
    process that it cannot do without has ended, and a cluster if another one answers at its address.
    """
    if address in (None, "auto"):
        watch = functools.partial(_watch_local, gone)
    else:
        watch = functools.partial(_watch, str(address), gone)
    # At the end the thread is waited for, because no thread should call Ray while it shuts down.
    with in_background(watch, "head", patience=LEAVING_SECONDS):
        yield


def _watch_local(gone: Callable[[str], None], ended: threading.Event) -> None:
    from orchestrator.engine.placement import alive_nodes
    from orchestrator.engine.ray_private import dead_processes

    answered = time.monotonic()
    while not ended.wait(LOOK_SECONDS):
        if dead := dead_processes():
            gone(f"the local Ray has lost its process {dead[0]}, which was killed or has died")
            return
        if alive_nodes() is not None:
            answered = time.monotonic()
        elif time.monotonic() - answered > patience():
            gone(f"the local Ray has not answered for {patience():.0f} s")
            return


def _watch(address: str, gone: Callable[[str], None], ended: threading.Event) -> None:
    from orchestrator.engine.ray_private import cluster_id

    ours = cluster_id(address)
    answered = time.monotonic()
    while not ended.wait(LOOK_SECONDS):
        there = _look(address)
        if there == ours:
            answered = time.monotonic()
        elif ended.is_set():
            return
        elif there is not None:
            gone(f"the head of the Ray cluster at {address} was restarted and no longer knows this sweep")
            return
        elif time.monotonic() - answered > patience():
            gone(f"the head of the Ray cluster at {address} has not answered for {patience():.0f} s")
            return


def _look(address: str) -> str | None:
    """The id of the cluster that answers; None if none does."""
    from ray.exceptions import AuthenticationError, RayError

    from orchestrator.engine.ray_private import cluster_id

    try:
        socket.create_connection(_host_and_port(address), timeout=5).close()  # Ray's own client would wait for minutes
        return cluster_id(address)
    except AuthenticationError:
        return "another, with another token"
    except (OSError, RayError):
        return None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides what Ray's C++ code writes to standard error; no setting of Ray does."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

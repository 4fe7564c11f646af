"""A Ray cluster's head, as a driver sees it: whether it lets us in, and whether it is there while a sweep runs.

Ray leaves both to be guessed. With a wrong token it tries again for twenty seconds and then cannot connect. Where the
head has gone its calls hang, in the main thread too, and a minute later it ends the process without a word. A head that
is started again without a memory (that needs Redis) lets calls hang for ever, or Ray's own checks abort the process.
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

LOOK_SECONDS = 2.0
LEAVING_SECONDS = 5.0
CONCLUDING_SECONDS = 600.0
PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's own variable: for how many seconds nodes and drivers wait for a head that is away; 60 if it is not set."""


@functools.cache
def patience() -> float:
    """For how long a head may be away. Ray itself is told to wait longer: there are things to be done before."""
    seconds = float(os.environ.get(PATIENCE, "60"))
    os.environ[PATIENCE] = f"{seconds + CONCLUDING_SECONDS:.0f}"
    return seconds


def check_head(address: str) -> None:
    """Raises :class:`UserError` where nobody listens, no Ray answers, or our token is refused."""
    try:
        socket.create_connection(_host_and_port(address), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error})") from None
    patience()
    from ray.exceptions import AuthenticationError, RayError

    from orchestrator.engine.ray_private import cluster_id

    try:
        with _silent_stderr():
            cluster_id(address)
    except AuthenticationError:
        raise UserError(
            f"--address {address}: the cluster refuses our token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH, a file) have to be what its nodes were started with"
        ) from None
    except RayError as error:
        raise UserError(f"--address {address}: what answers there is no Ray cluster ({error})") from None


@contextlib.contextmanager
def watch_head(address: str | None, gone: Callable[[str], None]) -> Iterator[None]:
    """Calls ``gone`` with the reason, in a thread of its own, once the head is gone for good: it has been away for
    longer than our :func:`patience`, or has come back as another. A local Ray (None) is not watched."""
    if address in (None, "auto"):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(str(address), gone, ended), name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LEAVING_SECONDS)  # nothing should ask Ray any more when it is shut down


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
            gone(f"the head of the Ray cluster at {address} was restarted and knows nothing of this sweep")
            return
        elif time.monotonic() - answered > patience():
            gone(f"the head of the Ray cluster at {address} has not answered for {patience():.0f} s")
            return


def _look(address: str) -> str | None:
    """The cluster that answers; None if nobody does."""
    from ray.exceptions import AuthenticationError, RayError

    from orchestrator.engine.ray_private import cluster_id

    try:
        socket.create_connection(_host_and_port(address), timeout=5).close()  # Ray's own client waits for minutes
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
    """Ray's C++ writes there whatever one sets."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

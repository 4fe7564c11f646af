"""Serves MLflow's pages on this machine."""

from __future__ import annotations

import errno
import os
import socket
import sys

from orchestrator.errors import UserError
from orchestrator.store.identity import known_identity
from orchestrator.store.runs import Runs, folder_of, location, runs_argument
from orchestrator.tracking import mlflow_private
from orchestrator.tracking.address import check_uri, chosen_uri, is_default, quiet_client, shown, uri_argument
from orchestrator.tracking.database import DEFAULT_ARTIFACTS, make_database
from orchestrator.tracking.mirror import told
from orchestrator.tracking.mlflow_private import charts_address, experiments_address
from orchestrator.tracking.views import METHODS, TRIALS
from trainers.parts import nearest

DEFAULT_PORT = 5000


def serve(runs: Runs, tracking_uri: str | None, port: int | None, name: str | None = None) -> None:
    """Prints the addresses of pages, then replaces this process by MLflow's server on the loopback interface.

    With the name of a sweep they are the pages of its charts, otherwise the list of sweeps. If ``tracking_uri`` is a
    server, only the addresses are printed. ``runs`` is the runs directory as the user wrote it. Raises
    :class:`UserError` if there is no database, if it does not have the sweep, if ``port`` is given for a server, and if
    another program uses the port.
    """
    uri = chosen_uri(tracking_uri, runs)
    if is_default(uri, runs) and not (folder_of(runs) / "mlflow.db").exists():
        raise UserError(
            f"there is no MLflow database in '{location(runs)}' yet; "
            f"orchestrator sweep FILE{runs_argument(runs)} makes it"
        )
    elsewhere = uri.startswith("http")
    if elsewhere and port is not None:
        raise UserError(f"--port {port}: {uri} is a server with a port of its own; leave out --port")
    port = DEFAULT_PORT if port is None else port
    server = uri.rstrip("/") if elsewhere else f"http://127.0.0.1:{port}"
    if name is None:
        if not elsewhere:
            check_uri(uri)
            make_database(uri)  # the server would make its tables in place
        pages = {"all sweeps": experiments_address(server)}
    else:
        experiment = _experiment(uri, runs, name)
        pages = {
            "methods over time": charts_address(server, experiment, METHODS),
            "trials over seconds of training, samples": charts_address(server, experiment, TRIALS),
        }
    if not elsewhere:
        _check_port(port)
    for what, page in pages.items():
        print(f"{what}: {page}")
    if elsewhere:
        return
    print("The server starts in about ten seconds. Press Ctrl-C to stop it.", flush=True)
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes that we do not need
        "PYTHONWARNINGS": "ignore",
        **mlflow_private.NOT_FROM_HERE,
    }
    artifacts = (folder_of(runs) / DEFAULT_ARTIFACTS).resolve().as_uri()
    command = ["-P", "-m", "mlflow", "server", "--app-name", "orchestrator"]
    command += ["--backend-store-uri", uri, "--default-artifact-root", artifacts, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, *command])  # replaces this process, so that signals reach the server


def _check_port(port: int) -> None:
    """Raises :class:`UserError` if no server can listen at a port of the loopback interface."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore closed connections of an earlier server
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "another program listens there" if taken else f"no server can listen there ({error.strerror})"
            raise UserError(f"--port {port}: {why}; choose another port") from None


def _experiment(uri: str, runs: Runs, name: str) -> str:
    """MLflow's id of a sweep's experiment. Raises :class:`UserError` if MLflow does not have the sweep.

    If another store has the name in this MLflow, the experiment has the id of our store in its name.
    """
    check_uri(uri)
    try:
        known = {each.name: each.experiment_id for each in quiet_client(uri).search_experiments()}
    except Exception as error:  # MLflow and its database raise many types
        raise UserError(f"MLflow at {shown(uri)} cannot be read: {told(error, uri)}") from None
    try:
        identity = known_identity(runs, name)
    except OSError as error:
        raise UserError(f"{location(runs)}/{name} cannot be read: {error}") from None
    if identity is not None and (own := f"{name} ({identity.id})") in known:
        return known[own]
    if name not in known:
        known.pop("Default", None)
        there = nearest(name, known) if known else ""
        where = runs_argument(runs) + ("" if is_default(uri, runs) else uri_argument(uri))
        raise UserError(f"MLflow has no sweep called '{name}'{there}; add it with: orchestrator sync {name}{where}")
    return known[name]

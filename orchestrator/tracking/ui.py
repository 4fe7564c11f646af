"""MLflow's pages on this machine."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.tracking.address import check_uri, default_uri, quiet_client
from orchestrator.tracking.mlflow_private import charts_address, experiments_address
from orchestrator.tracking.views import METHODS, TRIALS
from trainers.parts import nearest

DEFAULT_PORT = 5000


def serve(runs_dir: Path, tracking_uri: str | None, port: int | None, name: str | None = None) -> None:
    """Becomes MLflow's server on the loopback interface, until it is interrupted, and prints addresses before.

    With the name of a sweep those of its charts, else that of the list of sweeps. Raises :class:`UserError` where
    there is no database, or nothing of that sweep in it, for a ``port`` of a server that runs already, and for one at
    which somebody else listens.
    """
    if tracking_uri is None and not (runs_dir / "mlflow.db").exists():
        raise UserError(f"there is no MLflow database in '{runs_dir}' yet: a sweep makes it")
    uri = tracking_uri or default_uri(runs_dir)
    elsewhere = uri.startswith("http")
    if elsewhere and port is not None:
        raise UserError(f"--port {port}: {uri} is a server already, with a port of its own; leave --port out")
    port = DEFAULT_PORT if port is None else port
    server = uri.rstrip("/") if elsewhere else f"http://127.0.0.1:{port}"
    if name is None:
        if not elsewhere:
            check_uri(uri)
        pages = {"all sweeps": experiments_address(server)}
    else:
        experiment = _experiment(uri, name)
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
    print("There in some ten seconds; Ctrl-C ends it.", flush=True)
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes that nobody here needs
        "PYTHONWARNINGS": "ignore",
    }
    artifacts = (runs_dir / "mlflow-artifacts").resolve().as_uri()
    command = ["-m", "mlflow", "server", "--app-name", "orchestrator"]
    command += ["--backend-store-uri", uri, "--default-artifact-root", artifacts, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, *command])  # signals reach the server itself


def _check_port(port: int) -> None:
    """Raises :class:`UserError` for a port of the loopback interface at which no server can listen."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that a server left do not count
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "somebody listens there already" if taken else f"no server can listen there ({error.strerror})"
            raise UserError(f"--port {port}: {why}; choose another") from None


def _experiment(uri: str, name: str) -> str:
    """MLflow's id of a sweep."""
    check_uri(uri)
    client = quiet_client(uri)
    known = {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}
    if name not in known:
        known.pop("Default", None)
        there = nearest(name, known) if known else ""
        raise UserError(f"MLflow knows no sweep called '{name}'{there}; 'orchestrator sync {name}' shows it to MLflow")
    return known[name]

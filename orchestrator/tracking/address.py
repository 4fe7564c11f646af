"""The tracking URI: its default, and whether MLflow can be reached there."""

from __future__ import annotations

import http.client
import importlib
import logging
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.store.runs import Runs, location

if TYPE_CHECKING:
    from mlflow import MlflowClient


def default_uri(runs: Runs) -> str:
    """The URI of an SQLite file in the runs directory.

    Raises :class:`UserError` for an object store, and for a path that MLflow would read as another one.
    """
    if not isinstance(runs, Path):
        raise UserError(
            f"--runs-dir {location(runs)}: MLflow's SQLite file cannot lie in an object store; give the address of an "
            "MLflow server with --tracking-uri, or run without MLflow with --offline"
        )
    uri = _sqlite_uri(runs)
    if signs := [sign for sign in "%?#" if sign in uri]:
        raise UserError(
            f"--runs-dir {location(runs)}: MLflow cannot keep its SQLite file in a folder with '{signs[0]}' in its "
            "path; choose another folder, give another place with --tracking-uri, or run without MLflow with --offline"
        )
    return uri


def is_default_uri(uri: str, runs: Runs) -> bool:
    """Whether a tracking URI is the one that commands use by default for this runs directory."""
    return isinstance(runs, Path) and uri == _sqlite_uri(runs)


def _sqlite_uri(runs: Path) -> str:
    return f"sqlite:///{(runs / 'mlflow.db').resolve()}"


def check_uri(uri: str) -> None:
    """Raises :class:`UserError` if a tracking URI cannot be used.

    Its kind may be unknown, no server may answer there within seconds, or MLflow may refuse access.
    """
    importlib.import_module("orchestrator.tracking.mlflow_private")  # it checks MLflow
    scheme = uri.partition(":")[0].partition("+")[0]
    try:
        if scheme in ("http", "https"):
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
                pass
            _ask(uri)
        elif scheme == "sqlite":
            folder = Path(uri.removeprefix("sqlite:///")).parent
            if folder.exists() and not folder.is_dir():
                raise OSError(f"'{folder}' is not a directory")
            if Path(uri.removeprefix("sqlite:///")).is_dir():
                raise OSError("it is a directory, not a file")
        elif scheme in ("postgresql", "mysql", "mssql"):
            _connect(uri)
        else:
            raise UserError(
                f"--tracking-uri {uri}: expected sqlite:///FILE, http://HOST:PORT or a database that MLflow supports"
            )
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        what = "no MLflow server answers there" if scheme.startswith("http") else "the database cannot be opened"
        raise UserError(f"--tracking-uri {uri}: {what} ({reason})") from None


def _ask(uri: str) -> None:
    """Asks a server for something that needs permission. Raises :class:`UserError` if the server refuses."""
    from mlflow.exceptions import MlflowException

    try:
        quiet_client(uri).search_experiments(max_results=1)
    except MlflowException as error:
        ways = {
            401: "MLflow refuses the user or the password; check MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in your environment",
            403: "MLflow refuses access; the server's --allowed-hosts must name the host and port of this address, and "
            "the user in MLFLOW_TRACKING_USERNAME needs permission",
        }
        why = ways.get(error.get_http_status_code(), f"the server answers, but not as MLflow does ({error})")
        raise UserError(f"--tracking-uri {uri}: {why}") from None


def _connect(uri: str) -> None:
    """Connects to a database once. Raises OSError if that fails."""
    import sqlalchemy

    try:
        with sqlalchemy.create_engine(uri).connect():
            pass
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise OSError(str(error).splitlines()[0]) from None


def quiet_client(uri: str) -> MlflowClient:
    """An MLflow client that gives up after seconds, not minutes, and does not print messages of its own."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # importing mlflow sets its own level
    return MlflowClient(tracking_uri=uri)

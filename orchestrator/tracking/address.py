"""The tracking URI: which one a command uses, how it is printed, and whether MLflow can be reached there."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import shlex
import warnings
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from orchestrator.errors import UserError
from orchestrator.store.runs import Runs, location

if TYPE_CHECKING:
    from mlflow import MlflowClient

FROM_ENVIRONMENT = "MLFLOW_TRACKING_URI"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
SECRETS = re.compile(r"(?<=://)([^:/?#@]*):(.*)@|(?<=[?&]password=)([^&]*)", re.DOTALL)
"""A password in a URI: before the last ``@``, because it may hold any character, and in the query of a database."""
ENCODED = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})
"""The characters that mean something in the URI of an SQLite file."""

REFUSED: dict[int, str] = {
    401: f"MLflow refuses the user or the password; check {USER} and {PASSWORD} in your environment, or "
    "MLFLOW_TRACKING_TOKEN",
    403: "MLflow refuses access; the server's --allowed-hosts must name the host and port of this address, and the "
    f"user in {USER} needs permission",
}
"""What helps if a server answers with this HTTP status."""


def chosen_uri(given: str | None, runs: Runs) -> str:
    """The tracking URI of a command: its option, ``MLFLOW_TRACKING_URI``, or an SQLite file in the runs directory.

    It has no user and password of a server, see :func:`without_password`. Raises :class:`UserError`.
    """
    if given is not None:
        return without_password(given)
    if uri := os.environ.get(FROM_ENVIRONMENT):
        return without_password(uri)
    return default_uri(runs)


def default_uri(runs: Runs) -> str:
    """The URI of an SQLite file in the runs directory.

    Raises :class:`UserError` for an object store, and for a path that MLflow would read as another one.
    """
    if not isinstance(runs, Path):
        raise UserError(
            f"--runs-dir {location(runs)}: MLflow's SQLite file cannot lie in an object store; give the address of an "
            "MLflow server with --tracking-uri, or run without MLflow with --offline"
        )
    return file_uri((runs / "mlflow.db").resolve())


def file_uri(file: Path) -> str:
    """The URI of an SQLite file, which may have any characters in its path."""
    encoded = str(file).translate(ENCODED)
    # With the name of the driver MLflow makes no folder that is called like the encoded path.
    return f"sqlite:///{file}" if str(file) == encoded else f"sqlite+pysqlite:///{encoded}"


def is_default(uri: str, runs: Runs) -> bool:
    """Whether a command without ``--tracking-uri`` has this tracking URI, in whichever shell it is started."""
    return not os.environ.get(FROM_ENVIRONMENT) and is_own_file(uri, runs)


def is_own_file(uri: str, runs: Runs) -> bool:
    """Whether a tracking URI is that of the SQLite file in a runs directory."""
    return isinstance(runs, Path) and uri == default_uri(runs)


def without_password(uri: str) -> str:
    """A tracking URI without user and password, if it is the address of a server.

    They move into MLflow's variables of this process's environment: its client reads them there, and no error, log or
    command that contains the address can print them. The URI of a database keeps them. Raises :class:`UserError` if a
    character of the password hides where the host begins.
    """
    kind, _, rest = uri.partition("://")
    if kind not in ("http", "https") or "@" not in rest:
        return uri
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    who, _, host = authority.rpartition("@")
    if "@" not in authority:
        if not re.fullmatch(r"[^:]*:\D.*|[^:]*:\d+\D.*", authority, re.DOTALL):
            return uri  # the path has an @
        raise UserError(
            f"{_option(uri)} {shown(uri)}: the password has a character that ends the host in an address; leave user "
            f"and password out and set {USER} and {PASSWORD}"
        )
    user, _, password = who.partition(":")
    os.environ[USER] = unquote(user)
    if password:
        os.environ[PASSWORD] = unquote(password)
    plain = f"{kind}://{host}{rest[len(authority) :]}"
    if os.environ.get(FROM_ENVIRONMENT) == uri:
        os.environ[FROM_ENVIRONMENT] = plain
    return plain


def shown(uri: str) -> str:
    """A tracking URI as it may be printed: with ``***`` for a password."""
    return SECRETS.sub(lambda found: "***" if found[1] is None else f"{found[1]}:***@", uri)


def uri_argument(uri: str) -> str:
    """The option with which a command finds MLflow, with a space before it.

    A command with a database's password takes the URI from ``MLFLOW_TRACKING_URI``: the option is left out if that
    variable has the URI, and names the variable if not. A shell in which the variable is not set makes an empty option
    of it, which is an error and not the default.
    """
    if shown(uri) == uri:
        return f" --tracking-uri {shlex.quote(uri)}"
    if os.environ.get(FROM_ENVIRONMENT) == uri:
        return ""
    return f' --tracking-uri "${FROM_ENVIRONMENT}"'


def without_secrets(text: str, uri: str) -> str:
    """A message of MLflow or of its database, without the password in the tracking URI."""
    for found in SECRETS.finditer(uri):
        for secret in {found[2] or "", found[3] or ""} - {""}:
            text = text.replace(secret, "***").replace(unquote(secret), "***")
    return text


def check_uri(uri: str) -> None:
    """Raises :class:`UserError` if a tracking URI cannot be used.

    Its kind may be unknown, no server may answer there within seconds, or MLflow may refuse access.
    """
    from orchestrator.tracking import database, mlflow_private  # importing the latter checks MLflow

    uri = without_password(uri)
    where = f"{_option(uri)} {shown(uri)}"
    scheme = uri.partition(":")[0].partition("+")[0]
    try:
        if scheme in ("http", "https"):
            _prepare(uri)
            status = mlflow_private.health(uri)
            if status in REFUSED:
                raise UserError(f"{where}: {REFUSED[status]}")
            if status != HTTPStatus.OK:
                raise OSError(f"HTTP status {status}")
            _ask(uri, where)
        elif scheme == "sqlite":
            database.check_file(uri)
        elif scheme in ("postgresql", "mysql", "mssql"):
            _connect(uri)
        else:
            raise UserError(f"{where}: expected sqlite:///FILE, http://HOST:PORT or a database that MLflow supports")
    except (OSError, ValueError) as error:
        why = _unreachable(error) if scheme.startswith("http") else f"the database cannot be opened ({error})"
        raise UserError(f"{where}: {without_secrets(why, uri)}") from None


def _option(uri: str) -> str:
    """Where a tracking URI was given."""
    return FROM_ENVIRONMENT if os.environ.get(FROM_ENVIRONMENT) == uri else "--tracking-uri"


def _unreachable(error: Exception) -> str:
    """Why a server does not answer, and what helps. ``error`` is one of those that ``requests`` raises."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    reason = str(inner).removeprefix(f"{type(inner).__name__}: ")
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return (
            f"its certificate is not trusted ({reason}); name the file of the authority that signed it in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, or trust every certificate with MLFLOW_TRACKING_INSECURE_TLS=true"
        )
    if type(error).__name__ == "ProxyError":
        return (
            f"the proxy that the environment names does not answer ({reason}); "
            "put the server's host into NO_PROXY to go past it"
        )
    if "TLS" in reason and "path" in reason:
        return f"a file of MLflow's settings in the environment is missing ({reason})"
    return f"no MLflow server answers there ({reason.rpartition('connection: ')[2]})"


def _ask(uri: str, where: str) -> None:
    """Asks a server for something that needs permission. Raises :class:`UserError` if the server refuses."""
    from mlflow.exceptions import MlflowException

    try:
        quiet_client(uri).search_experiments(max_results=1)
    except MlflowException as error:
        why = REFUSED.get(error.get_http_status_code(), f"the server answers, but not as MLflow does ({error})")
        raise UserError(f"{where}: {why}") from None


def _connect(uri: str) -> None:
    """Connects to a database once. Raises OSError if that fails."""
    import sqlalchemy

    try:
        with sqlalchemy.create_engine(uri).connect():
            pass
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise OSError(str(error).splitlines()[0]) from None


def quiet_client(uri: str) -> MlflowClient:
    """An MLflow client that gives up after seconds, not minutes, and does not print messages of its own.

    It makes the tables of a database that has none. Raises :class:`UserError` if an SQLite file cannot be used, and
    SQLAlchemy's errors if a PostgreSQL database cannot be reached.
    """
    from orchestrator.tracking import database

    uri = without_password(uri)
    _prepare(uri)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # importing mlflow sets its own level
    database.make_database(uri)
    with database.making_tables(uri):
        return MlflowClient(tracking_uri=uri)


def _prepare(uri: str) -> None:
    """Sets what MLflow's client reads in the environment. A server on this machine is reached without a proxy."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Unverified HTTPS request")  # the user has asked for it
    host = _host(uri)
    if _is_loopback(host):
        past = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if host not in past.split(","):
            os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{past},{host}".strip(",")


def _host(uri: str) -> str:
    """The host of a server's address; empty for a file and for an address that is not valid."""
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

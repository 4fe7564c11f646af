"""MLflow's own database, where no server stands before it: it is made whole, and what is wrong with it is told.

MLflow makes its tables in some seventy steps. A process that is killed in between leaves a file that no later process
can use, and so do two processes that make the tables of one database at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from orchestrator.errors import UserError
from orchestrator.files import reason
from orchestrator.store.runs import runs_argument, sweep_names
from orchestrator.tracking import mlflow_private
from orchestrator.tracking.address import file_uri, is_default, uri_argument
from trainers.locks import locked

BESIDE = ("-journal", "-wal", "-shm")
"""The endings of the files that SQLite keeps beside a database. It would apply those of a deleted one to a new one."""
LOCK_SECONDS = 60
"""How long a process waits while another one makes the tables of the same PostgreSQL database."""
DEFAULT_ARTIFACTS = "mlflow-artifacts"
"""The folder beside an SQLite file in which the artifacts of an experiment without a place of its own lie."""


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database, without links. None for another database and for one in memory.

    Raises OSError if SQLAlchemy reads the path in the URI otherwise than MLflow.
    """
    if uri.partition(":")[0].partition("+")[0] != "sqlite":
        return None
    import sqlalchemy

    path = unquote(uri.partition(":///")[2].partition("?")[0])
    if path in ("", ":memory:") or path.startswith("file:"):
        return None
    if "%" in uri and sqlalchemy.make_url(uri).database != path:
        raise OSError(
            f"SQLAlchemy {sqlalchemy.__version__} takes it for another file, because its path has one of %, ? and "
            "#; choose another --runs-dir, or install SQLAlchemy 2.1"
        )
    return Path(os.path.realpath(path))


def check_file(uri: str) -> None:
    """Raises OSError or :class:`UserError` if MLflow cannot use an SQLite file. A file that does not exist is none."""
    file = sqlite_file(uri)
    if file is None:
        return
    if file.parent.exists() and not file.parent.is_dir():
        raise OSError(f"'{file.parent}' is not a directory")
    if file.is_dir():
        raise OSError("it is a directory, not a file")
    if problem := _problem(file, uri):
        raise UserError(f"MLflow's database '{file}' cannot be used: {problem}")


def why_unusable(uri: str, error: Exception) -> str | None:
    """What is wrong with an SQLite file in which MLflow met an error, in one paragraph. None if nothing is known."""
    try:
        check_file(uri)
    except UserError as problem:
        return str(problem)
    except OSError:
        return None
    file = sqlite_file(uri)
    if file is not None and "database disk image is malformed" in str(error):
        return f"MLflow's database '{file}' cannot be used: it is damaged; {_set_aside(file, uri)}"
    return None


def make_database(uri: str) -> None:
    """Makes an SQLite file with MLflow's tables if there is none; several processes may do so at once.

    The file is made beside and gets its name when it is whole, so that a process may be killed at any moment. What it
    leaves beside is deleted by the next one. Raises :class:`UserError` if the file cannot be made or used.
    """
    try:
        check_file(uri)
        file = sqlite_file(uri)
        if file is None or not _is_empty(file):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()  # where no file can be made, the lock would wait for ever
        with locked(file.with_name(f".{file.name}")):
            if _is_empty(file):
                _make(file)
    except OSError as error:
        raise UserError(f"MLflow's database in {uri} cannot be made: {reason(error)}") from None


def _make(file: Path) -> None:
    """Makes an SQLite file. The caller holds its lock."""
    new = file.with_name(f".{file.name}.new")
    try:
        _delete(new, "", *BESIDE)
        mlflow_private.make_tables(file_uri(new), (file.parent / DEFAULT_ARTIFACTS).as_uri())
        _delete(file, *BESIDE)
        os.replace(new, file)
    finally:
        _delete(new, "", *BESIDE)


def _delete(file: Path, *endings: str) -> None:
    for ending in endings:
        Path(f"{file}{ending}").unlink(missing_ok=True)


@contextlib.contextmanager
def making_tables(uri: str) -> Iterator[None]:
    """Lets one process at a time make MLflow's tables in a PostgreSQL database. Does nothing for other databases.

    MLflow's client makes them when it is made itself. PostgreSQL keeps the lock, and takes it back if the process dies.
    """
    if not uri.startswith("postgresql"):
        yield
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(hashtext('orchestrator: MLflow''s tables'))"))
        yield


def _is_empty(file: Path) -> bool:
    """Whether an SQLite file does not exist or has no tables."""
    return not file.exists() or not file.stat().st_size or not _read(file, "SELECT name FROM sqlite_master")


def _problem(file: Path, uri: str) -> str | None:
    """What is wrong with an SQLite file, and the commands that help. None if MLflow can use it, or will make it."""
    try:
        if _is_empty(file):
            return None
        tables = _read(file, "SELECT name FROM sqlite_master WHERE type = 'table'")
        if "experiments" not in tables:
            others = ", ".join(sorted(tables)[:3])
            return f"it has tables of another program ({others}); give another file with --tracking-uri sqlite:///FILE"
        versions = _read(file, "SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
        in_use = bool(_read(file, "SELECT experiment_id FROM experiments LIMIT 1"))
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # Python's own errors: text that is none
        if code == sqlite3.SQLITE_NOTADB:
            return f"it is no SQLite database; {_set_aside(file, uri)}"
        if code == sqlite3.SQLITE_CORRUPT:
            return f"it is damaged ({error}); {_set_aside(file, uri)}"
        raise OSError(str(error)) from None
    latest, known = mlflow_private.schema_versions()
    if versions == [latest]:
        return None
    if not in_use:
        return (
            "it is not complete, because the process that made it was killed. Nothing is in it yet: delete it with: "
            f"rm {shlex.quote(str(file))}; the next command makes it again"
        )
    if not versions:
        return f"it does not say which MLflow made it; {_set_aside(file, uri)}"
    if versions[0] in known:
        quoted = shlex.quote(str(file))
        return (
            f"an older MLflow made it. Keep a copy with: cp {quoted} {quoted}.old; then bring it up to date with: "
            f"mlflow db upgrade {shlex.quote(uri)}"
        )
    return (
        f"a newer MLflow made it than the {mlflow_private.installed()} that is installed here. Use it with that "
        f"MLflow, or make another one: {_set_aside(file, uri)}"
    )


def _set_aside(file: Path, uri: str) -> str:
    """How to make a database anew from the store, as the end of a sentence."""
    quoted = shlex.quote(str(file))
    folder = file.parent
    names = sweep_names(folder)
    where = runs_argument(folder) if names and folder != Path("runs").resolve() else ""
    where += "" if is_default(uri, folder) else uri_argument(uri)
    sync = f"orchestrator sync {names[0] if len(names) == 1 else 'NAME'}{where}"
    if len(names) > 1:
        sync = f"for name in {' '.join(map(shlex.quote, names))}; do orchestrator sync $name{where}; done"
    return f"the runs directory has all that is needed. Set the file aside with: mv {quoted} {quoted}.old; then: {sync}"


def _read(file: Path, query: str) -> list[str]:
    """The first column of what a query finds. Raises sqlite3.DatabaseError."""
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
        return [row[0] for row in connection.execute(query)]

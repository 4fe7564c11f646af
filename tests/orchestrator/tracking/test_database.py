"""MLflow's own database: it is made whole whatever happens meanwhile, and what is wrong with it is told with commands.

SQLite files are made and killed by real commands. PostgreSQL is a real server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, environment, free_port, started, wait_until
from hand_made import TWO_CELLS, finish, make_sweep, write_file
from mlflow_dump import dump, expected_points, points_of
from topology import POSTGRESQL

from orchestrator.driver.mirroring import MirrorThread
from orchestrator.errors import UserError
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking import mlflow_private
from orchestrator.tracking.address import check_uri, default_uri, file_uri, quiet_client


def begun(folder: Path, name: str = "hand") -> SweepStore:
    """A sweep of which one trial is done."""
    store = make_sweep(folder, TWO_CELLS.replace("name: hand", f"name: {name}"))
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    return store


def check_mirrored(uri: str, store: SweepStore) -> None:
    """Asserts that MLflow has the trial that is done."""
    entry = store.entries()[0]
    run = dump(uri, store.name)[f"{entry.label} seed={entry.seed}"]
    assert points_of(run) == expected_points(store.trial(entry.trial_id))


def databases(folder: Path) -> list[str]:
    """The names of the files that have to do with MLflow's database, without its lock."""
    return sorted(file.name for file in folder.iterdir() if "mlflow.db" in file.name and file.suffix != ".lock")


# --- killed, and two at once ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_command_that_is_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    """Two commands at once then make one database, and both are level."""
    stores = [begun(tmp_path), begun(tmp_path, "other")]
    runs = tmp_path / "runs"
    new = runs / ".mlflow.db.new"
    with started("sync", "hand", cwd=tmp_path) as running:
        wait_until(lambda: (new.exists() and new.stat().st_size > 300_000) or running.process.poll(), pause=0)
        running.process.kill()
        running.end()
    assert "mlflow.db" not in databases(runs)
    assert {".mlflow.db.new"} <= set(databases(runs)) <= {".mlflow.db.new", ".mlflow.db.new-journal"}
    with started("sync", "hand", cwd=tmp_path) as one, started("sync", "other", cwd=tmp_path) as two:
        for running, store in zip((one, two), stores, strict=True):
            code, out, errors = running.end()
            assert (code, out.splitlines()[-1]) == (0, f"MLflow is up to date with '{store.name}'."), errors
    assert databases(runs) == ["mlflow.db"]
    for store in stores:
        check_mirrored(default_uri(runs), store)


def test_an_sqlite_file_is_made_beside_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite+pysqlite:///{tmp_path}/deep/100%25 %3F%23/mlflow.db"
    made: list[str] = []
    real = mlflow_private.make_tables

    def make_tables(new: str, artifacts: str) -> None:
        made.append(new)
        real(new, artifacts)

    monkeypatch.setattr(mlflow_private, "make_tables", make_tables)
    assert [one.name for one in quiet_client(uri).search_experiments()] == ["Default"]
    (file,) = [file for file in tmp_path.rglob("mlflow.db") if file.stat().st_size]
    assert made == [file_uri(file.with_name(".mlflow.db.new"))]
    assert databases(file.parent) == ["mlflow.db"]
    (default,) = quiet_client(uri).search_experiments()
    assert default.artifact_location == f"{(file.parent / 'mlflow-artifacts').as_uri()}/0"
    assert len(made) == 1


@pytest.mark.parametrize("left", ["an empty file", "a file without tables", "a journal"])
def test_an_empty_file_and_what_a_deleted_one_left_are_replaced(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """SQLite would apply a journal that another file left to the new one."""
    file, other = tmp_path / "mlflow.db", tmp_path / "other.db"
    shutil.copy(empty_database, other)
    if left == "an empty file":
        file.touch()
    elif left == "a file without tables":
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.executescript("CREATE TABLE t (x); DROP TABLE t")
    else:
        with contextlib.closing(sqlite3.connect(other)) as connection:
            connection.executescript("PRAGMA cache_size = 1; BEGIN; DELETE FROM alembic_version")
            connection.execute("UPDATE experiments SET name = 'from the journal'")
            connection.execute("CREATE TABLE filling AS SELECT randomblob(100000)")
            shutil.copy(tmp_path / "other.db-journal", tmp_path / "mlflow.db-journal")
    monkeypatch.setattr(
        mlflow_private,
        "make_tables",
        lambda new, artifacts: shutil.copy(empty_database, new.removeprefix("sqlite:///")),
    )
    client = quiet_client(f"sqlite:///{file}")
    assert [one.name for one in client.search_experiments()] == ["Default"]
    assert databases(tmp_path) == ["mlflow.db"]


def test_a_place_where_no_file_can_be_made(tmp_path: Path, store: SweepStore, command_line: CommandLine) -> None:
    """/proc is a folder in which nobody can make a file, not even root."""
    uri = "sqlite:////proc/self/mlflow.db"
    code, _, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", uri)
    assert code == 2
    assert errors.startswith(f"orchestrator: MLflow's database in {uri} cannot be made: ")
    assert errors.count("\n") == 1


# --- databases that MLflow cannot use ---------------------------------------------------------------------------------


def sql(file: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(script)


OLDER = "UPDATE alembic_version SET version_num = '451aebb31d03';"
NEWER = "UPDATE alembic_version SET version_num = 'ffffffffffff';"
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no database": (lambda file: file.write_bytes(b"not a database\n" * 99), "it is no SQLite database", "aside"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:200_000]), "it is damaged (", "aside"),
    "half made, no version": (
        lambda file: sql(file, "DROP TABLE alembic_version; DELETE FROM experiments"),
        "it is not complete, because the process that made it was killed",
        "delete",
    ),
    "half made, some steps": (
        lambda file: sql(file, f"{OLDER} DELETE FROM experiments"),
        "it is not complete",
        "delete",
    ),
    "no version": (lambda file: sql(file, "DELETE FROM alembic_version"), "it does not say which MLflow", "aside"),
    "older": (lambda file: sql(file, OLDER), "an older MLflow made it", "upgrade"),
    "newer": (lambda file: sql(file, NEWER), "a newer MLflow made it than the 3.", "aside"),
    "another program's": (
        lambda file: (file.unlink(), sql(file, "CREATE TABLE cats (x)")),
        "it has tables of another program (cats)",
        "give another file with --tracking-uri sqlite:///FILE",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_cannot_be_used_is_told_in_one_paragraph_with_the_commands_that_help(
    store: SweepStore, tracking_uri: str, tmp_path: Path, command_line: CommandLine, damage: str
) -> None:
    """By ``sweep`` before anything starts, by ``sync``, by ``ui``, and at the end of a sweep."""
    file, runs = store.runs_dir / "mlflow.db", ["--runs-dir", store.runs_dir]
    break_it, problem, way_on = DAMAGES[damage]
    break_it(file)
    left = file.read_bytes()
    helps = {
        "aside": f"mv {file} {file}.old; then: orchestrator sync hand --runs-dir {store.runs_dir}",
        "delete": f"rm {file}; the next command makes it again",
        "upgrade": f"cp {file} {file}.old; then bring it up to date with: mlflow db upgrade {tracking_uri}",
    }.get(way_on, way_on)
    told = f"MLflow's database '{file}' cannot be used: {problem}"
    for words in (["sync", "hand"], ["ui"], ["ui", "hand"]):
        code, out, errors = command_line(*words, *runs)
        assert (code, out) == (2, "")
        assert errors.startswith(f"orchestrator: {told}")
        assert errors.endswith(f"{helps}\n")
        assert errors.count("\n") == 1
    new = write_file(tmp_path / "new", TWO_CELLS.replace("name: hand", "name: new"))
    code, out, errors = command_line("sweep", new, *runs)
    assert (code, out) == (2, "")
    assert errors.startswith(f"orchestrator: {told}")
    assert "; with --offline nothing is written to MLflow until: orchestrator sync new " in errors
    assert errors.count("\n") == 1
    assert not (store.runs_dir / "new").exists()
    behind = MirrorThread(store, tracking_uri).finish()
    assert behind is not None
    assert behind.startswith(told)
    assert file.read_bytes() == left


def test_what_the_paragraph_tells_to_do_helps(
    store: SweepStore,
    tracking_uri: str,
    empty_database: Path,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    sql(store.runs_dir / "mlflow.db", NEWER)
    errors = command_line("sync", "hand", "--runs-dir", store.runs_dir)[2]
    monkeypatch.setattr(
        mlflow_private,
        "make_tables",
        lambda new, artifacts: shutil.copy(empty_database, new.removeprefix("sqlite:///")),
    )
    aside, sync = errors.partition("Set the file aside with: ")[2].split("; then: orchestrator ")
    subprocess.run(aside, shell=True, check=True)
    assert command_line(*sync.split())[0] == 0
    check_mirrored(tracking_uri, store)


def test_every_sweep_of_the_directory_is_in_the_command(
    store: SweepStore, tracking_uri: str, command_line: CommandLine
) -> None:
    shutil.copytree(store.path, store.runs_dir / "other")
    sql(store.runs_dir / "mlflow.db", NEWER)
    errors = command_line("sync", "hand", "--runs-dir", store.runs_dir)[2]
    loop = f"for name in hand other; do orchestrator sync $name --runs-dir {store.runs_dir}; done\n"
    assert errors.endswith(loop)


def test_a_database_that_is_damaged_inside_is_told(
    store: SweepStore, tracking_uri: str, tmp_path: Path, command_line: CommandLine
) -> None:
    """The pages that are read first are whole, so the damage shows when MLflow reads the others."""
    finish(store, store.entries()[0], {"exact_w1": 0.5})
    file = store.runs_dir / "mlflow.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[(roots["runs"] - 1) * size : roots["runs"] * size] = b"x" * size
    file.write_bytes(content)
    check_uri(tracking_uri)
    code, _, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir)
    assert code == 2
    assert f"MLflow's database '{file}' cannot be used: it is damaged; " in errors
    assert errors.endswith(f"mv {file} {file}.old; then: orchestrator sync hand --runs-dir {store.runs_dir}\n")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

OPEN = """
import sys, time
import mlflow
from orchestrator.tracking.address import quiet_client
print("ready", flush=True)
sys.stdin.readline()
print([one.name for one in quiet_client(sys.argv[1]).search_experiments()])
"""


@pytest.fixture
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an empty PostgreSQL database."""
    if os.geteuid() != 0 or not POSTGRESQL.exists():
        pytest.skip("needs root and Debian's postgresql")
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)  # PostgreSQL's user has to pass through it
    shutil.chown(folder, "postgres", "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    port = free_port()
    initialise = [
        *as_postgres,
        POSTGRESQL / "initdb",
        "-D",
        folder / "data",
        "-U",
        "mlflow",
        "--no-sync",
        "-A",
        "trust",
    ]
    subprocess.run(initialise, cwd="/", check=True, capture_output=True)
    serve = [*as_postgres, POSTGRESQL / "postgres", "-D", folder / "data", "-p", str(port), "-c", "fsync=off"]
    serve += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(serve, cwd="/", stdout=log, stderr=log)
    try:
        ready = [POSTGRESQL / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, pause=0.1)
        subprocess.run([POSTGRESQL / "createdb", *map(str, ready[1:]), "-U", "mlflow", "mlflow"], check=True)
        yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.long
def test_two_drivers_that_begin_at_once_make_one_postgresql_database(postgresql: str) -> None:
    program = [sys.executable, "-P", "-c", OPEN, postgresql]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(program, text=True, env=environment(), **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        out, errors = process.communicate()
        assert (process.returncode, out) == (0, "['Default']\n"), errors


def test_a_broken_uri_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a directory"):
        check_uri(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")

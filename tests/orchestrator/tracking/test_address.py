"""Where MLflow is: private certificates, passwords, tokens and proxies as its own client has them, and odd paths.

The server is a real one with TLS and passwords. Its certificate is signed by an authority that only the test knows.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import PROGRAM, CommandLine, environment, free_port, wait_until
from hand_made import TWO_CELLS, finish, make_sweep
from mlflow_dump import dump, expected_files, expected_points, files_of, points_of
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.options import Options, as_arguments, resume_command
from orchestrator.errors import UserError
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.tracking.address import check_uri, chosen_uri, default_uri, shown, without_password
from orchestrator.tracking.mirror import level

PASSWORD = "p@ss:w/rd?1#2%3"
ENCODED_PASSWORD = "p%40ss%3Aw%2Frd%3F1%232%253"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets in its environment ends with it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("MLFLOW_TRACKING_URI", "no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)


# --- TLS and passwords ----------------------------------------------------------------------------------------------


@dataclass
class Safe:
    """An MLflow server with TLS and passwords."""

    host: str
    authority: Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Safe]:
    folder = tmp_path_factory.mktemp("safe")
    authority, key, certificate = (folder / name for name in ("ca.pem", "key.pem", "cert.pem"))
    new = ["req", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl(*new, "-x509", "-subj", "/CN=own authority", "-keyout", folder / "ca.key", "-out", authority)
    openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", folder / "asked.pem")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ["-CA", authority, "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", folder / "names"]
    openssl("x509", "-req", "-in", folder / "asked.pem", *signing, "-days", "2", "-out", certificate)
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    command += ["--uvicorn-opts", f"--ssl-keyfile {key} --ssl-certfile {certificate}"]
    changes = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "only for tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    context = ssl.create_default_context(cafile=str(authority))

    def answers() -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"https://127.0.0.1:{port}/health", timeout=5, context=context) as got,
        ):
            return got.status == http.client.OK
        return False

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(**changes), stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers() or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield Safe(f"127.0.0.1:{port}", authority)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.long
@pytest.mark.parametrize(
    "trust", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "MLFLOW_TRACKING_INSECURE_TLS"]
)
def test_a_private_authority_is_trusted_as_mlflows_own_client_trusts_it(
    safe: Safe, trust: str, recwarn: pytest.WarningsRecorder
) -> None:
    os.environ |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    with pytest.raises(UserError, match="its certificate is not trusted .*MLFLOW_TRACKING_SERVER_CERT_PATH"):
        check_uri(f"https://{safe.host}")
    os.environ[trust] = "true" if trust.endswith("TLS") else str(safe.authority)
    check_uri(f"https://{safe.host}")
    assert not [warning for warning in recwarn if "HTTPS" in str(warning.message)]


@pytest.mark.long
def test_a_sweep_arrives_by_an_address_with_user_and_password(
    safe: Safe, store: SweepStore, command_line: CommandLine
) -> None:
    """Points and files; and the password stands nowhere in what is printed."""
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5})
    os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(safe.authority)
    uri = f"https://admin:{ENCODED_PASSWORD}@{safe.host}"
    ran = command_line("sync", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", uri)
    assert ran == (0, "MLflow is up to date with 'hand'.\n", "")
    run = dump(uri, "hand")[f"{entry.label} seed={entry.seed}"]
    assert points_of(run) == expected_points(store.trial(entry.trial_id))
    assert files_of(run) == expected_files(store.trial(entry.trial_id))

    code, out, errors = command_line("ui", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", uri)
    assert (code, errors) == (0, "")
    assert f": https://{safe.host}/#/experiments/" in out
    assert "admin" not in out

    wrong = f"https://admin:S3cret@{safe.host}"
    code, out, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", wrong)
    assert (code, out) == (2, "")
    assert errors.startswith(
        f"orchestrator: --tracking-uri https://{safe.host}: MLflow refuses the user or the passwor"
    )
    assert "S3cret" not in errors


@pytest.mark.long
def test_two_runs_directories_share_a_server(safe: Safe, tmp_path: Path) -> None:
    """A restart in one of them deletes nothing of the other, and both have their points and files."""
    os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(safe.authority)
    uri = without_password(f"https://admin:{ENCODED_PASSWORD}@{safe.host}")
    one, two = (make_sweep(tmp_path / name, TWO_CELLS.replace("name: hand", "name: both")) for name in ("1", "2"))
    entry = one.entries()[0]
    for number, store in enumerate((one, two)):
        finish(store, entry, {"exact_w1": number}, state=State.FAILED)
    assert level(one, uri) == (None, [])
    before = dump(uri, "both")
    told, _ = level(two, uri)
    assert told is not None
    title = told.partition("experiment is '")[2].partition("'")[0]
    run = dump(uri, title)[f"{entry.label} seed={entry.seed}"]
    assert points_of(run) == expected_points(two.trial(entry.trial_id))
    assert files_of(run) == expected_files(two.trial(entry.trial_id))
    two.trial(entry.trial_id).restart()
    level(two, uri)
    assert set(dump(uri, title)) == {"both"}
    assert dump(uri, "both") == before


# --- tokens and proxies ---------------------------------------------------------------------------------------------


class Guard(BaseHTTPRequestHandler):
    """Answers, even to the question whether it is up, only those who have the token."""

    def handle_any(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer let-me-in"
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = handle_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def guarded() -> Iterator[str]:
    """The address of a server that wants a token for everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Guard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_token_is_sent_with_every_question(guarded: str) -> None:
    with pytest.raises(UserError, match=r"MLflow refuses .*MLFLOW_TRACKING_PASSWORD .*MLFLOW_TRACKING_TOKEN"):
        check_uri(guarded)
    os.environ["MLFLOW_TRACKING_TOKEN"] = "let-me-in"
    check_uri(guarded)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_goes_past_proxies(guarded: str, closed_port: int, host: str) -> None:
    os.environ |= {"MLFLOW_TRACKING_TOKEN": "let-me-in", "no_proxy": "example.org"}
    os.environ |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), f"http://127.0.0.1:{closed_port}")
    check_uri(guarded.replace("127.0.0.1", host))
    assert os.environ["no_proxy"] == f"example.org,{host}"


def test_a_proxy_that_does_not_answer_is_named(closed_port: int) -> None:
    os.environ |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), f"http://127.0.0.1:{closed_port}")
    with pytest.raises(UserError, match=r"http://mlflow.invalid: the proxy .* does not answer .*NO_PROXY"):
        check_uri("http://mlflow.invalid")


def test_an_answer_that_is_no_mlflow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.recv(1000)
                    client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match=r"no MLflow server answers there \(HTTP status 404\)"):
            check_uri(f"http://127.0.0.1:{listener.getsockname()[1]}")


# --- passwords are not printed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("http://me:S3cret@127.0.0.1:{port}", "http://127.0.0.1:{port}: no MLflow server answers"),
        ("http://me:S3cret@mlflow.invalid/path", "http://mlflow.invalid/path: no MLflow server answers"),
        ("http://me:S3c/ret@127.0.0.1:{port}", "http://me:***@127.0.0.1:{port}: the password has a character"),
        ("http://me:1S3c#ret@127.0.0.1:{port}", "http://me:***@127.0.0.1:{port}: the password has a character"),
        ("http://me:S3cret@127.0.0.1:nine", "http://127.0.0.1:nine: no MLflow server answers there ("),
        ("postgresql://me:S3cret@127.0.0.1:{port}/m", "postgresql://me:***@127.0.0.1:{port}/m: the database cannot"),
        ("postgresql://me:S3c@ret/x@127.0.0.1:{port}/m", "postgresql://me:***@127.0.0.1:{port}/m: the database cannot"),
        ("postgresql://127.0.0.1:{port}/m?user=me&password=S3cret", "postgresql://127.0.0.1:{port}/m?user=me&passwor"),
        ("mysql+pymysql://me:S3cret@127.0.0.1:{port}/m", "mysql+pymysql://me:***@127.0.0.1:{port}/m: the database ca"),
        ("ftp://me:S3cret@127.0.0.1", "ftp://me:***@127.0.0.1: expected sqlite:///FILE"),
    ],
)
@pytest.mark.parametrize("option", [True, False], ids=["--tracking-uri", "MLFLOW_TRACKING_URI"])
def test_a_password_is_in_no_error(
    store: SweepStore, closed_port: int, command_line: CommandLine, uri: str, printed: str, option: bool
) -> None:
    address = uri.format(port=closed_port)
    if not option:
        os.environ["MLFLOW_TRACKING_URI"] = address
    words = ["--tracking-uri", address] if option else []
    code, out, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir, *words)
    assert (code, out) == (2, "")
    where = "--tracking-uri" if option else "MLFLOW_TRACKING_URI"
    assert errors.startswith(f"orchestrator: {where} {printed.format(port=closed_port)}")
    assert errors.count("\n") == 1
    assert "S3c" not in errors


@pytest.mark.parametrize("uri", ["postgresql://me:S3cret@db/m", "http://me:S3cret@mlflow:5000"])
def test_a_password_is_in_no_command_that_is_told(store: SweepStore, uri: str) -> None:
    options = Options(chosen_uri(uri, store.runs))
    console = Console(file=io.StringIO(), width=200)
    assert conclude(store, None, console, options) == 1
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "S3cret" not in told
    printed = "http://mlflow:5000" if uri.startswith("http") else '"$MLFLOW_TRACKING_URI"'
    assert f"--tracking-uri {printed}" in told
    assert uri.startswith("postgresql") or os.environ["MLFLOW_TRACKING_PASSWORD"] == "S3cret"


def test_a_command_that_is_told_takes_a_password_from_the_environment_as_it_stands(
    store: SweepStore, closed_port: int, tmp_path: Path
) -> None:
    """A shell runs it: with the variable it reaches the database, and without it does not take the default."""
    uri = f"postgresql://me:{ENCODED_PASSWORD}@127.0.0.1:{closed_port}/m"
    told = f"sync hand{as_arguments(store, Options(uri))}"
    shell = ["sh", "-c", f"exec {PROGRAM} {told}"]
    for changes, expected in (
        ({"MLFLOW_TRACKING_URI": uri}, f"MLFLOW_TRACKING_URI postgresql://me:***@127.0.0.1:{closed_port}/m: the data"),
        ({}, "--tracking-uri: is empty; is it a variable that is not set?"),
    ):
        ran = subprocess.run(
            shell, cwd=tmp_path, env=environment(**changes), capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"orchestrator: {expected}")
        assert ran.stderr.count("\n") == 1
    assert not (store.runs_dir / "mlflow.db").exists()

    os.environ["MLFLOW_TRACKING_URI"] = uri
    assert as_arguments(store, Options(uri)) == f" --runs-dir {store.runs_dir}"


@pytest.mark.parametrize(
    ("uri", "plain", "user", "password"),
    [
        ("http://me:S3cret@mlflow:5000/x", "http://mlflow:5000/x", "me", "S3cret"),
        (f"https://a%40b:{ENCODED_PASSWORD}@mlflow", "https://mlflow", "a@b", PASSWORD),
        ("https://me:p:q@r@mlflow", "https://mlflow", "me", "p:q@r"),
        ("https://me@mlflow", "https://mlflow", "me", None),
        ("https://mlflow:5000/teams/a@b", "https://mlflow:5000/teams/a@b", None, None),
        ("https://mlflow", "https://mlflow", None, None),
        ("postgresql://me:S3cret@db/m", "postgresql://me:S3cret@db/m", None, None),
    ],
)
def test_user_and_password_move_from_the_address_to_where_mlflow_reads_them(
    uri: str, plain: str, user: str | None, password: str | None
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        os.environ.pop(name, None)
    assert without_password(uri) == plain
    assert os.environ.get("MLFLOW_TRACKING_USERNAME") == user
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") == password


# --- MLFLOW_TRACKING_URI --------------------------------------------------------------------------------------------


def test_mlflows_own_variable_is_honoured_and_told(
    store: SweepStore, tracking_uri: str, tmp_path: Path, command_line: CommandLine, closed_port: int
) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri = f"http://127.0.0.1:{closed_port}"
    code, _, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir)
    assert code == 2
    assert errors.startswith(f"orchestrator: MLFLOW_TRACKING_URI {uri}: no MLflow server answers there (")
    assert chosen_uri(None, store.runs) == uri
    assert chosen_uri(tracking_uri, store.runs) == tracking_uri
    assert resume_command(store, Options(uri)).endswith(f" --tracking-uri {uri}")
    ours = resume_command(store, Options(default_uri(store.runs)))  # else it would go to the variable's server
    assert ours.endswith(f" --tracking-uri {default_uri(store.runs)}")
    assert command_line("ui")[:2] == (0, f"all sweeps: {uri}/#/experiments?workflowType=machine_learning\n")
    os.environ["MLFLOW_TRACKING_URI"] = ""
    assert chosen_uri(None, store.runs) == tracking_uri
    assert "--tracking-uri" not in resume_command(store, Options(tracking_uri))


def test_an_option_that_is_empty_is_not_the_default(store: SweepStore, command_line: CommandLine) -> None:
    code, _, errors = command_line("sync", "hand", "--runs-dir", store.runs_dir, "--tracking-uri", "")
    assert code == 2
    assert "--tracking-uri: is empty" in errors


# --- paths that look like something else in a URI -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a%41", "a?b=c", "a#b", "100% ?#&"])
def test_a_runs_directory_keeps_its_database_and_artifacts_whatever_it_is_called(
    tmp_path: Path, name: str, command_line: CommandLine
) -> None:
    store = make_sweep(tmp_path / name)
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5})
    before = set(tmp_path.iterdir())
    ran = command_line("sync", "hand", "--runs-dir", store.runs_dir)
    assert ran == (0, "MLflow is up to date with 'hand'.\n", "")
    assert set(tmp_path.iterdir()) == before
    assert (store.runs_dir / "mlflow.db").is_file()
    run = dump(default_uri(store.runs), "hand")[f"{entry.label} seed={entry.seed}"]
    assert files_of(run) == expected_files(store.trial(entry.trial_id))
    pictures = [*(store.runs_dir / "mlflow-artifacts").rglob("*.png")]
    assert len(pictures) == len(store.trial(entry.trial_id).sample_files())


def test_what_is_printed_of_an_address_without_a_password_is_the_address() -> None:
    for uri in ("sqlite:////tmp/a@b/mlflow.db", "http://mlflow:5000", "postgresql://me@db/m"):
        assert shown(uri) == uri

"""MLflow is killed or deleted, or does not answer, and no trial and no point is lost.

A real ``mlflow server`` that dies by SIGKILL in the middle of two sweeps. One of them ends before it is back, the other
after. Both wait in their middle for what is to happen to the server, so that it is the same on a slow machine.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import Cluster, CommandLine, environment, free_port, started, wait_until
from hand_made import finish, make_sweep, write_file
from mlflow_dump import Dump, dump, expected_files, expected_points, files_of, points_of
from rich.console import Console

from orchestrator.driver.conclusion import conclude
from orchestrator.driver.mirroring import MirrorThread
from orchestrator.driver.options import Options
from orchestrator.driver.preparation import prepare
from orchestrator.results.comparison import comparison_table
from orchestrator.results.verdict_text import answer
from orchestrator.store.states import State
from orchestrator.store.sweep import SweepStore
from orchestrator.store.trial import TrialStore
from orchestrator.tracking.address import quiet_client
from orchestrator.tracking.mirror import Mirror
from orchestrator.trial.run import run_trial

pytestmark = pytest.mark.long

POINTS = """\
name: NAME
base: [dataset=mixture, evaluation=none, batch_size=8, budget=500, evaluation.times=3, device=cpu]
seeds: 2
"""


class Server:
    """``mlflow server``, as ``orchestrator ui`` starts it, in a process group of its own."""

    def __init__(self, folder: Path, empty_database: Path) -> None:
        port = free_port()
        shutil.copy(empty_database, folder / "mlflow.db")
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server. Does not wait for it, which takes about ten seconds."""
        changes = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment(**changes), stdout=log, stderr=log, start_new_session=True
            )

    def answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as got:
            return got.status == http.client.OK
        return False

    def wait(self) -> None:
        wait_until(self.answers)

    def kill(self) -> None:
        """Kills all its processes at once, like a power cut."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Server]:
    """A server that starts with the first test, which does not need it, and is ready for the tests that do."""
    serving = Server(tmp_path_factory.mktemp("server"), empty_database)
    serving.start()
    try:
        yield serving
    finally:
        serving.kill()


@dataclass
class Ended:
    """A sweep at its end: what it printed last, its exit code, where its points are."""

    store: SweepStore
    code: int
    shown: str
    uri: str

    def trials(self) -> list[TrialStore]:
        return [self.store.trial(entry.trial_id) for entry in self.store.entries()]

    def check_trials(self) -> None:
        """Asserts that the failure of MLflow did not affect the trials."""
        for trial in self.trials():
            assert trial.status().state is State.DONE
            assert len(trial.status().attempts) == 1
            assert [record["epoch"] for record in trial.epochs()] == list(range(31))
        assert self.code == 0
        assert f"{self.store.name}: 2 DONE" in self.shown

    def check_mirror(self, runs: Dump) -> None:
        """Asserts one run per trial and every stored epoch once."""
        assert len(runs) == 3
        for entry, trial in zip(self.store.entries(), self.trials(), strict=True):
            run = runs[f"{entry.label} seed={entry.seed}"]
            assert points_of(run) == expected_points(trial)
            assert run["status"] == "FINISHED"
            assert run["tags"]["state"] == "DONE"
            assert len(trial.sample_files()) == 4
            assert files_of(run) == expected_files(trial)
            assert [model["status"] for model in run["models"]] == ["READY"]
        assert runs[self.store.name]["status"] == "FINISHED"


def mirrored(uri: str, sweep: str) -> int:
    """The number of points of ``iteration`` in MLflow for a sweep's trials; 0 while MLflow does not answer."""
    client = quiet_client(uri)
    with contextlib.suppress(Exception):  # MLflow raises many types while it is away or being set up
        experiment = client.get_experiment_by_name(sweep)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return sum(len(client.get_metric_history(run.info.run_id, "iteration")) for run in runs)
    return 0


@contextlib.contextmanager
def held(trial: TrialStore) -> Iterator[None]:
    """Holds the worker of a trial as soon as it has stored three epochs."""
    wait_until(lambda: len(trial.epochs()) >= 3)
    pid = trial.status().attempts[-1].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def run_here(store: SweepStore, uri: str, meanwhile: Callable[[int], None]) -> Ended:
    """Runs a sweep without Ray. ``meanwhile`` is called after each epoch of the first trial."""
    console = Console(file=io.StringIO(), width=200)
    mirroring = MirrorThread(store, uri)
    mirroring.start()
    first, *others = (store.trial(trial_id) for trial_id in prepare(store))
    run_trial(first, store.cache_dir, on_epoch=lambda record: meanwhile(record["epoch"]))
    for trial in others:
        run_trial(trial, store.cache_dir)
    code = conclude(store, mirroring, console, Options(uri))
    assert isinstance(console.file, io.StringIO)
    return Ended(store, code, console.file.getvalue(), uri)


def told_command(shown: str, before: str) -> list[str]:
    """The arguments of the command that follows these words."""
    line = next(line for line in shown.splitlines() if before in line)
    program, *arguments = shlex.split(line.partition(before)[2])
    assert program == "orchestrator"
    return arguments


SYNC = """
import contextlib, sys
from orchestrator.cli import main
for name in ("hand", "deleted"):
    sys.argv = ["orchestrator", "sync", name]
    with contextlib.suppress(SystemExit):
        main()
"""


def copied(uri: str, folder: Path) -> str:
    """A database under another name: within one process MLflow would answer from a file that has been deleted."""
    copy = folder / f"{secrets.token_hex(4)}.db"
    shutil.copy(uri.removeprefix("sqlite:///"), copy)
    return f"sqlite:///{copy}"


def test_a_database_that_is_deleted_even_while_a_sweep_runs_is_made_again_and_has_every_point(
    store: SweepStore, tracking_uri: str, tmp_path: Path
) -> None:
    """Of a sweep that was level before, everything is as it was, but for what tells two runs apart."""
    for entry in store.entries():
        finish(store, entry, {"exact_w1": 0.5})
    Mirror(store, tracking_uri).finish(verdict=answer(comparison_table(store)))
    before = dump(copied(tracking_uri, tmp_path), "hand", times=False)
    running = make_sweep(tmp_path, POINTS.replace("NAME", "deleted"))

    def delete(epoch: int) -> None:
        if epoch == 3:
            wait_until(lambda: mirrored(tracking_uri, "deleted") >= 3)
            (running.runs_dir / "mlflow.db").unlink()

    ended = run_here(running, tracking_uri, delete)
    ended.check_trials()

    both = [sys.executable, "-c", SYNC]
    ran = subprocess.run(both, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ran.stdout == "MLflow is up to date with 'hand'.\nMLflow is up to date with 'deleted'.\n", ran.stderr
    after = copied(tracking_uri, tmp_path)
    ended.check_mirror(dump(after, "deleted"))
    assert dump(after, "hand", times=False) == before


def test_what_an_offline_sweep_did_not_finish_goes_on_offline(store: SweepStore) -> None:
    console = Console(file=io.StringIO(), width=200)
    assert conclude(store, None, console, Options(None, "127.0.0.1:1", 3)) == 1
    assert isinstance(console.file, io.StringIO)
    told = told_command(console.file.getvalue(), "go on with: ")
    assert told[:2] == ["resume", "hand"]
    assert told[-5:] == ["--address", "127.0.0.1:1", "--offline", "--max-concurrent", "3"]


@pytest.mark.parametrize("command", ["sweep", "resume"])
def test_where_nobody_answers_nothing_is_begun_and_the_way_without_is_told(
    tmp_path: Path, closed_port: int, command_line: CommandLine, command: str
) -> None:
    if command == "resume":
        make_sweep(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    path = write_file(tmp_path / "file", POINTS.replace("NAME", "hand"))
    words = ["sweep", path] if command == "sweep" else ["resume", "hand"]
    uri = f"http://127.0.0.1:{closed_port}"
    code, out, message = command_line(*words, "--tracking-uri", uri, "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert message.startswith(f"orchestrator: --tracking-uri {uri}: no MLflow server answers there (")
    sync = f"orchestrator sync hand --runs-dir {tmp_path / 'runs'} --tracking-uri {uri}"
    assert message.endswith(f"; with --offline nothing is written to MLflow until: {sync}\n")
    assert message.count("\n") == 1
    assert sorted(set(tmp_path.rglob("*")) - {path, path.parent}) == before


@dataclass
class Outage:
    """Two sweeps during which the server was killed. It was back before the first one ended, but not the second."""

    returned: Ended
    gone: Ended
    behind: Dump
    """What the server had of the second sweep when it was back."""


@pytest.fixture(scope="module")
def outage(server: Server, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    returned = make_sweep(tmp_path_factory.mktemp("returned"), POINTS.replace("NAME", "returned"))
    folder = tmp_path_factory.mktemp("gone")
    path, gone = write_file(folder, POINTS.replace("NAME", "gone")), SweepStore(folder / "runs", "gone")
    arguments = ["sweep", path, "--tracking-uri", server.uri, "--max-concurrent", 1, *cluster.arguments]
    server.wait()
    known: list[Ended | Dump] = []
    with started(*arguments, cwd=folder, **cluster.environment) as running:

        def meanwhile(epoch: int) -> None:
            if epoch == 3:
                wait_until((gone.path / "plan.json").exists)
                with held(gone.trial(gone.entries()[0].trial_id)):
                    wait_until(lambda: all(mirrored(server.uri, name) >= 3 for name in ("gone", "returned")))
                    server.kill()
            if epoch == 8:
                code, out, _ = running.end()
                server.start()
                server.wait()
                known.extend([Ended(gone, code, out, server.uri), dump(server.uri, "gone")])

        ended = run_here(returned, server.uri, meanwhile)
    ended_without, behind = known
    assert isinstance(ended_without, Ended)
    assert isinstance(behind, dict)
    return Outage(ended, ended_without, behind)


def test_a_server_that_was_away_for_a_while_has_missed_nothing(outage: Outage) -> None:
    outage.returned.check_trials()
    assert "MLflow is behind" not in outage.returned.shown
    outage.returned.check_mirror(dump(outage.returned.uri, "returned"))


def test_a_server_that_does_not_come_back_is_brought_level_by_the_command_that_the_end_tells(
    outage: Outage, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = outage.gone
    gone.check_trials()
    lines = [line for line in gone.shown.splitlines() if line.startswith("MLflow is behind (")]
    assert len(lines) == 1
    arguments = told_command(gone.shown, "update it with: ")
    assert arguments == ["sync", "gone", "--tracking-uri", gone.uri]
    monkeypatch.chdir(gone.store.runs_dir.parent)
    stored = sum(len(trial.epochs()) for trial in gone.trials())
    assert 0 < sum(len(run["metrics"].get("iteration", [])) for run in outage.behind.values()) < stored

    code, out, _ = command_line(*arguments)
    assert (code, out.splitlines()[-1]) == (0, "MLflow is up to date with 'gone'.")
    level = dump(gone.uri, "gone")
    gone.check_mirror(level)
    assert {name: level[name]["id"] for name in outage.behind} == {n: run["id"] for n, run in outage.behind.items()}
    assert command_line(*arguments)[0] == 0
    assert dump(gone.uri, "gone") == level


def test_what_mlflow_would_say_to_its_own_users_stays_out_of_what_we_say(
    outage: Outage, command_line: CommandLine
) -> None:
    gone = outage.gone
    words = ["sync", "gone", "--runs-dir", gone.store.runs_dir, "--tracking-uri", gone.uri]
    assert command_line(*words)[:2] == (0, "MLflow is up to date with 'gone'.\n")


class Forgetful(BaseHTTPRequestHandler):
    """Passes requests on to the server, but drops the first answer to each request that makes a run."""

    server: Losing

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if self.path.endswith("runs/create") and body not in self.server.lost:
            self.server.lost.add(body)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


class Losing(ThreadingHTTPServer):
    """Stands before an MLflow server."""

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Forgetful)
        self.upstream = upstream
        self.lost: set[bytes] = set()


def test_an_answer_that_got_lost_makes_no_second_run(store: SweepStore, server: Server, outage: Outage) -> None:
    """The server made the run but died, or was too slow to answer. MLflow's client then repeats the request itself."""
    entry = store.entries()[0]
    finish(store, entry, {"exact_w1": 0.5})
    between = Losing(server.uri.removeprefix("http://"))
    uri = f"http://127.0.0.1:{between.server_port}"
    threading.Thread(target=between.serve_forever, daemon=True).start()
    try:
        mirroring = MirrorThread(store, uri)
        wait_until(lambda: mirroring.finish() is None)  # as often as a driver would
        assert len(between.lost) >= 2  # of the sweep's run, and of the trial's
        Mirror(store, uri).finish()
        assert set(dump(uri, store.name)) == {store.name, f"{entry.label} seed={entry.seed}"}
    finally:
        between.shutdown()
        between.server_close()

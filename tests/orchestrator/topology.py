"""The services of ``docker-compose.yml``, started by the same scripts as processes on machines of :mod:`network`.

They are PostgreSQL, an S3 server, MLflow's server with passwords, and a Ray head and two Ray workers with a token.
Every password and token is random.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from command_line import PROGRAM, environment, wait_until
from network import Machine, Started, machines, why_not
from object_stores import S3_SERVER

DOCKER = Path(__file__).parents[2] / "docker"
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
POSTGRESQL = BINARIES[-1] if BINARIES else Path("/nowhere")
MACHINES = ("database", "objects", "mlflow", "head", "worker1", "worker2")
WATCHFUL = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
"""Ray gives a node up after 3 s without an answer, and a node ends after 10 s without its head."""


def _secret() -> str:
    return secrets.token_hex(16)


@dataclass
class Topology:
    """The machines, with the passwords and tokens of their services."""

    folder: Path
    machines: dict[str, Machine]
    database_password: str = field(default_factory=_secret)
    mlflow_password: str = field(default_factory=_secret)
    session_key: str = field(default_factory=_secret)
    ray_token: str = field(default_factory=_secret)
    object_keys: tuple[str, str] = field(default_factory=lambda: (_secret(), _secret()))

    def address(self, name: str) -> str:
        return self.machines[name].address

    @property
    def ray_address(self) -> str:
        return f"{self.address('head')}:6379"

    @property
    def tracking_uri(self) -> str:
        return f"http://{self.address('mlflow')}:5000"

    def ray_environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.ray_token}

    def mlflow_environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.mlflow_password}

    def object_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address('objects')}:8333",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.object_keys[0],
            "AWS_SECRET_ACCESS_KEY": self.object_keys[1],
        }

    def database_environment(self) -> dict[str, str]:
        return {"PGHOST": self.address("database"), "PGUSER": "mlflow", "PGPASSWORD": self.database_password}

    def everything(self) -> dict[str, str]:
        """The environment that a driver needs."""
        return {**self.ray_environment(), **self.mlflow_environment(), **self.object_environment()}

    def start(self, name: str, command: list[object], log: str, **changes: str) -> Started:
        """Starts a process on a machine, with the machine's home. Its output goes to ``log.out`` and ``log.err``."""
        known = environment(PATH=f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}", HOME=str(self.home(name)))
        known.pop("XDG_CACHE_HOME", None)
        return self.machines[name].start(command, self.folder / log, known | changes)

    def home(self, name: str) -> Path:
        """The home directory of a machine. Each machine has its own, so that they share no files."""
        return self.folder / "homes" / name

    def start_database(self) -> None:
        """Starts PostgreSQL with the databases that MLflow needs. It refuses to run as root."""
        home = self.folder / "postgresql"
        home.mkdir()
        (home / "password").write_text(self.database_password)
        for path in (home, home / "password"):
            shutil.chown(path, "postgres", "postgres")
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initialise = [*as_postgres, POSTGRESQL / "initdb", "-D", home / "data", "-U", "mlflow", "--no-sync"]
        initialise += ["--pwfile", home / "password", "--auth", "scram-sha-256", "--encoding", "UTF8"]
        self.start("database", initialise, "initdb").succeed()
        with (home / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        serve = [*as_postgres, POSTGRESQL / "postgres", "-D", home / "data", "-c", "fsync=off"]
        serve += ["-c", f"listen_addresses={self.address('database')}", "-c", f"unix_socket_directories={home}"]
        self.start("database", serve, "postgres")
        ready = [POSTGRESQL / "pg_isready", "-h", self.address("database")]
        wait_until(lambda: self.start("mlflow", ready, "ready").end()[0] == 0, pause=0.3)
        self.sql("postgres", "CREATE DATABASE mlflow").succeed()
        self.sql("mlflow", (DOCKER / "postgres" / "mlflow_auth.sql").read_text()).succeed()

    def sql(self, database: str, statement: str, **changes: str) -> Started:
        """Sends a statement to PostgreSQL from MLflow's machine."""
        command: list[object] = [POSTGRESQL / "psql", "-At", "-c", statement, database]
        return self.start("mlflow", command, "psql", **{**self.database_environment(), **changes})

    def points(self) -> int:
        """The number of points in MLflow's database."""
        code, out, _ = self.sql("mlflow", "SELECT count(*) FROM metrics").end()
        return int(out) if code == 0 else 0

    def start_objects(self) -> None:
        """Starts an S3 server that keeps everything in memory."""
        command = [sys.executable, S3_SERVER, self.address("objects"), 8333]
        self.start("objects", command, "objects")

    def make_buckets(self) -> None:
        command = [sys.executable, DOCKER / "make_buckets.py", "runs", "mlflow"]
        self.start("mlflow", command, "buckets", **self.object_environment()).succeed()

    def start_mlflow(self) -> None:
        """Starts MLflow's server. Does not wait for it, which takes about fifteen seconds."""
        changes = {
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.mlflow_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.session_key,
            "MLFLOW_SERVER_ALLOWED_HOSTS": self.tracking_uri.removeprefix("http://"),
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
            "MLFLOW_HOST": self.address("mlflow"),
            "MLFLOW_WORKERS": "1",
            "TMPDIR": str(self.folder),
        }
        secret = {**self.database_environment(), **self.object_environment()}
        self.start("mlflow", ["sh", DOCKER / "mlflow.sh"], "mlflow", **secret, **changes)

    def wait_for_mlflow(self) -> None:
        wait_until(lambda: self.http_status(f"{self.tracking_uri}/health") == 200, pause=0.5)

    def http_status(self, url: str, user: str | None = None, host: str | None = None) -> int:
        """The HTTP status of a request from the head's machine; 0 if there is no answer."""
        words: list[object] = ["curl", "--silent", "--output", os.devnull, "--write-out", "%{http_code}", url]
        words += ["--max-time", 20, *(["--user", user] if user else [])]
        words += ["--header", f"Host: {host}"] if host else []
        return int(self.start("head", words, "curl").end()[1])

    def start_head(self) -> Started:
        """Starts Ray's head. Does not wait for it."""
        return self._start_ray("head", "ray-head.sh", "--include-dashboard", "false", "--no-monitor")

    def start_worker(self, name: str, processors: int, **changes: str) -> Started:
        """Starts a Ray worker. Waits for the head, but not for the worker."""
        head = ["bash", "-c", f": < /dev/tcp/{self.address('head')}/6379"]
        wait_until(lambda: self.start(name, head, "head-answers").end()[0] == 0, pause=0.3)
        return self._start_ray(name, "ray-worker.sh", "--num-cpus", processors, **changes)

    def _start_ray(self, name: str, script: str, *options: object, **changes: str) -> Started:
        temporary = tempfile.mkdtemp(prefix="ray", dir=self.folder)  # new, because a container starts without one
        words = ["sh", DOCKER / script, "--node-ip-address", self.address(name), "--temp-dir", temporary]
        words += ["--include-log-monitor", "false"]  # no test reads what it passes on
        known = {
            "RAY_HEAD_ADDRESS": self.ray_address,
            "RAY_AUTH_TOKEN": self.ray_token,
            "RAY_OBJECT_STORE_BYTES": "100000000",
        }
        return self.start(name, [*words, *options], name, **WATCHFUL, **self.object_environment(), **(known | changes))

    def wait_for_node(self, node: Started) -> None:
        """Waits until a head or a worker prints that it runs."""
        wait_until(lambda: "Ray runtime started" in node.out.read_text() + node.err.read_text())
        assert node.process.poll() is None, node.out.read_text() + node.err.read_text()

    def orchestrator(self, *arguments: object, log: str, **changes: str) -> Started:
        """Starts a driver on the head's machine with :meth:`everything` and these changes. An empty change unsets."""
        known = {key: value for key, value in (self.everything() | changes).items() if value}
        return self.start("head", [PROGRAM, *arguments], log, **known)


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    """The machines, before any service is started."""
    with tempfile.TemporaryDirectory(prefix="oc-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # PostgreSQL's user has to pass through it
        with machines(*MACHINES) as made:
            yield Topology(Path(folder), made)


def what_is_missing() -> str | None:
    """Why the topology cannot run here; None if it can."""
    for command in ("curl", "setpriv"):
        if shutil.which(command) is None:
            return f"there is no command '{command}'"
    if not (POSTGRESQL / "initdb").exists():
        return "there is no PostgreSQL in /usr/lib/postgresql"
    with contextlib.suppress(KeyError):
        pwd.getpwnam("postgres")
        return why_not()
    return "there is no user 'postgres'"

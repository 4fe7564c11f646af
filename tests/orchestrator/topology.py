"""What ``docker-compose.yml`` brings up, as real processes on machines of their own (:mod:`network`).

PostgreSQL, an S3 server, MLflow's server behind its authentication, a Ray head and two Ray workers behind a token.
Nothing has a password or a token by default: each is random.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from command_line import PROGRAM, environment, wait_until
from network import Machine, machines

POSTGRESQL = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
MACHINES = ("database", "objects", "mlflow", "head", "worker1", "worker2")
PATIENCE = 150.0
SECONDS_TO_LOSE_A_NODE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}


def secret() -> str:
    return secrets.token_hex(16)


@dataclass
class Topology:
    """The machines, and what is needed to be let in."""

    folder: Path
    machines: dict[str, Machine]
    database_password: str = field(default_factory=secret)
    mlflow_password: str = field(default_factory=secret)
    ray_token: str = field(default_factory=secret)
    access_key: str = field(default_factory=secret)
    secret_key: str = field(default_factory=secret)
    session_key: str = field(default_factory=secret)
    mlflow: subprocess.Popen[bytes] | None = None

    def address(self, name: str) -> str:
        return self.machines[name].address

    @property
    def ray(self) -> str:
        return f"{self.address('head')}:6379"

    @property
    def tracking_uri(self) -> str:
        return f"http://{self.address('mlflow')}:5000"

    def database_uri(self, database: str, password: str | None = None) -> str:
        return f"postgresql+psycopg2://mlflow:{password or self.database_password}@{self.address('database')}:5432/{database}"

    @property
    def ray_environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.ray_token}

    @property
    def mlflow_environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.mlflow_password}

    @property
    def object_environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address('objects')}:5000",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start_database(self) -> None:
        """PostgreSQL refuses root; its databases are there on return."""
        assert POSTGRESQL is not None
        home = Path(tempfile.mkdtemp(prefix="orchestrator-postgresql-", dir=self.folder))
        (home / "password").write_text(self.database_password)
        for path in (home, home / "password"):
            shutil.chown(path, "postgres", "postgres")
        data, machine = home / "data", self.machines["database"]
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initialise = [POSTGRESQL / "initdb", "-D", data, "-U", "mlflow", "--pwfile", home / "password"]
        initialise += ["--auth", "scram-sha-256", "--no-sync", "--no-instructions", "--encoding", "UTF8"]
        done = machine.run([*as_postgres, *initialise], environment())
        assert done.returncode == 0, done.stderr
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")
        options = ["-c", f"listen_addresses={machine.address}", "-c", f"unix_socket_directories={home}"]
        options += ["-c", "fsync=off"]
        log = self.folder / "postgresql.log"
        machine.start([*as_postgres, POSTGRESQL / "postgres", "-D", data, *options], log, environment())
        ready = [POSTGRESQL / "pg_isready", "-h", machine.address]
        wait_until(lambda: machine.run(ready, environment()).returncode == 0, PATIENCE)
        for database in ("mlflow", "users"):
            made = self.sql("postgres", f"CREATE DATABASE {database}")
            assert made.returncode == 0, made.stderr

    def sql(self, database: str, statement: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
        """What PostgreSQL answers on MLflow's machine."""
        uri = self.database_uri(database, password).replace("+psycopg2", "")
        assert POSTGRESQL is not None
        return self.machines["mlflow"].run([POSTGRESQL / "psql", "-At", uri, "-c", statement], environment())

    def start_objects(self) -> None:
        command = [sys.executable, "-m", "moto.server", "--host", self.address("objects"), "--port", 5000]
        self.machines["objects"].start(command, self.folder / "objects.log", environment())

    def start_mlflow(self) -> None:
        """Does not wait: it takes some fifteen seconds."""
        settings = self.folder / "users.ini"
        uri = self.database_uri("users")
        settings.write_text(f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {uri}\n")
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", 1]
        command += ["--host", self.address("mlflow"), "--port", 5000, "--allowed-hosts", f"{self.address('mlflow')}:5000"]
        command += ["--backend-store-uri", self.database_uri("mlflow"), "--artifacts-destination", "s3://mlflow/artifacts"]
        changes = {
            **self.object_environment,
            "MLFLOW_S3_ENDPOINT_URL": self.object_environment["AWS_ENDPOINT_URL"],
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.mlflow_password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.session_key,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.machines["mlflow"].start(command, self.folder / "mlflow.log", environment(**changes))

    def mlflow_answers(self) -> bool:
        return self.status_of(f"{self.tracking_uri}/health") == "200"

    def status_of(self, url: str, *options: str) -> str:
        """What a request from the head's machine is answered with; 000 if nobody answers."""
        command = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "20"]
        return self.machines["head"].run([*command, *options, url], environment()).stdout

    def start_head(self) -> None:
        """Does not wait, as ``docker/`` runs it: in the foreground."""
        self._start_ray("head", ["--head", "--port", 6379, "--num-cpus", 0, "--include-dashboard", "false"])

    def start_worker(self, name: str) -> None:
        self._start_ray(name, ["--address", self.ray, "--num-cpus", 1])

    def _start_ray(self, name: str, options: list[object]) -> None:
        machine = self.machines[name]
        temporary = self.folder / name
        command = [PROGRAM.with_name("ray"), "start", *options, "--node-ip-address", machine.address, "--block"]
        command += ["--temp-dir", temporary, "--object-store-memory", 100_000_000, "--disable-usage-stats"]
        changes = {**self.ray_environment, **SECONDS_TO_LOSE_A_NODE, **self.object_environment}
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        machine.start(command, log, environment(**changes))

    def ray_runs(self, name: str) -> bool:
        """Whether a node has joined, or the head is there."""
        log = self.folder / f"{name}.log"
        return log.exists() and "Ray runtime started" in log.read_text()


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    with tempfile.TemporaryDirectory(prefix="oc-", dir="/tmp") as folder, machines(*MACHINES) as made:
        os.chmod(folder, 0o711)  # the database's user goes through
        yield Topology(Path(folder), made)

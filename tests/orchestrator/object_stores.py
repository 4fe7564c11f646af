"""A real S3 server, and a network connection to it that a test can cut or slow down."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
from command_line import free_port, wait_until

from orchestrator.remote.replica import Replica
from orchestrator.store.runs import Runs

METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")
BUCKET = "bucket"
S3_SERVER = Path(__file__).with_name("s3_server.py")


@contextlib.contextmanager
def s3_server(log: Path) -> Iterator[int]:
    """An S3 server with an empty bucket, on a port of the loopback interface."""
    port = free_port()
    command = [sys.executable, str(S3_SERVER), "127.0.0.1", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            wait_until(lambda: answers(port))
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **CREDENTIALS)
            client.create_bucket(Bucket=BUCKET)
            yield port
        finally:
            process.kill()


@contextlib.contextmanager
def keys_asked_for(port: int) -> Iterator[str]:
    """Makes the S3 server check keys and accept only the one that is returned. Otherwise it accepts any key."""
    iam = boto3.client("iam", endpoint_url=f"http://127.0.0.1:{port}", **CREDENTIALS)
    name = secrets.token_hex(4)
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    _let_in_without_keys(port, "0")
    try:
        yield key
    finally:
        _let_in_without_keys(port, "inf")


def _let_in_without_keys(port: int, requests: str) -> None:
    """Lets the next ``requests`` requests in without a check of their keys."""
    ask = urllib.request.Request(
        f"http://127.0.0.1:{port}/moto-api/reset-auth", requests.encode(), {"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(ask, timeout=60).close()


CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Network:
    """A proxy before a server. A test can cut it, at once or after a number of requests, and slow it down."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.requests = 0
        self._left: int | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, after: int = 0) -> None:
        """Ends every connection and refuses new ones, once ``after`` more requests have come through."""
        with self._lock:
            self._left = after
        if not after:
            self._end_all()

    def mend(self) -> None:
        with self._lock:
            self._left = None

    @property
    def is_cut(self) -> bool:
        return self._left == 0

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # otherwise a thread that waits in accept takes one more
        self._listener.close()
        self._end_all()

    def _end_all(self) -> None:
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server))
            with self._lock:
                self._open |= {client, server}
            for one, other, asks in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(one, other, asks), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while content := one.recv(65536):
                if asks and content.startswith(METHODS):
                    self._count()
                    time.sleep(self.delay)
                other.sendall(content)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= {one, other}
        one.close()

    def _count(self) -> None:
        with self._lock:
            self.requests += 1
            if self._left:
                self._left -= 1
                if self._left:
                    return
            elif self._left is None:
                return
        self._end_all()


class Place:
    """A runs directory as several machines see it: a shared folder, or one copy per machine of a bucket."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self._folder = folder
        self.url = url

    def seen_from(self, machine: str) -> Runs:
        if self.url is None:
            return self._folder / "runs"
        return Replica(self.url, self.copy_of(machine))

    def copy_of(self, machine: str) -> Path:
        copy = self._folder / machine
        copy.mkdir(exist_ok=True)
        return copy

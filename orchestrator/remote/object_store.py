"""Objects at any URL that fsspec knows. Errors of the object store are always raised as OSError."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import UserError

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long :meth:`ObjectStore.patiently` keeps trying while the object store cannot be reached."""
S3_OPTIONS: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
"""Short timeouts, so that a lost connection is noticed within seconds. We do the long retries ourselves."""


class ObjectStore:
    """The objects below ``url``, by key.

    Every method tries once and turns whatever the client raises into OSError. The constructor raises
    :class:`UserError` if fsspec does not know the kind of URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = _file_system(self.url)
        # With more than one connection the S3 client asks for an object's size before it reads the object.
        self._at_once = {"max_concurrency": 1} if self.url.startswith("s3://") else {}
        self._failing_since: float | None = None

    def patiently(self, attempt: Callable[[], T]) -> T:
        """The result of ``attempt``, which is repeated while it raises OSError.

        The error is raised after :data:`PATIENCE_SECONDS` in which no call of this method succeeded.
        """
        pause = 0.5
        while True:
            try:
                result = attempt()
            except OSError:
                now = time.monotonic()
                self._failing_since = self._failing_since or now
                if now + pause > self._failing_since + PATIENCE_SECONDS:
                    raise
            else:
                self._failing_since = None
                return result
            time.sleep(pause)
            pause = min(pause * 2, 15.0)

    def names(self, folder: str = "") -> list[str]:
        """The names directly below a folder, sorted."""
        with _as_os_errors():
            try:
                found = self._fs.ls(self._path(folder), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted({str(name).rstrip("/").rpartition("/")[2] for name in found} - {""})

    def read(self, key: str) -> bytes | None:
        """An object's content; None if there is no such object."""
        with _as_os_errors():
            try:
                return self._fs.cat_file(self._path(key), **self._at_once)
            except FileNotFoundError:
                return None

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self.read(key) is not None

    def write(self, key: str, content: bytes) -> None:
        """Replaces an object."""
        with _as_os_errors():
            self._fs.pipe_file(self._path(key), content)

    def create(self, key: str, content: bytes) -> bool:
        """Writes an object if it does not exist yet. Returns False if another process created it first.

        ``content`` must differ from what any other process writes.
        """
        with _as_os_errors():
            try:
                self._fs.pipe_file(self._path(key), content, mode="create")
            except FileExistsError:
                return self.read(key) == content  # our first try may have succeeded and its answer been lost
        return True

    def delete(self, key: str) -> None:
        """Deletes an object if it exists."""
        with _as_os_errors(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def age(self, key: str) -> float:
        """Seconds since an object was written, by the store's clock. Raises FileNotFoundError."""
        now = f"{key.rpartition('/')[0]}/.now-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
        self.write(now, b"")
        try:
            with _as_os_errors():
                return (self._fs.modified(self._path(now)) - self._fs.modified(self._path(key))).total_seconds()
        finally:
            self.delete(now)

    def list(self, prefix: str) -> dict[str, tuple[str, int]]:
        """Every object at or below a prefix: its version and its size in bytes, by key.

        The version changes with the content.
        """
        with _as_os_errors():
            try:
                found = self._fs.find(self._path(prefix), detail=True, refresh=True)
            except FileNotFoundError:
                return {}
        start = len(self._root) + 1
        return {str(name)[start:]: (_version(info), info["size"]) for name, info in found.items() if str(name)[start:]}

    def write_all(self, content: Mapping[str, bytes]) -> dict[str, str | None]:
        """Replaces several objects at once. Returns their versions; None where the object store does not report one."""
        with _as_os_errors():
            answers = self._fs.pipe({self._path(key): value for key, value in content.items()})
        told = answers if isinstance(answers, list) else [None] * len(content)
        pairs = zip(content, told, strict=True)
        return {key: answer.get("ETag") if isinstance(answer, dict) else None for key, answer in pairs}

    def put(self, file: Path, key: str) -> None:
        """Uploads a file of any size."""
        with _as_os_errors():
            self._fs.put_file(str(file), self._path(key))

    def get(self, files: Mapping[str, Path]) -> None:
        """Downloads objects, by key, into files. Raises FileNotFoundError if an object is missing."""
        if files:
            with _as_os_errors():
                self._fs.get([self._path(key) for key in files], [str(file) for file in files.values()])

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root


def _file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Raises :class:`UserError` for an unknown kind of URL."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith("s3://"):  # named, so that fsspec keeps one client per endpoint
        options |= {"config_kwargs": S3_OPTIONS, "endpoint_url": endpoint()}
    try:
        found, root = fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UserError(f"--runs-dir {url}: {error}") from None
    if hasattr(found, "retries"):
        found.retries = 1
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it prints a traceback per lost connection
    return found, str(root).rstrip("/")


def endpoint() -> str | None:
    """The URL of an S3 server other than AWS; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raises the exceptions that clients define themselves as ConnectionError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _version(info: dict[str, Any]) -> str:
    """A string that changes with an object's content."""
    for name in ("ETag", "etag", "md5Hash"):
        if info.get(name):
            return str(info[name])
    return " ".join(str(info.get(name)) for name in ("LastModified", "mtime", "created", "size"))

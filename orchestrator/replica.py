"""A runs directory in an object store, and this machine's copy of it.

Everything reads and writes ordinary files, in a copy that is brought level with the store when a command begins; what
is written goes to the store at once, in an order that leaves there, should it end anywhere, what a directory would have
had at some moment. An object is replaced whole, so no file is ever seen half-written. A trial's worker has a copy of
its own, and is the only one who writes that trial meanwhile. Any store that fsspec knows will do, if it has strongly
consistent listings and writes an object only if it is not there yet (S3, GCS and Azure do).
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import hashlib
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import UserError
from orchestrator.files import write_atomically

T = TypeVar("T")
Stamp = tuple[int, int]

PATIENCE_SECONDS = 300.0
"""How long what must be written is tried again while the store cannot be reached."""
S3_OPTIONS: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
"""So that a lost connection is seen within seconds: trying again is ours to do."""
CHECKPOINTS = "*.pt"
ABOUT = "about.json"
LOCAL = ("driver.json", "stop", "drivers")
"""What of a sweep no copy follows: this machine's driver, and what drivers and workers ask the store for by itself."""
ORDER = ("metrics.jsonl", "checkpoint-previous.pt", "checkpoint.pt", "best.pt", "status.json")
"""What a reader believes comes after what it rests on: no checkpoint before its epochs, no state before its files."""
FORK_ORDER = ("status.json", "metrics.jsonl")
"""A trial that has begun with another's files: until its epochs are there it is untouched, and would be forked anew."""
BATCH_BYTES = 64 * 2**20
FOLLOW_SECONDS = 3.0
"""How often one looks for what others have written."""
MANIFEST = ".objects.json"


class Replica:
    """The runs directory at ``url`` and its copy, the folder ``copy``. Keys are paths below either.

    Methods raise OSError, whatever the store's client raises, and try once unless they say otherwise.
    """

    def __init__(self, url: str, copy: Path) -> None:
        self.url = url.rstrip("/")
        self.copy = copy
        self._known: dict[str, dict[str, tuple[str | None, Stamp]]] = {}
        """By trial and key: the version of the object and the stamp of the file when both were level."""
        self._lock = threading.RLock()
        self._fs, self._root = _file_system(self.url)
        self._at_once = {"max_concurrency": 1} if self.url.startswith("s3://") else {}  # else it asks for a size before
        self._failing_since: float | None = None

    def __reduce__(self) -> tuple[type[Replica], tuple[str, Path]]:
        """Tune pickles whatever it is given."""
        return Replica, (self.url, self.copy)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """The result of an attempt, which is repeated while it raises OSError.

        After five minutes without a success, of this attempt and those before, the error is raised.
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

    def key(self, path: Path) -> str:
        """The key of a file or folder of the copy."""
        return path.relative_to(self.copy).as_posix()

    def names(self, folder: str = "") -> list[str]:
        """The names directly below a folder, sorted."""
        with _as_os_errors():
            try:
                found = self._fs.ls(self._path(folder), detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return sorted({str(name).rstrip("/").rpartition("/")[2] for name in found} - {""})

    def read(self, key: str) -> bytes | None:
        """An object's content; None if there is none."""
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
        """Writes an object if it is not there yet. ``content`` is nobody else's; False if somebody was faster."""
        with _as_os_errors():
            try:
                self._fs.pipe_file(self._path(key), content, mode="create")
            except FileExistsError:
                return self.read(key) == content  # the answer to a first try may have been lost
        return True

    def delete(self, key: str) -> None:
        """Deletes an object if it is there."""
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

    def pull(self, prefix: str, *, exact: bool = False, checkpoints: Collection[str] = ()) -> None:
        """Brings the files below ``prefix`` level with the store; of checkpoints those with these names.

        ``exact`` also undoes what was changed here and never came there: nobody else may be using the copy.
        """
        with self._lock:
            if exact:
                self._read_manifest(prefix)
            for last in (False, False, True):
                there = self._list(prefix)
                try:
                    self._download(
                        {
                            key: version
                            for key, version in there.items()
                            if not self._is_level(key, version)
                            and (not _is_checkpoint(key) or _name(key) in checkpoints)
                        }
                    )
                    break
                except FileNotFoundError:  # deleted after it was listed
                    if last:
                        raise
            for key in self._known_below(prefix):
                if key not in there or (_is_checkpoint(key) and not self._is_level(key, there[key])):
                    self._forget(key)
            if exact:
                for key in self._files(prefix):
                    if self._known_of(key) is None:
                        (self.copy / key).unlink(missing_ok=True)
                self._write_manifest(prefix)

    def pull_unless_driven(self, name: str, checkpoints: Collection[str] = ()) -> None:
        """An exact pull of a sweep, if no driver of this machine is keeping its copy level."""
        with self._pulling():
            with contextlib.suppress(FileNotFoundError), (self.copy / name / "driver.lock").open("a") as drivers:
                try:
                    fcntl.flock(drivers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
            self.pull(name, exact=True, checkpoints=checkpoints)

    def pull_as_driver(self, name: str) -> None:
        """The same for the driver: it waits for commands of this machine that are still at it."""
        with self._pulling():
            self.pull(name, exact=True)

    @contextlib.contextmanager
    def _pulling(self) -> Iterator[None]:
        with (self.copy / ".pull.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def at_hand(self, path: Path) -> Iterator[None]:
        """A file that stays in the store, a checkpoint say, is in the copy meanwhile, if it is there at all."""
        key = self.key(path)
        with self._lock:
            version = self._list(key).get(key)
            fetched = version is not None and not self._is_level(key, version)
            if version is not None and fetched:
                self._download({key: version})
        try:
            yield
        finally:
            with self._lock:
                if fetched and self._known_of(key):
                    self._forget(key)

    def has(self, path: Path) -> bool:
        """Whether the store has this file."""
        return self.key(path) in self._list(self.key(path))

    def push(self, prefix: str, last: tuple[str, ...] = ORDER, *, must: bool = True) -> bool:
        """Brings the store level with the files below ``prefix``, new, changed and gone.

        First checkpoints that have gone are deleted, then files are written, those with a name in ``last`` at the end
        and in that order. What ``must`` be there is tried again for minutes; the rest may wait for the next time:
        False if it does.
        """

        def attempt() -> None:
            with self._lock:
                self._push(prefix, last)

        if must:
            self.patiently(attempt)
            return True
        try:
            attempt()
        except OSError:
            return False
        return True

    def share(self, folder: Path) -> None:
        """Exchanges a cache's files with the store, both ways and by name: their content never changes.

        What has an ``about.json`` is a folder of arrays, which appears whole.
        """
        prefix = folder.name
        with self._lock:
            there = self._list(prefix)
            here = {f"{prefix}/{file.relative_to(folder).as_posix()}": file for file in _walk(folder)}
            missing = [key for key in there if key not in here]
            self._get([(key, folder.parent / key) for key in missing if not _is_array(key)])
            for about in [key for key in missing if _name(key) == ABOUT]:
                arrays = (folder.parent / about).parent
                incoming = arrays.with_name(f".{arrays.name}.{os.getpid()}.incoming")
                unit = [key for key in there if _below(key, about.rpartition("/")[0])]
                self._get([(key, incoming / _name(key)) for key in unit])
                try:
                    incoming.rename(arrays)
                except OSError:  # made here in the meantime
                    shutil.rmtree(incoming)
            for key in sorted(here.keys() - there.keys(), key=lambda key: _name(key) == ABOUT):
                with _as_os_errors():
                    self._fs.put_file(str(here[key]), self._path(key))

    @contextlib.contextmanager
    def outline(self, prefix: str) -> Iterator[Path]:
        """A runs directory that has every file below ``prefix``; what the copy has not is as long, but empty.

        What is deleted in it is deleted in the store at the end.
        """
        folder = self.copy / f".outline-{os.getpid()}"
        with _as_os_errors():
            found = self._fs.find(self._path(prefix), detail=True, refresh=True)
        sizes = {str(name)[len(self._root) + 1 :]: info["size"] for name, info in found.items()}
        keys = [key for key in sizes if not _stays_local(key)]
        try:
            for key in keys:
                (folder / key).parent.mkdir(parents=True, exist_ok=True)
                if (self.copy / key).exists():
                    os.link(self.copy / key, folder / key)
                else:
                    (folder / key).touch()
                    os.truncate(folder / key, sizes[key])
            yield folder
            for key in keys:
                if not (folder / key).exists():
                    self.delete(key)
                    if self._known_of(key):
                        self._forget(key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self, prefix: str) -> None:
        """Remembers what is level, so that the next command asks for the rest alone."""
        with self._lock, contextlib.suppress(OSError):
            self._write_manifest(prefix)

    def _push(self, prefix: str, last: tuple[str, ...]) -> None:
        files = {key: _stamp(self.copy / key) for key in self._files(prefix)}
        gone = [key for key in self._known_below(prefix) if key not in files]
        changed = [key for key, stamp in files.items() if (self._known_of(key) or (None, None))[1] != stamp]
        self._delete(key for key in gone if _is_checkpoint(key))
        for name in (None, *last):
            group = [key for key in changed if (name is None and _name(key) not in last) or _name(key) == name]
            for batch in self._batches(group, files):
                self._upload(batch, files)
        self._delete(key for key in gone if not _is_checkpoint(key))

    def _upload(self, keys: list[str], stamps: dict[str, Stamp]) -> None:
        content = {self._path(key): (self.copy / key).read_bytes() for key in keys}
        with _as_os_errors():
            answers = self._fs.pipe(content)
        for key, answer in zip(keys, answers if isinstance(answers, list) else [None] * len(keys), strict=True):
            self._remember(key, answer.get("ETag") if isinstance(answer, dict) else None, stamps[key])

    def _batches(self, keys: list[str], stamps: dict[str, Stamp]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for key in keys:
            if batch and size + stamps[key][1] > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(key)
            size += stamps[key][1]
        if batch:
            yield batch

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)
            del self._known[_unit(key)][key]

    def _forget(self, key: str) -> None:
        """No file, and nothing known of it."""
        (self.copy / key).unlink(missing_ok=True)
        del self._known[_unit(key)][key]

    def _remember(self, key: str, version: str | None, stamp: Stamp) -> None:
        self._known.setdefault(_unit(key), {})[key] = (version, stamp)

    def _known_of(self, key: str) -> tuple[str | None, Stamp] | None:
        return self._known.get(_unit(key), {}).get(key)

    def _known_below(self, prefix: str) -> list[str]:
        if prefix in self._known and _unit(prefix) == prefix and "/" in prefix:
            return list(self._known[prefix])
        return [key for keys in self._known.values() for key in keys if _below(key, prefix)]

    def _list(self, prefix: str) -> dict[str, str]:
        """Keys below a prefix, and the versions of their objects."""
        with _as_os_errors():
            try:
                found = self._fs.find(self._path(prefix), detail=True, refresh=True)
            except FileNotFoundError:
                return {}
        start = len(self._root) + 1
        keys = {str(name)[start:]: _version(info) for name, info in found.items()}
        return {key: version for key, version in keys.items() if key and not _stays_local(key)}

    def _is_level(self, key: str, version: str) -> bool:
        return self._known_of(key) == (version, _stamp(self.copy / key))

    def _download(self, versions: dict[str, str]) -> None:
        pairs = [(key, self.copy / key) for key in versions]
        self._get(pairs)
        for key, file in pairs:
            self._remember(key, versions[key], _stamp(file))

    def _get(self, pairs: list[tuple[str, Path]]) -> None:
        """Files appear whole. Raises FileNotFoundError if an object has gone in the meantime."""
        parts = [file.with_name(f".{file.name}.{os.getpid()}.part") for _, file in pairs]
        for part in parts:
            part.parent.mkdir(parents=True, exist_ok=True)
        try:
            if pairs:
                with _as_os_errors():
                    self._fs.get([self._path(key) for key, _ in pairs], [str(part) for part in parts])
            for part, (_, file) in zip(parts, pairs, strict=True):
                part.replace(file)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def _files(self, prefix: str) -> list[str]:
        keys = [self.key(file) for file in _walk(self.copy / prefix)]
        return [key for key in keys if not _stays_local(key)]

    def _read_manifest(self, prefix: str) -> None:
        """What was level when the last command ended; a file that has changed since has another stamp."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            known = json.loads((self.copy / prefix / MANIFEST).read_text())
            for key, (version, (changed, size)) in known.items():
                self._remember(key, version, (changed, size))

    def _write_manifest(self, prefix: str) -> None:
        known = {key: self._known_of(key) for key in self._known_below(prefix)}
        if (self.copy / prefix).is_dir():
            write_atomically(self.copy / prefix / MANIFEST, json.dumps(known))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root


@contextlib.contextmanager
def asked_to_stop(replica: Replica, *files: Path) -> Iterator[threading.Event]:
    """An event that is set when one of these files is seen in the store, where a thread looks every few seconds."""
    ended, asked = threading.Event(), threading.Event()

    def look() -> None:
        while not asked.is_set():
            with contextlib.suppress(OSError):
                if any(replica.exists(replica.key(file)) for file in files):
                    asked.set()
            if ended.wait(FOLLOW_SECONDS):
                return

    thread = threading.Thread(target=look, name="stop", daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def follow(replica: Replica, name: str, at_work: Collection[str]) -> Iterator[None]:
    """Every few seconds a thread fetches what the workers of these trials have written; a stop goes both ways."""
    ended = threading.Event()
    stop = replica.copy / name / "stop"

    def look() -> None:
        passed_on = False
        while not ended.wait(FOLLOW_SECONDS):
            with contextlib.suppress(OSError):  # the next time, perhaps
                if stop.exists() and not passed_on:
                    replica.write(f"{name}/stop", b"")
                    passed_on = True
                elif not passed_on and replica.exists(f"{name}/stop"):
                    stop.touch()
                for trial_id in sorted(at_work):
                    replica.pull(f"{name}/trials/{trial_id}")

    thread = threading.Thread(target=look, name="follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def copy_of(url: str) -> Path:
    """Where this machine keeps its copy of a runs directory: a folder of the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(f"{_endpoint() or ''} {url.rstrip('/')}".encode()).hexdigest()[:12]
    return caches / "orchestrator" / socket.gethostname() / digest


def open_replica(url: str, *, asking: bool = True) -> Replica:
    """The runs directory at a URL. Raises :class:`UserError` if nobody answers there, unless one is not ``asking``."""
    try:
        copy = copy_of(url)
        copy.mkdir(parents=True, exist_ok=True, mode=0o700)
        replica = Replica(url, copy)
        if asking:
            replica.names()
    except OSError as error:
        raise UserError(f"--runs-dir {url}: it cannot be reached: {error}") from None
    return replica


@contextlib.contextmanager
def scratch(replica: Replica) -> Iterator[Replica]:
    """Another copy of the same, for one worker; gone at the end. Those that killed workers left go at the start."""
    folder = replica.copy / ".workers"
    for left in folder.glob("*"):
        if not Path(f"/proc/{left.name.partition('-')[0]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    ours = folder / f"{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
    ours.mkdir(parents=True)
    try:
        yield Replica(replica.url, ours)
    finally:
        shutil.rmtree(ours, ignore_errors=True)


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. Raises :class:`UserError` for one that it does not know."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith("s3://"):  # the endpoint is named, so that fsspec keeps a client for each
        options |= {"config_kwargs": S3_OPTIONS, "endpoint_url": _endpoint()}
    try:
        found, root = fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise UserError(f"--runs-dir {url}: {error}") from None
    if hasattr(found, "retries"):
        found.retries = 1
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of lost connections it prints tracebacks
    return found, str(root).rstrip("/")


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Clients have exceptions of their own for a store that cannot be reached or will not serve."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _version(info: dict[str, Any]) -> str:
    """What changes with an object's content."""
    for name in ("ETag", "etag", "md5Hash"):
        if info.get(name):
            return str(info[name])
    return " ".join(str(info.get(name)) for name in ("LastModified", "mtime", "created", "size"))


def _stamp(file: Path) -> Stamp:
    """What changes with a file's content: its time of change and its size."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0, -1
    return stat.st_mtime_ns, stat.st_size


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, or the one that it is; hidden ones, and locks, are nobody else's."""
    if folder.is_file():
        yield folder
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith(".") and not name.endswith(".lock"))


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _is_checkpoint(key: str) -> bool:
    return fnmatch.fnmatch(_name(key), CHECKPOINTS)


def _is_array(key: str) -> bool:
    """A file of a folder that appears whole: the last to be written there says that it is."""
    return key.endswith(".npy") or _name(key) == ABOUT


def _stays_local(key: str) -> bool:
    """Hidden files and locks are one machine's, too."""
    pieces = key.split("/")
    return (
        key.endswith(".lock") or any(piece.startswith(".") for piece in pieces) or pieces[1:2] in [[n] for n in LOCAL]
    )


def _unit(key: str) -> str:
    """The folder of a trial, ``sweep/trials/trial_id``; of everything else the sweep's."""
    pieces = key.split("/")
    return "/".join(pieces[:3]) if pieces[1:2] == ["trials"] else pieces[0]


def _below(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or key.startswith(f"{prefix}/")

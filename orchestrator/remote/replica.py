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
import os
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import UserError
from orchestrator.files import write_atomically
from orchestrator.remote.object_store import ObjectStore, endpoint

T = TypeVar("T")
Stamp = tuple[int, int]

CHECKPOINT_PATTERN = "*.pt"
ABOUT = "about.json"
LOCAL = ("driver.json", "stop", "drivers")
"""What of a sweep no copy follows: this machine's driver, and what drivers and workers ask the store for by itself."""
ORDER = ("metrics.jsonl", "checkpoint-previous.pt", "checkpoint.pt", "best.pt", "status.json")
"""What a reader believes comes after what it rests on: no checkpoint before its epochs, no state before its files."""
FORK_ORDER = ("status.json", "metrics.jsonl")
"""A trial that has begun with another's files: until its epochs are there it is untouched, and would be forked anew."""
BATCH_BYTES = 64 * 2**20
MANIFEST = ".objects.json"


class Replica(ObjectStore):
    """The runs directory at ``url`` and its copy, the folder ``copy``. Keys are paths below either."""

    def __init__(self, url: str, copy: Path) -> None:
        super().__init__(url)
        self.copy = copy
        self._known: dict[str, dict[str, tuple[str | None, Stamp]]] = {}
        """By trial and key: the version of the object and the stamp of the file when both were level."""
        self.lock = threading.RLock()
        """Held while files here and objects there are brought level."""

    def __reduce__(self) -> tuple[type[Replica], tuple[str, Path]]:
        """Tune pickles whatever it is given."""
        return Replica, (self.url, self.copy)

    def key(self, path: Path) -> str:
        """The key of a file or folder of the copy."""
        return path.relative_to(self.copy).as_posix()

    def pull(self, prefix: str, *, exact: bool = False, checkpoints: Collection[str] = ()) -> None:
        """Brings the files below ``prefix`` level with the store; of checkpoints those with these names.

        ``exact`` also undoes what was changed here and never came there: nobody else may be using the copy.
        """
        with self.lock:
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
        with self.lock:
            version = self._list(key).get(key)
            fetched = version is not None and not self._is_level(key, version)
            if version is not None and fetched:
                self._download({key: version})
        try:
            yield
        finally:
            with self.lock:
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
            with self.lock:
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
        with self.lock:
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
                self.put(here[key], key)

    @contextlib.contextmanager
    def outline(self, prefix: str) -> Iterator[Path]:
        """A runs directory that has every file below ``prefix``; what the copy has not is as long, but empty.

        What is deleted in it is deleted in the store at the end.
        """
        folder = self.copy / f".outline-{os.getpid()}"
        sizes = {key: size for key, (_, size) in self.list(prefix).items() if not _stays_local(key)}
        keys = list(sizes)
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
        with self.lock, contextlib.suppress(OSError):
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
        versions = self.write_all({key: (self.copy / key).read_bytes() for key in keys})
        for key in keys:
            self._remember(key, versions[key], stamps[key])

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
        return {key: version for key, (version, _) in self.list(prefix).items() if not _stays_local(key)}

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
            self.get({key: part for (key, _), part in zip(pairs, parts, strict=True)})
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


def copy_of(url: str) -> Path:
    """Where this machine keeps its copy of a runs directory: a folder of the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(f"{endpoint() or ''} {url.rstrip('/')}".encode()).hexdigest()[:12]
    return caches / "orchestrator" / socket.gethostname() / digest


def open_replica(url: str, *, asking: bool = True) -> Replica:
    """The runs directory at a URL. Raises :class:`UserError` if nobody answers there or we are not let in, unless one
    is not ``asking``."""
    try:
        copy = copy_of(url)
        copy.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"--runs-dir {url}: its copy on this machine cannot be written: {error}") from None
    try:
        replica = Replica(url, copy)  # some kinds of store connect here already
        if asking:
            replica.names()
    except PermissionError as error:
        keys = (
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be what it knows. " if url.startswith("s3://") else ""
        )
        raise UserError(f"--runs-dir {url}: the object store refuses us. {keys}It says: {error}") from None
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
    return fnmatch.fnmatch(_name(key), CHECKPOINT_PATTERN)


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

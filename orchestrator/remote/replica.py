"""A runs directory in an object store, and this machine's copy of it.

Commands read and write ordinary files in the copy. A command first synchronises the copy with the object store, and
uploads at once what it writes. The order of uploads keeps the object store consistent: if a command is killed, the
object store holds what a directory would have held at some moment. An object is replaced as a whole, so that nobody
sees a file half-written. A trial's worker has its own copy, and only that worker writes the trial while it runs.

Any store that fsspec knows can be used if its listings are strongly consistent and it can create an object only if the
object does not exist yet. S3, GCS and Azure do both.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import json
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from orchestrator.files import write_atomically
from orchestrator.remote.lease import STALE_SECONDS
from orchestrator.remote.object_store import ObjectStore
from trainers.locks import NO_FLOCK, locked

T = TypeVar("T")
Stamp = tuple[int, int]

CHECKPOINT_PATTERN = "*.pt"
ABOUT = "about.json"
LOCAL = ("driver.json", "stop", "drivers")
"""Files of a sweep that are never synchronised: this machine's driver record, the stop flag, the drivers' leases."""
ORDER = ("metrics.jsonl", "checkpoint-previous.pt", "checkpoint.pt", "best.pt", "status.json")
"""Upload order: data first, then the files that vouch for it. Epochs precede checkpoints, and the state comes last."""
FORK_ORDER = ("status.json", "metrics.jsonl")
"""Upload order of a forked trial: epochs last, because a trial without epochs counts as new and is forked again."""
BATCH_BYTES = 64 * 2**20
MANIFEST = ".objects.json"


class Replica(ObjectStore):
    """The runs directory at ``url`` and its copy in the folder ``copy``. A key is a path relative to either."""

    def __init__(self, url: str, copy: Path) -> None:
        super().__init__(url)
        self.copy = copy
        self._known: dict[str, dict[str, tuple[str | None, Stamp]]] = {}
        """By unit (see ``_unit``) and key: the object's version and the file's stamp when both were last the same."""
        self.lock = threading.RLock()
        """Held while files and objects are synchronised."""

    def __reduce__(self) -> tuple[type[Replica], tuple[str, Path]]:
        """Ray Tune pickles its arguments; clients and locks cannot be pickled."""
        return Replica, (self.url, self.copy)

    def key(self, path: Path) -> str:
        """The key of a file or folder of the copy."""
        return path.relative_to(self.copy).as_posix()

    def pull(self, prefix: str, *, exact: bool = False, checkpoints: Collection[str] = ()) -> None:
        """Downloads what has changed below ``prefix``; of the checkpoints only those with these names.

        ``exact`` also undoes local changes that were never uploaded. It needs a copy that no other process is using.
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
        """Pulls a sweep exactly, unless a driver on this machine already keeps the copy up to date."""
        with self._pulling():
            if not self._is_driven(name):
                self.pull(name, exact=True, checkpoints=checkpoints)

    def pull_as_driver(self, name: str) -> None:
        """Pulls a sweep exactly for its driver. Waits until other commands of this machine have finished their pull."""
        with self._pulling():
            self.pull(name, exact=True)

    def _is_driven(self, name: str) -> bool:
        """Whether a driver on this machine runs the sweep: by its lock, without ``flock`` by its heartbeat."""
        try:
            with (self.copy / name / "driver.lock").open("a") as drivers:
                fcntl.flock(drivers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError) as error:
            return isinstance(error, BlockingIOError)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            with contextlib.suppress(FileNotFoundError):
                return time.time() - (self.copy / name / "driver.json").stat().st_mtime < STALE_SECONDS
        return False

    def _pulling(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.copy / ".pull")

    @contextlib.contextmanager
    def at_hand(self, path: Path) -> Iterator[None]:
        """Holds a file that is usually only in the object store, such as a checkpoint, in the copy for a while.

        Does nothing if the object store has no such file.
        """
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
        """Whether the object store has this file."""
        return self.key(path) in self._list(self.key(path))

    def push(self, prefix: str, last: tuple[str, ...] = ORDER, *, must: bool = True) -> bool:
        """Uploads what is new or changed below ``prefix`` and deletes what is gone. Returns whether that succeeded.

        Checkpoints that are gone are deleted first. Then files are uploaded; those named in ``last`` come at the end,
        in that order. With ``must`` the upload is repeated for minutes and then raises OSError. Without it the upload
        is tried once, and False means that it has to wait for the next push.
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
        """Exchanges a cache's files with the object store in both directions.

        Files are matched by name alone, because their content never changes. A folder with an ``about.json`` holds
        arrays and appears as a whole.
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
                except OSError:  # another process made the folder in the meantime
                    shutil.rmtree(incoming)
            for key in sorted(here.keys() - there.keys(), key=lambda key: _name(key) == ABOUT):
                self.put(here[key], key)

    @contextlib.contextmanager
    def outline(self, prefix: str) -> Iterator[Path]:
        """A temporary runs directory with every file below ``prefix``.

        A file that the copy lacks has its real size but no content. Files that the caller deletes there are deleted in
        the object store at the end.
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
        """Writes down which files are up to date, so that the next command downloads only the others."""
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
        """Deletes a file of the copy and what is known of it."""
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
        """The versions of the objects below a prefix, by key."""
        return {key: version for key, (version, _) in self.list(prefix).items() if not _stays_local(key)}

    def _is_level(self, key: str, version: str) -> bool:
        return self._known_of(key) == (version, _stamp(self.copy / key))

    def _download(self, versions: dict[str, str]) -> None:
        pairs = [(key, self.copy / key) for key in versions]
        self._get(pairs)
        for key, file in pairs:
            self._remember(key, versions[key], _stamp(file))

    def _get(self, pairs: list[tuple[str, Path]]) -> None:
        """Downloads files; each appears as a whole. Raises FileNotFoundError if an object was deleted meanwhile."""
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
        """Reads what the last command left up to date. A file that has changed since then has another stamp."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            known = json.loads((self.copy / prefix / MANIFEST).read_text())
            for key, (version, (changed, size)) in known.items():
                if _below(key, prefix) and not _stays_local(key):  # no path that leads elsewhere
                    self._remember(key, version, (changed, size))

    def _write_manifest(self, prefix: str) -> None:
        known = {key: self._known_of(key) for key in self._known_below(prefix)}
        if (self.copy / prefix).is_dir():
            write_atomically(self.copy / prefix / MANIFEST, json.dumps(known))


def _stamp(file: Path) -> Stamp:
    """The time of change (ns) and the size (bytes) of a file, which change with its content."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0, -1
    return stat.st_mtime_ns, stat.st_size


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder; of a file, the file itself. Skips hidden files and locks: they are never shared."""
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
    """Whether a file belongs to a folder of arrays, which is complete once its ``about.json`` is written."""
    return key.endswith(".npy") or _name(key) == ABOUT


def _stays_local(key: str) -> bool:
    """Whether a file is never synchronised: a name in :data:`LOCAL`, a hidden file or a lock."""
    pieces = key.split("/")
    return (
        key.endswith(".lock") or any(piece.startswith(".") for piece in pieces) or pieces[1:2] in [[n] for n in LOCAL]
    )


def _unit(key: str) -> str:
    """The folder under which a key is remembered: its trial's, ``sweep/trials/trial_id``, or else its sweep's."""
    pieces = key.split("/")
    return "/".join(pieces[:3]) if pieces[1:2] == ["trials"] else pieces[0]


def _below(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or key.startswith(f"{prefix}/")

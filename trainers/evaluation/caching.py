"""Files that several workers need at the same time: one worker makes a file, and all read it.

A file has the digest of its content. Whoever reads it compares the two, and makes a file that does not match again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainers.locks import locked

Content = tuple[dict[str, Tensor], dict[str, str]]


def cache_key(**parts: Any) -> str:
    """The first 16 hex digits of SHA-256 over everything that the cached content depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def cached(path: Path, make: Callable[[], Content]) -> Content:
    """The tensors and metadata in ``path``. A file that is missing or unreadable is made by ``make``, under a lock.

    So is a file that does not match its digest, with a warning. A file of an earlier version has no digest: it gets
    one. The file appears by rename, so that no reader sees a half-written file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        content = _read(path)
        if content is not None and DIGEST not in content[1]:
            with contextlib.suppress(OSError):  # in a folder that can only be read it is used as it is
                _write(path, content)
        elif content is not None and content[1].pop(DIGEST) != _digest(content):
            problem = "does not match the digest that was stored with it: it is damaged, and is made again"
            warnings.warn(f"'{path}' {problem}", stacklevel=2)
            content = None
        if content is None:
            content = make()
            _write(path, content)
    return content


DIGEST = "sha256"
"""The key of the digest in a file's metadata."""


def _write(path: Path, content: Content) -> None:
    tensors, metadata = content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            temporary,
            {**metadata, DIGEST: _digest(content)},
        )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(content: Content) -> str:
    """SHA-256 of the metadata and of each tensor's name, type, shape and bytes."""
    tensors, metadata = content
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _read(path: Path) -> Content | None:
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned, because reading a memory-mapped tensor of a file that was truncated kills the process (SIGBUS).
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        warnings.warn(f"'{path}' cannot be read ({error}): it is damaged, and is made again", stacklevel=2)
        return None

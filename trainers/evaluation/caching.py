"""Files that several workers need at the same time: one worker makes a file, and all read it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

    The file appears by rename, so that no reader sees a half-written file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        content = _read(path)
        if content is None:
            tensors, metadata = content = make()
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            os.replace(temporary, path)
    return content


def _read(path: Path) -> Content | None:
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned, because reading a memory-mapped tensor of a file that was truncated kills the process (SIGBUS).
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (FileNotFoundError, SafetensorError):
        return None

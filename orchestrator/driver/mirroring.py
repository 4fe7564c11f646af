"""The thread that mirrors the store into MLflow while a sweep runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.store.sweep import SweepStore

if TYPE_CHECKING:
    from orchestrator.tracking.mirror import Mirror

MIRROR_SECONDS = 2.0


class MirrorThread:
    """Mirrors the store into MLflow, off the scheduling thread. While MLflow is slow or down, training goes on."""

    def __init__(self, store: SweepStore, uri: str) -> None:
        self._store = store
        self._uri = uri
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._mirror: Mirror | None = None
        self._error: str | None = None
        self.note: str | None = None
        """What the user should know of the sweep in MLflow."""
        self.problems: list[str] = []
        """What could not be mirrored because it cannot be read."""

    def start(self) -> None:
        """Begins mirroring. The thread also imports MLflow and makes its database."""
        self._thread.start()

    def finish(self, *, generators: bool = True, verdict: str = "") -> str | None:
        """Mirrors a last time, with the sweep's verdict. Returns the error that leaves MLflow behind, or None."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._attempt(lambda mirror: self._last_pass(mirror, generators, verdict))
        return self._error

    def _last_pass(self, mirror: Mirror, generators: bool, verdict: str) -> None:
        mirror.finish(generators=generators, verdict=verdict)
        self.problems = mirror.problems()

    def _run(self) -> None:
        while True:
            self._attempt(lambda mirror: mirror.sync())
            if self._ended.wait(MIRROR_SECONDS):
                return

    def _attempt(self, do: Callable[[Mirror], None]) -> None:
        from orchestrator.tracking.mirror import Mirror, told

        try:
            if self._mirror is None:
                self._mirror = Mirror(self._store, self._uri)
                self.note = self._mirror.note()
            do(self._mirror)
            self._error = None
        except Exception as error:  # whatever MLflow or its database raise: training goes on
            self._mirror = None  # MLflow may have lost what the mirror knows: the next mirror asks MLflow again
            self._error = told(error, self._uri)

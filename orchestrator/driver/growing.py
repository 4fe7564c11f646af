"""The trials by which a plan grows while its sweep runs, made ready to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.decisions.growth import Growth
from orchestrator.driver.preparation import prepare_trials
from orchestrator.driver.resources import grown_demands
from orchestrator.engine.placement import Demand
from orchestrator.store.entry import Entry
from orchestrator.store.forking import ancestors
from orchestrator.store.sweep import SweepStore
from orchestrator.store.weights import give_weights


class Grower:
    """Asks for decisions when trials have ended, and makes the trials that they add ready to run."""

    def __init__(
        self, store: SweepStore, address: str | None, weights: Path | None, tell: Callable[[str], None]
    ) -> None:
        """Raises :class:`UserError` if the plan or its decisions are damaged."""
        self._store, self._weights, self._tell = store, weights, tell
        self._growth = Growth(store, tell)
        self.demands = grown_demands(store, address)
        """What the trials that may be added ask of their nodes, by their device."""
        self._continues = store.plan()["continue_from"] is not None

    def begin(self, todo: Sequence[str]) -> list[str]:
        """The trials to run: these, and those that can be decided now. Raises OSError if they cannot be stored."""
        return [*todo, *self._ready(self._growth.begin(todo))]

    def __call__(self, trial_id: str) -> Mapping[str, Demand]:
        """The trials that the end of a trial adds, with what each asks of its node. Raises OSError."""
        added = self._ready(self._growth.settled(trial_id))
        return {trial_id: self.demands[str(config["device"])] for trial_id, config in self._store.configs(added)}

    def _ready(self, added: Sequence[Entry]) -> list[str]:
        """Those that are to run. One that another sweep has finished is copied, which may let more be decided."""
        ready: list[str] = []
        while added:
            origins = ancestors(self._store) if self._continues else {}
            todo = prepare_trials(self._store, added, origins, self._tell)
            ready += todo
            ended = [entry.trial_id for entry in added if entry.trial_id not in todo]
            added = [entry for trial_id in ended for entry in self._growth.settled(trial_id)]
        if self._weights is not None:
            give_weights(self._store, ready, self._weights)
        return ready

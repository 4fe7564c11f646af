"""Forking: which finished trial of another sweep a trial with a larger budget continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store.runs import Runs
from orchestrator.store.states import State
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.store.trial import TrialStore
from trainers.config import TrialConfig, without_runtime_options

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan


@dataclass(frozen=True)
class Ancestor:
    """A finished trial of a smaller budget, and the name of its sweep.

    ``problem`` says why it cannot be read. A trial that would continue it has to wait.
    """

    sweep: str
    trial: TrialStore
    problem: str | None = None

    def fork(self, store: SweepStore, entry: Entry) -> None:
        """Begins a longer trial where this one ended."""
        config = TrialConfig.from_dict(self.trial.config())
        whole_epochs = config.budget // config.epoch_length
        store.fork(entry, self.trial, sweep=self.sweep, iteration=config.budget, whole_epochs=whole_epochs)


def ancestors(store: SweepStore) -> dict[str, Ancestor]:
    """The finished trials of the sweep ``continue_from`` that this sweep's trials continue, by trial id.

    A match has the same configuration but a smaller budget; the number of evaluations may differ too. Of several
    matches the one with the largest budget is taken. Raises :class:`UserError` if there is no such sweep.
    """
    name = store.plan()["continue_from"]
    return {} if name is None else _ancestors(store.runs, name, store.configs())


def _ancestors(runs: Runs, name: str, configs: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Ancestor]:
    source = SweepStore.open(runs, name)
    known: dict[str, list[tuple[int, TrialStore]]] = {}
    for trial_id, config in source.configs():
        trial = source.trial(trial_id)
        if trial.status().state is State.DONE and trial.has(trial.checkpoint_file):
            known.setdefault(_kind(config), []).append((config["budget"], trial))
    found = {}
    for trial_id, config in configs:
        shorter = [each for each in known.get(_kind(config), []) if each[0] < config["budget"]]
        if shorter:
            longest = max(shorter, key=lambda each: each[0])[1]
            found[trial_id] = Ancestor(name, longest, longest.problem())
    return found


def tell_ancestors(runs: Runs, plan: Plan, tell: Callable[[str], None]) -> None:
    """Tells how many trials of a plan will continue finished ones.

    It runs before the plan is written, so that an error leaves no directory behind. Raises :class:`UserError` if
    ``continue_from`` names no sweep, or a sweep of which no trial can be continued.
    """
    name = plan.continue_from
    if name is None:
        return
    found = _ancestors(runs, name, ((trial.trial_id, trial.config.to_dict()) for trial in plan.trials))
    if not found:
        raise UserError(
            f"continue_from: no trial here can continue one of '{name}'. That takes a finished trial with a checkpoint "
            "and the same configuration, but a smaller budget"
        )
    rest = len(plan.trials) - len(found)
    others = f"; {rest} have no match there and start from scratch" if rest else ""
    tell(f"{len(found)} trials continue finished trials of '{name}'{others}")


def _kind(config: Mapping[str, Any]) -> str:
    """A configuration as JSON, without its budget and the number of its evaluations."""
    science = without_runtime_options(config)
    evaluation = {key: value for key, value in science["evaluation"].items() if key != "times"}
    others = {key: value for key, value in science.items() if key != "budget"}
    return json.dumps({**others, "evaluation": evaluation}, sort_keys=True)

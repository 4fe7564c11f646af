"""Longer budgets from finished trials: which trial of another sweep a trial continues."""

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
    """A finished trial of a smaller budget, and the sweep it belongs to."""

    sweep: str
    trial: TrialStore

    def fork(self, store: SweepStore, entry: Entry) -> None:
        """Begins a longer trial where this one ended."""
        config = TrialConfig.from_dict(self.trial.config())
        whole_epochs = config.budget // config.epoch_length
        store.fork(entry, self.trial, sweep=self.sweep, iteration=config.budget, whole_epochs=whole_epochs)


def ancestors(store: SweepStore) -> dict[str, Ancestor]:
    """By trial id: the finished trial of the sweep ``continue_from`` that differs in a smaller budget alone.

    The number of evaluations may differ too; of several the longest is taken. Raises :class:`UserError` if there is no
    such sweep.
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
            found[trial_id] = Ancestor(name, max(shorter, key=lambda each: each[0])[1])
    return found


def tell_ancestors(runs: Runs, plan: Plan, tell: Callable[[str], None]) -> None:
    """How many trials of a plan will continue others: before it is written, so that one that cannot leaves nothing.

    Raises :class:`UserError` if none does, although it asks for it, and if there is no such sweep.
    """
    name = plan.continue_from
    if name is None:
        return
    found = _ancestors(runs, name, ((trial.trial_id, trial.config.to_dict()) for trial in plan.trials))
    if not found:
        raise UserError(
            f"continue_from: no finished trial of '{name}' is one of these with a smaller budget and has its checkpoint"
        )
    rest = len(plan.trials) - len(found)
    others = f"; {rest} have none there and begin at nothing" if rest else ""
    tell(f"{len(found)} trials continue finished ones of '{name}'{others}")


def _kind(config: Mapping[str, Any]) -> str:
    """A configuration without its budget and the number of its evaluations."""
    science = without_runtime_options(config)
    evaluation = {key: value for key, value in science["evaluation"].items() if key != "times"}
    others = {key: value for key, value in science.items() if key != "budget"}
    return json.dumps({**others, "evaluation": evaluation}, sort_keys=True)

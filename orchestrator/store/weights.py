"""``--feature-weights``: the path of a feature extractor's weights. It is not part of a trial's identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.store.sweep import SweepStore
from trainers.config import TrialConfig

if TYPE_CHECKING:
    from orchestrator.sweep.plan import Plan, PlannedTrial


def with_weights(config: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """A trial's configuration with these weights. Raises :class:`UserError` if its evaluation uses none."""
    if file is None:
        return dict(config)
    evaluation = config["evaluation"]
    if "feature_weights" not in evaluation:
        raise UserError(
            f"--feature-weights: the evaluation '{evaluation['name']}' uses no feature weights; 'inception' does"
        )
    return {**config, "evaluation": {**evaluation, "feature_weights": str(file.resolve())}}


def plan_with_weights(plan: Plan, file: Path | None) -> Plan:
    """The same plan with these weights. Trial ids stay the same."""
    if file is None:
        return plan

    def weighted(trials: Sequence[PlannedTrial]) -> tuple[PlannedTrial, ...]:
        configs = [TrialConfig.from_dict(with_weights(trial.config.to_dict(), file)) for trial in trials]
        return tuple(replace(trial, config=config) for trial, config in zip(trials, configs, strict=True))

    growing = plan.growing and replace(
        plan.growing,
        groups=tuple(replace(group, config=with_weights(group.config, file)) for group in plan.growing.groups),
    )
    return replace(plan, trials=weighted(plan.trials), examples=weighted(plan.examples), growing=growing)


def give_weights(store: SweepStore, trial_ids: Iterable[str], file: Path) -> None:
    """Writes the weights into the configurations of trials without a result."""
    for trial_id, config in store.configs(trial_ids):
        store.trial(trial_id).create(with_weights(config, file))

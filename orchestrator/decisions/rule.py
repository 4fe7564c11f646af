"""What all rules of decision share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.store.decision_log import Decision
from orchestrator.store.entry import Entry, Stage
from orchestrator.sweep.setting import setting_text
from trainers.config import TrialConfig

Settled = Callable[[str], bool]
"""Whether a trial has ended and will not run again."""


@dataclass(frozen=True)
class Made:
    """A decision and the configurations of its trials, by their ids."""

    decision: Decision
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Rule(Protocol):
    """Decides about one group of trials, from the store alone.

    What a decision rests on is fixed beforehand. So it does not depend on which trials end first.
    """

    def decide(self, settled: Settled) -> list[Made]:
        """The decisions that can be made now. Each is made once; a later call goes on behind them."""
        ...

    @property
    def open(self) -> bool:
        """Whether decisions are still to be made."""
        ...


def decided_trial(
    variant: str,
    axes: Mapping[str, Any],
    config: Mapping[str, Any],
    seed: int,
    short: Mapping[str, str],
    *,
    stage: Stage = "",
    proposal: int | None = None,
    searched: list[str] | None = None,
) -> tuple[Entry, dict[str, Any]]:
    """A trial that a decision adds, and its configuration. Raises ConfigError if there cannot be one."""
    made = TrialConfig.from_dict({**config, "seed": seed})
    setting = setting_text(axes, short)
    entry = Entry(made.identity, variant, setting, dict(axes), seed, made.epochs, stage, proposal, searched or [])
    return entry, made.to_dict()

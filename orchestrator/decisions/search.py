"""Search: a sampler proposes settings of one cell of a grid, from the results of earlier proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.decisions.outcomes import Outcome, cell_outcome, trial_outcome
from orchestrator.decisions.rule import Made, Settled, decided_trial
from orchestrator.decisions.sampler import Proposer, Tried
from orchestrator.store.decision_log import Decision
from orchestrator.store.entry import Entry
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.growing import Group, Growing
from orchestrator.sweep.setting import set_option
from trainers.parts import ConfigError


@dataclass
class Proposal:
    """A setting that was proposed, its trials, one a seed, and what later decisions have seen of it."""

    setting: Mapping[str, Any]
    trials: tuple[Entry, ...]
    seen: list[Any] | None = field(default=None)

    @property
    def tried(self) -> Tried:
        """The proposal as the sampler sees it."""
        if self.seen is None:
            return Tried(self.setting, "waiting", None, None)
        ending, value, step = self.seen
        return Tried(self.setting, ending, value, step)


class SearchRule:
    """Makes the proposals of one group.

    Proposal k rests on the outcomes of the proposals 0 … k − parallel and on the settings of all earlier ones. An
    outcome is written into the first decision that rests on it, and is not read again.
    """

    def __init__(
        self, store: SweepStore, growing: Growing, group: Group, compare: Mapping[str, Any], made: Sequence[Decision]
    ) -> None:
        self.group = group
        self.exhausted = False
        self.proposals: list[Proposal] = []
        self._store, self._growing, self._metric = store, growing, compare["metric"]
        search = group.search
        self._proposer = Proposer(search.space, search.sampler, search.seed, compare["mode"])
        self._space = {name: dimension.to_dict() for name, dimension in search.space.items()}
        self._seen = 0
        for decision in made:
            self._add(decision)

    @property
    def open(self) -> bool:
        return not self.exhausted and len(self.proposals) < self.group.search.trials

    def over(self, settled: Settled) -> bool:
        """Whether all proposals are made and have ended."""
        return not self.open and all(settled(entry.trial_id) for each in self.proposals for entry in each.trials)

    def outcome(self, proposal: Proposal) -> Outcome:
        """How a proposal's trials ended. One without trials could not be run."""
        trials = (self._store.trial(entry.trial_id) for entry in proposal.trials)
        return cell_outcome([trial_outcome(trial, self._metric) for trial in trials])

    def decide(self, settled: Settled) -> list[Made]:
        made = []
        while self.open:
            rests_on = max(self._seen, self.group.search.rests_on(len(self.proposals)))
            awaited = self.proposals[self._seen : rests_on]
            if not all(settled(entry.trial_id) for each in awaited for entry in each.trials):
                break
            seen = {}
            for number, proposal in enumerate(awaited, start=self._seen):
                outcome = self.outcome(proposal)
                seen[str(number)] = [outcome.ending, outcome.mean, outcome.step]
            made.append(self._propose(rests_on, seen))
            self._add(made[-1].decision)
        return made

    def _propose(self, rests_on: int, seen: Mapping[str, list[Any]]) -> Made:
        for seen_one, outcome in seen.items():
            self.proposals[int(seen_one)].seen = outcome
        number, group = len(self.proposals), self.group
        about: dict[str, Any] = {"variant": group.variant, "axes": dict(group.axes), "proposal": number}
        rest = {"proposals": rests_on, "seen": seen}
        setting = self._proposer.propose(number, [each.tried for each in self.proposals])
        if setting is None:
            return Made(Decision("search", {**about, "exhausted": self._space}, rest))
        config, axes = dict(group.config), {**group.axes, **setting}
        for option, value in setting.items():
            config = set_option(config, option, value)
        about["setting"] = setting
        try:
            trials = [
                decided_trial(
                    group.variant,
                    axes,
                    config,
                    seed,
                    self._growing.short,
                    stage="search",
                    proposal=number,
                    searched=list(setting),
                )
                for seed in self._growing.seeds
            ]
        except ConfigError as error:  # each value is valid by itself; together they are not
            return Made(Decision("search", {**about, "problem": str(error)}, rest))
        entries = tuple(entry for entry, _ in trials)
        return Made(Decision("search", about, rest, entries), {entry.trial_id: made for entry, made in trials})

    def _add(self, decision: Decision) -> None:
        """Takes over a decision that is made."""
        for number, outcome in decision.rests_on["seen"].items():
            self.proposals[int(number)].seen = outcome
        self._seen = max(self._seen, decision.rests_on["proposals"])
        if "exhausted" in decision.about:
            self.exhausted = decision.about["exhausted"] == self._space  # the file may have another space by now
        else:
            self.exhausted = False
            self.proposals.append(Proposal(decision.about["setting"], decision.trials))

"""Optuna's samplers, asked as functions: they are told everything that they may know, and have a seed each time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from orchestrator.sweep.growing import SAMPLERS
from orchestrator.sweep.space import Dimension

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

START = {name: start for name, start in SAMPLERS.items() if start is not None}
"""How many results a sampler waits for."""


class Told(NamedTuple):
    """What a sampler is told of a setting. ``state`` is the name of Optuna's ``TrialState``.

    ``value`` is the result of a COMPLETE one, and what a PRUNED one had reached at ``step``.
    """

    state: Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL"]
    setting: Mapping[str, Any]
    value: float | None = None
    step: int = 0


class Study:
    """An Optuna study in memory. It is told the same settings again and again, and a few more each time.

    It begins anew if what it is told does not continue what it was told before. Its answers are the same either way.
    """

    def __init__(self, space: Mapping[str, Dimension], mode: Literal["min", "max"]) -> None:
        self._space = space
        self._distributions = {name: _distribution(dimension) for name, dimension in space.items()}
        self._direction: Literal["minimize", "maximize"] = "minimize" if mode == "min" else "maximize"
        self._begin()

    def _begin(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._idle = optuna.samplers.RandomSampler(seed=0)
        self._study = optuna.create_study(direction=self._direction, sampler=self._idle)
        self._told: list[Told] = []
        self._running: dict[int, Trial] = {}

    def tell(self, told: Sequence[Told]) -> None:
        """Makes the study hold exactly these settings, in this order."""
        if len(told) < len(self._told) or not all(map(_continues, self._told, told)):
            self._begin()
        for index, (old, new) in enumerate(itertools.zip_longest(self._told, told)):
            if old is None:
                self._add(index, new)
            elif old != new:
                self._end(self._running.pop(index), new)
        self._told = list(told)

    def _add(self, index: int, told: Told) -> None:
        from optuna.trial import TrialState, create_trial

        parameters = {name: _encoded(self._space[name], told.setting[name]) for name in self._space}
        if told.state == "RUNNING":  # a trial that can be told its end has to be asked for
            self._study.enqueue_trial(parameters)
            self._running[index] = self._study.ask(self._distributions)
            return
        reported = {told.step: told.value} if told.state == "PRUNED" and told.value is not None else None
        trial = create_trial(
            state=TrialState[told.state],
            params=parameters,
            distributions=self._distributions,
            value=told.value,
            intermediate_values=reported,
        )
        self._study.add_trial(trial)

    def _end(self, trial: Trial, told: Told) -> None:
        from optuna.trial import TrialState

        if told.state == "COMPLETE":
            self._study.tell(trial, told.value)
            return
        if told.state == "PRUNED" and told.value is not None:
            trial.report(told.value, told.step)
        self._study.tell(trial, state=TrialState[told.state])

    def _ask_gp(self) -> Trial:
        """Asks with one thread of torch.

        The Gaussian process makes many small calls, which more threads make several times slower. Optuna limits the
        threads in its optimisers, and not in what goes before them.
        """
        from trainers.devices import one_thread

        with one_thread():
            return self._study.ask(self._distributions)

    def ask(self, sampler: Literal["tpe", "gp"], seed: int) -> dict[str, Any]:
        """The setting that the sampler proposes with this seed. The study forgets it."""
        from optuna.trial import TrialState

        self._study.sampler = _sampler(sampler, seed)
        asked = self._ask_gp() if sampler == "gp" else self._study.ask(self._distributions)
        self._study.sampler = self._idle
        self._study.tell(asked, state=TrialState.FAIL)
        return {name: _decoded(dimension, asked.params[name]) for name, dimension in self._space.items()}


def _continues(old: Told, new: Told) -> bool:
    return old == new or (old.state == "RUNNING" and old.setting == new.setting)


def _sampler(name: Literal["tpe", "gp"], seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler, TPESampler

    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=START[name], warn_independent_sampling=False)
    return TPESampler(seed=seed, n_startup_trials=START[name], multivariate=True, constant_liar=True)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension for Optuna. Of a choice and of steps it knows the number of a value, which may be anything."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(tuple(range(len(dimension.values))))
    if dimension.count is None:
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    if dimension.log:
        return IntDistribution(int(dimension.low), int(dimension.high), log=True)
    return IntDistribution(0, dimension.count - 1)


def _is_numbered(dimension: Dimension) -> bool:
    return dimension.count is not None and not dimension.log


def _encoded(dimension: Dimension, value: Any) -> Any:
    if _is_numbered(dimension):
        return dimension.index(value)
    return float(value) if dimension.kind == "float" else int(value)


def _decoded(dimension: Dimension, value: Any) -> Any:
    return dimension.nth(int(value)) if _is_numbered(dimension) else dimension.near(value)

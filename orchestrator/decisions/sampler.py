"""What a search proposes next: a function of its space, its seed and what became of the earlier proposals.

Ray's ``OptunaSearch`` would not do. Its study lives in memory and in a pickle, the order in which trials end decides
what it proposes, and it knows no seeds of one setting. Here a proposal follows from what the store says.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.decisions.study import START, Study, Told
from orchestrator.sweep.growing import Sampler
from orchestrator.sweep.space import Dimension, key_of

Outcome = Literal["waiting", "done", "stopped", "diverged", "failed"]

DRAWS = 100
MODEL_DRAWS = {"tpe": 8, "gp": 4}
"""How many proposals that are there already are drawn again: evenly, and by a model."""

GP_RESULTS = 200
"""The Gaussian process rests on at most so many results: the newest, and for a quarter the best of all others.

The time that it takes grows with the cube of their number.
"""


@dataclass(frozen=True)
class Tried:
    """An earlier proposal and what became of it.

    ``value`` is what a done one reached, and a stopped one at critic iteration ``step``.
    """

    setting: Mapping[str, Any]
    outcome: Outcome
    value: float | None = None
    step: int | None = None


class Proposer:
    """Proposes the settings of one group of a search.

    ``space`` gives each option its dimension. The order in which it names them decides nothing.
    """

    def __init__(
        self, space: Mapping[str, Dimension], sampler: Sampler, seed: int = 0, mode: Literal["min", "max"] = "min"
    ) -> None:
        self._space = {name: space[name] for name in sorted(space)}
        self._names = tuple(space)
        self._sampler, self._seed, self._mode = sampler, seed, mode
        counts = [each.count for each in space.values()]
        self._count = None if None in counts else math.prod(count for count in counts if count is not None)
        self._known: list[tuple[Mapping[str, Any], Hashable]] = []
        self._study: Study | None = None

    def propose(self, number: int, tried: Sequence[Tried]) -> dict[str, Any] | None:
        """Proposal ``number``, after the proposals 0 to ``number`` - 1 came to what ``tried`` says, in their order.

        The result is a function of these arguments and of those of the class; what was proposed before is kept only to
        save time. It equals no earlier proposal. None means that the space is exhausted: every setting of a finite
        space was tried, or no new one was found. An earlier setting that is not in the space is left out.

        Models read the outcomes so: a proposal that waits keeps others away from its neighbourhood. One that diverged
        is worse than any other. For TPE one that was stopped is worse than any that is done, and the later it was
        stopped the better. For the Gaussian process its value then is its result. One that failed says nothing.
        """
        keys = self._keys(tried)
        taken = set(keys) - {None}
        if len(taken) == self._count:
            return None
        inside = [each for each, key in zip(tried, keys, strict=True) if key is not None]
        for setting in self._candidates(number, inside):
            if self._key(setting) not in taken:
                return {name: setting[name] for name in self._names}
        return None

    def _keys(self, tried: Sequence[Tried]) -> list[Hashable]:
        """The key of each setting; None for one that is not in the space. Those of the last call are kept."""
        del self._known[len(tried) :]
        for index, each in enumerate(tried):
            if index == len(self._known):
                self._known.append((each.setting, self._key(each.setting)))
            elif self._known[index][0] != each.setting:
                self._known[index] = (each.setting, self._key(each.setting))
        return [key for _, key in self._known]

    def _key(self, setting: Mapping[str, Any]) -> Hashable:
        """A key that equal settings share; None for a setting that is not in the space."""
        if setting.keys() != self._space.keys():
            return None
        if not all(dimension.holds(setting[name]) for name, dimension in self._space.items()):
            return None
        return tuple(key_of(setting[name]) for name in self._space)

    def _candidates(self, number: int, tried: Sequence[Tried]) -> Iterator[dict[str, Any]]:
        """Settings, the best first. Of a finite space the last ones are any that nobody tried."""
        if self._sampler == "sobol":
            yield from map(self._at, self._sobol(number))
        elif self._sampler != "random":
            yield from self._modelled(self._sampler, number, tried)
        generator = random.Random(f"{self._seed} {number}")
        for _ in range(DRAWS):
            yield self._at([generator.random() for _ in self._space])
        if self._count is not None:
            first = generator.randrange(self._count)
            for index in range(first, first + len(tried) + 1):
                yield self._nth(index % self._count)

    def _at(self, point: Sequence[float]) -> dict[str, Any]:
        """The setting at a point of the unit cube."""
        return {name: dimension.at(each) for (name, dimension), each in zip(self._space.items(), point, strict=True)}

    def _nth(self, index: int) -> dict[str, Any]:
        """Setting number ``index`` of a finite space."""
        setting = {}
        for name, dimension in self._space.items():
            index, position = divmod(index, dimension.count or 1)
            setting[name] = dimension.nth(position)
        return setting

    def _sobol(self, number: int) -> Iterator[Sequence[float]]:
        """The points of one scrambled Sobol' sequence from number ``number`` on.

        It is scipy's sequence. Optuna's ``QMCSampler`` takes its first proposal from elsewhere, and its place in the
        sequence from a study that has to be asked for every earlier point.
        """
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._space), scramble=True, seed=_seed(self._seed))
        if number:
            sequence.fast_forward(number)
        for _ in range(DRAWS):
            yield sequence.random(1)[0].tolist()

    def _modelled(self, sampler: Literal["tpe", "gp"], number: int, tried: Sequence[Tried]) -> Iterator[dict[str, Any]]:
        """What Optuna's sampler proposes with several seeds. Nothing while results are too few for it."""
        outcomes = [_outcome(each) for each in tried]
        good = outcomes.count("done") + outcomes.count("stopped")
        results = good + outcomes.count("diverged")
        # TPE takes a tenth of the results, at most 25, for good ones. None of them shall be one that diverged.
        if results < START[sampler] or good < min(25, math.ceil(results / 10)):
            return
        if self._study is None:
            self._study = Study(self._space, self._mode)
        told = _told_to_tpe(tried) if sampler == "tpe" else _told_to_gp(tried, self._mode)
        for attempt in range(MODEL_DRAWS[sampler]):
            self._study.tell(told)
            setting = self._study.ask(sampler, _seed(self._seed, number, attempt))
            yield setting
            if sampler == "gp":  # it looks for one best setting, which another seed would find again
                told = [*told, Told("RUNNING", setting)]


def _outcome(tried: Tried) -> Outcome:
    """The outcome for a model: one whose value is not finite diverged, and without a value there is no result."""
    if tried.outcome not in ("done", "stopped"):
        return tried.outcome
    if tried.value is None:
        return "failed"
    return tried.outcome if math.isfinite(tried.value) else "diverged"


def _told_to_tpe(tried: Sequence[Tried]) -> list[Told]:
    """TPE ranks what is COMPLETE first, then PRUNED by step and value, and last of all PRUNED without a value."""
    told = []
    for each in tried:
        match _outcome(each):
            case "done":
                told.append(Told("COMPLETE", each.setting, each.value))
            case "stopped":
                told.append(Told("PRUNED", each.setting, each.value, each.step or 0))
            case "diverged":
                told.append(Told("PRUNED", each.setting))
            case "waiting":
                told.append(Told("RUNNING", each.setting))
            case "failed":
                told.append(Told("FAIL", each.setting))
    return told


def _told_to_gp(tried: Sequence[Tried], mode: Literal["min", "max"]) -> list[Told]:
    """The Gaussian process reads values of COMPLETE ones alone, so one that diverged gets a value below the worst."""
    sign = 1 if mode == "min" else -1
    costs = [sign * each.value for each in tried if _outcome(each) in ("done", "stopped") and each.value is not None]
    worst = max(costs) + (0.1 * (max(costs) - min(costs)) or 1.0)
    ended: list[tuple[float, Mapping[str, Any]]] = []
    waiting = []
    for each in tried:
        match _outcome(each):
            case "done" | "stopped" if each.value is not None:
                ended.append((sign * each.value, each.setting))
            case "diverged":
                ended.append((worst, each.setting))
            case "waiting":
                waiting.append(Told("RUNNING", each.setting))
    newest = range(max(0, len(ended) - GP_RESULTS * 3 // 4), len(ended))
    best = sorted(range(newest.start), key=lambda index: ended[index][0])[: GP_RESULTS - len(newest)]
    kept = [ended[index] for index in sorted([*best, *newest])]
    return [Told("COMPLETE", setting, sign * cost) for cost, setting in kept] + waiting


def _seed(*numbers: int) -> int:
    """A seed of 32 bits, as numpy takes it."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:4], "big")

"""Growing sweeps whose trials take no time: a pretended executor ends them in an order that a seed decides."""

from __future__ import annotations

import contextlib
import io
import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hand_made import POINTS, finish, plan_file, write_file
from rich.console import Console

from orchestrator.driver.options import Options
from orchestrator.driver.run import run_sweep
from orchestrator.engine.executor import Executor
from orchestrator.engine.placement import anywhere
from orchestrator.engine.queue import Death, Queue
from orchestrator.store.selection import EVERYTHING, Selection
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore

SEARCHED = f"""\
name: grown
base: {POINTS}
grid: {{critic_iterations: [1, 5]}}
seeds: 2
search:
  trials: 16
  sampler: tpe
  parallel: 3
  space: {{critic.lr: "tag(log, interval(1e-5, 1e-1))", penalty.weight: "choice(1, 10)"}}
confirm: {{best: 1, seeds: 3}}
compare: {{metric: exact_w1, mode: min}}
"""
RACED = f"""\
name: grown
base: {POINTS}
grid: {{penalty.weight: [1, 2, 3, 4, 5, 6]}}
seeds: {{first: 3, most: 12}}
confirm: {{best: 2, seeds: 2}}
compare: {{metric: exact_w1, mode: min}}
"""

Score = Callable[[Mapping[str, Any], Entry], float | State]
"""What a trial comes to, from its configuration: its metric, or the state that it ends in instead."""


class Killed(BaseException):
    """Stands for a driver that dies at once."""


class Shuffled:
    """An executor that has three trials running and ends a random one of them.

    ``deaths`` is the number of ends after which the driver dies.
    """

    def __init__(self, trial_ids: list[str], score: Score, order: random.Random, deaths: int | None) -> None:
        self.placement = anywhere(trial_ids, at_once=3)
        self._score, self._order, self._deaths = score, order, deaths

    def run(self, queue: Queue) -> None:
        running: list[str] = []
        while not queue.finished:
            while (assignment := queue.next()) is not None:
                running.append(assignment.trial_id)
            if not running:
                continue
            if self._deaths is not None:
                self._deaths -= 1
                if self._deaths < 0:
                    raise Killed
            trial_id = running.pop(self._order.randrange(len(running)))
            entry = next(each for each in queue.store.entries() if each.trial_id == trial_id)
            queue.ended(trial_id, died=end(queue.store, entry, self._score))


def end(store: SweepStore, entry: Entry, score: Score) -> Death | None:
    """Gives a trial its end."""
    result = score(store.trial(entry.trial_id).config(), entry)
    if not isinstance(result, State):
        finish(store, entry, {"exact_w1": result})
    elif result is State.LOST:
        return Death("it was killed")
    else:
        store.trial(entry.trial_id).write_status(Status(result, [Attempt(started=1.0)], "not finite"))
    return None


def drive(
    store: SweepStore,
    score: Score,
    *,
    order: int = 0,
    deaths: int | None = None,
    plan: Any = None,
    selection: Selection = EVERYTHING,
) -> tuple[int | None, str]:
    """Runs the sweep. Returns the exit code, None if the driver died, and what was printed."""
    console = Console(file=io.StringIO(), width=200)

    @contextlib.contextmanager
    def opened(_: SweepStore, trial_ids: Any, *__: object) -> Iterator[Executor]:
        yield Shuffled(list(trial_ids), score, random.Random(order), deaths)

    code = None
    with contextlib.suppress(Killed):
        code = run_sweep(store, Options(None), console, plan, selection, open_executor=opened)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def grown_sweep(folder: Path, text: str, *arguments: str) -> tuple[SweepStore, Any]:
    """A store without anything, and the plan of a sweep file."""
    plan = plan_file(write_file(folder, text), *arguments)
    return SweepStore(folder / "runs", plan.name), plan


def decided(store: SweepStore) -> list[dict[str, Any]]:
    """All decisions, in an order that does not depend on when they were made."""
    grown = store.grown()
    assert grown is not None
    return sorted((each.to_dict() for each in grown.decisions), key=repr)


def bowl(config: Mapping[str, Any], entry: Entry) -> float:
    """A bowl in the logarithm of the learning rate, with its lowest point at 10⁻³, and some noise of the seed."""
    noise = random.Random(f"{entry.seed} {entry.axes}").gauss(0, 0.05)
    return 2 + (math.log10(config["critic"]["lr"]) + 3) ** 2 + 0.1 * config["penalty"]["weight"] + noise


def steps(config: Mapping[str, Any], entry: Entry) -> float:
    """The first two cells are alike, the others are worse, each more than the one before."""
    noise = random.Random(f"{entry.seed} {entry.axes}").gauss(0, 0.1)
    return 1 + 0.5 * max(0, config["penalty"]["weight"] - 2) + noise

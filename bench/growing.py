"""What a plan that grows costs beside a fixed one of the same number of trials: the driver's processor time.

Trials take no time here: an executor in this process writes their results. So what is left is plan, queue, decisions,
store and table. The rows: a fixed grid; a search by random draws, whose decisions cost next to nothing beyond writing
them down; a search by TPE in many groups, and in one; a race.

    python bench/growing.py            # 1,000 and 10,000 trials
    python bench/growing.py 200 1000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.driver.options import Options
from orchestrator.driver.run import run_sweep
from orchestrator.engine.executor import Executor
from orchestrator.engine.placement import anywhere
from orchestrator.engine.queue import Queue
from orchestrator.files import write_atomically
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import make_plan

GROUPS = 50
PER_GROUP = 20
BASE = """\
name: {name}
base: [dataset=mixture, batch_size=8, budget=40, device=cpu, trainer=wgan_gp]
compare: {{metric: exact_w1, mode: min}}
"""
SEARCH = """\
grid: {{critic.lr: [{groups}]}}
search:
  trials: {each}
  sampler: {sampler}
  space: {{generator.lr: "tag(log, interval(1e-5, 1e-1))", penalty.weight: "tag(log, interval(0.1, 100))"}}
"""


def texts(trials: int) -> dict[str, str]:
    """A sweep file for each row, all of about this many trials."""
    groups, one = [f"{1e-4 * (1 + number):.6g}" for number in range(trials // PER_GROUP)], ["1e-4"]
    found = {"a fixed grid": f"grid: {{critic.lr: [{', '.join(groups)}]}}\nseeds: {PER_GROUP}\n"}
    for label, sampler, cells in (
        ("search, random", "random", groups),
        (f"search, tpe, {len(groups)} groups", "tpe", groups),
        ("search, tpe, one group", "tpe", one),
    ):
        each = trials // len(cells)
        found[label] = SEARCH.format(groups=", ".join(cells), each=each, sampler=sampler)
    found["race"] = f"grid: {{critic.lr: [{', '.join(groups)}]}}\nseeds: {{first: 5, most: 400, trials: {trials}}}\n"
    return {label: BASE.format(name=f"grown{number}") + text for number, (label, text) in enumerate(found.items())}


class Instant:
    """An executor whose trials have their results at once."""

    def __init__(self, trial_ids: list[str]) -> None:
        self.placement = anywhere(trial_ids, at_once=4)
        self.ended = 0
        self.seconds = 0.0
        """Processor seconds that the trials' own files took, which any plan pays."""

    def run(self, queue: Queue) -> None:
        while not queue.finished:
            if (assignment := queue.next()) is None:
                continue
            before = time.process_time()
            trial = queue.store.trial(assignment.trial_id)
            value = 1 + random.Random(assignment.trial_id).gauss(0, 0.1)
            line = {"epoch": 1, "iteration": 40, "timestamp": 1, "exact_w1": value}
            write_atomically(trial.metrics_file, json.dumps(line) + "\n")
            trial.write_status(Status(State.DONE, [Attempt(started=1.0, ended=2.0, state="DONE", last_epoch=1)]))
            self.seconds += time.process_time() - before
            queue.ended(assignment.trial_id)
            self.ended += 1


def measured(text: str) -> tuple[int, float, int]:
    """Trials, processor seconds of the run without the trials' own files, and bytes of decisions."""
    made: list[Instant] = []

    @contextlib.contextmanager
    def opened(_: SweepStore, trial_ids: Any, *__: object) -> Iterator[Executor]:
        made.append(Instant(list(trial_ids)))
        yield made[-1]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(text)
        plan = make_plan(read_sweep_file(file))
        store = SweepStore(Path(folder) / "runs", plan.name)
        started = time.process_time()
        console = Console(file=io.StringIO())
        run_sweep(store, Options(None, executor="local"), console, plan, open_executor=opened)
        seconds = time.process_time() - started - made[0].seconds
        size = store.decisions_file.stat().st_size if store.decisions_file.exists() else 0
        return made[0].ended, seconds, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", type=int, default=[1000, 10000])
    for text in texts(40).values():  # imports what the rows use
        measured(text)
    print("| plan | trials | processor s | ms a trial | of the fixed grid's | decisions.jsonl, MB |")
    print("|---|---|---|---|---|---|")
    for trials in parser.parse_args().trials:
        fixed: float | None = None
        for label, text in texts(trials).items():
            ended, seconds, size = measured(text)
            each = 1e3 * seconds / ended
            fixed = each if fixed is None else fixed
            print(
                f"| {label} | {ended:,} | {seconds:.1f} | {each:.2f} | {each / fixed:.2f} | {size / 1e6:.1f} |",
                flush=True,
            )
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()

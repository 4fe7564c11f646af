"""Hand-made sweeps: planned by the real planner, filled with numbers that a test chooses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.engine.placement import Placement
from orchestrator.store.epochs import EpochLog
from orchestrator.store.states import Attempt, State, Status
from orchestrator.store.sweep import Entry, SweepStore
from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import Plan, PlannedTrial, make_plan

Planner = Callable[..., Plan]
"""``plan_of(text, "scale=small", name="other")`` returns a plan."""

POINTS = "[dataset=mixture, batch_size=8, budget=40, device=cpu]"
"""The base of sweeps that are cheap to plan and to run: points in the plane, with exact transport as metric."""

TWO_CELLS = f"""\
name: hand
description: two cells
base: {POINTS}
grid: {{penalty.weight: [1, 2]}}
seeds: 2
compare: {{metric: exact_w1, mode: min}}
"""


def write_file(folder: Path, text: str, name: str = "sweep.yaml") -> Path:
    """Writes a sweep file and returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def plan_file(path: Path, *arguments: str, name: str | None = None, cache_dir: Path | None = None) -> Plan:
    """The plan of a file."""
    return make_plan(read_sweep_file(path), arguments, name, cache_dir)


def option(trial: PlannedTrial, path: str) -> Any:
    """A value of a planned trial's configuration: ``option(trial, "penalty.weight")``."""
    value: Any = trial.config.to_dict()
    for piece in path.split("."):
        value = value[piece]
    return value


def make_sweep(folder: Path, text: str = TWO_CELLS, *arguments: str, cache_dir: Path | None = None) -> SweepStore:
    """Plans a sweep in ``folder/runs``. Nothing of it has run."""
    plan = plan_file(write_file(folder, text), *arguments, cache_dir=cache_dir)
    store = SweepStore(folder / "runs", plan.name)
    store.make()
    store.write_plan(plan)
    return store


def one_cpu_each(store: SweepStore, limit: int | None = None) -> Placement:
    """A placement that gives every trial of a sweep one processor of the Ray that this process has joined."""
    return Placement({entry.trial_id: (("CPU", 1.0),) for entry in store.entries()}, limit)


def attempt(**changes: Any) -> Attempt:
    """An attempt as a worker records it, with these changes."""
    now = time.time()
    made = Attempt(
        started=now - 1,
        host="somewhere",
        pid=1,
        commit="0123456789ab",
        versions={"python": "3.11", "torch": "2.15"},
        device="cpu (x86_64)",
        resumed_at=0,
        ended=now,
        state="DONE",
    )
    return dataclasses.replace(made, **changes)


def records(last: Mapping[str, float], untrained: Mapping[str, float], epochs: int = 2) -> list[dict[str, Any]]:
    """The records of epoch 0 and of ``epochs`` epochs, of which the last was evaluated."""
    trained = [
        {"epoch": epoch, "iteration": 17 * epoch, "critic_loss": 0.5 / epoch, "penalty": 0.125, "epoch_seconds": 0.25}
        for epoch in range(1, epochs + 1)
    ]
    trained[-1] |= {**last, "evaluation_seconds": 0.5}
    return [{"epoch": 0, "iteration": 0, **untrained, "evaluation_seconds": 0.5}, *trained]


def finish(
    store: SweepStore,
    entry: Entry,
    metrics: Mapping[str, float],
    *,
    state: State = State.DONE,
    error: str | None = None,
    commits: Sequence[str] = ("0123456789ab",),
    untrained: Mapping[str, float] | None = None,
    floor: Mapping[str, float] | None = None,
    higher_is_better: Iterable[str] = (),
    info: Mapping[str, str] | None = None,
    epochs: int = 2,
) -> None:
    """Writes the files of a trial that has ended, as a worker would."""
    trial = store.trial(entry.trial_id)
    log = EpochLog(trial.metrics_file)
    for record in records(metrics, untrained or dict.fromkeys(metrics, 9.0), epochs):
        log.append(record)
    trial.write_references(
        {
            "floor": dict(floor or dict.fromkeys(metrics, 0.125)),
            "metrics": list(metrics),
            "higher_is_better": sorted(higher_is_better),
            "info": dict(info or {"solver": "exact"}),
        }
    )
    trial.samples.mkdir(exist_ok=True)
    for epoch in (0, epochs):
        Image.new("L", (300, 200), 99).save(trial.samples / f"epoch_{epoch:06d}.png")
    attempts = [attempt(commit=commit, state=str(state), error=error) for commit in commits]
    trial.log_file.write_text("a log\n")
    trial.write_status(Status(state, attempts, error))

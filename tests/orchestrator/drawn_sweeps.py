"""Hand-made sweeps with a curve for every trial, for the tests of figures and reports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from hand_made import POINTS, attempt, make_sweep
from PIL import Image

from orchestrator.store.states import State, Status
from orchestrator.store.sweep import Entry, SweepStore

METRIC = "exact_w1"
VARIANTS = f"""\
name: drawn
description: two methods
base: {POINTS}
variants:
  wgan-gp:
    base: [trainer=wgan_gp]
    grid: {{penalty.weight: [10, 1, 0.1], critic_iterations: [1, 2]}}
    exclude: [{{penalty.weight: 10, critic_iterations: 2}}]
  wgan: {{base: [trainer=wgan]}}
seeds: 3
compare: {{metric: {METRIC}, mode: min}}
"""
ERRORS = {
    State.FAILED: "RuntimeError: out of paper",
    State.DIVERGED: "critic_loss is not finite",
    State.LOST: "its worker died",
}
Curve = Mapping[int, Mapping[str, float]]


def store_trial(
    store: SweepStore,
    entry: Entry,
    epochs: Curve,
    state: State = State.DONE,
    *,
    floor: float | None = 0.125,
    seconds: float = 0.5,
    shade: int = 128,
) -> None:
    """Stores epochs as a worker would: ``epochs[number]`` are the metrics, and each picture has one shade of grey."""
    trial = store.trial(entry.trial_id)
    trial.samples.mkdir(exist_ok=True)
    lines = []
    for epoch, metrics in epochs.items():
        times = {"epoch_seconds": seconds, "critic_loss": -0.5 * epoch} if epoch else {}
        position = {"epoch": epoch, "iteration": 17 * epoch, "timestamp": 1000 * epoch}
        lines.append({**position, **times, "evaluation_seconds": 0.25, **metrics})
        Image.new("L", (44, 44), shade + epoch).save(trial.samples / f"epoch_{epoch:06d}.png")
    trial.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    values = {} if floor is None else {METRIC: floor}
    references = {"floor": values, "metrics": [METRIC], "higher_is_better": [], "neutral": [], "info": {}}
    trial.write_references(references)
    error = ERRORS.get(state)
    trial.write_status(Status(state, [attempt(state=str(state), error=error)], error))


def falling(entry: Entry, last: int = 3, start: float = 20.0) -> Curve:
    """A curve that halves every epoch, with a small offset that differs between seeds and cells."""
    offset = 0.1 * entry.seed + 0.01 * len(entry.setting)
    return {epoch: {METRIC: start * 0.5**epoch + offset} for epoch in range(last + 1)}


def make_drawn(
    folder: Path, text: str = VARIANTS, states: Callable[[Entry], State] = lambda entry: State.DONE
) -> SweepStore:
    """A sweep whose trials have the given states. DONE trials have three epochs, others one, and PENDING ones none."""
    store = make_sweep(folder, text)
    for number, entry in enumerate(store.entries()):
        state = states(entry)
        if state is not State.PENDING:
            store_trial(store, entry, falling(entry, 3 if state is State.DONE else 1), state, shade=number)
    return store


def some_fail(entry: Entry) -> State:
    """States: one seed of a cell FAILED, one of another cell DIVERGED, and a third cell has no DONE trial."""
    if entry.label == "wgan-gp weight=1 critic_iterations=2":
        return (State.FAILED, State.LOST, State.DIVERGED)[entry.seed]
    if entry.seed == 0 and entry.label in ("wgan", "wgan-gp weight=1 critic_iterations=1"):
        return State.FAILED if entry.variant == "wgan" else State.DIVERGED
    return State.DONE

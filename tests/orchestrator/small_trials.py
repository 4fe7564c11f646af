"""Small trials of a second, and comparisons to the bit between a disturbed trial and an undisturbed one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from orchestrator.store.epochs import CLOCKS
from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial
from trainers.config import TrialConfig

SMALL: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "network": {"name": "mlp", "latent_size": 8, "generator_widths": [16], "critic_widths": [16]},
    "objective": {"name": "kantorovich_rubinstein"},
    "penalty": {"name": "gradient"},
    "evaluation": {"name": "none"},
    "critic": {"lr": 1e-3},
    "generator": {"lr": 1e-3},
    "budget": 50,
    "device": "cpu",
    "checkpoint_epochs": 1,
}
"""50 critic iterations in epochs of 20."""

EVERYTHING: dict[str, Any] = {
    "critic_iterations": 3,
    "evaluation": {"times": 2},
    "network": {"dropout": 0.3},
    "generator": {"ema": 0.9},
}
"""Changes that use every kind of state that a checkpoint has to hold."""

NewTrial = Callable[..., TrialStore]


def create(path: Path, **changes: Any) -> TrialStore:
    """Makes a small trial with these changes that has not run."""
    values = {k: {**v, **changes.get(k, {})} if isinstance(v, dict) else changes.get(k, v) for k, v in SMALL.items()}
    trial = TrialStore(path)
    trial.create(TrialConfig.from_dict(values | {k: v for k, v in changes.items() if k not in SMALL}).to_dict())
    return trial


def run(trial: TrialStore, after: int | None = None) -> State:
    """Runs a trial. With ``after`` it is told to stop once it has asked that many times whether to stop."""
    asked = itertools.count(1)
    return run_trial(trial, trial.path.parent / "cache", should_stop=lambda: after is not None and next(asked) > after)


def without_timings(trial: TrialStore) -> list[dict[str, Any]]:
    """The stored epochs without the fields that differ between two runs of the same trial."""
    return [{name: value for name, value in record.items() if name not in CLOCKS} for record in trial.epochs()]


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and numbers of a nested state, by their path."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from leaves(value, f"{path} {key}")
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from leaves(value, f"{path} {number}")
    else:
        yield path.strip(), state


def state_of(file: Path) -> dict[str, Any]:
    """A checkpoint's networks, optimisers, random state and position as flat values, without its timings."""
    state = torch.load(file, weights_only=True)["training"]
    del state["interrupted_seconds"]
    return dict(leaves(state))


def assert_same_state(one: Path, other: Path) -> None:
    """That two checkpoints are equal to the bit."""
    ours, theirs = state_of(one), state_of(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        same = torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]
        assert same, f"{name} differs"


def assert_equal_to_the_bit(one: TrialStore, other: TrialStore) -> None:
    """That two trials have the same metrics, samples and final state."""
    assert without_timings(one) == without_timings(other)
    assert_same_state(one.checkpoint_file, other.checkpoint_file)
    assert [file.name for file in one.sample_files()] == [file.name for file in other.sample_files()]
    assert [file.read_bytes() for file in one.sample_files()] == [file.read_bytes() for file in other.sample_files()]


def contents(folder: Path, *but: str) -> dict[str, bytes]:
    """The content of every file below a folder, by path, including hidden files and without the names in ``but``."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def half_written(folder: Path) -> list[str]:
    """The temporary files below a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.is_file()]

"""A stop during an evaluation abandons it. The next attempt repeats it and ends equal to the bit."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine
from small_trials import NewTrial, assert_equal_to_the_bit, create, run

from orchestrator.store.states import State
from orchestrator.store.trial import TrialStore
from orchestrator.trial.run import run_trial
from trainers.evaluation.transport import TransportEvaluator

MEASURED: dict[str, Any] = {
    "dataset": {"name": "mixture"},
    "evaluation": {"name": "transport", "times": 50},
    "probes": [{"name": "distance"}],
    "critic_iterations": 3,
    "network": {"dropout": 0.3},
    "generator": {"ema": 0.9},
    "batch_size": 32,
    "budget": 10,
    "checkpoint_epochs": None,
}
"""Epochs of 4, 4 and 2 critic iterations. Each is evaluated. Only a stop writes a checkpoint before the end."""
ITERATIONS = [0, 4, 4, 2]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> TrialStore:
    """The trial run in one go."""
    trial = create(tmp_path_factory.mktemp("twin") / "trial", **MEASURED)
    assert run(trial) is State.DONE
    return trial


@pytest.fixture(scope="module")
def evaluations(twin: TrialStore) -> list[range]:
    """For each epoch, the numbers of the questions whether to stop that its evaluation asks."""
    again = TrialStore(twin.path.with_name("again"))
    again.create(twin.config())
    asked, told = itertools.count(), [0]
    stop = lambda: next(asked) < 0  # noqa: E731
    state = run_trial(
        again, twin.path.parent / "cache", should_stop=stop, on_epoch=lambda record: told.append(_peek(asked))
    )
    assert state is State.DONE
    assert_equal_to_the_bit(again, twin)
    ends = itertools.pairwise(told)
    return [range(begun + trained, end) for trained, (begun, end) in zip(ITERATIONS, ends, strict=True)]


def _peek(numbers: itertools.count[int]) -> int:
    """The number that comes next."""
    return int(repr(numbers).removeprefix("count(").removesuffix(")"))


@pytest.mark.parametrize(
    ("epoch", "part"),
    [
        pytest.param(0, 0.5, id="the untrained generator"),
        pytest.param(1, 0.0, id="the beginning of the first"),
        pytest.param(2, 0.5, id="the middle of the second"),
        pytest.param(2, 1.0, id="the end of the second"),
        pytest.param(3, 0.5, id="the last, of a short epoch"),
    ],
)
def test_an_evaluation_that_is_stopped_is_repeated_and_the_trial_equals_an_undisturbed_one(
    new_trial: NewTrial, twin: TrialStore, evaluations: list[range], epoch: int, part: float
) -> None:
    trial, questions = new_trial(**MEASURED), evaluations[epoch]
    assert len(questions) > 15
    assert run(trial, after=questions[round(part * (len(questions) - 1))]) is State.RUNNING
    assert [record["epoch"] for record in trial.epochs()] == list(range(epoch))  # nothing of this epoch
    assert trial.status().attempts[-1].state == "RUNNING"
    assert trial.checkpoint_file.exists() is (epoch > 0)
    if epoch:
        state = torch.load(trial.checkpoint_file, weights_only=True)["training"]
        assert state["iteration"] == sum(ITERATIONS[: epoch + 1])
        assert "put_back" in state
    assert run(trial, after=0) is State.RUNNING  # stopped again before anything has come of it
    assert run(trial) is State.DONE
    assert_equal_to_the_bit(trial, twin)
    assert "came out different" not in trial.log_file.read_text()
    assert trial.status().attempts[-1].unreadable == []


@pytest.mark.parametrize("epoch", [1, 3])
def test_just_before_and_just_after_an_evaluation_as_well(
    new_trial: NewTrial, twin: TrialStore, evaluations: list[range], epoch: int
) -> None:
    before, after = new_trial(**MEASURED), new_trial(**MEASURED)
    assert run(before, after=evaluations[epoch][0] - 1) is State.RUNNING
    assert run(after, after=evaluations[epoch][-1] + 1) is (State.RUNNING if epoch < 3 else State.DONE)
    for trial, stored in ((before, epoch), (after, epoch + 1)):
        assert len(trial.epochs()) == stored
        assert "put_back" not in torch.load(trial.checkpoint_file, weights_only=True)["training"]
        assert run(trial) is State.DONE
        assert_equal_to_the_bit(trial, twin)


def test_stopped_at_every_evaluation_again_and_again(
    new_trial: NewTrial, twin: TrialStore, evaluations: list[range]
) -> None:
    trial = new_trial(**MEASURED)
    for after in [evaluations[0][3], *itertools.repeat(2, 6), 40, 5, 40, 40]:
        assert run(trial, after=after) in (State.RUNNING, State.DONE)
    assert run(trial) is State.DONE
    assert_equal_to_the_bit(trial, twin)


def test_a_trial_that_is_stopped_while_it_prepares_has_begun_nothing(new_trial: NewTrial, tmp_path: Path) -> None:
    """The classifier is not in the cache yet, and its training takes 600 steps."""
    trial = new_trial(evaluation={"name": "classifier", "samples": 100})
    assert run(trial, after=3) is State.RUNNING
    assert (trial.epochs(), trial.checkpoint_file.exists()) == ([], False)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []
    assert trial.log_file.read_text().splitlines()[-1].endswith("stopped")


def test_ctrl_c_during_a_later_evaluation_of_one_trial_here_abandons_it(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = TransportEvaluator.measure, itertools.count(1)

    def interrupted(self: TransportEvaluator, samples: torch.Tensor) -> dict[str, float]:
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return measure(self, samples)

    monkeypatch.setattr(TransportEvaluator, "measure", interrupted)
    words = ["dataset=mixture", "budget=40", "batch_size=32", "evaluation.times=50", "device=cpu"]
    code, out, errors = command_line("train", *words, "--runs-dir", tmp_path)
    assert code == 130, (out, errors)
    (folder,) = (tmp_path / "train").iterdir()
    trial = TrialStore(folder)
    assert [record["epoch"] for record in trial.epochs()] == [0, 1]
    assert trial.checkpoint_file.exists()
    assert trial.status().state is State.PENDING

"""Trials that end when an evaluation is good enough."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from trainers.config import TrialConfig
from trainers.parts import ConfigError
from trainers.training import Training

Start = Callable[..., Training]
POINTS: dict[str, Any] = {"dataset": "mixture", "network": "mlp", "batch_size": 8, "budget": 170, "penalty": "clipping"}


def train(training: Training) -> list[float]:
    """Trains to the end. Returns the first metric of each evaluation."""
    values = []
    while not training.finished:
        training.run_epoch()
        if training.evaluation_due:
            values.append(training.evaluate().metrics["exact_w1"])
    return values


def test_a_trial_ends_at_the_first_evaluation_that_is_good_enough(start: Start) -> None:
    values = train(start(**POINTS, evaluation={"name": "transport", "times": 10}))
    assert len(values) == 10
    target = sorted(values)[3]  # some of the ten evaluations are as good
    first = next(index for index, value in enumerate(values) if value <= target)
    stopped = start(**POINTS, evaluation={"name": "transport", "times": 10, "stop_at": target})
    assert train(stopped) == values[: first + 1]
    assert stopped.epoch == first + 1
    with pytest.raises(RuntimeError, match="stop_at was reached"):
        stopped.run_epoch()


def test_that_it_was_reached_stays_with_a_checkpoint(start: Start) -> None:
    evaluation = {"name": "transport", "times": 10, "stop_at": 100.0}
    stopped, resumed = (start(**POINTS, evaluation=evaluation) for _ in range(2))
    train(stopped)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    assert resumed.finished
    assert resumed.epoch == stopped.epoch == 1


def test_the_untrained_generator_ends_nothing(start: Start) -> None:
    training = start(**POINTS, evaluation={"name": "transport", "stop_at": 100.0})
    training.evaluate()
    assert not training.finished


def test_more_of_a_score_is_better(trial: Callable[..., TrialConfig]) -> None:
    evaluation = trial(evaluation={"name": "classifier", "stop_at": 3.0}).evaluation
    assert evaluation.reached({"classifier_fid": 2.5})
    assert not evaluation.reached({"classifier_fid": 3.5})


def test_without_metrics_there_is_nothing_to_stop_at(trial: Callable[..., TrialConfig]) -> None:
    with pytest.raises(ConfigError, match="evaluation.stop_at: evaluation=none measures no metric"):
        trial(evaluation={"name": "none", "stop_at": 1.0})

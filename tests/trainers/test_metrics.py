"""Every metric is described in one place, and every metric that a trial logs is described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from trainers.metrics import (
    COMPILE_SECONDS,
    EPOCH_METRICS,
    OF_EVERY_TRIAL,
    TIMING,
    Metric,
    find_metric,
    names_of,
    stated_metrics,
)
from trainers.training import Training

Start = Callable[..., Training]
DIGITS = ["distance", "lipschitz", "vertical_shift", "salt_and_pepper", "nearest", "generator_gradient", "neighbours"]
LOGGED = [
    pytest.param({"evaluation": {"name": "classifier", "samples": 100}, "probes": DIGITS}, id="a generator"),
    pytest.param({"dataset": "mixture", "evaluation": "transport"}, id="points"),
    pytest.param(
        {
            "opponent": "noise",
            "objective": {"name": "c_transform", "p": 2},
            "penalty": "none",
            "probes": ["transport_map"],
        },
        id="noise",
    ),
]


@pytest.mark.parametrize("changes", LOGGED)
def test_every_metric_of_a_trial_is_registered(start: Start, changes: dict[str, object]) -> None:
    training = start(**changes)
    record = training.run_epoch()
    assert record is not None
    assert record.keys() <= set(names_of(EPOCH_METRICS))
    assert set(names_of(EPOCH_METRICS)) - record.keys() <= {"generator_loss"}  # which no critic alone has
    measured = training.evaluate().metrics
    config = training.config
    stated = {*names_of(config.metrics), *names_of(config.evaluation.also_logged)}
    assert measured.keys() - stated == {"evaluation_seconds"}
    assert {find_metric(name).source for name in record} == {"loss", "timing"}
    assert {name for name in measured if find_metric(name).source == "timing"} == {"evaluation_seconds"}


def test_no_two_metrics_share_a_name() -> None:
    names = Counter(names_of([*OF_EVERY_TRIAL, *stated_metrics()]))
    assert names.most_common(1)[0][1] == 1
    assert {metric.source for metric in stated_metrics()} == {"evaluation", "probe"}


def test_where_more_is_better() -> None:
    higher = {metric.name for metric in [*OF_EVERY_TRIAL, *stated_metrics()] if metric.direction == "max"}
    evaluated = {"inception_score", "precision", "recall"}
    assert higher == {*evaluated, "classifier_is", "classifier_precision", "classifier_recall", "noise_overlap"}
    assert find_metric("noise_overlap").mode == "max"
    assert find_metric("fid").mode == "min"
    assert find_metric("critic_loss").direction is None
    assert find_metric("critic_loss").mode == "min"  # for a sweep that compares by a loss and states no mode


def test_a_distance_wants_a_logarithmic_axis_and_a_loss_does_not() -> None:
    for name in ("fid", "classifier_fid", "exact_w1", "distance_error", "nearest_distance"):
        assert find_metric(name).logarithmic, name
    for name in ("kid", "critic_loss", "inception_score", "exact_wqp", "somebody_s"):
        assert not find_metric(name).logarithmic, name


def test_a_name_that_nobody_states_is_a_metric_without_direction() -> None:
    assert find_metric("somebody_s") == Metric("somebody_s")
    assert "epoch_seconds" in TIMING
    assert COMPILE_SECONDS.name in TIMING
    assert "critic_loss" not in TIMING

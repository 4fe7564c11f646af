"""What the benchmark counts and how it judges."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from bench.performance.epochs import epoch_ratios
from bench.performance.settings import BATCH, Bench, Setting, verdict
from bench.performance.steps import count_work, step_target
from trainers.networks import Mlp

D, LATENT, CRITIC, GENERATOR = 9, 4, (16, 8), (12,)
SETTING = Setting((1, 3, 3), Mlp(latent_size=LATENT, generator_widths=GENERATOR, critic_widths=CRITIC), 640)
LAYERS = [inputs * outputs for inputs, outputs in pairwise((D, *CRITIC, 1))]
FORWARD, INPUTS = sum(LAYERS), sum(LAYERS[1:])
GENERATED = [inputs * outputs for inputs, outputs in pairwise((LATENT, *GENERATOR, D))]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", 1, tmp_path, quick=True)


def test_the_operations_of_clipping_are_those_of_its_passes(bench: Bench) -> None:
    critic, generator = count_work(bench, SETTING, "WGAN")
    # fakes; both minibatches through the critic, and back to its weights and between its layers
    assert critic.flops == 2 * BATCH * (sum(GENERATED) + 2 * (2 * FORWARD + INPUTS))
    # fakes through both players, back through the critic to its input, and to the generator's weights
    assert generator.flops == 2 * BATCH * (2 * sum(GENERATED) + sum(GENERATED[1:]) + 2 * FORWARD)


def test_a_gradient_penalty_adds_operations_and_the_wasserstein_norm_no_matrix_product(bench: Bench) -> None:
    clipped, penalised = (count_work(bench, SETTING, method)[0] for method in ("WGAN", "WGAN-GP"))
    assert penalised.flops >= clipped.flops + 2 * BATCH * 2 * FORWARD  # φ(x̂) and its gradient at the least
    assert penalised.bytes > clipped.bytes
    assert count_work(bench, SETTING, "WWGAN")[0].flops == penalised.flops


def test_a_ground_cost_counts_three_operations_a_coordinate_of_each_pair(bench: Bench) -> None:
    clipped, transformed = (count_work(bench, SETTING, method)[0] for method in ("WGAN", "(2,1)"))
    assert transformed.flops == clipped.flops + 3 * D * 2 * BATCH**2


@pytest.mark.parametrize(
    ("value", "target", "at_most", "word"),
    [(1.0, 1.01, True, "met"), (1.02, 1.01, True, "missed"), (2.0, 1.5, False, "met"), (1.4, 1.5, False, "missed")],
)
def test_a_target_is_met_or_missed(value: float, target: float, at_most: bool, word: str) -> None:
    assert verdict(value, target, at_most=at_most)[1] == word


@pytest.mark.parametrize(
    ("method", "target"), [("WGAN-GP", None), ("WWGAN", 1.01), ("(1,1)", 1.0), ("(2,2)", 1.0), ("(1.5,1)", 1.3)]
)
def test_the_targets_of_steps_are_the_issues(method: str, target: float | None) -> None:
    assert step_target(method) == target


def test_an_epoch_of_the_textbook_has_the_start_of_its_workers_once() -> None:
    times = {
        "ours": [1.0, 1.0, 1.0],
        "textbook": [2.0, 2.0, 2.0],
        "loader": [10.0, 10.0, 10.0],
        "bf16": [0.5, 0.5, 0.5],
    }
    ratios = epoch_ratios(times, 10)
    assert ratios["textbook loop/ours"] == 2.0
    assert ratios["textbook/ours"] == 3.0
    assert ratios["ours/bf16"] == 2.0
    assert ratios["textbook/bf16"] == 6.0

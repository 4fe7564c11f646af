"""Probes: their values for critics with known answers. They change nothing in the training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from function_critic import FunctionCritic
from PIL import Image
from torch import Tensor

from trainers.config import TrialConfig
from trainers.metrics import names_of
from trainers.parts import ConfigError, build_part, built_in
from trainers.probes import NEIGHBOURS, QUERIES, Probe, Probed
from trainers.probes.measure import (
    PAIRS,
    normalised_total_variation,
    probe,
    shifted_down,
    zero_crossings,
)
from trainers.probes.pictures import save_curves
from trainers.training import Training
from trainers.transport.pixel_histograms import pixel_wasserstein
from trainers.untrained import NOISE_SCALE

Start = Callable[..., Training]


def probes() -> dict[str, Probe]:
    """Every probe, by name."""
    found = {name: build_part("probe", name) for name in built_in("probe")}
    return {name: each for name, each in found.items() if isinstance(each, Probe)}


def measured(name: str, training: Training) -> Probed:
    return probe(probes()[name], training)


def with_critic(training: Training, phi: Callable[[Tensor], Tensor]) -> Training:
    training.critic = FunctionCritic(phi)  # type: ignore[assignment]
    return training


def test_a_shifted_image_is_its_rows_below_black() -> None:
    images = torch.arange(2 * 1 * 3 * 2).reshape(2, 1, 3, 2).float()
    assert torch.equal(shifted_down(images, 0), images)
    assert torch.equal(shifted_down(images, 1)[:, :, 1:], images[:, :, :2])
    assert (shifted_down(images, 1)[:, :, 0] == -1).all()
    assert (shifted_down(images, 3) == -1).all()


@pytest.mark.parametrize(
    ("curve", "variation", "crossings"),
    [
        pytest.param([3.0, 1.0, -2.0], 1.0, 1, id="monotone"),
        pytest.param([1.0, 1.0, 1.0], 0.0, 0, id="constant"),
        pytest.param([1.0, -1.0, 1.0, -1.0], 3.0, 3, id="back and forth"),
        pytest.param([2.0, 1.0, 2.0, 0.0], 2.0, 0, id="0 counts as positive"),
    ],
)
def test_variation_and_crossings_of_a_curve(curve: list[float], variation: float, crossings: int) -> None:
    for scale in (1.0, 10.0):
        curves = scale * torch.tensor([curve])
        assert normalised_total_variation(curves).tolist() == pytest.approx([variation])
        assert zero_crossings(curves).tolist() == [crossings]


def test_brightness_falls_once_while_an_image_moves_out(start: Start) -> None:
    """New rows are black (−1), so the sum of all values can only fall."""
    probed = measured("vertical_shift", with_critic(start(), lambda x: x.flatten(1).sum(dim=1)))
    assert probed.metrics["shift_total_variation"] == pytest.approx(1)
    assert probed.metrics["shift_zero_crossings"] <= 1
    assert len(probed.curves["critic"]) == 9  # 0 to 8 rows


def test_noise_overlap_is_what_two_histograms_share(start: Start) -> None:
    blind = measured("salt_and_pepper", with_critic(start(), lambda x: torch.linspace(0, 1, len(x))))
    assert blind.metrics["noise_overlap"] == pytest.approx(1, abs=1e-6)
    roughness = measured("salt_and_pepper", with_critic(start(), lambda x: x.diff(dim=2).abs().mean(dim=(1, 2, 3))))
    clean, noisy = (torch.tensor(roughness.curves[name]) for name in ("clean", "noisy"))
    assert clean.sum().item() == noisy.sum().item() == pytest.approx(1)
    assert roughness.metrics["noise_overlap"] == pytest.approx(torch.minimum(clean, noisy).sum().item())
    assert roughness.metrics["noise_overlap"] < 0.8


def test_training_examples_are_at_no_distance_from_themselves(start: Start) -> None:
    probed = measured("nearest", start(opponent="data"))
    assert probed.metrics["nearest_distance"] == pytest.approx(0, abs=1e-3)
    assert probed.metrics["nearest_distance_held_out"] > 1
    assert probed.curves["held_out"] == sorted(probed.curves["held_out"])
    assert len(probed.curves["held_out"]) == 101


def test_the_estimate_of_a_potential_that_is_optimal_is_the_exact_distance(start: Start) -> None:
    """Between a distribution and itself moved by s, φ(x) = −⟨x, s⟩/‖s‖ is optimal for W₁, and so is its c-transform."""
    for objective in ("kantorovich_rubinstein", {"name": "c_transform", "search_space": "both"}):
        training = start(dataset="gaussians", opponent="data", objective=objective, penalty="none", batch_size=256)
        probed = measured("distance", with_critic(training, lambda x: x.sum(dim=1) / math.sqrt(2)))
        assert probed.metrics["distance_estimate"] == pytest.approx(2 * math.sqrt(2), abs=0.1)
        assert probed.metrics["distance_error"] < 0.1  # between batches of 256 the transport has a part across s
        assert probed.metrics["distance_population_error"] < 0.2
        assert probed.curves["population"] == [pytest.approx(2 * math.sqrt(2))] * PAIRS
        assert probed.metrics["distance_control_error"] > 1


def test_the_estimate_of_an_admissible_pair_never_exceeds_the_exact_distance(start: Start) -> None:
    training = start(opponent="data", objective={"name": "c_transform", "q": 1, "p": 2}, penalty="none")
    probed = measured("distance", training)
    pairs = zip(probed.curves["estimate"], probed.curves["untrained"], probed.curves["exact"], strict=True)
    assert all(estimate <= exact + 1e-4 and untrained <= exact + 1e-4 for estimate, untrained, exact in pairs)


def test_without_a_critic_s_help_kantorovich_rubinstein_says_0(start: Start) -> None:
    probed = measured("distance", start(opponent="data"))
    assert probed.curves["untrained"] == [0.0] * PAIRS
    assert probed.metrics["distance_control_error"] == pytest.approx(probed.metrics["distance_exact"])
    assert probed.curves["population"] == [0.0] * PAIRS  # the data and themselves


def test_the_lipschitz_constant_of_a_linear_potential_is_its_slope(start: Start) -> None:
    """φ(x) = 3 ⟨x, u⟩ with a unit vector u along the shift. Divided by its slope it gives W₁ = 2 √2."""
    training = start(dataset="gaussians", opponent="data")
    metrics = measured("lipschitz", with_critic(training, lambda x: 3 * x.sum(dim=1) / math.sqrt(2))).metrics
    assert metrics["lipschitz_constant"] == pytest.approx(3, rel=1e-3)
    assert metrics["lipschitz_distance"] == pytest.approx(2 * math.sqrt(2), abs=0.2)
    backwards = measured("lipschitz", with_critic(training, lambda x: -x.sum(dim=1))).metrics
    assert backwards["lipschitz_distance"] == 0
    flat = measured("lipschitz", with_critic(training, lambda x: 0 * x.sum(dim=1))).metrics
    assert (flat["lipschitz_constant"], flat["lipschitz_distance"]) == (0, 0)


def test_a_potential_over_its_lipschitz_constant_stays_below_the_exact_distance(start: Start) -> None:
    """Every fake is at the origin. So W₁ is the mean of ‖x‖, and φ = ‖x‖ is optimal at every scale."""
    training = start(dataset="atoms", network="atoms")
    exact = training.data.train.norm(dim=1).mean().item()

    def distance(phi: Callable[[Tensor], Tensor]) -> float:
        return measured("lipschitz", with_critic(training, phi)).metrics["lipschitz_distance"]

    for scale in (0.01, 1.0, 100.0):
        assert distance(lambda x, scale=scale: scale * x.norm(dim=1)) == pytest.approx(exact, rel=1e-4)
        assert 0 < distance(lambda x, scale=scale: scale * x.square().sum(dim=1)) < exact


@pytest.mark.parametrize(("q", "p"), [(1.0, 1.0), (2.0, 2.0), (3.0, 1.5)])
def test_the_distance_of_a_translation_is_its_cost(start: Start, q: float, p: float) -> None:
    objective = {"name": "c_transform", "q": q, "p": p}
    training = start(dataset="gaussians", opponent="data", objective=objective, penalty="none")
    assert training.population_distance() == pytest.approx((2 * 2 ** (1 / q)) / p ** (1 / p))


def test_against_a_generator_no_population_distance_is_known(start: Start) -> None:
    training = start(penalty="none", objective="c_transform")
    assert training.population_distance() is None
    assert "distance_population_error" not in measured("distance", training).metrics


@pytest.mark.parametrize("dataset", ["digits", "mixture"])
def test_probes_disturb_nothing(start: Start, dataset: str) -> None:
    names = [name for name, each in probes().items() if dataset == "digits" or not each.needs_images]
    names.remove("transport_map")  # of the noise alone
    network = {"dropout": 0.3}
    plain, probed = (start(dataset=dataset, network=network, probes=list(some)) for some in ([], names))
    for training in (plain, probed):
        evaluated = training.evaluate()
        assert set(evaluated.curves) == {each.name for each in training.config.probes}
        assert training.critic.training
        while not training.finished:
            training.run_epoch()
    for one, other in zip(plain.critic.parameters(), probed.critic.parameters(), strict=True):
        assert torch.equal(one, other)
    metrics = probed.evaluate().metrics
    assert probed.evaluate().metrics.keys() == metrics.keys()
    unknown = {"distance_population_error", "neighbours_same_class_l2", "neighbours_same_class_w2"}  # of a generator
    assert set(names_of(probed.config.metrics)) - unknown <= metrics.keys()
    again = probed.evaluate().metrics
    assert {name: again[name] for name in names_of(probed.config.metrics) if name in again} == {
        name: metrics[name] for name in names_of(probed.config.metrics) if name in metrics
    }


def test_the_generator_s_gradient_is_that_of_its_loss(start: Start) -> None:
    training = start(
        dataset="atoms", network="atoms", objective={"name": "exact_transport", "p": 2}, penalty="none", batch_size=70
    )
    norm = measured("generator_gradient", training).metrics["generator_gradient_norm"]
    points = training.data.train  # all atoms stand at the origin: each draws the mass 1/7 from its part of the targets
    loss = 0.5 * points.square().sum(dim=1).mean()
    assert 0 < norm <= math.sqrt(2 * loss) * 1.001


def test_neighbours_of_held_out_images(start: Start) -> None:
    training = start(opponent="data")
    probed = measured("neighbours", training)
    data = training.data
    assert probed.picture is not None
    assert probed.picture.shape == (QUERIES, 1 + 2 * NEIGHBOURS, 1, 8, 8)
    queries, by_l2, by_w2 = probed.picture.split([1, NEIGHBOURS, NEIGHBOURS], dim=1)
    for query, euclidean, wasserstein in zip(queries[:, 0], by_l2, by_w2, strict=True):
        assert any(torch.equal(query, image) for image in data.held_out)
        distances = (data.train.float() - query.float()).flatten(1).norm(dim=1).sort().values
        assert torch.allclose((euclidean.float() - query.float()).flatten(1).norm(dim=1), distances[:NEIGHBOURS])
        apart = [pixel_wasserstein(query, image) for image in wasserstein]
        assert apart == sorted(apart)
        assert apart[0] <= pixel_wasserstein(query, euclidean[0]) + 1e-6
    assert 0 < probed.metrics["neighbours_in_common"] < NEIGHBOURS
    for metric in ("l2", "w2"):  # of ten classes
        assert 0.4 < probed.metrics[f"neighbours_same_class_{metric}"] <= 1


def test_the_map_of_a_known_potential_costs_what_the_optimal_one_does(start: Start) -> None:
    """From noise N(0, σ²) to the data's N(1, 1) the optimal map is x/σ + 1: φ(x) = (1 − 1/σ) ‖x‖²/2 − ⟨x, 1⟩."""
    objective = {"name": "c_transform", "p": 2}
    training = start(dataset="gaussians", opponent="noise", objective=objective, penalty="none", batch_size=128)
    factor = 1 - 1 / NOISE_SCALE
    known = with_critic(training, lambda x: factor * x.square().sum(dim=1) / 2 - x.sum(dim=1))
    metrics = measured("transport_map", known).metrics
    assert metrics["map_variance"] == pytest.approx(1, abs=0.1)
    assert metrics["map_distance"] == pytest.approx(metrics["map_distance_held_out"], rel=0.15)
    assert metrics["map_cost"] == pytest.approx(metrics["map_cost_exact"], rel=0.05)
    still = measured("transport_map", with_critic(training, lambda x: 0 * x.sum(dim=1))).metrics
    assert still["map_variance"] == pytest.approx(NOISE_SCALE**2, rel=0.1)
    assert still["map_cost"] == 0
    assert still["map_distance"] == pytest.approx(still["map_cost_exact"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"dataset": "mixture", "probes": ["vertical_shift"]}, "vertical_shift needs images", id="points"),
        pytest.param({"probes": ["distance", "distance"]}, "names a probe twice", id="twice"),
        pytest.param({"opponent": "data", "probes": ["generator_gradient"]}, "needs a generator", id="no generator"),
        pytest.param({"dataset": "mixture", "probes": ["neighbours"]}, "neighbours needs images", id="no pixels"),
        pytest.param({"probes": ["transport_map"]}, "needs opponent=noise, .* is the generator", id="no noise"),
        pytest.param(
            {"probes": ["distanse"]}, r"probes: there is no probe called 'distanse'; did you mean 'distance'", id="slip"
        ),
    ],
)
def test_probes_that_have_nothing_to_measure_are_refused(
    trial: Callable[..., TrialConfig], changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        trial(**changes)


def test_what_was_searched_among_held_out_images_is_kept_with_the_training(start: Start) -> None:
    training, other = start(opponent="data"), start(opponent="data", dataset={"held_out": 400})
    assert measured("neighbours", training) is measured("neighbours", training)
    assert measured("neighbours", training) is not measured("neighbours", start(opponent="data"))
    of_other = measured("neighbours", other).picture
    assert of_other is not None
    assert not torch.equal(of_other, training.kept["neighbours"].picture)


def test_every_probe_that_draws_curves_names_their_axes(start: Start) -> None:
    names = [name for name in probes() if name != "transport_map"]
    evaluated = start(probes=names).evaluate()
    assert {name for name in names if evaluated.curves[name]} == {name for name in names if all(evaluated.axes[name])}


def test_curves_become_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    save_curves(("rows moved down", "φ"), {"one": [1.0, 2.0], "other": [2.0, 1.5]}, path)
    first = path.read_bytes()
    with Image.open(path) as image:
        assert image.size == (500, 320)
    save_curves(("rows moved down", "φ"), {"one": [1.0, 2.0], "other": [2.0, 1.5]}, path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]

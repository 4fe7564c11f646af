"""The computations of the probes: metrics and curves of a critic in its present state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.datasets import Data, to_input
from trainers.pair import Pair
from trainers.probes import NEIGHBOURS, QUERIES, Neighbours, Probe, Probed, TransportMap
from trainers.stopping import between
from trainers.transport.ground_costs import ground_cost

if TYPE_CHECKING:
    from trainers.training import Training

SEED = 20_190_221
PAIRS = 20
"""The number of pairs of minibatches for ``distance`` and ``transport_map``."""
POINTS = 500
"""The largest number of training examples, and of the opponent's points, for ``lipschitz``."""
IMAGES = 1000
"""The largest number of held-out images for ``vertical_shift`` and ``salt_and_pepper``."""
SAMPLES = 5000
"""The largest number of generated examples for ``nearest`` (Mallasto et al., Fig. 4)."""
NOISE = 0.15
"""The share of values that salt and pepper replaces (Dukler et al., Fig. 5)."""
BINS = 50
CHUNK = 250
CANDIDATES = 20
"""The largest number of images to which ``neighbours`` computes exact transport, for each query."""


def probe(what: Probe, training: Training) -> Probed:
    """Runs one probe. The networks are in evaluation mode meanwhile, and training's random state is not touched."""
    modes = [(network, network.training) for network in (training.critic, training.generator)]
    for network, _ in modes:
        network.eval()
    try:
        return what.measure(training)
    finally:
        for network, was_training in modes:
            network.train(was_training)


class _Zero(nn.Module):
    """φ ≡ 0, a critic that has learned nothing."""

    def forward(self, points: Tensor) -> Tensor:
        return points.new_zeros(len(points))


@torch.no_grad()
def distance(training: Training) -> Probed:
    """The error of the estimate on minibatches, compared with their exact transport cost (poster, Table 1).

    All values are means over PAIRS pairs of minibatches of the trial's size: training examples x and the opponent's
    points y. ``distance_estimate`` = max(mean φ(x) + mean ψ(y), 0)^{1/p}. ``distance_exact`` = W_{q,p}(x, y) by POT.
    ``distance_error`` is the absolute difference of the two, and ``distance_control_error`` is the same for φ ≡ 0.
    Where the opponent is the data, the distance between the populations is known. There
    ``distance_population_error`` is the absolute difference between the estimate and this distance.
    """
    from trainers.evaluation.transport import exact_wasserstein

    config, objective = training.config, training.config.objective
    cost = objective.cost
    source = torch.Generator().manual_seed(SEED)
    curves: dict[str, list[float]] = {"estimate": [], "exact": [], "untrained": []}
    for _ in between(range(PAIRS)):
        chosen = torch.randperm(len(training.data.train), generator=source)[: config.batch_size]
        real = to_input(training.data.train[chosen]).to(training.device)
        latent = torch.randn(config.batch_size, config.latent_size, generator=source).to(training.device)
        fake = training.generator(latent)
        for curve, critic in (("estimate", training.critic), ("untrained", _Zero())):
            value = objective.value(Pair(objective, critic, *config.opponent.in_order(real, fake))).item()
            curves[curve].append(max(value, 0.0) ** (1 / cost.p))
        curves["exact"].append(exact_wasserstein(real.cpu(), fake.cpu(), q=cost.q, p=cost.p))
    estimate, exact, untrained = (torch.tensor(curve, dtype=torch.float64) for curve in curves.values())
    metrics = {
        "distance_error": (estimate - exact).abs().mean().item(),
        "distance_control_error": (untrained - exact).abs().mean().item(),
        "distance_estimate": estimate.mean().item(),
        "distance_exact": exact.mean().item(),
    }
    if (population := training.population_distance()) is not None:
        metrics["distance_population_error"] = (estimate - population).abs().mean().item()
        curves["population"] = [population] * PAIRS
    return Probed(metrics, curves)


@torch.no_grad()
def lipschitz(training: Training) -> Probed:
    """The Lipschitz constant L of φ on points, and the estimate of W₁ by φ/L (Mallasto et al., Fig. 2, for WGAN).

    ``lipschitz_constant`` L = max |φ(a) − φ(b)| / ‖a − b‖₂ over all pairs of up to POINTS training examples x and as
    many of the opponent's points y. The paper does not say how it estimates L. With this L, φ/L is admissible on the
    points. So ``lipschitz_distance`` = max(mean φ(x) − mean φ(y), 0) / L is at most their exact W₁. Where the opponent
    is noise, x and y change places.
    """
    data = training.data.train
    source = torch.Generator().manual_seed(SEED)
    real = to_input(data[torch.randperm(len(data), generator=source)[:POINTS]]).to(training.device)
    latent = torch.randn(len(real), training.config.latent_size, generator=source).to(training.device)
    sides = training.config.opponent.in_order(real, training.generator(latent))
    points = torch.cat(sides).flatten(1).double().cpu()
    phi = _scores(training, torch.cat(sides)).double()
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    slopes = (phi[:, None] - phi[None, :]).abs() / apart
    constant = slopes[apart > 0].amax().item() if (apart > 0).any() else 0.0
    difference = max((phi[: len(real)].mean() - phi[len(real) :].mean()).item(), 0.0)
    distance = difference / constant if constant else 0.0
    return Probed({"lipschitz_constant": constant, "lipschitz_distance": distance})


@torch.no_grad()
def vertical_shift(training: Training) -> Probed:
    """φ of an image that moves down, row by row, until it is black (Dukler et al., Fig. 4, Table 1).

    Each held-out image gives a curve of H + 1 values. ``shift_total_variation`` is the mean over images of
    Σ|Δφ| / (max φ − min φ). ``shift_zero_crossings`` is the mean number of sign changes. The paper does not define its
    normalisation. Zero depends on the critic's additive constant, so here it is half-way between the mean of φ on real
    images and the mean on generated images. The probe's curve is that of the first image.
    """
    images = to_input(training.data.held_out[:IMAGES])
    height = images.shape[2]
    values = torch.stack([_scores(training, shifted_down(images, rows)) for rows in range(height + 1)], dim=1)
    centred = values - _midpoint(training, values[:, 0])
    return Probed(
        {
            "shift_total_variation": normalised_total_variation(centred).mean().item(),
            "shift_zero_crossings": zero_crossings(centred).double().mean().item(),
        },
        {"critic": centred[0].tolist()},
    )


def shifted_down(images: Tensor, rows: int) -> Tensor:
    """Images (m, C, H, W) in [−1, 1], moved down by this number of rows. New rows at the top are black."""
    kept = images[:, :, : images.shape[2] - rows]
    return functional.pad(kept, (0, 0, rows, 0), value=-1.0)


def normalised_total_variation(curves: Tensor) -> Tensor:
    """Σ|Δφ| / (max φ − min φ) of each of the curves (m, k), shape (m,). 1 if monotone, 0 if constant."""
    variation = curves.diff(dim=1).abs().sum(dim=1)
    span = curves.amax(dim=1) - curves.amin(dim=1)
    return torch.where(span > 0, variation / span.clamp(min=torch.finfo(span.dtype).tiny), torch.zeros_like(span))


def zero_crossings(curves: Tensor) -> Tensor:
    """The number of sign changes of each of the curves (m, k), shape (m,). 0 counts as positive."""
    return (curves >= 0).diff(dim=1).sum(dim=1)


@torch.no_grad()
def salt_and_pepper(training: Training) -> Probed:
    """How little 15 % salt and pepper noise changes φ on held-out images (Dukler et al., Fig. 5).

    Each value (of a pixel and channel) is replaced by 0 or 1 with probability NOISE. ``noise_overlap`` = Σ min(h, h')
    for the two normalised histograms h and h' of φ over BINS common bins. It is 1 if the noise does not change φ, and 0
    if φ separates all noisy images from clean ones.
    """
    clean = to_input(training.data.held_out[:IMAGES])
    source = torch.Generator().manual_seed(SEED)
    hit = torch.rand(clean.shape, generator=source) < NOISE
    noise = torch.randint(2, clean.shape, generator=source) * 2.0 - 1
    values = _scores(training, clean), _scores(training, torch.where(hit, noise, clean))
    low, high = (float(torch.cat(values).aminmax()[index]) for index in (0, 1))
    histograms = [torch.histc(each, BINS, low, high) / len(each) for each in values]
    overlap = torch.minimum(*histograms).sum().item()
    curves = {name: each.tolist() for name, each in zip(("clean", "noisy"), histograms, strict=True)}
    return Probed({"noise_overlap": overlap}, curves)


@torch.no_grad()
def nearest(training: Training) -> Probed:
    """Euclidean distances to the nearest training example (Mallasto et al., § 5.1, Fig. 4). Images are in [−1, 1].

    ``nearest_distance`` is the mean over generated examples, and ``nearest_distance_held_out`` is the mean over as many
    held-out ones. A generator whose value is far below that of held-out examples repeats the training set. The curves
    are the percentiles of both.
    """
    count = min(SAMPLES, len(training.data.held_out))
    training_set = to_input(training.data.train).flatten(1)

    def distances(examples: Tensor) -> Tensor:
        parts = to_input(examples).flatten(1).split(CHUNK)
        return torch.cat([torch.cdist(part, training_set).amin(dim=1) for part in between(parts)])

    generated, held_out = distances(training.sample(count)), distances(training.data.held_out[:count])
    return Probed(
        {"nearest_distance": generated.mean().item(), "nearest_distance_held_out": held_out.mean().item()},
        {"generated": _percentiles(generated), "held_out": _percentiles(held_out)},
    )


def _percentiles(values: Tensor) -> list[float]:
    return values.quantile(torch.linspace(0, 1, 101)).tolist()


def generator_gradient(training: Training) -> Probed:
    """‖∇_θ of the generator's loss‖₂ over all its weights, on the first training examples and fixed noise."""
    config = training.config
    source = torch.Generator().manual_seed(SEED)
    latent = torch.randn(config.batch_size, config.latent_size, generator=source).to(training.device)
    real = to_input(training.data.train[: config.batch_size]).to(training.device)
    loss = config.objective.generator_loss(Pair(config.objective, training.critic, real, training.generator(latent)))
    gradients = torch.autograd.grad(loss, list(training.generator.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return Probed({"generator_gradient_norm": norm.item()})


@torch.no_grad()
def transported(training: Training) -> Probed:
    """Compares T(x), noise x under φ's transport map T, with training examples y (Mallasto et al., eq. 11).

    All values are means over PAIRS pairs of minibatches of the trial's size, with W by POT. ``map_variance`` is the
    variance of T(x) divided by the variance of y, each summed over coordinates. It is 1 if T carries the noise to the
    data, and 0 if T carries all noise to one point. Noise that T leaves in T(x) adds to it.
    ``map_distance`` = W_{q,p}(T(x), y) is to be compared with ``map_distance_held_out`` = W_{q,p}(y', y) for held-out
    y'. Between few images of many pixels the distance is small for blurred images, too.
    ``map_cost`` = (mean c(x, T(x)))^{1/p}. For the optimal map it is about ``map_cost_exact`` = W_{q,p}(x, y).
    """
    from trainers.evaluation.transport import exact_wasserstein

    config = training.config
    q, p = config.objective.cost
    source = torch.Generator().manual_seed(SEED)
    curves: dict[str, list[float]] = {metric.name: [] for metric in TransportMap.metrics[1:]}
    variances = []
    for _ in between(range(PAIRS)):
        real, held_out = (
            to_input(examples[torch.randperm(len(examples), generator=source)[: config.batch_size]])
            for examples in (training.data.train, training.data.held_out)
        )
        latent = torch.randn(config.batch_size, config.latent_size, generator=source).to(training.device)
        noise = training.generator(latent)
        noise, mapped = noise.cpu(), training.to_samples(noise).cpu()
        variances.append((mapped.var(dim=0).sum() / real.var(dim=0).sum()).item())
        curves["map_distance"].append(exact_wasserstein(mapped, real, q=q, p=p))
        curves["map_distance_held_out"].append(exact_wasserstein(held_out, real, q=q, p=p))
        curves["map_cost"].append(ground_cost(noise, mapped, q=q, p=p).diagonal().mean().item() ** (1 / p))
        curves["map_cost_exact"].append(exact_wasserstein(noise, real, q=q, p=p))
    means = {name: sum(values) / PAIRS for name, values in {"map_variance": variances, **curves}.items()}
    return Probed(means, curves)


def neighbours(training: Training) -> Probed:
    """The nine nearest training images under ℓ₂ and under W₂ of pixel histograms (Dukler et al., Fig. 1).

    There are QUERIES query images: samples, or held-out images where the opponent is the data. W₂ is exact transport in
    each channel, computed to CANDIDATES images
    (:func:`~trainers.transport.pixel_histograms.nearest_under_wasserstein`). ``neighbours_in_common`` is the number of
    images that the two lists of nine have in common. ``neighbours_same_class_l2`` and ``neighbours_same_class_w2`` are
    the shares of neighbours with the query's class, where images have labels and queries are held-out images. Metrics
    are means over the queries. Each row of the picture is a query, its nine neighbours by ℓ₂ and its nine by W₂.
    """
    data = training.data
    if training.config.opponent.makes_samples:
        return _neighbours(data, training.sample(QUERIES))
    if Neighbours.name not in training.kept:  # with held-out images every evaluation is the same
        spread = torch.linspace(0, len(data.held_out) - 1, QUERIES).long()  # files may be ordered by class
        labels = None if data.held_out_labels is None else data.held_out_labels[spread]
        training.kept[Neighbours.name] = _neighbours(data, data.held_out[spread], labels)
    return training.kept[Neighbours.name]


def _neighbours(data: Data, queries: Tensor, labels: Tensor | None = None) -> Probed:
    from trainers.transport.pixel_histograms import nearest_under_wasserstein

    by_l2 = _distances(queries, data.train).argsort(dim=1)[:, :NEIGHBOURS]
    found = [
        nearest_under_wasserstein(each, data.train, count=NEIGHBOURS, candidates=CANDIDATES)
        for each in between(queries)
    ]
    by_w2 = torch.stack([indices for indices, _ in found])
    common = (by_l2[:, :, None] == by_w2[:, None, :]).sum(dim=(1, 2))
    metrics = {"neighbours_in_common": common.double().mean().item()}
    if labels is not None and data.train_labels is not None:
        for name, chosen in (("l2", by_l2), ("w2", by_w2)):
            same = data.train_labels[chosen] == labels[:, None]
            metrics[f"neighbours_same_class_{name}"] = same.double().mean().item()
    rows = [queries[:, None], data.train[by_l2], data.train[by_w2]]
    return Probed(metrics, picture=torch.cat(rows, dim=1))


def _distances(examples: Tensor, others: Tensor) -> Tensor:
    """‖x − y‖₂ of examples (m, …) and others (n, …), as the networks' input, shape (m, n)."""
    points = to_input(examples).flatten(1)
    return torch.cat([torch.cdist(points, to_input(part).flatten(1)) for part in others.split(10 * CHUNK)], dim=1)


def _scores(training: Training, inputs: Tensor) -> Tensor:
    """φ at the inputs (m, …), shape (m,), on the CPU."""
    return torch.cat([training.critic(part.to(training.device)).cpu() for part in between(inputs.split(CHUNK))])


def _midpoint(training: Training, real: Tensor) -> Tensor:
    """The point half-way between the mean of φ on real images and the mean on generated images."""
    fake = _scores(training, to_input(training.sample(len(real))))
    return (real.mean() + fake.mean()) / 2

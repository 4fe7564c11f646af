"""The Wasserstein norm on images, compared with the dense weighted Laplacian of the paper's Proposition 5."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.penalties import Edge, WassersteinPenalty
from trainers.transport.pixel_graph import wasserstein_norm_squared

Pixel = tuple[int, int, int]  # channel, row, column
NEIGHBOURS = {
    "cross": [(0, 1), (1, 0), (0, -1), (-1, 0)],
    "square": [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)],
    "diamond": [(a, b) for a in range(-2, 3) for b in range(-2, 3) if 1 <= abs(a) + abs(b) <= 2],
}


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def weighted_neighbours(options: WassersteinPenalty, shape: tuple[int, int, int]) -> dict[Pixel, dict[Pixel, float]]:
    """N(i) and ω_ij of every pixel i."""
    channels, height, width = shape
    pixels = list(product(range(channels), range(height), range(width)))
    omega: dict[Pixel, dict[Pixel, float]] = {pixel: {} for pixel in pixels}
    for c, row, column in pixels:
        for edge in options.edges:
            for sign in (1, -1):
                other = c, row + sign * edge.offset[0], column + sign * edge.offset[1]
                if other in omega:
                    omega[c, row, column][other] = edge.weight
        if options.channel_edges:
            for other_channel in set(range(channels)) - {c}:
                omega[c, row, column][other_channel, row, column] = 1.0
    return omega


def dense_operator(image: Tensor, options: WassersteinPenalty) -> Tensor:
    """L(X) of Proposition 5 for one image, pixel by pixel, plus the reference term of eq. 9 or of the code."""
    omega = weighted_neighbours(options, tuple(image.shape))  # type: ignore[arg-type]
    pixels = list(omega)
    graph = {pixel: 0 if options.channel_edges else pixel[0] for pixel in pixels}  # its connected graph
    mass = {pixel: (image[pixel].item() + 1) / 2 for pixel in pixels}
    if options.mass == "probability":
        total = {one: sum(m for pixel, m in mass.items() if graph[pixel] == one) for one in set(graph.values())}
        mass = {pixel: m / total[graph[pixel]] for pixel, m in mass.items()}
    if options.degree == "constant":
        degree = dict.fromkeys(pixels, 0.5)
    else:
        volume = dict.fromkeys(set(graph.values()), 0.0)
        for pixel in pixels:
            volume[graph[pixel]] += sum(omega[pixel].values())
        degree = {pixel: sum(omega[pixel].values()) / volume[graph[pixel]] for pixel in pixels}

    operator = torch.zeros(len(pixels), len(pixels), dtype=torch.float64)
    for i, one in enumerate(pixels):
        for j, other in enumerate(pixels):
            if other in omega[one]:
                term = 0.5 * omega[one][other] * (mass[one] / degree[one] + mass[other] / degree[other])
                operator[i, i] += term
                operator[i, j] -= term
            if options.reference == "rank_one" and graph[one] == graph[other]:
                operator[i, j] += options.reference_weight
        if options.reference == "identity":
            operator[i, i] += options.reference_weight
    return operator


def recovered_operator(image: Tensor, options: WassersteinPenalty) -> Tensor:
    """The matrix behind the norm, by polarisation: L_ij = (Q(e_i + e_j) − Q(e_i − e_j)) / 4."""
    n = image.numel()
    unit = torch.eye(n, dtype=torch.float64)
    sums, differences = (unit[:, None] + s * unit[None] for s in (1, -1))
    gradients = torch.cat([sums, differences]).reshape(-1, *image.shape)
    values = wasserstein_norm_squared(gradients, image.expand_as(gradients), options)
    plus, minus = values.reshape(2, n, n)
    return (plus - minus) / 4


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[WassersteinPenalty, tuple[int, int, int]]:
    height, width = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    channels = draw(st.integers(1, 3))
    half = [(a, b) for a in range(height) for b in range(1 - width, width) if a > 0 or b > 0]
    chosen = draw(st.lists(st.sampled_from(half), min_size=1, max_size=5, unique=True))
    edges = tuple(
        Edge(offset=(sign * a, sign * b), weight=draw(st.floats(0.1, 3)))
        for a, b in chosen
        for sign in [draw(st.sampled_from([1, -1]))]
    )
    options = WassersteinPenalty(
        neighbourhood=draw(st.one_of(st.just(edges), st.sampled_from(list(NEIGHBOURS)))),
        channel_edges=channels > 1 and draw(st.booleans()),
        degree=draw(st.sampled_from(["paper", "constant"])),
        mass=draw(st.sampled_from(["intensity", "probability"])),
        reference=draw(st.sampled_from(["rank_one", "identity", "none"])),
        reference_weight=draw(st.floats(0, 2)),
    )
    return options, (channels, height, width)


@given(graph=random_graphs(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_slices_equal_the_dense_operator(graph: tuple[WassersteinPenalty, tuple[int, int, int]], seed: int) -> None:
    options, shape = graph
    images = torch.cat([random_image(*shape, seed=seed), random_image(*shape, seed=seed + 1)])
    gradients = torch.cat([random_image(*shape, seed=seed + 2), random_image(*shape, seed=seed + 3)])
    expected = [
        (g.flatten() @ dense_operator(x, options) @ g.flatten()).item() for x, g in zip(images, gradients, strict=True)
    ]
    actual = wasserstein_norm_squared(gradients, images, options)
    assert actual.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)


SWITCHES = [
    pytest.param(degree, mass, reference, channel_edges, id=f"{degree}-{mass}-{reference}-{channel_edges}")
    for degree in ("paper", "constant")
    for mass in ("intensity", "probability")
    for reference in ("rank_one", "identity", "none")
    for channel_edges in (True, False)
]


@pytest.mark.parametrize(("degree", "mass", "reference", "channel_edges"), SWITCHES)
def test_every_switch_equals_the_dense_operator(degree: Any, mass: Any, reference: Any, channel_edges: bool) -> None:
    edges = (Edge(offset=(0, 1)), Edge(offset=(2, -1), weight=0.3), Edge(offset=(-1, 0), weight=2))
    options = WassersteinPenalty(
        neighbourhood=edges,
        degree=degree,
        mass=mass,
        reference=reference,
        reference_weight=0.4,
        channel_edges=channel_edges,
    )
    image = random_image(3, 4, 3)
    torch.testing.assert_close(
        recovered_operator(image[0], options), dense_operator(image[0], options), rtol=1e-10, atol=1e-10
    )


@given(graph=random_graphs(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_laplacian_is_positive_semi_definite_and_blind_to_constants(
    graph: tuple[WassersteinPenalty, tuple[int, int, int]], seed: int
) -> None:
    options, shape = graph
    laplacian = recovered_operator(random_image(*shape, seed=seed)[0], options)
    ones = torch.ones(len(laplacian), dtype=torch.float64)
    scale = laplacian.abs().max().clamp(min=1)
    assert torch.linalg.eigvalsh(laplacian).min() >= -1e-12 * scale
    if options.reference == "none":
        assert (laplacian @ ones).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_undirected_edge_counts_once_and_none_is_lost(name: Any, channels: int) -> None:
    height, width = 5, 6
    image = torch.zeros(channels, height, width, dtype=torch.float64)  # X = ½, d = ½: (X_i/d_i + X_j/d_j)/2 = 1
    laplacian = recovered_operator(image, WassersteinPenalty(neighbourhood=name, reference="none"))
    number = {pixel: n for n, pixel in enumerate(product(range(channels), range(height), range(width)))}
    expected = torch.zeros_like(laplacian)
    for (c, row, column), n in number.items():
        for down, right in NEIGHBOURS[name]:
            if (c, row + down, column + right) in number:
                expected[n, n] += 1
                expected[n, number[c, row + down, column + right]] = -1
    torch.testing.assert_close(laplacian, expected, rtol=0, atol=1e-12)
    inner = number[0, 2, 3]
    assert (laplacian[inner] < -0.5).sum() == {"cross": 4, "square": 8, "diamond": 12}[name]


def test_channel_edges_join_every_two_channels_of_a_pixel() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.float64)
    options = {"neighbourhood": "cross", "reference": "none"}
    apart = recovered_operator(image, WassersteinPenalty(**options))  # type: ignore[arg-type]
    joined = recovered_operator(image, WassersteinPenalty(**options, channel_edges=True))  # type: ignore[arg-type]
    between = torch.kron(torch.ones(3, 3) - 3 * torch.eye(3), torch.eye(4)).double()
    torch.testing.assert_close(joined - apart, -between, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channel_edges", [False, True], ids=["per channel", "joined"])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_degrees_sum_to_one_over_each_connected_graph(name: Any, channel_edges: bool) -> None:
    """Where the mass is a multiple of the degrees, its normalisation cancels theirs: X_i/d_i = 1 for every i."""
    shape = 2, 4, 5
    options = WassersteinPenalty(
        neighbourhood=name, degree="paper", mass="probability", reference="none", channel_edges=channel_edges
    )
    omega = weighted_neighbours(options, shape)
    counts = torch.tensor([float(sum(near.values())) for near in omega.values()]).double().reshape(shape)
    image = counts / counts.max() * 2 - 1
    gradient = random_image(*shape, seed=3)
    energy = sum(
        weight * (gradient[0][one] - gradient[0][other]).item() ** 2 / 2  # each edge is counted from both ends
        for one, near in omega.items()
        for other, weight in near.items()
    )
    assert wasserstein_norm_squared(gradient, image[None], options).item() == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("name", ["cross", "diamond"])
def test_agrees_with_the_authors_code(name: Any) -> None:
    """github.com/dukleryoni/WWGAN, wwgan_utils.py: Σ (g_i − g_j)² (1 + (x_i + x_j)/2) + γ‖g‖², x in [−1, 1].

    Their diamond loses the last adjacent edge of each row and column. This sum does not.
    """
    gamma = 0.6
    x, g = random_image(3, 5, 4, seed=1)[0], random_image(3, 5, 4, seed=2)[0]
    total = gamma * g.square().sum().item()
    for c, row, column in product(range(3), range(5), range(4)):
        for down, right in NEIGHBOURS[name]:
            if (down, right) > (0, 0) and row + down < 5 and 0 <= column + right < 4:  # one end of each edge
                here, there = (c, row, column), (c, row + down, column + right)
                total += ((g[here] - g[there]) ** 2 * (1 + (x[here] + x[there]) / 2)).item()
    options = WassersteinPenalty(
        neighbourhood=name, degree="constant", mass="intensity", reference="identity", reference_weight=gamma
    )
    assert wasserstein_norm_squared(g[None], x[None], options).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_named_neighbourhoods_are_lists_of_offsets(name: Any) -> None:
    half = tuple(Edge(offset=offset) for offset in NEIGHBOURS[name] if offset > (0, 0))
    x, g = random_image(2, 5, 5, seed=1), random_image(2, 5, 5, seed=2)
    listed = wasserstein_norm_squared(g, x, WassersteinPenalty(neighbourhood=half, degree="paper"))
    named = wasserstein_norm_squared(g, x, WassersteinPenalty(neighbourhood=name, degree="paper"))
    torch.testing.assert_close(listed, named, rtol=1e-12, atol=0)


def test_each_image_of_a_batch_counts_by_itself() -> None:
    options = WassersteinPenalty(degree="paper", mass="probability", reference="rank_one")
    x, g = torch.rand(2, 6, 2, 4, 4, dtype=torch.float64)
    together = wasserstein_norm_squared(g, x, options)
    alone = torch.cat([wasserstein_norm_squared(g[i : i + 1], x[i : i + 1], options) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_no_rounding_makes_a_norm_negative() -> None:
    """Where the image is not black, the gradient is constant except for float32's last digits. Elsewhere it is not."""
    options = WassersteinPenalty(reference="none", neighbourhood="cross")
    source = torch.Generator().manual_seed(0)
    bright, flat = (
        torch.zeros(12, 12).index_put_((rows[:, None], rows), torch.ones(()))
        for rows in (torch.arange(4, 8), torch.arange(3, 9))
    )
    noise = torch.randn(2, 500, 1, 12, 12, generator=source)
    gradient = flat * (1 + 1e-7 * noise[0]) + (1 - flat) * 100 * noise[1]
    squared = wasserstein_norm_squared(gradient, (2 * bright - 1).expand(500, 1, 12, 12), options)
    assert (squared >= 0).all()
    assert (squared == 0).any()  # where the plain sum would be negative


def test_a_black_image_has_a_finite_norm() -> None:
    black, gradient = -torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4)
    for mass, degree in product(("intensity", "probability"), ("paper", "constant")):
        options = WassersteinPenalty(mass=mass, degree=degree, reference="none")  # type: ignore[arg-type]
        assert wasserstein_norm_squared(gradient, black, options).item() == 0


@pytest.mark.parametrize("reference", ["rank_one", "identity", "none"])
@pytest.mark.parametrize("channel_edges", [False, True])
def test_the_derivative_made_on_the_way_is_autograd_s(channel_edges: bool, reference: Any) -> None:
    options = WassersteinPenalty(channel_edges=channel_edges, reference=reference)
    images, gradient = random_image(3, 5, 4, seed=1), random_image(3, 5, 4, seed=2).requires_grad_()
    found = []
    for points in (images, images.clone().requires_grad_()):  # if the images need a gradient too, autograd computes all
        value = wasserstein_norm_squared(gradient, points, options)
        found.append((value, *torch.autograd.grad(value.sum(), gradient)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

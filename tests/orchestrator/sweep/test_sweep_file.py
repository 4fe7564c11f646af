"""A sweep file as it is written, before any trial's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import write_file

from orchestrator.errors import UserError
from orchestrator.sweep.file import Compare, Resources, parse_seeds, read_sweep_file
from orchestrator.sweep.growing import Seeds


def test_a_file_may_say_next_to_nothing(tmp_path: Path) -> None:
    file = read_sweep_file(write_file(tmp_path, "description: nothing\n", "ground_metrics.yaml"))
    assert file.name == "ground_metrics"  # the file's
    assert list(file.variants) == ["ground_metrics"]
    assert file.seeds == Seeds((0,))
    assert file.resources == Resources(cpus=1.0, gpus=0.0)
    assert file.retries == 2
    assert file.compare is None  # the plan takes the evaluation's first metric
    assert not file.scale


def test_a_file_says_everything_once(tmp_path: Path) -> None:
    text = """\
name: all-of.it_2
description: every key
base: [dataset=digits]
grid: {critic_iterations: [1, 5]}
zip: {critic.lr: [1e-4, 2e-4], generator.lr: [2e-4, 4e-4]}
exclude: [{critic_iterations: 5, critic.lr: 1e-4}]
variants:
  gp: {base: [trainer=wgan_gp], grid: {penalty.weight: "choice(1, 10)"}}
  plain:
seeds: [3, 5]
resources: {cpus: 2, gpus: 0.25, custom: {big_memory: 1}}
retries: 0
compare: {metric: classifier_is, mode: max}
scale: {laptop: [budget=300, seeds=2]}
"""
    file = read_sweep_file(write_file(tmp_path, text))
    assert (file.name, file.description, file.seeds.first, file.retries) == ("all-of.it_2", "every key", (3, 5), 0)
    assert file.shared.base == ("dataset=digits",)
    assert file.shared.grid == {"critic_iterations": [1, 5]}
    assert file.shared.zip == {"critic.lr": [1e-4, 2e-4], "generator.lr": [2e-4, 4e-4]}
    assert file.shared.exclude == ({"critic_iterations": 5, "critic.lr": 1e-4},)
    assert list(file.variants) == ["gp", "plain"]
    assert file.variants["gp"].base == ("trainer=wgan_gp",)
    assert file.variants["gp"].grid == {"penalty.weight": [1, 10]}
    assert not file.variants["plain"].grid
    assert file.resources == Resources(2.0, 0.25, {"big_memory": 1.0})
    assert file.compare == Compare("classifier_is", "max")
    assert file.scale == {"laptop": ("budget=300", "seeds=2")}


@pytest.mark.parametrize(
    ("written", "values"),
    [
        pytest.param("[1, 10]", [1, 10], id="YAML list"),
        pytest.param('"choice(1, 10)"', [1, 10], id="choice"),
        pytest.param("choice(cross,square)", ["cross", "square"], id="choice of words, without quotes"),
        pytest.param('"range(1, 4)"', [1, 2, 3], id="range"),
        pytest.param('"range(0.5, 2, 0.5)"', [0.5, 1.0, 1.5], id="range with a step"),
        pytest.param('"range(0.1, 0.6, 0.1)"', [0.1, 0.2, 0.3, 0.4, 0.5], id="range with decimal steps"),
        pytest.param('"range(0.3, 0, -0.1)"', [0.3, 0.2, 0.1], id="range downwards"),
        pytest.param('"range(1e-4, 4e-4, 1e-4)"', [1e-4, 2e-4, 3e-4], id="range of exponents"),
        pytest.param('"range(1.0, 3)"', [1.0, 2.0], id="range of floats"),
        pytest.param('"sort(range(1, 4), reverse=true)"', [3, 2, 1], id="sorted range"),
        pytest.param("\"choice({a: 'x y'}, 2)\"", [{"a": "x y"}, 2], id="quoted word inside a mapping"),
        pytest.param('"1,10,100"', [1, 10, 100], id="commas"),
        pytest.param('"1e-4, 2e-4"', [1e-4, 2e-4], id="commas and exponents"),
        pytest.param("choice('a b', c)", ["a b", "c"], id="quoted word"),
        pytest.param("[[0.5, 0.9], [0, 0.9]]", [[0.5, 0.9], [0, 0.9]], id="lists as values"),
        pytest.param('"choice([0.5, 0.9], [0, 0.9])"', [[0.5, 0.9], [0, 0.9]], id="choice of lists"),
        pytest.param("[1e-4]", [1e-4], id="one value"),
    ],
)
def test_an_axis_is_a_list_or_a_hydra_sweep(tmp_path: Path, written: str, values: list[object]) -> None:
    read = read_sweep_file(write_file(tmp_path, f"grid:\n  axis: {written}\n")).shared.grid["axis"]
    assert read == values
    assert list(map(type, read)) == list(map(type, values))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("interval(0, 1)", ["interval", "range(0, 1, 0.25)"], id="interval"),
        pytest.param("glob(*)", ["patterns", "[NAME, NAME]"], id="glob"),
        pytest.param("range(0, 1, 0)", ["step other than 0"], id="step of 0"),
        pytest.param("range(0, 1, 0.0)", ["step other than 0"], id="step of 0.0"),
        pytest.param("range(0, inf)", ["finite"], id="endless range"),
        pytest.param("range(1, 100000000)", ["99,999,999 values", "at most 100,000"], id="a huge range"),
        pytest.param("range(0, 1, 1e-9)", ["1,000,000,000 values"], id="a huge range of floats"),
    ],
)
def test_a_sweep_without_usable_values_is_an_error_at_its_line(tmp_path: Path, written: str, told: list[str]) -> None:
    path = write_file(tmp_path, f"grid:\n  axis: '{written}'\n")
    with pytest.raises(UserError) as raised:
        read_sweep_file(path)
    assert str(raised.value).startswith(f"{path}:2: grid.axis: '{written}'")
    assert all(word in str(raised.value) for word in told), str(raised.value)


def test_keys_that_begin_with_x_hold_anchors(tmp_path: Path) -> None:
    text = "x-common: &common\n  budget: [1, 2]\nvariants:\n  a:\n    grid:\n      <<: *common\n      batch_size: [8]\n"
    axes = read_sweep_file(write_file(tmp_path, text)).variants["a"]
    assert axes.grid == {"budget": [1, 2], "batch_size": [8]}
    for nested in ("grid: {a: [1]}\nvariants: {a: {x-b: 1}}\n", "xcommon: 1\n"):
        with pytest.raises(UserError, match="unknown key"):
            read_sweep_file(write_file(tmp_path, nested))


def failing(key: str, problem: str) -> UserError:
    return UserError(f"seeds.{key}: {problem}")


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        pytest.param(1, (0,), id="one"),
        pytest.param(3, (0, 1, 2), id="a number counts from zero"),
        pytest.param([7], (7,), id="a list of one is itself"),
        pytest.param([5, 3, 0], (5, 3, 0), id="a list keeps its order"),
        pytest.param("0,1,2", (0, 1, 2), id="commas"),
        pytest.param("range(3, 6)", (3, 4, 5), id="a range"),
    ],
)
def test_seeds(value: object, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(value, failing) == Seeds(seeds)


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, True, "3", "0,0.5", "1,1", "", 10**8, [], [1.0], [True], [-1], [1, 1], None]
)
def test_what_is_no_seeds(value: object) -> None:
    with pytest.raises(UserError, match="seed"):
        parse_seeds(value, failing)

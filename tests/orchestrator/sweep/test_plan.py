"""From a sweep file to trials, with one example for each feature of the file."""

from __future__ import annotations

from typing import Any

import pytest
from hand_made import Planner, option

from orchestrator.errors import UserError

DIGITS = "base: [dataset=digits, evaluation=none, budget=40]"
LEARNING_RATES = "zip: {critic.lr: [1e-4, 2e-4], generator.lr: [2e-4, 4e-4]}"

FEATURES = [
    pytest.param("", (), [{}], [0], id="nothing: one trial"),
    pytest.param(
        "grid: {penalty.weight: [1, 10]}", (), [{"penalty.weight": 1}, {"penalty.weight": 10}], [0], id="grid"
    ),
    pytest.param(
        "grid: {penalty.weight: [1, 10], budget: [30, 40]}\n",
        (),
        [{"penalty.weight": w, "budget": b} for w in (1, 10) for b in (30, 40)],
        [0],
        id="two axes: their product",
    ),
    pytest.param(
        "grid: {penalty.weight: 'choice(1, 10)', critic_iterations: 'range(1, 3)', batch_size: '32,64'}",
        (),
        [
            {"penalty.weight": w, "critic_iterations": n, "batch_size": m}
            for w in (1, 10)
            for n in (1, 2)
            for m in (32, 64)
        ],
        [0],
        id="Hydra's sweep syntax",
    ),
    pytest.param(
        LEARNING_RATES,
        (),
        [{"critic.lr": 1e-4, "generator.lr": 2e-4}, {"critic.lr": 2e-4, "generator.lr": 4e-4}],
        [0],
        id="zip: axes that move together",
    ),
    pytest.param(
        f"grid: {{critic_iterations: [1, 5]}}\n{LEARNING_RATES}",
        (),
        [{"critic_iterations": n, "critic.lr": lr, "generator.lr": 2 * lr} for n in (1, 5) for lr in (1e-4, 2e-4)],
        [0],
        id="grid times zip",
    ),
    pytest.param(
        "grid: {critic_iterations: [1, 5], penalty.weight: [1, 10]}\n"
        "exclude: [{critic_iterations: 5, penalty.weight: 10}]",
        (),
        [
            {"critic_iterations": 1, "penalty.weight": 1},
            {"critic_iterations": 1, "penalty.weight": 10},
            {"critic_iterations": 5, "penalty.weight": 1},
        ],
        [0],
        id="exclude: one cell",
    ),
    pytest.param(
        "grid: {critic_iterations: [1, 5], penalty.weight: [1, 10]}\nexclude: [{penalty.weight: 10.0}]",
        (),
        [{"critic_iterations": 1, "penalty.weight": 1}, {"critic_iterations": 5, "penalty.weight": 1}],
        [0],
        id="exclude: a value, of whatever type of number",
    ),
    pytest.param(
        "grid: {penalty.weight: 'range(0.1, 0.6, 0.1)'}\nexclude: [{penalty.weight: 0.3}]",
        (),
        [{"penalty.weight": w} for w in (0.1, 0.2, 0.4, 0.5)],
        [0],
        id="exclude: a value of a range with decimal steps",
    ),
    pytest.param("seeds: 3", (), [{}], [0, 1, 2], id="seeds: a number"),
    pytest.param("seeds: 0,2", (), [{}], [0, 2], id="seeds: Hydra's sweep syntax"),
    pytest.param("", ("seeds=0,1,4",), [{}], [0, 1, 4], id="seeds from the command line with commas"),
    pytest.param("", ("seeds=range(3,6)",), [{}], [3, 4, 5], id="a range of seeds from the command line"),
    pytest.param("seeds: [4, 2]", (), [{}], [4, 2], id="seeds: a list"),
    pytest.param("", ("seeds=2",), [{}], [0, 1], id="seeds from the command line"),
    pytest.param("seeds: 5", ("seeds=[7,8]",), [{}], [7, 8], id="a list of seeds from the command line"),
    pytest.param("seeds: 3\nscale: {s: [seeds=2]}", ("scale=s",), [{}], [0, 1], id="seeds inside a scale"),
    pytest.param(
        "seeds: 3\nscale: {s: [seeds=2]}", ("scale=s", "seeds=1"), [{}], [0], id="seeds beside a scale are stronger"
    ),
    pytest.param(
        "grid: {penalty: [gradient, wasserstein]}",
        (),
        [{"penalty": "gradient"}, {"penalty": "wasserstein"}],
        [0],
        id="a config group as axis",
    ),
    pytest.param(
        "grid: {penalty: [gradient, wasserstein], penalty.neighbourhood: [cross, square]}",
        (),
        [
            {"penalty": "gradient"},
            {"penalty": "wasserstein", "penalty.neighbourhood": "cross"},
            {"penalty": "wasserstein", "penalty.neighbourhood": "square"},
        ],
        [0],
        id="an option of one of a group's presets",
    ),
    pytest.param(
        "zip: {penalty: [gradient, wasserstein], penalty.weight: [10, 4]}",
        (),
        [{"penalty": "gradient", "penalty.weight": 10}, {"penalty": "wasserstein", "penalty.weight": 4}],
        [0],
        id="a group zipped with an option",
    ),
    pytest.param(
        "base: [dataset=digits, trainer=wwgan]\ngrid: {penalty.neighbourhood: [[{offset: [0, 1], weight: 2}]]}",
        (),
        [{"penalty.neighbourhood": [{"offset": [0, 1], "weight": 2}]}],
        [0],
        id="a structure as value",
    ),
]


@pytest.mark.parametrize(("text", "arguments", "cells", "seeds"), FEATURES)
def test_cells_and_seeds(
    plan_of: Planner, text: str, arguments: tuple[str, ...], cells: list[dict[str, Any]], seeds: list[int]
) -> None:
    base = "" if text.startswith("base:") else DIGITS
    plan = plan_of(f"name: s\n{base}\n{text}\n", *arguments, name="s")
    assert [(dict(trial.axes), trial.seed) for trial in plan.trials] == [(c, s) for s in seeds for c in cells]
    assert {trial.variant for trial in plan.trials} == {"s"}
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials)
    for trial in plan.trials:
        assert option(trial, "seed") == trial.seed
        for axis, value in trial.axes.items():
            if axis != "penalty":
                assert option(trial, axis) == value
            else:
                assert option(trial, "penalty.name") == value


VARIANTS = """\
name: s
base: [dataset=digits, evaluation=none, budget=40]
variants:
  gp:
    base: [trainer=wgan_gp]
    {gp}
  clipped:
    base: [trainer=wgan]
    {clipped}
{shared}
"""

VARIANT_FEATURES = [
    pytest.param({}, [("gp", {}), ("clipped", {})], id="variants without axes"),
    pytest.param(
        {"gp": "grid: {penalty.weight: [1, 10]}", "clipped": "grid: {penalty.bound: [0.1]}"},
        [("gp", {"penalty.weight": 1}), ("gp", {"penalty.weight": 10}), ("clipped", {"penalty.bound": 0.1})],
        id="each its own axes",
    ),
    pytest.param(
        {"shared": "grid: {critic_iterations: [1, 5]}"},
        [(v, {"critic_iterations": n}) for v in ("gp", "clipped") for n in (1, 5)],
        id="a shared axis",
    ),
    pytest.param(
        {"shared": "grid: {penalty.weight: [1, 10]}"},
        [("gp", {"penalty.weight": 1}), ("gp", {"penalty.weight": 10}), ("clipped", {})],
        id="a shared axis passes by a variant without the option",
    ),
    pytest.param(
        {"shared": "grid: {critic_iterations: [1, 5]}", "gp": "grid: {critic_iterations: [2]}"},
        [("gp", {"critic_iterations": 2}), *(("clipped", {"critic_iterations": n}) for n in (1, 5))],
        id="the variant's axis replaces the shared one",
    ),
    pytest.param(
        {
            "shared": "grid: {critic_iterations: [1, 5], batch_size: [32, 64]}\nexclude: [{batch_size: 64}]",
            "gp": "exclude: [{critic_iterations: 5}]",
        },
        [
            ("gp", {"critic_iterations": 1, "batch_size": 32}),
            ("clipped", {"critic_iterations": 1, "batch_size": 32}),
            ("clipped", {"critic_iterations": 5, "batch_size": 32}),
        ],
        id="exclude on top and in a variant",
    ),
]


@pytest.mark.parametrize(("pieces", "cells"), VARIANT_FEATURES)
def test_variants(plan_of: Planner, pieces: dict[str, str], cells: list[tuple[str, dict[str, Any]]]) -> None:
    plan = plan_of(VARIANTS.format(**({"gp": "", "clipped": "", "shared": ""} | pieces)))
    assert [(trial.variant, dict(trial.axes)) for trial in plan.trials] == cells
    for trial in plan.trials:
        assert option(trial, "penalty.name") == {"gp": "gradient", "clipped": "clipping"}[trial.variant]
        assert all(option(trial, axis) == value for axis, value in trial.axes.items())


SCALED = f"name: s\n{DIGITS}\nscale: {{small: [budget=20]}}\n"


@pytest.mark.parametrize(
    ("arguments", "name", "expected", "same_trials"),
    [
        pytest.param((), None, "s", True, id="nothing"),
        pytest.param(("device=cpu",), None, "s", True, id="device"),
        pytest.param(
            ("device=cpu", "checkpoint_seconds=1", "checkpoint_epochs=2"), None, "s", True, id="checkpoint cadence"
        ),
        pytest.param((), "other", "other", True, id="--name alone"),
        pytest.param(("scale=small",), None, "s-small", False, id="a scale"),
        pytest.param(("scale=small", "device=cpu"), None, "s-small", False, id="a scale, on a device"),
        pytest.param(("scale=small",), "other", "other", False, id="a scale and --name"),
        pytest.param(("budget=30",), "other", "other", False, id="an override and --name"),
    ],
)
def test_what_changes_a_sweeps_name_and_trials(
    plan_of: Planner, arguments: tuple[str, ...], name: str | None, expected: str, same_trials: bool
) -> None:
    before, after = plan_of(SCALED), plan_of(SCALED, *arguments, name=name)
    assert after.name == expected
    assert ([t.trial_id for t in after.trials] == [t.trial_id for t in before.trials]) is same_trials


def test_overrides_reach_every_trial_and_are_stronger_than_the_file(plan_of: Planner) -> None:
    text = VARIANTS.format(gp="", clipped="", shared="scale: {small: [budget=20, threads=2]}")
    plan = plan_of(text, "scale=small", "budget=30", "critic.lr=3e-4", name="other")
    values = [[option(t, path) for path in ("budget", "threads", "critic.lr")] for t in plan.trials]
    assert values == [[30, 2, 3e-4]] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("1", "1.0", id="1 and 1.0"),
        pytest.param("1e-4", "0.0001", id="1e-4 and 0.0001"),
        pytest.param("100", "1e2", id="100 and 1e2"),
    ],
)
def test_equal_numbers_are_the_same_trial_however_they_are_written(plan_of: Planner, one: str, other: str) -> None:
    ids = [
        plan_of(f"name: s\n{DIGITS}\ngrid: {{penalty.weight: [{written}]}}\n").trials[0].trial_id
        for written in (one, other)
    ]
    assert ids[0] == ids[1]
    in_base = plan_of(f"name: s\nbase: [dataset=digits, evaluation=none, budget=40, penalty.weight={one}]\n")
    assert in_base.trials[0].trial_id == ids[0]  # nor does it matter where


def test_a_trial_tells_its_cell_in_short_words(plan_of: Planner) -> None:
    plan = plan_of(
        f"name: s\n{DIGITS}\nvariants:\n  gp: {{grid: {{penalty.weight: [1.0, 0.5], critic_iterations: [5]}}}}\n"
    )
    assert [trial.label for trial in plan.trials] == [
        "gp weight=1 critic_iterations=5",
        "gp weight=0.5 critic_iterations=5",
    ]


def test_axes_that_end_alike_keep_their_full_names(plan_of: Planner) -> None:
    plan = plan_of(f"name: s\n{DIGITS}\nzip: {{critic.lr: [1e-4], generator.lr: [2e-4]}}\n")
    assert plan.trials[0].label == "s critic.lr=0.0001 generator.lr=0.0002"


@pytest.mark.parametrize(
    ("compare", "mode"),
    [
        pytest.param("{metric: classifier_is}", "max", id="an inception score"),
        pytest.param("{metric: classifier_fid}", "min", id="a FID"),
        pytest.param("{metric: critic_loss}", "min", id="what is no evaluation's"),
        pytest.param("{metric: classifier_is, mode: min}", "min", id="the file's word"),
    ],
)
def test_a_metric_is_compared_in_its_own_direction_unless_the_file_says_which(
    plan_of: Planner, compare: str, mode: str
) -> None:
    stopping = "early_stopping: {scheduler: asha, grace: 20}\n"
    plan = plan_of(f"base: [dataset=digits, budget=40]\ncompare: {compare}\n{stopping}")
    assert plan.compare.mode == mode
    assert plan.early_stopping is not None
    assert plan.early_stopping.mode == mode


def test_an_axis_of_mappings_changes_what_they_name_and_nothing_else(plan_of: Planner) -> None:
    plan = plan_of("base: [trainer=wgan]\ngrid: {critic: [{lr: 1e-3}, {lr: 1e-2}]}\n")
    assert [trial.config.critic.lr for trial in plan.trials] == [1e-3, 1e-2]
    assert {trial.config.critic.optimizer for trial in plan.trials} == {"rmsprop"}
    one, other = (
        plan_of(f"base: [trainer=wgan]\n{text}").trials[0].trial_id
        for text in ("grid: {critic: [{lr: 1e-3}]}\n", "grid: {critic.lr: [1e-3]}\n")
    )
    assert one == other


def test_an_option_that_two_axes_set_is_an_error(plan_of: Planner) -> None:
    with pytest.raises(UserError, match=r"sweep.yaml:2: grid.critic.lr: the axis 'critic' sets this option too"):
        plan_of("base: [trainer=wgan]\ngrid: {critic: [{lr: 1e-3}], critic.lr: [1e-2]}\n")

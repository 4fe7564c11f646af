"""The keys ``search``, ``seeds`` as a race, and ``confirm``: what they ask for, and what they cannot."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from hand_made import POINTS, Planner, write_file

from orchestrator.errors import UserError
from orchestrator.sweep.growing import Confirm, Race, Search, growing_from
from orchestrator.sweep.plan import Plan

HEAD = f"base: {POINTS}\ncompare: {{metric: exact_w1, mode: min}}\n"
SPACE = 'space: {critic.lr: "tag(log, interval(1e-5, 1e-2))"}'
SEARCH = f"search: {{trials: 12, {SPACE}}}\n"
CELLS = "grid: {penalty.weight: [1, 10]}\n"


def searched(values: str) -> str:
    """A sweep file whose search, on line 3, has these values."""
    return f"{HEAD}search: {{{values}}}\n"


def of_space(space: str) -> str:
    return searched(f"trials: 12, space: {{{space}}}")


BAD = [
    pytest.param(f"base: {POINTS}\n{SEARCH}", 2, ["a search needs the metric", "compare: {"], id="search: no metric"),
    pytest.param(
        f"base: {POINTS}\n{CELLS}seeds: {{first: 2, most: 4}}\n", 3, ["a race needs the metric"], id="race: no metric"
    ),
    pytest.param(
        f"base: {POINTS}\nconfirm: {{seeds: 2}}\n", 2, ["a confirmation needs the metric"], id="confirm: no metric"
    ),
    pytest.param(
        f"base: {POINTS}\ncompare: {{metric: exact_w2}}\n{SEARCH}",
        2,
        ["log no metric called 'exact_w2'", "did you mean 'exact_w1'"],
        id="a metric that is not logged",
    ),
    pytest.param(HEAD + "search:\n", 3, ["search: expected a mapping, got None"], id="search: nothing"),
    pytest.param(HEAD + "search: tpe\n", 3, ["search: expected a mapping, got 'tpe'"], id="search: a word"),
    pytest.param(HEAD + "search: {}\n", 3, ["expected trials", "trials: 20"], id="search: empty"),
    pytest.param(searched(SPACE), 3, ["expected trials"], id="search: no trials"),
    pytest.param(searched("trials: 12"), 3, ["expected space", "critic.lr"], id="search: no space"),
    pytest.param(
        HEAD + f"search:\n  trails: 12\n  {SPACE}\n",
        4,
        ["search.trails", "did you mean 'trials'"],
        id="search: unknown key",
    ),
    pytest.param(
        searched(f"trials: 12, sampler: tpee, {SPACE}"),
        3,
        ["search.sampler: expected a sampler, got 'tpee'; did you mean 'tpe'?"],
        id="search: misspelt sampler",
    ),
    pytest.param(searched(f"trials: 12, sampler: [gp], {SPACE}"), 3, ["gp, random, sobol, tpe"], id="search: samplers"),
    *(
        pytest.param(
            searched(f"trials: {value}, {SPACE}"), 3, ["search.trials: expected a whole number"], id=f"trials: {value}"
        )
        for value in ("0", "true", "'3'", "1.5", "~")
    ),
    pytest.param(searched(f"trials: 1000000, {SPACE}"), 3, ["search.trials", "1,000,000 trials"], id="trials: many"),
    pytest.param(
        searched(f"trials: 60000, {SPACE}") + CELLS,
        3,
        ["search.trials: 2 cells with their seeds, proposals and confirmations give 120,000 trials"],
        id="trials: many in all",
    ),
    pytest.param(searched(f"trials: 12, seed: -1, {SPACE}"), 3, ["search.seed", "at least 0"], id="search: its seed"),
    pytest.param(searched(f"trials: 12, parallel: 0, {SPACE}"), 3, ["parallel", "at least 1"], id="search: parallel"),
    pytest.param(of_space(""), 3, ["search.space: the space is empty"], id="space: empty"),
    pytest.param(searched("trials: 12, space: [critic.lr]"), 3, ["space: expected a mapping"], id="space: a list"),
    pytest.param(
        of_space("critic.lr: 0.1"), 3, ["critic.lr: expected a list of values or a text"], id="space: a number"
    ),
    pytest.param(
        of_space('critic: {lr: "interval(0.1, 1)"}'), 3, ["space.critic: expected a list of values"], id="space: nested"
    ),
    pytest.param(of_space('3: "interval(0.1, 1)"'), 3, ["expected text as key, got 3"], id="space: a number as key"),
    pytest.param(of_space('critic.lr: "interval(1, 0.1)"'), 3, ["upside down", "interval(0.1, 1.0)"], id="upside down"),
    pytest.param(of_space('critic.lr: "tag(log, interval(0, 1))"'), 3, ["begins above 0"], id="the logarithm of zero"),
    pytest.param(of_space('critic.lr: "interval(1"'), 3, ["'interval(1' is not a Hydra sweep"], id="broken syntax"),
    pytest.param(
        HEAD + f"search:\n  trials: 12\n  {SPACE}\ngrid: {{critic.lr: [0.1, 0.2]}}\n",
        5,
        ["search.space.critic.lr: is an axis of the grid too"],
        id="space: an axis",
    ),
    pytest.param(
        HEAD + SEARCH + "grid: {critic: [{lr: 0.1}, {lr: 0.2}]}\n",
        3,
        ["the axis 'critic' sets"],
        id="space: in an axis",
    ),
    pytest.param(
        of_space("critic: [{lr: 0.1}, {lr: 0.2}]") + "grid: {critic.lr: [0.1]}\n",
        3,
        ["space.critic: the axis 'critic.lr' sets"],
        id="space: the parent of an axis",
    ),
    pytest.param(
        of_space("critic: [{lr: 0.1}, {lr: 0.2}], critic.lr: [0.1, 0.2]"),
        3,
        ["the search sets 'critic.lr' too"],
        id="space: an option and its parent",
    ),
    pytest.param(
        of_space("penalty: [gradient, none]"),
        3,
        ["cannot choose a preset", "grid: {penalty: […]}"],
        id="space: a preset",
    ),
    pytest.param(of_space("penalty.name: [gradient, none]"), 3, ["did you mean 'penalty'"], id="space: a part's name"),
    pytest.param(of_space("critic.lrr: [1, 2]"), 3, ["no configuration here", "'critic.lr'"], id="space: misspelt"),
    pytest.param(of_space("seed: [1, 2]"), 3, ["a seed cannot be searched; write seeds: 3"], id="space: the seed"),
    pytest.param(of_space("budget: [40, 80]"), 3, ["compared at equal work"], id="space: the budget"),
    pytest.param(of_space("evaluation.times: [1, 2]"), 3, ["measured in the same way"], id="space: the evaluation"),
    pytest.param(of_space("device: [cpu, cuda]"), 3, ["says how a trial runs"], id="space: the device"),
    pytest.param(
        of_space('penalty.weight: "interval(-1, 1)"'), 3, ["must be at least 0, got -1"], id="space: low values"
    ),
    pytest.param(
        of_space('critic_iterations: "interval(1, 8)"'),
        3,
        ["expected a whole number", "1.0"],
        id="space: no whole numbers",
    ),
    pytest.param(of_space("penalty.weight: [1, 1.0]"), 3, ["is there twice"], id="space: a value twice"),
    pytest.param(
        HEAD + "variants:\n  a:\n    search: {trials: 12, space: {critic.lrr: [1, 2]}}\n",
        5,
        ["variants.a.search.space.critic.lrr", "did you mean 'critic.lr'"],
        id="a variant's own search: misspelt",
    ),
    pytest.param(
        HEAD + SEARCH + "variants:\n  a: {search: ~}\n  b: {search: {trials: 12, space: {penalty.weight: [1, 2]}}}\n",
        3,
        ["every variant has a search of its own, or none"],
        id="a search for no variant",
    ),
    pytest.param(
        HEAD + SEARCH + "variants:\n  a:\n  b:\n", 6, ["duplicate cell", "'b'", "'a'"], id="two equal searches"
    ),
    pytest.param(
        HEAD + SEARCH + "seeds: {first: 2, most: 4}\n",
        4,
        ["seeds: a race cannot give seeds to what a search proposes", "confirm: {best: 1, seeds: 10}"],
        id="search and race",
    ),
    pytest.param(HEAD + SEARCH + "continue_from: x\n", 3, ["cannot continue", "continue_from"], id="search: continued"),
    pytest.param(
        "name: s\n" + HEAD + SEARCH + "paper:\n  source: T\n  rows:\n    s: {exact_w1: 1}\n",
        8,
        ["paper.rows.s: this cell is searched"],
        id="a paper's number for a searched cell",
    ),
    pytest.param(HEAD + SEARCH + "exclude: [{critic.lr: 0.1}]\n", 4, ["'critic.lr' is not an axis"], id="exclude"),
    pytest.param(HEAD + "seeds: {first: 2, most: 4}\n", 3, ["at least two cells", "seeds: 3"], id="race: one cell"),
    pytest.param(HEAD + CELLS + "seeds: {}\n", 4, ["expected first: NUMBER", "{first: 3, most: 20}"], id="race: empty"),
    pytest.param(HEAD + CELLS + "seeds: {first: 2}\n", 4, ["expected most: NUMBER"], id="race: no most"),
    pytest.param(
        HEAD + CELLS + "seeds:\n  first: 2\n  mst: 4\n",
        6,
        ["seeds.mst: unknown key; did you mean 'most'"],
        id="race: key",
    ),
    pytest.param(
        HEAD + CELLS + "seeds: {1: 2}\n", 4, ["seeds.1: unknown key; valid: first, most"], id="race: a number"
    ),
    pytest.param(
        HEAD + CELLS + "seeds:\n  first: 1\n  most: 4\n",
        5,
        ["seeds.first: expected a whole number of at least 2, got 1", "told apart from nothing"],
        id="race: one seed",
    ),
    *(
        pytest.param(
            HEAD + CELLS + f"seeds: {{first: 2, most: {value}}}\n",
            4,
            ["seeds.most: expected a whole"],
            id=f"most: {value}",
        )
        for value in ("4.0", "'4'", "~", "true", "[4]")
    ),
    pytest.param(
        HEAD + CELLS + "seeds: {first: 4, most: 4}\n", 4, ["more than first (4)", "write seeds: 4"], id="race: no race"
    ),
    pytest.param(
        HEAD + CELLS + "seeds:\n  first: 2\n  most: 4\n  trials: 4\n",
        7,
        ["seeds.trials: the first seeds of 2 cells are 4 trials already"],
        id="race: no trials left",
    ),
    pytest.param(HEAD + CELLS + "seeds: {first: 2, most: 1000000}\n", 4, ["1,000,000 trials"], id="race: many seeds"),
    pytest.param(HEAD + "seeds:\n", 3, ["a list of them, or a race such as {first: 3, most: 20}"], id="seeds: nothing"),
    pytest.param(HEAD + "confirm:\n", 3, ["confirm: expected a mapping, got None"], id="confirm: nothing"),
    pytest.param(HEAD + "confirm: 3\n", 3, ["confirm: expected a mapping, got 3"], id="confirm: a number"),
    pytest.param(HEAD + "confirm: {best: 1}\n", 3, ["expected seeds", "{best: 1, seeds: 10}"], id="confirm: no seeds"),
    pytest.param(
        HEAD + "confirm: {bset: 1, seeds: 2}\n", 3, ["bset", "did you mean 'best'"], id="confirm: unknown key"
    ),
    pytest.param(
        HEAD + "confirm: {seeds: 1000000}\n", 3, ["confirm.seeds", "1,000,000 trials"], id="confirm: many seeds"
    ),
    pytest.param(HEAD + "confirm: {best: 0, seeds: 2}\n", 3, ["confirm.best", "at least 1, got 0"], id="confirm: none"),
    pytest.param(
        HEAD + SEARCH + "confirm: {best: 13, seeds: 2}\n",
        4,
        ["expected at most 12, got 13"],
        id="confirm: too many cells",
    ),
    pytest.param(
        HEAD + "variants:\n  a: {confirm: {seeds: 2}}\n", 4, ["a.confirm: unknown key"], id="confirm: a variant"
    ),
    *(
        pytest.param(
            HEAD + CELLS + f"confirm: {{seeds: 2}}\nseeds: {seeds}\n",
            5,
            ["seed 1000", "from 1000 on"],
            id=f"seeds {seeds}",
        )
        for seeds in ("1001", "[1, 1000]", "{first: 2, most: 1001}")
    ),
]


@pytest.mark.parametrize(("text", "line", "told"), BAD)
def test_a_bad_file(tmp_path: Path, command_line: CommandLine, text: str, line: int, told: list[str]) -> None:
    path = write_file(tmp_path, text, "s.yaml")
    code, out, message = command_line("sweep", path, "--runs-dir", tmp_path / "runs")
    assert (code, out) == (2, "")
    assert message.startswith(f"orchestrator: {path}:{line}: ")
    assert message.count("\n") == 1
    assert all(word in message for word in told), message
    assert not (tmp_path / "runs").exists()


GROWS = HEAD + CELLS + SEARCH + "confirm: {seeds: 3}\nscale: {small: [search.trials=11, confirm.seeds=2, seeds=1]}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["search.trials=0", "--name", "t"], ["search.trials=0: expected a whole number"], id="no proposal"
        ),
        pytest.param(["search.trials=x", "--name", "t"], ["search.trials=x: expected a whole number"], id="a word"),
        pytest.param(["search.trials=3", "search.trials=4"], ["search.trials= is given twice"], id="twice"),
        pytest.param(["search.trials=11"], ["name it with --name"], id="another number under the same name"),
        pytest.param(["confirm.best=13", "--name", "t"], ["expected at most 12, got 13"], id="more than there are"),
        pytest.param(
            ["search.sampler=gp", "--name", "t"], ["search.trials, confirm.seeds", "change the file"], id="gp"
        ),
        pytest.param(["seeds.most=3", "--name", "t"], ["'seeds.most=3'", "change the file"], id="a part of the seeds"),
        pytest.param(
            ["critic.lr=0.1", "--name", "t"], ["'critic.lr=…' names an option that", "searches"], id="searched"
        ),
        pytest.param(["seeds={first:2,most:4}", "--name", "t"], ["a race cannot give seeds"], id="a race"),
        pytest.param(
            ["seeds={first:2,mst:4}", "--name", "t"],
            ["seeds={first:2,mst:4}: mst: unknown key", "'most'"],
            id="race: key",
        ),
        pytest.param(["seeds={first:1,most:4}", "--name", "t"], ["first: expected", "at least 2"], id="race: one seed"),
        pytest.param(["continue_from=x"], ["a search cannot continue the trials of another sweep"], id="continued"),
    ],
)
def test_bad_arguments(tmp_path: Path, command_line: CommandLine, arguments: list[str], told: list[str]) -> None:
    path = write_file(tmp_path, GROWS)
    code, out, message = command_line("sweep", path, *arguments, "--runs-dir", tmp_path / "runs")
    assert (code, out, message.count("\n")) == (2, "", 1)
    assert all(word in message for word in told), message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("key", "flag"), [("search.trials", "search"), ("confirm.seeds", "confirm")])
def test_arguments_for_what_the_file_lacks(plan_of: Planner, key: str, flag: str) -> None:
    with pytest.raises(UserError, match=f"{key}=3: .* has no {flag}"):
        plan_of(HEAD + CELLS, f"{key}=3", name="t")


def searches(plan: Plan) -> dict[str, Search]:
    assert plan.growing is not None
    return {group.label(plan.growing.short): group.search for group in plan.growing.groups}


def test_a_search_takes_the_place_of_trials_of_its_cells(plan_of: Planner) -> None:
    plan = plan_of("name: s\n" + GROWS)
    assert plan.trials == ()
    assert [example.label for example in plan.examples] == ["s weight=1", "s weight=10"]
    found = searches(plan)
    assert list(found) == ["s weight=1", "s weight=10"]
    search = found["s weight=1"]
    assert (search.trials, search.sampler, search.seed, search.parallel) == (12, "tpe", 0, 4)
    assert plan.growing is not None
    assert (plan.growing.seeds, plan.growing.confirm) == ((0,), Confirm(1, 3))


def test_a_scale_changes_the_numbers_of_what_is_decided(plan_of: Planner) -> None:
    plan = plan_of("name: s\nseeds: 3\n" + GROWS, "scale=small")
    assert plan.growing is not None
    assert plan.name == "s-small"
    assert {search.trials for search in searches(plan).values()} == {11}
    assert (plan.growing.seeds, plan.growing.confirm) == ((0,), Confirm(1, 2))


def test_a_race_begins_with_its_first_seeds(plan_of: Planner) -> None:
    plan = plan_of(HEAD + CELLS + "seeds: {first: 2, most: 6, trials: 9}\n")
    assert [trial.seed for trial in plan.trials] == [0, 0, 1, 1]
    assert plan.growing is not None
    assert (plan.growing.seeds, plan.growing.race) == ((0, 1), Race(2, 6, 9))
    plan = plan_of(HEAD + CELLS, "seeds={first: 3, most: 5}", name="t")
    assert plan.growing is not None
    assert plan.growing.race == Race(3, 5)


def test_a_variants_search_takes_the_place_of_the_files_and_null_switches_it_off(plan_of: Planner) -> None:
    own = 'search: {trials: 13, space: {penalty.weight: "interval(1, 3)"}}'
    plan = plan_of(HEAD + SEARCH + f"variants:\n  a: {{{own}}}\n  b: {{search: ~, base: [batch_size=9]}}\n  c:\n")
    assert {label: (search.trials, list(search.space)) for label, search in searches(plan).items()} == {
        "a": (13, ["penalty.weight"]),
        "c": (12, ["critic.lr"]),
    }
    assert [trial.variant for trial in plan.trials] == ["b"]


def test_an_option_that_only_some_cells_have_is_searched_there(plan_of: Planner) -> None:
    own = 'search: {trials: 12, space: {penalty.weight: "interval(1, 2)", critic.lr: "interval(0.1, 1)"}}'
    plan = plan_of(HEAD + f"variants:\n  a:\n    grid: {{penalty: [gradient, none]}}\n    {own}\n")
    assert {label: list(search.space) for label, search in searches(plan).items()} == {
        "a penalty=gradient": ["penalty.weight", "critic.lr"],
        "a penalty=none": ["critic.lr"],
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param(f"trials: 10, {SPACE}", "tpe makes its first 10 proposals at random", id="tpe"),
        pytest.param(f"trials: 3, sampler: gp, {SPACE}", "gp makes its first 10 proposals at random", id="gp"),
        pytest.param("trials: 12, space: {critic.lr: [0.1, 0.2]}", "the space has 2 settings", id="a small space"),
        pytest.param(f"trials: 11, {SPACE}", None, id="enough"),
        pytest.param(f"trials: 3, sampler: sobol, {SPACE}", None, id="sobol"),
    ],
)
def test_a_search_that_cannot_do_what_its_sampler_does_is_told_once(
    tmp_path: Path, command_line: CommandLine, values: str, told: str | None
) -> None:
    path = write_file(tmp_path, searched(values) + CELLS)
    code, _, notes = command_line("sweep", path, "--dry-run", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert notes.count("\n") == (1 if told else 0)
    if told:
        assert notes.startswith(f"note: {path}:3: search.trials: {told}")


def test_a_scale_has_the_warning_of_its_own_number(plan_of: Planner) -> None:
    with pytest.warns(UserWarning, match="with trials: 4 all of them are"):
        plan_of("name: s\n" + GROWS, "search.trials=4", name="t")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_of(searched(f"trials: 3, {SPACE}"), "search.trials=30", name="t")


def test_what_may_grow_survives_a_file(plan_of: Planner) -> None:
    for text in (GROWS, HEAD + CELLS + "seeds: {first: 2, most: 6}\nconfirm: {best: 2, seeds: 3}\n"):
        growing = plan_of(text).growing
        assert growing is not None
        read = growing_from(json.loads(json.dumps(growing.to_dict())))
        assert read is not None
        assert read.to_dict() == growing.to_dict()
        assert [group.search.settings for group in read.groups] == [group.search.settings for group in growing.groups]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["seeds"], []),
        (["seeds"], ["0"]),
        (["seeds"], None),
        (["groups"], None),
        (["groups"], [1]),
        (["groups", 0, "search", "trials"], "12"),
        (["groups", 0, "search", "sampler"], "simulated_annealing"),
        (["groups", 0, "search", "parallel"], 0),
        (["groups", 0, "search", "space"], {}),
        (["groups", 0, "search", "space"], {"critic.lr": {"kind": "float", "low": 1, "high": 0}}),
        (["groups", 0, "search", "space"], {"critic.lr": 3}),
        (["groups", 0, "search", "surprise"], 3),
        (["groups", 0, "axes"], 3),
        (["short"], 3),
        (["race"], {"first": 2}),
        (["race"], {"first": 2, "most": None}),
        (["race"], {"first": 2, "most": 3, "trials": "many"}),
        (["confirm"], {"best": 1, "seeds": True}),
        ([], 3),
        ([], []),
    ],
    ids=str,
)
def test_damage_of_what_may_grow_is_noticed(plan_of: Planner, path: list[Any], value: Any) -> None:
    growing = plan_of(GROWS).growing
    assert growing is not None
    held = {"growing": json.loads(json.dumps(growing.to_dict()))}
    inner: Any = held
    for piece in ["growing", *path][:-1]:
        inner = inner[piece]
    inner[["growing", *path][-1]] = value
    with pytest.raises(ValueError, match="."):
        growing_from(held["growing"])

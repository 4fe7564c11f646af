"""What a search proposes: a pure function of what was tried, that finds good settings and exhausts small spaces."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from statistics import mean
from typing import Any, Literal

import pytest

from orchestrator.decisions.sampler import Proposer, Tried
from orchestrator.decisions.study import START
from orchestrator.sweep.growing import SAMPLERS, Sampler
from orchestrator.sweep.space import Dimension, parse_dimension

Mode = Literal["min", "max"]
Space = dict[str, Dimension]


def space_of(**written: Any) -> Space:
    return {name: parse_dimension(value) for name, value in written.items()}


MIXED = space_of(
    lr="tag(log, interval(1e-5, 1e-2))",
    steps="int(interval(1, 8))",
    weight="choice(0.1, 1, 10)",
    size="range(8, 129, 8)",
)
SQUARE = space_of(x="interval(0, 1)", y="interval(0, 1)")
LINE = space_of(x="interval(0, 1)")
SMALL = space_of(a=[[[0, 1], [1, 0]], {"b": 1}, None], b="range(0, 1, 0.25)", c="int(interval(1, 3))")


def mixed(setting: Mapping[str, Any]) -> float:
    return (math.log10(setting["lr"]) + 3.5) ** 2 + abs(setting["steps"] - 5) + (setting["weight"] != 1)


def square(setting: Mapping[str, Any]) -> float:
    return (setting["x"] - 0.3) ** 2 + (setting["y"] - 0.7) ** 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No proposal gives a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def searched(
    proposer: Proposer,
    number: int,
    value: Callable[[Mapping[str, Any]], float | None],
    *,
    parallel: int = 1,
) -> list[Tried]:
    """The proposals of a search, of which ``parallel`` run at a time. One whose value is None diverges."""
    ended: list[Tried] = []
    for index in range(number):
        known = index - parallel + 1
        waiting = [Tried(each.setting, "waiting") for each in ended[max(known, 0) :]]
        setting = proposer.propose(index, [*ended[: max(known, 0)], *waiting])
        if setting is None:
            break
        result = value(setting)
        ended.append(Tried(setting, "diverged") if result is None else Tried(setting, "done", result))
    return ended


def history(number: int) -> list[Tried]:
    """Proposals with every outcome."""
    outcomes = []
    for index, each in enumerate(searched(Proposer(MIXED, "random", 5), number, mixed)):
        match index % 7:
            case 2:
                outcomes.append(Tried(each.setting, "stopped", each.value, 10 * index))
            case 4:
                outcomes.append(Tried(each.setting, "diverged"))
            case 6:
                outcomes.append(Tried(each.setting, "failed"))
            case _:
                outcomes.append(each)
    return outcomes


def as_waiting(tried: list[Tried], last: int) -> list[Tried]:
    """The same proposals, of which the last ones have no result yet."""
    known = len(tried) - last
    return [*tried[:known], *(Tried(each.setting, "waiting") for each in tried[known:])]


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_a_proposal_is_the_same_from_scratch_as_after_all_earlier_ones(sampler: Sampler) -> None:
    tried, one = history(60), Proposer(MIXED, sampler, 3)
    for number in range(1, 60):
        told = as_waiting(tried[:number], min(number, 3))
        assert one.propose(number, told) == Proposer(MIXED, sampler, 3).propose(number, told), number


def test_proposals_that_were_all_stopped_are_remembered_with_their_steps() -> None:
    tried = [Tried(each.setting, "stopped", each.value, index) for index, each in enumerate(history(30))]
    one = Proposer(MIXED, "tpe")
    for number in range(1, 30):
        told = as_waiting(tried[:number], min(number, 3))
        assert one.propose(number, told) == Proposer(MIXED, "tpe").propose(number, told), number


def test_the_gaussian_process_too_proposes_the_same_from_scratch() -> None:
    tried, one = history(20), Proposer(MIXED, "gp", 3)
    for number in (19, 20):
        told = as_waiting(tried[:number], 2)
        again = one.propose(number, told)
        assert again == Proposer(MIXED, "gp", 3).propose(number, told), number


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda tried: tried[:15], id="fewer"),
        pytest.param(lambda tried: tried[::-1], id="another order"),
        pytest.param(lambda tried: [*tried[:6], Tried(tried[6].setting, "done", 0.0), *tried[7:]], id="mended"),
        pytest.param(lambda tried: [*tried[:5], Tried(tried[9].setting, "failed"), *tried[6:]], id="another setting"),
        pytest.param(lambda tried: as_waiting(tried, 9), id="results taken back"),
    ],
)
def test_what_was_asked_before_decides_nothing(change: Callable[[list[Tried]], list[Tried]]) -> None:
    tried, used = history(30), Proposer(MIXED, "tpe")
    before = used.propose(30, tried)
    changed = change(tried)
    assert used.propose(30, changed) == Proposer(MIXED, "tpe").propose(30, changed)
    assert used.propose(30, tried) == before


RUN = """
import sys
sys.path[:0] = {path!r}
from test_sampler import MIXED, Proposer, history
print(Proposer(MIXED, {sampler!r}, 3).propose(20, history(20)))
"""


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_another_process_proposes_the_same(sampler: Sampler) -> None:
    program = [sys.executable, "-c", RUN.format(path=sys.path, sampler=sampler)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout == f"{Proposer(MIXED, sampler, 3).propose(20, history(20))}\n"
    assert ran.stderr == ""


@pytest.mark.parametrize("sampler", ["random", "sobol", "tpe"])
def test_seeds_differ_and_the_order_of_options_does_not_matter(sampler: Sampler) -> None:
    tried = history(20)
    turned = {name: MIXED[name] for name in reversed(MIXED)}
    first = Proposer(MIXED, sampler, 0).propose(20, tried)
    assert first is not None
    assert first != Proposer(MIXED, sampler, 1).propose(20, tried)
    assert first == Proposer(turned, sampler, 0).propose(20, tried)
    assert list(first) == list(MIXED)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_groups_begin_with_the_same_settings(sampler: Sampler) -> None:
    """A group's results differ from another's, and its first proposals do not."""
    groups = [searched(Proposer(MIXED, sampler), 10, value) for value in (mixed, lambda setting: -mixed(setting))]
    assert [each.setting for each in groups[0]] == [each.setting for each in groups[1]]
    assert START.get(sampler, 10) == 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_is_exhausted_and_no_setting_comes_twice(sampler: Sampler) -> None:
    tried = searched(
        Proposer(SMALL, sampler), 100, lambda setting: setting["b"] * setting["c"] if sampler != "gp" else None
    )
    assert len(tried) == 3 * 4 * 3
    assert len({json.dumps(each.setting) for each in tried}) == len(tried)


def test_the_gaussian_process_exhausts_a_small_space_with_results() -> None:
    tried = searched(Proposer(space_of(b="range(0, 11)"), "gp"), 20, lambda setting: setting["b"])
    assert sorted(each.setting["b"] for each in tried) == list(range(11))


@pytest.mark.parametrize("outcome", ["waiting", "diverged", "failed"])
def test_a_setting_is_not_proposed_again_whatever_became_of_it(
    outcome: Literal["waiting", "diverged", "failed"],
) -> None:
    space = space_of(a="choice(1, 2)")
    first = Proposer(space, "tpe").propose(0, [])
    assert first is not None
    second = Proposer(space, "tpe").propose(1, [Tried(first, outcome)])
    assert second == {"a": 3 - first["a"]}
    assert Proposer(space, "tpe").propose(2, [Tried(first, outcome), Tried(second, outcome)]) is None


def test_an_interval_without_a_new_number_is_exhausted() -> None:
    tried = searched(Proposer(space_of(x="interval(1, 1.0000000000000002)"), "random"), 10, lambda _: 0.0)
    assert {each.setting["x"] for each in tried} == {1.0, 1.0000000000000002}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_outside_the_space_are_left_out(sampler: Sampler) -> None:
    strange = [Tried({"x": 7.0, "y": 0.5}, "done", -9.0), Tried({"x": 0.5}, "waiting"), Tried({}, "failed")]
    tried = searched(Proposer(SQUARE, "random", 1), 9, square)
    assert Proposer(SQUARE, sampler).propose(12, [*strange, *tried]) == Proposer(SQUARE, sampler).propose(12, tried)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_lie_in_the_space_rounded(sampler: Sampler) -> None:
    for each in searched(Proposer(MIXED, sampler), 12 if sampler == "gp" else 40, mixed):
        assert all(MIXED[name].holds(value) for name, value in each.setting.items())
        lr = each.setting["lr"]
        assert lr == float(f"{lr:.4g}")
        assert [type(each.setting[name]) for name in ("lr", "steps", "size")] == [float, int, int]


@pytest.mark.parametrize("sampler", ["random", "sobol"])
def test_a_logarithmic_interval_is_covered_evenly_in_the_logarithm(sampler: Sampler) -> None:
    settings = [each.setting for each in searched(Proposer(MIXED, sampler), 256, mixed)]
    decades = [sum(math.floor(math.log10(each["lr"])) == power for each in settings) for power in (-5, -4, -3)]
    weights = [sum(each["weight"] == weight for each in settings) for weight in (0.1, 1, 10)]
    most = 3 if sampler == "sobol" else 35
    assert all(abs(number - 256 / 3) <= most for number in decades + weights)


def test_sobol_proposes_the_points_of_one_sequence_whatever_was_tried() -> None:
    settings = [each.setting for each in searched(Proposer(SQUARE, "sobol"), 16, square)]
    assert len({(int(4 * each["x"]), int(4 * each["y"])) for each in settings}) == 16
    other = searched(Proposer(SQUARE, "random"), 15, square)
    assert Proposer(SQUARE, "sobol").propose(15, other) == settings[15]


def best(sampler: Sampler, number: int, seed: int, mode: Mode = "min", parallel: int = 1) -> float:
    sign = 1 if mode == "min" else -1
    tried = searched(
        Proposer(SQUARE, sampler, seed, mode), number, lambda setting: sign * square(setting), parallel=parallel
    )
    return min(sign * each.value for each in tried if each.value is not None)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_tpe_finds_better_settings_than_random(mode: Mode) -> None:
    seeds = range(8)
    assert mean(best("tpe", 50, seed, mode) for seed in seeds) < 0.5 * mean(best("random", 50, seed) for seed in seeds)


def test_tpe_finds_better_settings_than_random_four_at_a_time() -> None:
    seeds = range(8)
    assert mean(best("tpe", 50, seed, parallel=4) for seed in seeds) < 0.7 * mean(
        best("random", 50, seed) for seed in seeds
    )


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_gaussian_process_finds_better_settings_than_random(mode: Mode) -> None:
    seeds = range(2)
    assert mean(best("gp", 13, seed, mode) for seed in seeds) < 0.1 * mean(best("random", 13, seed) for seed in seeds)


def grid_on_line(outcome: Callable[[float], tuple[Any, float | None, int | None]]) -> list[Tried]:
    """Fifteen proposals on the line, evenly."""
    return [Tried({"x": part / 16}, *outcome(part / 16)) for part in range(1, 16)]


def proposed(sampler: Sampler, tried: list[Tried], seeds: int, mode: Mode = "min") -> list[float]:
    """x of the next proposal, with several seeds."""
    proposals = [Proposer(LINE, sampler, seed, mode).propose(99, tried) for seed in range(seeds)]
    return [each["x"] for each in proposals if each is not None]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("sampler", "seeds"), [("tpe", 20), ("gp", 2)])
def test_where_trials_diverged_proposals_are_rare(sampler: Sampler, seeds: int, mode: Mode) -> None:
    """Half of the line diverges. Values get better towards it, and are best at 0.4."""
    sign = 1 if mode == "min" else -1
    tried = grid_on_line(lambda x: ("diverged", None, None) if x > 0.5 else ("done", sign * (x - 0.4) ** 2, None))
    there = proposed(sampler, tried, seeds, mode)
    assert sum(x > 0.55 for x in there) <= 0.1 * seeds, there


@pytest.mark.parametrize("worse", ["diverged", "done inf", "done nan"])
def test_what_diverged_is_worse_than_any_value(worse: str) -> None:
    """Values are bad everywhere: none of them is as bad as diverging."""
    value = {"diverged": None, "done inf": math.inf, "done nan": math.nan}[worse]
    outcome = worse.partition(" ")[0]
    tried = grid_on_line(lambda x: (outcome, value, None) if x > 0.25 else ("done", 1e6, None))
    assert mean(x < 0.35 for x in proposed("tpe", tried, 20)) >= 0.7
    assert all(x < 0.35 for x in proposed("gp", tried, 1))


def test_while_nearly_all_diverge_proposals_are_random() -> None:
    tried = grid_on_line(lambda x: ("done", 1.0, None) if x == 0.5 else ("diverged", None, None))
    assert proposed("tpe", tried, 5) == proposed("gp", tried, 5) == proposed("random", tried, 5)


@pytest.mark.parametrize(("sampler", "seeds"), [("tpe", 20), ("gp", 2)])
def test_where_trials_were_stopped_proposals_are_rare(sampler: Sampler, seeds: int) -> None:
    tried = grid_on_line(lambda x: ("stopped", x, 100) if x > 0.5 else ("done", (x - 0.2) ** 2, 1000))
    assert sum(x > 0.55 for x in proposed(sampler, tried, seeds)) <= 0.1 * seeds


def test_a_later_stop_is_a_better_result() -> None:
    """All were stopped: those on the right half later."""
    tried = grid_on_line(lambda x: ("stopped", 1.0, 900 if x > 0.7 else 100))
    assert mean(x > 0.6 for x in proposed("tpe", tried, 20)) >= 0.7


@pytest.mark.parametrize("outcome", ["failed", "done"])
def test_what_has_no_result_teaches_nothing(outcome: Literal["failed", "done"]) -> None:
    tried = history(20)
    lost = [Tried({"lr": 1e-3, "steps": 1, "weight": 10, "size": size}, outcome) for size in (8, 16, 24)]
    assert Proposer(MIXED, "tpe").propose(23, [*tried, *lost]) == Proposer(MIXED, "tpe").propose(23, tried)


def test_waiting_proposals_keep_tpe_away() -> None:
    tried = grid_on_line(lambda x: ("done", abs(x - 0.5), None))
    there = [Tried({"x": 0.5 + shift / 1000}, "waiting") for shift in (-4, -2, 1, 2, 4)]
    alone, crowded = proposed("tpe", tried, 20), proposed("tpe", [*tried, *there], 20)
    assert mean(abs(x - 0.5) for x in crowded) > 1.2 * mean(abs(x - 0.5) for x in alone)


def test_waiting_proposals_keep_the_gaussian_process_away() -> None:
    tried = grid_on_line(lambda x: ("done", abs(x - 0.5), None))
    (alone,) = proposed("gp", tried, 1)
    there = [Tried({"x": alone + shift / 1000}, "waiting") for shift in (-1, 1)]
    (crowded,) = proposed("gp", [*tried, *there], 1)
    assert abs(crowded - alone) > 0.005


def test_the_gaussian_process_proposes_another_setting_where_its_best_failed() -> None:
    tried = grid_on_line(lambda x: ("done", abs(x - 0.5), None))
    (best_setting,) = proposed("gp", tried, 1)
    failed = [*tried, Tried({"x": best_setting}, "failed")]
    assert proposed("gp", failed, 1) not in ([best_setting], proposed("random", failed, 1))


def test_a_group_of_thousands_costs_little_more_a_decision() -> None:
    """The study is told what is new, and the Gaussian process at most 200 results."""
    from optuna.study import Study

    tried, added = searched(Proposer(MIXED, "random"), 1200, mixed), []
    proposer = Proposer(MIXED, "tpe")
    proposer.propose(1000, tried[:1000])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Study, "add_trial", lambda _, trial: added.append(trial))
        for number in range(1001, 1011):
            proposer.propose(number, tried[:number])
    assert len(added) == 10

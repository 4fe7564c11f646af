"""Properties that hold for every plan."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hand_made import plan_file, write_file
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.sweep.plan import Plan

BASE = ["dataset=mixture", "trainer=qp_wgan", "budget=40"]
OPTIONS = {
    "objective.q": [1, 1.5, 2, 3],
    "objective.p": [1, 2, 3],
    "penalty.lambda1": [0, 0.1, 1],
    "penalty.lambda2": [0, 1, 10],
    "critic.lr": [1e-4, 2e-4, 1e-3],
    "critic_iterations": [1, 2, 5],
    "batch_size": [8, 16, 32],
}
few = settings(deadline=None, max_examples=15)


@st.composite
def grids(draw: st.DrawFn) -> dict[str, list[Any]]:
    """One to three axes of one to three values."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), min_size=1, max_size=3, unique=True))
    return {name: draw(st.lists(st.sampled_from(OPTIONS[name]), min_size=1, max_size=3, unique=True)) for name in names}


seed_lists = st.lists(st.integers(0, 50), min_size=1, max_size=3, unique=True)


def planned(grid: dict[str, list[Any]], seeds: list[int], **more: Any) -> Plan:
    text = yaml.safe_dump({"name": "s", "base": BASE, "grid": grid, "seeds": seeds} | more, sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        return plan_file(write_file(Path(folder), text))


def ids(plan: Plan) -> set[str]:
    return {trial.trial_id for trial in plan.trials}


@few
@given(grid=grids(), seeds=seed_lists, data=st.data())
def test_as_many_trials_as_axes_and_seeds_multiply_to_whatever_their_order(
    grid: dict[str, list[Any]], seeds: list[int], data: st.DataObject
) -> None:
    plan = planned(grid, seeds)
    assert len(plan.trials) == math.prod(map(len, grid.values())) * len(seeds)
    assert len(ids(plan)) == len(plan.trials)

    shuffled = {axis: data.draw(st.permutations(grid[axis])) for axis in data.draw(st.permutations(list(grid)))}
    assert ids(planned(shuffled, data.draw(st.permutations(seeds)))) == ids(plan)


@few
@given(grid=grids(), seeds=seed_lists, data=st.data())
def test_a_new_seed_and_a_new_value_keep_the_old_trials(
    grid: dict[str, list[Any]], seeds: list[int], data: st.DataObject
) -> None:
    axis = data.draw(st.sampled_from(list(grid)))
    fresh = [value for value in OPTIONS[axis] if value not in grid[axis]]
    more = grid | {axis: [*data.draw(st.permutations(fresh))[:1], *grid[axis]]}
    old, new = planned(grid, seeds), planned(more, [99, *seeds])
    assert ids(old) < ids(new)
    assert len(new.trials) == math.prod(map(len, more.values())) * (len(seeds) + 1)


@few
@given(grid=grids(), seeds=seed_lists, data=st.data())
def test_exclude_takes_exactly_the_matching_cells(
    grid: dict[str, list[Any]], seeds: list[int], data: st.DataObject
) -> None:
    axes = data.draw(st.lists(st.sampled_from(list(grid)), min_size=1, unique=True))
    rule = {axis: data.draw(st.sampled_from(grid[axis])) for axis in axes}
    everything = planned(grid, seeds)
    staying = {t.trial_id for t in everything.trials if any(t.axes[axis] != value for axis, value in rule.items())}
    if staying:
        assert ids(planned(grid, seeds, exclude=[rule])) == staying
    else:
        with pytest.raises(UserError, match="every cell is excluded"):
            planned(grid, seeds, exclude=[rule])


def test_ids_do_not_depend_on_the_order_or_the_names_of_variants() -> None:
    def by_trainer(**names: str) -> Plan:
        variants = {name: {"base": [f"trainer={trainer}"]} for name, trainer in names.items()}
        return planned({"critic_iterations": [1, 2]}, [0, 1], base=["dataset=mixture"], variants=variants)

    plan = by_trainer(wgan="wgan", gp="wgan_gp")
    assert [trial.variant for trial in plan.trials] == ["wgan", "wgan", "gp", "gp"] * 2  # the file's, seed by seed
    assert ids(plan) == ids(by_trainer(a="wgan_gp", b="wgan"))

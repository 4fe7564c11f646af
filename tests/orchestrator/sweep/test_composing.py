"""A trial's configuration, composed from presets and overrides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import install
from hand_made import Planner, option

from orchestrator.errors import UserError
from orchestrator.sweep.presets import check_preset, compose, parse_override, preset_folders, presets
from trainers.parts import part_class, runtime_options


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        pytest.param("penalty.weight=1", "penalty.weight", 1, id="number"),
        pytest.param("critic.lr=1e-4", "critic.lr", 1e-4, id="exponent"),
        pytest.param("trainer=wwgan", "trainer", "wwgan", id="preset"),
        pytest.param("generator.ema=null", "generator.ema", None, id="null"),
        pytest.param("critic.betas=[0.5,0.9]", "critic.betas", [0.5, 0.9], id="list"),
        pytest.param("reuse_batch=true", "reuse_batch", True, id="true"),
    ],
)
def test_an_override(text: str, key: str, value: object) -> None:
    override = parse_override(text)
    assert (override.key_or_group, override.value()) == (key, value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("budget", "override such as", id="no value"),
        pytest.param("budget=(", "override such as", id="bad syntax"),
        pytest.param("=3", "override such as", id="no name"),
        pytest.param("+=3", "override such as", id="no name to add"),
        pytest.param("budget=1,2", "several values", id="commas"),
        pytest.param("budget=choice(1,2)", "several values", id="choice"),
        pytest.param("hydra.job.name=x", "Hydra", id="Hydra itself"),
        pytest.param("trainer=wgan_gb", "did you mean 'wgan_gp'", id="preset"),
        pytest.param("network=resnet", "mlp", id="the presets there are"),
    ],
)
def test_what_is_no_override(text: str, told: str) -> None:
    with pytest.raises(UserError, match="(?s)" + told) as raised:
        parse_override(text)
    assert text in str(raised.value) or text.partition("=")[2] in str(raised.value)


def test_config_groups_are_the_folders_of_presets() -> None:
    assert {"dataset", "trainer", "penalty", "network", "evaluation", "objective"} <= set(presets())
    assert {"gradient", "lipschitz", "wasserstein"} <= set(presets()["penalty"])


def test_a_variant_of_a_trainer_may_choose_another_penalty() -> None:
    assert compose(["trainer=wgan_gp", "penalty=clipping"])["penalty"]["name"] == "clipping"
    assert compose(["penalty=clipping", "trainer=wgan_gp"])["penalty"]["name"] == "clipping"


def test_composing_again_forgets_what_was_composed_before() -> None:
    before = compose([])
    compose(["trainer=wwgan", "dataset=mixture", "penalty.weight=7"])
    assert compose([]) == before


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        pytest.param(["critic.lrr=1"], "'critic.lr'", id="an option that is not there"),
        pytest.param(["penalty.neighbourhood=cross"], "'penalty.neighbourhood'", id="an option of another preset"),
        pytest.param(["budget=${nowhere}"], "nowhere", id="an interpolation of nothing"),
        pytest.param(["budget=???"], "budget", id="a value left open"),
    ],
)
def test_what_does_not_compose(overrides: list[str], told: str) -> None:
    with pytest.raises(UserError) as raised:
        compose(overrides)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_preset_is_told_with_the_nearest() -> None:
    check_preset("penalty", "wasserstein")
    check_preset("penalty.weight", "whatever is no group")
    with pytest.raises(UserError, match="did you mean 'wasserstein'"):
        check_preset("penalty", "waserstein")
    with pytest.raises(UserError, match="no penalty called '3'"):
        check_preset("penalty", 3)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution with penalties of its own, installed for one test."""
    folder = install(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    for known in (preset_folders, presets, part_class, runtime_options):
        known.cache_clear()
    yield folder
    monkeypatch.undo()
    for known in (preset_folders, presets, part_class, runtime_options):
        known.cache_clear()


def test_a_preset_and_a_penalty_from_outside_compose_and_plan(foreign: Path, plan_of: Planner) -> None:
    assert "quiet" in presets()["penalty"]
    plan = plan_of("base: [dataset=mixture, budget=40]\ngrid: {penalty: [gradient, quiet], penalty.weight: [1, 2]}\n")
    cells = [(option(trial, "penalty.name"), option(trial, "penalty.weight")) for trial in plan.trials]
    assert cells == [("gradient", 1), ("gradient", 2), ("quiet", 1), ("quiet", 2)]
    assert option(plan_of("base: [dataset=mixture, penalty=quiet]\n").trials[0], "penalty.weight") == 0.25
    with pytest.raises(UserError, match="did you mean 'quiet'"):
        parse_override("penalty=quite")


def test_without_the_distribution_its_names_are_unknown(plan_of: Planner) -> None:
    with pytest.raises(UserError, match="no penalty called 'quiet'"):
        plan_of("base: [penalty=quiet]\n")

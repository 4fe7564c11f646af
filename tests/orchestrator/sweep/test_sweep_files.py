"""The sweep files in ``sweeps/``: each can be planned, in full and at every scale, and names its source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hand_made import plan_file

from orchestrator.sweep.file import read_sweep_file
from orchestrator.sweep.plan import Plan

FOLDER = Path(__file__).parents[3] / "sweeps"
FILES = sorted(FOLDER.rglob("*.yaml"))
SCALED = [(path, scale) for path in FILES for scale in (None, *read_sweep_file(path).scale)]


@pytest.mark.parametrize(("path", "scale"), SCALED, ids=[f"{path.stem} {scale or 'in full'}" for path, scale in SCALED])
def test_every_sweep_file_plans(path: Path, scale: str | None) -> None:
    plan = plan_file(path, *([f"scale={scale}"] if scale else []))
    assert plan.name == (f"{path.stem}-{scale}" if scale else path.stem)
    assert plan.sweep_file.description
    if scale:
        whole = plan_file(path)
        assert work_of(plan) < work_of(whole)


def work_of(plan: Plan) -> int:
    """The critic iterations of a plan's trials and of its searches' proposals."""
    groups = plan.growing.groups if plan.growing else ()
    proposals = sum(
        group.config["budget"] * group.search.trials * len(plan.growing.seeds) for group in groups if plan.growing
    )
    return proposals + sum(trial.config.budget for trial in plan.trials)


@pytest.mark.parametrize("path", sorted((FOLDER / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_paper_s_file_begins_with_the_paper_and_what_to_expect(path: Path) -> None:
    head = path.read_text().partition("name:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert any(word in head for word in ("Mallasto et al.", "Dukler et al.", "papers leave open"))
    assert "xpect" in head


@pytest.mark.parametrize("name", ["wwgan_cifar10", "wwgan_celeba", "wwgan_robustness"])
def test_what_the_paper_trained_identically_differs_in_the_penalty_alone(name: str) -> None:
    one, other, *_ = (trial for trial in plan_file(FOLDER / "papers" / f"{name}.yaml").trials if trial.seed == 0)
    assert (one.variant, other.variant) == ("wgan-gp", "wwgan")
    assert one.config.penalty != other.config.penalty
    assert replace(one.config, penalty=other.config.penalty) == other.config


def test_one_adam_for_all_methods_of_the_main_sweep() -> None:
    configs = [trial.config for trial in plan_file(FOLDER / "ground_metrics.yaml").trials]
    adams = {each for config in configs for each in (config.critic, config.generator) if each.optimizer == "adam"}
    assert {each.betas for each in adams} == {(0.5, 0.999)}
    assert len({config.critic for config in configs if config.critic.optimizer == "adam"}) == 1


@pytest.mark.parametrize("name", ["wwgan_cifar10", "wwgan_celeba"])
def test_seconds_an_epoch_are_those_of_a_whole_one(name: str) -> None:
    """A table shows the last epoch's."""
    trials = plan_file(FOLDER / "papers" / f"{name}.yaml").trials
    assert all(trial.config.budget % trial.config.epoch_length == 0 for trial in trials)

"""The presets in trainers/conf: Hydra composes each one into a valid trial, and each one states every option."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import trainers
from trainers.config import TrialConfig
from trainers.parts import BARE, MODULES, ConfigError, built_in

CONF = Path(trainers.__file__).parent / "conf"
GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in CONF.iterdir() if folder.is_dir()
}
OPTIONS = [(group, name) for group, names in GROUPS.items() for name in names]


@cache
def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)  # type: ignore[return-value]


def options(value: Any, path: str = "") -> set[str]:
    """Every option's path; a list is one option."""
    if not isinstance(value, dict):
        return {path}
    return set().union(*(options(item, f"{path}.{key}" if path else key) for key, item in value.items()))


IMAGES = "dataset.content={digest: 0123456789abcdef, images: 500, test_images: null, classes: 0, bits: 16}"


def base(name: str) -> list[str]:
    """Overrides that a preset needs to fit the trial."""
    if name == "inception":
        return ["evaluation.samples=500"]  # all held-out images of digits
    if name == "exact_transport":
        return ["penalty=none"]
    if name == "wwgan_dcgan":
        return ["dataset=celeba"]
    if name == "image_folder":
        return ["dataset.root=images", IMAGES]
    of_points = name in ("mixture", "gaussians", "atoms", "toy", "transport")
    return ["dataset=mixture", "trainer=wgan"] if of_points else []


@pytest.mark.parametrize("dataset", GROUPS["dataset"])
@pytest.mark.parametrize("trainer", GROUPS["trainer"])
def test_every_trainer_trains_every_dataset_that_it_can(trainer: str, dataset: str) -> None:
    values = composed(f"trainer={trainer}", f"dataset={dataset}", *(base(dataset) if dataset == "image_folder" else []))
    if trainer == "wwgan" and dataset in ("mixture", "gaussians", "atoms"):
        problem = rf"^penalty\.name: the Wasserstein norm needs images; {dataset} has points"
        with pytest.raises(ConfigError, match=problem):
            TrialConfig.from_dict(values)
        return
    config = TrialConfig.from_dict(values)
    assert config.dataset.name == dataset
    assert (config.evaluation.name, config.network.name) == {
        "digits": ("classifier", "mlp"),
        "mixture": ("transport", "mlp"),
        "gaussians": ("none", "mlp"),
        "atoms": ("transport", "atoms"),
        "mnist": ("classifier", "mlp"),
        "cifar10": ("classifier", "mlp"),
        "celeba": ("none", "dcgan"),
        "image_folder": ("none", "mlp"),
    }[dataset]
    assert config.opponent.name == ("data" if dataset == "gaussians" else "generator")


@pytest.mark.parametrize("order", [1, -1], ids=["dataset last", "dataset first"])
def test_the_order_of_overrides_does_not_matter(order: int) -> None:
    overrides = ["trainer=qp_wgan", "penalty=gradient", "network=small_dcgan", "dataset=digits"][::order]
    config = TrialConfig.from_dict(composed(*overrides))
    names = config.objective.name, config.penalty.name, config.network.name, config.dataset.name
    assert names == ("c_transform", "gradient", "dcgan", "digits")
    assert config.reuse_batch


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=[f"{group}={name}" for group, name in OPTIONS])
def test_every_preset_writes_every_option_out(group: str, name: str) -> None:
    values = composed(f"{group}={name}", *base(name))
    config = TrialConfig.from_dict(values)
    assert options(values) == options(config.to_dict())


@pytest.mark.parametrize("group", sorted(MODULES.keys() - BARE))
def test_every_built_in_part_has_a_preset(group: str) -> None:
    presets: list[Any] = [OmegaConf.load(CONF / group / f"{name}.yaml") for name in GROUPS[group]]
    named = {preset.get("name") or preset[group].name for preset in presets}
    assert named == set(built_in(group))


def test_every_group_stands_in_the_defaults() -> None:
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    assert {group for entry in defaults if entry != "_self_" for group in entry} == set(GROUPS)


METHODS = {
    "wgan": ("kantorovich_rubinstein", "clipping", False),
    "wgan_gp": ("kantorovich_rubinstein", "gradient", False),
    "wgan_lp": ("kantorovich_rubinstein", "gradient", True),
    "wwgan": ("kantorovich_rubinstein", "wasserstein", False),
    "c_transform": ("c_transform", "none", None),
    "soft_c_transform": ("soft_c_transform", "none", None),
    "qp_wgan": ("c_transform", "admissibility", None),
    "exact_transport": ("exact_transport", "none", None),
}


@pytest.mark.parametrize("trainer", GROUPS["trainer"])
def test_every_trainer_is_the_method_it_is_called(trainer: str) -> None:
    config = TrialConfig.from_dict(composed(f"trainer={trainer}"))
    objective, penalty, one_sided = METHODS[trainer]
    assert (config.objective.name, config.penalty.name) == (objective, penalty)
    assert getattr(config.penalty, "one_sided", one_sided) == one_sided
    assert config.reuse_batch == (trainer in ("qp_wgan", "exact_transport"))  # Algorithm 1 of the (q,p)-WGAN
    assert (config.critic.optimizer == "rmsprop") == (trainer == "wgan")


def test_the_papers_settings() -> None:
    qp = composed("trainer=qp_wgan")
    assert (qp["objective"]["search_space"], qp["penalty"]["lambda1"], qp["penalty"]["lambda2"]) == ("both", 0.1, 10)
    assert qp["penalty"]["p2"] == "eq19"
    wwgan = composed("trainer=wwgan")
    assert wwgan["critic"]["betas"] == [0.5, 0.9]  # the authors' code's
    assert (wwgan["penalty"]["weight"], wwgan["penalty"]["reference"], wwgan["penalty"]["degree"]) == (
        4,
        "identity",
        "constant",
    )
    assert composed("penalty=gradient")["penalty"]["weight"] == 10

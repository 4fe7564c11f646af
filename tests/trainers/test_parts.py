"""Parts from other packages: an installed objective or penalty is used by name like a built-in one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from trainers.config import TrialConfig, identity_of
from trainers.metrics import Metric, find_metric
from trainers.parts import ConfigError, nearest, part_class, runtime_options
from trainers.penalties import GradientPenalty
from trainers.training import Training
from trainers.untrained import Noise

MakeTrial = Callable[..., TrialConfig]
MODULE = "outside_package_of_a_test"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution with a penalty (the largest slope in any coordinate) and an objective."""
    package = tmp_path / MODULE
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(
        dedent("""
        from dataclasses import dataclass
        from typing import ClassVar

        from trainers.datasets import Mixture
        from trainers.evaluation import Evaluation
        from trainers.metrics import Metric
        from trainers.objectives import Objective
        from trainers.opponents import NoiseOpponent
        from trainers.parts import number, runtime
        from trainers.penalties import GradientPenalty


        @dataclass(frozen=True, kw_only=True)
        class LargestSlope(GradientPenalty):
            name: ClassVar[str] = "largest_slope"
            scale: float = number(1.0, above=0)

            def norm(self, gradient, points):
                return self.scale * gradient.flatten(1).abs().amax(dim=1)


        @dataclass(frozen=True, kw_only=True)
        class Halved(Objective):
            name: ClassVar[str] = "halved"

            def psi(self, pair, side):
                return -pair.phi(side) / 2


        @dataclass(frozen=True, kw_only=True)
        class Kept(Mixture):
            name: ClassVar[str] = "kept"
            folder: str = runtime("here")
            spread: float = number(1.0, above=0)


        @dataclass(frozen=True, kw_only=True)
        class Gap(Evaluation):
            name: ClassVar[str] = "gap"
            metrics: ClassVar[tuple[Metric, ...]] = (Metric("gap", "max", logarithmic=True),)


        @dataclass(frozen=True, kw_only=True)
        class Louder(NoiseOpponent):
            name: ClassVar[str] = "louder"
            scale: float = number(2.0, above=0)

            def build(self, trial, data):
                noise = super().build(trial, data)
                noise.register_forward_hook(lambda module, inputs, points: self.scale * points)
                return noise
        """)
    )
    information = tmp_path / f"{MODULE}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[trainers.penalties]\nlargest_slope = {MODULE}.parts:LargestSlope\n"
        f"gradient = {MODULE}.parts:LargestSlope\nbroken = {MODULE}.parts:NotThere\nlost = {MODULE}.lost:Lost\n"
        f"renamed = {MODULE}.parts:LargestSlope\nhalved = {MODULE}.parts:Halved\n\n"
        f"[trainers.objectives]\nhalved = {MODULE}.parts:Halved\n\n[trainers.datasets]\nkept = {MODULE}.parts:Kept\n\n"
        f"[trainers.evaluations]\nbroken = {MODULE}.parts:NotThere\ngap = {MODULE}.parts:Gap\n\n"
        f"[trainers.opponents]\nlouder = {MODULE}.parts:Louder\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for known in (part_class, runtime_options):
        known.cache_clear()
    yield
    for known in (part_class, runtime_options):
        known.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == MODULE]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_a_penalty_from_outside_trains(trial: MakeTrial, cache_dir: Path) -> None:
    config = trial(penalty={"name": "largest_slope", "scale": 100}, budget=25)
    assert isinstance(config.penalty, GradientPenalty)
    assert config.to_dict()["penalty"] == {
        "name": "largest_slope",
        "weight": 10.0,
        "one_sided": False,
        "scale": 100.0,
    }
    assert TrialConfig.from_dict(config.to_dict()) == config
    assert config.identity != trial(penalty="largest_slope", budget=25).identity
    training = Training(config, cache_dir=cache_dir)
    first, last = training.run_epoch(), training.run_epoch()
    assert training.finished
    assert first is not None
    assert last is not None
    assert last["penalty"] < first["penalty"]  # the slope falls from 100 times too steep


@pytest.mark.usefixtures("installed")
def test_an_objective_from_outside_trains(trial: MakeTrial, cache_dir: Path) -> None:
    config = trial(objective="halved", penalty={"name": "largest_slope"})
    record = Training(config, cache_dir=cache_dir).run_epoch()
    assert record is not None
    assert config.objective.cost == (2, 1)


@pytest.mark.usefixtures("installed")
def test_options_from_outside_are_checked_like_ours(trial: MakeTrial) -> None:
    for penalty, path, problem in [
        ({"name": "largest_slope", "scael": 1}, "penalty.scael", "did you mean 'scale'"),
        ({"name": "largest_slope", "scale": 0}, "penalty.scale", "greater than 0"),
        ({"name": "largest_slop"}, "penalty.name", "did you mean 'largest_slope'"),
    ]:
        with pytest.raises(ConfigError) as error:
            trial(penalty=penalty)
        assert error.value.path == path
        assert problem in error.value.problem


@pytest.mark.usefixtures("installed")
def test_where_a_dataset_from_outside_finds_its_files_is_no_part_of_the_trial(trial: MakeTrial) -> None:
    config = trial(dataset={"name": "kept", "folder": "there"})
    assert config.identity == trial(dataset="kept").identity
    assert config.identity != trial(dataset={"name": "kept", "spread": 2}).identity


def test_opponents_and_probes_are_written_as_their_names(trial: MakeTrial) -> None:
    values = trial(opponent="data", probes=["nearest", "distance"]).to_dict()
    assert values["opponent"] == "data"
    assert values["probes"] == ["nearest", "distance"]
    assert trial(opponent={"name": "data"}).to_dict() == trial(opponent="data").to_dict()
    with pytest.raises(ConfigError, match="opponent: expected a name, got 3"):
        trial(opponent=3)


@pytest.mark.usefixtures("installed")
def test_an_opponent_from_outside_may_have_options(trial: MakeTrial, cache_dir: Path) -> None:
    changes: dict[str, Any] = {"objective": {"name": "c_transform", "p": 2}, "penalty": "none", "dataset": "mixture"}
    config = trial(opponent={"name": "louder", "scale": 3}, **changes)
    assert config.to_dict()["opponent"] == {"name": "louder", "scale": 3.0}
    assert TrialConfig.from_dict(config.to_dict()) == config
    assert config.identity != trial(opponent="louder", **changes).identity
    training = Training(config, cache_dir=cache_dir)
    noise = torch.randn(2, 2)
    assert torch.allclose(training.generator(noise), 3 * Noise((2,))(noise))
    assert training.run_epoch() is not None


@pytest.mark.usefixtures("installed")
def test_a_metric_from_outside_is_known_by_its_name() -> None:
    assert find_metric("gap") == Metric("gap", "max", logarithmic=True)
    assert find_metric("nowhere") == Metric("nowhere")  # though one entry point is broken


def test_a_stored_trial_of_a_package_that_is_missing_has_an_identity(trial: MakeTrial) -> None:
    values = trial(dataset="mixture").to_dict()
    ours = identity_of(values)
    assert identity_of(values | {"dataset": {"name": "kept", "folder": "there"}}) != ours
    assert identity_of(values | {"probes": [{"name": "of_old", "option": 1}, "nearest"]}) != ours


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["renamed", "halved"])
def test_an_entry_point_to_another_name_or_kind_is_said_so(name: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError, match=rf"entry point .* is not a Part class with kind 'penalty' and name '{name}'"):
        trial(penalty=name)


@pytest.mark.usefixtures("installed")
def test_no_package_takes_the_name_of_a_part_of_ours(trial: MakeTrial) -> None:
    assert type(trial(penalty="gradient").penalty) is GradientPenalty


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", ["broken", "lost"])
def test_an_entry_point_that_leads_nowhere_is_said_so(name: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError, match=rf"penalty\.name: the entry point '{MODULE}.*' of '{name}' cannot be loaded"):
        trial(penalty=name)


def test_without_the_package_the_name_is_unknown(trial: MakeTrial) -> None:
    with pytest.raises(ConfigError, match=r"penalty\.name: there is no penalty called 'largest_slope'"):
        trial(penalty="largest_slope")


@pytest.mark.parametrize("name", ["os:system", "trainers.penalties:NoPenalty", "os.system", ""])
def test_a_name_is_never_an_object_to_import(name: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError, match="there is no penalty called"):
        trial(penalty={"name": name})


@pytest.mark.parametrize(
    ("word", "suggested"),
    [
        ("gradeint", "gradient"),
        ("clip", "clipping"),
        ("GRADIENT", None),
        ("admissability", "admissibility"),
        ("x", None),
    ],
)
def test_the_nearest_name_is_suggested_or_all_are_listed(word: str, suggested: str | None) -> None:
    valid = ["gradient", "clipping", "admissibility"]
    expected = f"; did you mean '{suggested}'?" if suggested else "; valid: admissibility, clipping, gradient"
    assert nearest(word, valid) == expected

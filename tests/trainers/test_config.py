"""A trial's configuration: accepted values, errors for other values, and the identity."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trainers.config import RUNTIME_OPTIONS, TrialConfig, is_runtime_option
from trainers.parts import MODULES, ConfigError, build_part, built_in

MakeTrial = Callable[..., TrialConfig]
# Four trials that together have every kind of part and option.
TRIALS: dict[str, dict[str, Any]] = {
    "wwgan": {
        "network": {"name": "dcgan", "generator_widths": [8, 8], "critic_widths": [8]},
        "penalty": {
            "name": "wasserstein",
            "neighbourhood": [{"offset": [0, 1]}, {"offset": [2, -1], "weight": 0.5}],
        },
        "evaluation": {"name": "classifier"},
        "generator": {"ema": 0.99},
    },
    "qp": {
        "objective": {"name": "soft_c_transform", "q": 1.5, "p": 2},
        "penalty": {"name": "admissibility"},
        "critic": {"optimizer": "rmsprop"},
    },
    "inception": {"evaluation": {"name": "inception", "samples": 500}},
    "mixture": {"dataset": "mixture", "penalty": "clipping", "evaluation": "transport", "seed": 12},
}
EVERY_TRIAL = pytest.mark.parametrize("changes", TRIALS.values(), ids=TRIALS)


@EVERY_TRIAL
def test_plain_values_round_trip(changes: dict[str, Any], trial: MakeTrial) -> None:
    config = trial(**changes)
    again = TrialConfig.from_dict(config.to_dict())
    assert again == config
    assert again.identity == config.identity
    assert again.to_dict() == config.to_dict()


@EVERY_TRIAL
def test_whole_numbers_are_the_same_trial_as_floats(changes: dict[str, Any], trial: MakeTrial) -> None:
    def as_integers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_integers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [as_integers(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    values = trial(**changes).to_dict()
    with_integers = as_integers(copy.deepcopy(values))
    assert repr(with_integers) != repr(values)
    assert TrialConfig.from_dict(with_integers).identity == TrialConfig.from_dict(values).identity


def test_identity_is_stable(trial: MakeTrial) -> None:
    """If this fails, every finished trial counts as new.

    Pin the new value only if that is intended: an option was added, or an option now means another computation. In the
    second case also increase CONFIG_VERSION.
    """
    values = {
        "dataset": {"name": "digits", "held_out": 500},
        "network": {"name": "mlp", "latent_size": 4, "generator_widths": [8], "critic_widths": [8]},
        "objective": {"name": "c_transform", "q": 2, "p": 1},
        "penalty": {"name": "admissibility", "lambda1": 0.1},
        "evaluation": {"name": "none", "times": 3},
        "critic": {"lr": 1e-3},
        "generator": {"lr": 1e-3, "ema": 0.5},
        "seed": 7,
    }
    assert TrialConfig.from_dict(values).identity == "356d948f6277"


def test_the_identity_of_trials_measured_by_the_classifier_is_stable(trial: MakeTrial) -> None:
    assert trial(evaluation="classifier").identity == "eb796320a5db"
    assert trial(evaluation={"name": "classifier", "samples": 100, "times": 2}).identity == "a86ea5e499e2"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every option in plain values, with its path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield path, value
    elif value:
        for key, item in pairs:
            yield from leaves(item, (*path, key))
    else:  # an empty list is an option as well
        yield path, value


ANOTHER_WORD = {
    "activation": "relu",
    "device": "auto",
    "degree": "paper",
    "initial": "normal",
    "mass": "probability",
    "opponent": "data",
    "optimizer": {"adam": "rmsprop", "rmsprop": "adam"},
    "p2": "alg1",
    "precision": "bf16",
    "reference": "rank_one",
    "search_space": "real",
    0: "relu",  # of generator_tail
    1: "none",
}
ANOTHER_PATH = {"feature_weights": "elsewhere/weights.pth"}
ANOTHER_NUMBER = {
    "generator_kernel": 4,
    "critic_kernel": 4,
    "critic_iterations": 3,
    "held_out": 501,
    "samples": 400,
    "checkpoint_epochs": 2,
}


def another(key: Any, value: Any) -> Any:
    """A valid value of an option that differs from its present one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        other = ANOTHER_WORD[key]
        return other[value] if isinstance(other, dict) else other
    if key in ANOTHER_PATH:
        return ANOTHER_PATH[key]
    if value is None:
        return ANOTHER_NUMBER.get(key, 0.5)
    if isinstance(value, int):
        return ANOTHER_NUMBER.get(key, value + 1)
    return value / 2 if 0 < value < 1 else value + 0.25


@EVERY_TRIAL
def test_every_option_but_the_runtime_ones_is_part_of_the_identity(changes: dict[str, Any], trial: MakeTrial) -> None:
    config = trial(**changes)
    options = [(path, value) for path, value in leaves(config.to_dict()) if path[-1] != "name"]
    assert {path[0] for path, _ in options} >= {*RUNTIME_OPTIONS, "network", "critic", "generator", "seed", "threads"}
    identities = {config.identity}
    for path, value in options:
        values = config.to_dict()
        target = values
        for key in path[:-1]:
            target = target[key]
        if path[-1] == "channel_edges":
            continue  # digits has only one channel
        if path[-1] == "stop_at" and not config.evaluation.metrics:
            continue  # no metric to stop at
        target[path[-1]] = ["nearest"] if path[-1] == "probes" else another(path[-1], value)
        changed = TrialConfig.from_dict(values)
        assert changed != config, path
        if is_runtime_option(".".join(map(str, path)), values):
            assert changed.identity == config.identity, path
        else:
            assert changed.identity not in identities, path
            identities.add(changed.identity)


@pytest.mark.parametrize("kind", MODULES)
def test_parts_with_equal_options_are_told_apart_by_name(kind: str, trial: MakeTrial) -> None:
    parts = [build_part(kind, {"name": name}) for name in built_in(kind)]
    assert [part.name for part in parts] == list(built_in(kind))
    assert len(set(map(repr, parts))) == len(parts) >= 2
    if kind == "penalty":
        assert trial(penalty="none").identity != trial(penalty="clipping").identity


EDGE = {"offset": [0, 1]}
ERRORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown option": ({"bugdet": 3}, "bugdet", "did you mean 'budget'"),
    "unknown option of a part": ({"penalty": {"name": "gradient", "wieght": 1}}, "penalty.wieght", "'weight'"),
    "unknown option of an optimizer": ({"critic": {"beta": 1}}, "critic.beta", "'betas'"),
    "unknown part": ({"penalty": {"name": "gradeint"}}, "penalty.name", "did you mean 'gradient'"),
    "unknown part, nothing near": (
        {"dataset": {"name": "zzz"}},
        "dataset.name",
        "valid: atoms, celeba, cifar10, digits, gaussians, image_folder",
    ),
    "no name": ({"penalty": None}, "penalty", "a mapping with a name"),
    "q below 1": ({"objective": {"name": "c_transform", "q": 0.9}}, "objective.q", "at least 1"),
    "p below 1": ({"objective": {"name": "soft_c_transform", "p": 0}}, "objective.p", "at least 1"),
    "epsilon zero": ({"objective": {"name": "soft_c_transform", "epsilon": 0}}, "objective.epsilon", "greater than 0"),
    "negative weight": ({"penalty": {"name": "gradient", "weight": -1}}, "penalty.weight", "at least 0"),
    "negative lambda": ({"penalty": {"name": "admissibility", "lambda1": -0.1}}, "penalty.lambda1", "at least 0"),
    "bound zero": ({"penalty": {"name": "clipping", "bound": 0}}, "penalty.bound", "greater than 0"),
    "learning rate zero": ({"critic": {"lr": 0}}, "critic.lr", "greater than 0"),
    "betas beyond": ({"generator": {"betas": [0.5, 1]}}, "generator.betas", "[0, 1)"),
    "betas too many": ({"generator": {"betas": [0.5, 0.9, 0.9]}}, "generator.betas", "2 values"),
    "ema one": ({"generator": {"ema": 1}}, "generator.ema", "less than 1"),
    "ema of the critic": ({"critic": {"ema": 0.9}}, "critic.ema", "unknown option"),
    "unknown word": ({"device": "gpu"}, "device", "not one of auto, cpu, cuda"),
    "budget zero": ({"budget": 0}, "budget", "at least 1"),
    "negative seed": ({"seed": -1}, "seed", "at least 0"),
    "batch of one": ({"batch_size": 1}, "batch_size", "at least 2"),
    "batch beyond the data": ({"batch_size": 1298}, "batch_size", "at most the 1297 training examples"),
    "batch beyond a smaller split": (
        {"dataset": {"name": "digits", "held_out": 1740}, "batch_size": 64},
        "batch_size",
        "at most the 57",
    ),
    "no training data": ({"dataset": {"name": "digits", "held_out": 1797}}, "dataset.held_out", "less than 1797"),
    "too many samples": ({"evaluation": {"name": "classifier", "samples": 501}}, "evaluation.samples", "at most 500"),
    "too few samples": ({"evaluation": {"name": "classifier", "samples": 99}}, "evaluation.samples", "at least 100"),
    "inception of points": ({"dataset": "mixture", "evaluation": "inception"}, "evaluation.name", "has points"),
    "too many for inception": ({"evaluation": "inception"}, "evaluation.samples", "at most 500"),
    "classifier of points": ({"dataset": "mixture", "evaluation": "classifier"}, "evaluation.name", "has points"),
    "transport of images": ({"evaluation": "transport"}, "evaluation.name", "has images"),
    "bool for int": ({"budget": True}, "budget", "a whole number"),
    "float for int": ({"budget": 10.0}, "budget", "a whole number"),
    "bool for float": ({"critic": {"lr": True}}, "critic.lr", "a finite number"),
    "int for bool": ({"reuse_batch": 1}, "reuse_batch", "true or false"),
    "string for number": ({"critic": {"lr": "1e-4"}}, "critic.lr", "a finite number"),
    "a plan to compile": (
        {"objective": {"name": "exact_transport"}, "penalty": "none", "compile": True},
        "compile",
        "does not compile",
    ),
    "half precision": ({"precision": "fp16"}, "precision", "not one of fp32, bf16"),
    "nan": ({"penalty": {"name": "gradient", "weight": float("nan")}}, "penalty.weight", "a finite number"),
    "inf": ({"critic": {"lr": float("inf")}}, "critic.lr", "a finite number"),
    "beyond all floats": ({"critic": {"lr": 10**400}}, "critic.lr", "a finite number"),
    "beyond torch's seeds": ({"seed": 2**64}, "seed", "less than"),
    "float for a word": (
        {"network": {"name": "dcgan", "critic_kernel": 3.0}},
        "network.critic_kernel",
        "not one of 3, 4",
    ),
    "null for number": ({"budget": None}, "budget", "a whole number"),
    "number for list": (
        {"network": {"name": "mlp", "critic_widths": 16}},
        "network.critic_widths",
        "expected a list",
    ),
    "list for mapping": ({"critic": [1]}, "critic", "a mapping"),
}


@pytest.mark.parametrize(("changes", "path", "problem"), ERRORS.values(), ids=ERRORS)
def test_what_no_trial_can_have(changes: dict[str, Any], path: str, problem: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError) as error:
        trial(**changes)
    assert error.value.path == path
    assert problem in error.value.problem
    assert str(error.value).startswith(f"{path}: ")


NEIGHBOURHOODS: dict[str, tuple[Any, str, str]] = {
    "unknown": ("crosss", "penalty.neighbourhood", "did you mean 'cross'"),
    "empty": ([], "penalty.neighbourhood", "at least one"),
    "zero": ([{"offset": [0, 0]}], "penalty.neighbourhood.offset", "no neighbour of itself"),
    "twice": ([EDGE, EDGE], "penalty.neighbourhood", "twice"),
    "opposite": ([{"offset": [1, -2]}, {"offset": [-1, 2]}], "penalty.neighbourhood", "twice"),
    "too far down": ([{"offset": [8, 0]}], "penalty.neighbourhood", "leaves an image of 8 × 8"),
    "too far left": ([EDGE, {"offset": [0, -9]}], "penalty.neighbourhood", "leaves an image of 8 × 8"),
    "weight zero": ([EDGE | {"weight": 0}], "penalty.neighbourhood.weight", "greater than 0"),
    "no offset": ([{"weight": 1}], "penalty.neighbourhood.offset", "is missing"),
    "not whole": ([{"offset": [0.5, 1]}], "penalty.neighbourhood.offset", "a whole number"),
    "three numbers": ([{"offset": [0, 1, 1]}], "penalty.neighbourhood.offset", "2 values"),
}


@pytest.mark.parametrize(("neighbourhood", "path", "problem"), NEIGHBOURHOODS.values(), ids=NEIGHBOURHOODS)
def test_what_no_neighbourhood_can_be(neighbourhood: Any, path: str, problem: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError) as error:
        trial(penalty={"name": "wasserstein", "neighbourhood": neighbourhood})
    assert error.value.path == path
    assert problem in error.value.problem


@pytest.mark.parametrize(
    ("dataset", "options", "problem"),
    [("mixture", {}, "needs images"), ("digits", {"channel_edges": True}, "digits has only one channel: use false")],
    ids=["points", "one channel"],
)
def test_where_there_is_no_pixel_graph(dataset: str, options: dict[str, Any], problem: str, trial: MakeTrial) -> None:
    with pytest.raises(ConfigError, match=problem):
        trial(dataset=dataset, penalty={"name": "wasserstein", **options})


@pytest.mark.parametrize("missing", ["dataset", "network", "objective", "penalty", "evaluation", "critic", "generator"])
def test_every_part_must_be_there(missing: str, trial: MakeTrial) -> None:
    values = trial().to_dict()
    del values[missing]
    with pytest.raises(ConfigError, match=f"^{missing}: is missing"):
        TrialConfig.from_dict(values)


def test_largest_batch_and_samples_are_accepted(trial: MakeTrial) -> None:
    assert trial(batch_size=1297).epoch_length == 1
    assert trial(evaluation={"name": "classifier", "samples": 500}).evaluation.samples == 500  # type: ignore[attr-defined]


@pytest.mark.parametrize(("budget", "epochs"), [(1, 1), (19, 1), (20, 1), (21, 2), (45, 3)])
def test_epochs_of_a_budget(budget: int, epochs: int, trial: MakeTrial) -> None:
    config = trial(budget=budget)
    assert config.epoch_length == 20
    assert config.epochs == epochs

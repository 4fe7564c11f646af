"""A trial's configuration as typed, validated dataclasses, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from trainers.datasets import Dataset
from trainers.evaluation import Evaluation
from trainers.metrics import Metric
from trainers.networks import Network
from trainers.objectives import Objective
from trainers.opponents import GeneratorOpponent, Opponent
from trainers.parts import MODULES, ConfigError, Part, build, build_part, number, plain, runtime_options
from trainers.penalties import Penalty
from trainers.probes import Probe

CONFIG_VERSION = 1
"""Must be increased whenever the same options come to mean another computation."""

RUNTIME_OPTIONS = frozenset({"device", "checkpoint_seconds", "checkpoint_epochs"})
"""A trial's own options that say where and how it runs, not what it is.

Parts declare such options with ``parts.runtime``."""
KINDS = {**{kind: kind for kind in MODULES if kind != "probe"}, "probes": "probe"}
"""The kind of part that an option of a trial holds. The option ``probes`` holds a list of parts."""

LATER_OPTIONS: Mapping[str, Any] = {
    "opponent": "generator",
    "probes": [],
    "evaluation.stop_at": None,
    "precision": "fp32",
    "compile": False,
    "dataset.content.bits": 16,
}
"""Options that were added after the first trials, by path, with the values that do not change an identity.

An option with this value is left out of the identity, so that older trials keep their ids."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam or RMSProp with learning rate ``lr``. Only Adam uses ``betas``."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    lr: float = number(2e-4, above=0)
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError("betas", f"must lie in [0, 1), got {list(self.betas)}")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(OptimizerConfig):
    """The generator's optimizer.

    With ``ema``, evaluation uses the exponential moving average of the generator's weights, with this decay.
    """

    ema: float | None = number(None, above=0, below=1)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """The whole configuration of one trial.

    - ``budget``: the number of critic iterations.
    - ``critic_iterations``: the number of critic iterations before each generator iteration.
    - ``reuse_batch``: whether these critic iterations and the generator iteration share one batch of images and noise
      (Algorithm 1 of the (q,p)-WGAN paper).
    - ``opponent``: what the critic tells the training examples from, see :mod:`trainers.opponents`. With ``data`` and
      ``noise`` no generator is trained.
    - ``threads``: part of the trial because it decides the order in which a CPU adds numbers, and so the rounding.
    - ``precision``: the precision of the networks in training. With ``bf16`` their matrix products and convolutions use
      bfloat16, for tensor cores and AMX. Last layers, weights, ground costs, penalties, losses and evaluation stay
      float32.
    - ``compile``: whether each step's forward and backward pass run as one compiled graph. The results equal the eager
      step's within float32's rounding. ``auto`` compiles on a GPU if the budget is long enough to repay the minute that
      compiling takes.
    - ``checkpoint_seconds``, ``checkpoint_epochs``: a checkpoint is due after so many seconds, also in the middle of an
      epoch, and after so many epochs. None switches either off.
    """

    dataset: Dataset
    network: Network
    objective: Objective
    penalty: Penalty
    evaluation: Evaluation
    critic: OptimizerConfig
    generator: GeneratorConfig
    budget: int = number(3000, at_least=1)
    batch_size: int = number(64, at_least=2)
    critic_iterations: int = number(1, at_least=1)
    reuse_batch: bool = False
    opponent: Opponent = field(default=GeneratorOpponent())
    probes: tuple[Probe, ...] = ()
    seed: int = number(0, at_least=0, below=2**64)
    threads: int = number(1, at_least=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal[False, True, "auto"] = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: float | None = number(60.0, above=0)
    checkpoint_epochs: int | None = number(None, at_least=1)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, Part):
                    part.check(self)
        if len({probe.name for probe in self.probes}) < len(self.probes):
            raise ConfigError("probes", "names a probe twice")
        if self.batch_size > self.dataset.train_size:
            raise ConfigError(
                "batch_size",
                f"must be at most the {self.dataset.train_size} training examples, got {self.batch_size}",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], cache_dir: str | Path | None = None) -> TrialConfig:
        """Builds a configuration from plain values, such as YAML's. Raises :class:`~trainers.parts.ConfigError`.

        With ``cache_dir``, options that depend on the dataset's files are filled in, see
        :meth:`~trainers.datasets.Dataset.filled_in`. New configurations need this. Stored ones are already filled in.
        """
        if cache_dir is not None and "dataset" in values:
            dataset = build_part("dataset", values["dataset"])
            assert isinstance(dataset, Dataset)
            values = {**values, "dataset": plain(dataset.filled_in(Path(cache_dir)))}
        return build(cls, values)

    def to_dict(self) -> dict[str, Any]:
        """All options as plain values, defaults included."""
        return plain(self)

    @property
    def identity(self) -> str:
        """The trial id."""
        return identity_of(self.to_dict())

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that tables show: the evaluation's first, then the probes'."""
        return (*self.evaluation.metrics, *(metric for probe in self.probes for metric in probe.metrics))

    @property
    def latent_size(self) -> int:
        """The dimension of the opponent's noise."""
        return self.opponent.latent_size(self)

    @property
    def epoch_length(self) -> int:
        """The number of critic iterations in one epoch: ⌊training examples / batch size⌋."""
        return self.dataset.train_size // self.batch_size

    @property
    def epochs(self) -> int:
        """The number of epochs in the budget. The last one may be short."""
        return -(-self.budget // self.epoch_length)


def identity_of(values: Mapping[str, Any]) -> str:
    """The first 12 hex digits of SHA-256 over a trial's plain values in canonical JSON, without runtime options."""
    content = _without_later_defaults(without_runtime_options(values))
    text = json.dumps({"config_version": CONFIG_VERSION, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_runtime_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain values without runtime options, the trial's own and its parts'.

    A part's class says which of its options are runtime options. Where the part's package is missing, all its options
    stay.
    """
    return {
        key: _without_own(KINDS[key], value) if key in KINDS else value
        for key, value in values.items()
        if key not in RUNTIME_OPTIONS
    }


def _without_own(kind: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_own(kind, each) for each in value]
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return value
    runtime = runtime_options(kind, value["name"])
    return {option: each for option, each in value.items() if option not in runtime}


def is_runtime_option(path: str, values: Mapping[str, Any]) -> bool:
    """Whether an option, such as ``evaluation.feature_weights``, is left out of the identity of these values."""
    key, _, option = path.partition(".")
    if not option:
        return key in RUNTIME_OPTIONS
    value = values.get(key)
    named = key in KINDS and isinstance(value, Mapping) and isinstance(value.get("name"), str)
    return named and option in runtime_options(KINDS[key], values[key]["name"])


def _without_later_defaults(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without_later_defaults(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in LATER_OPTIONS or value != LATER_OPTIONS[f"{prefix}{key}"]
    }

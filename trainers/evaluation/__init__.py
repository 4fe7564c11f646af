"""What is measured of a generator: FID, IS, KID, precision and recall on images, exact transport on points.

Every trial of a sweep is measured with the same noise, the same number of samples and one reference, the
held-out examples. The floor is what real training examples score against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trainers.metrics import Metric
from trainers.parts import ConfigError, Part, number, runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainers.datasets import Data
    from trainers.objectives import GroundCost


class Evaluator(Protocol):
    """An evaluation at work on one dataset."""

    count: int
    """How many samples it measures."""
    info: dict[str, str | float]
    """What the metrics' values depend on beyond the samples (the extractor's hash, say)."""

    def measure(self, samples: Tensor) -> dict[str, float]:
        """Metrics of ``count`` samples, in the type of the dataset's examples."""
        ...

    def floor(self) -> dict[str, float]:
        """The same metrics of real training examples."""
        ...


@dataclass(frozen=True, kw_only=True)
class Evaluation(Part):
    """``times`` evaluations, equally spaced over the budget, the last one at its end."""

    kind: ClassVar[str] = "evaluation"

    metrics: ClassVar[tuple[Metric, ...]] = ()
    """What tables compare by; the first one chooses the best checkpoint and has a direction."""
    also_logged: ClassVar[tuple[Metric, ...]] = ()
    """What every evaluation measures beside them, and no table shows unless asked to."""

    times: int = number(5, at_least=1)
    stop_at: float | None = number(None)
    """The trial ends at the first evaluation after the untrained one whose first metric is as good as this."""

    def reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether an evaluation's metrics are as good as ``stop_at``."""
        if self.stop_at is None or not self.metrics:
            return False
        value = metrics[self.metrics[0].name]
        return value >= self.stop_at if self.metrics[0].direction == "max" else value <= self.stop_at

    def prepare(self) -> None:
        """Makes sure, before anything starts, of what no trial can do without and nobody here can make.

        Raises :class:`ConfigError`.
        """

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator | None:
        """The evaluator, whatever it needs computed or read from ``cache_dir``. ``cost`` is the trial's."""
        return None


@dataclass(frozen=True, kw_only=True)
class NoEvaluation(Evaluation):
    """No metrics beyond the losses."""

    name: ClassVar[str] = "none"

    def check(self, trial: Any) -> None:
        if self.stop_at is not None:
            raise ConfigError("evaluation.stop_at", "none measures nothing to stop at")


@dataclass(frozen=True, kw_only=True)
class FeatureEvaluation(Evaluation):
    """``samples`` generated images against as many held-out ones, by torch-fidelity, in some network's features."""

    samples: int = number(500, at_least=100)

    def check(self, trial: Any) -> None:
        if len(trial.dataset.shape) != 3:
            raise ConfigError("evaluation.name", f"{self.name} needs images; {trial.dataset.name} has points")
        available = min(trial.dataset.held_out_size, trial.dataset.train_size)
        if self.samples > available:
            raise ConfigError(
                "evaluation.samples",
                f"must be at most {available}, so that held-out and training images suffice; got {self.samples}",
            )

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        raise NotImplementedError(f"{type(self).__name__} must say in which features")


@dataclass(frozen=True, kw_only=True)
class ClassifierEvaluation(FeatureEvaluation):
    """FID, inception score, KID, precision and recall in the features of a small classifier trained once on the
    dataset's own labels: for images of which Inception knows nothing.

    ``classifier_is_std`` is the inception score's deviation over its ten splits. Classifier features make a distance
    of their own: its values are comparable within one extractor (``extractor`` in the trial's tags) and sample
    count only.
    """

    name: ClassVar[str] = "classifier"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("classifier_fid", "min", logarithmic=True),
        Metric("classifier_is", "max"),
        Metric("classifier_kid", "min"),
        Metric("classifier_precision", "max"),
        Metric("classifier_recall", "max"),
    )
    also_logged: ClassVar[tuple[Metric, ...]] = (Metric("classifier_is_std"),)

    def check(self, trial: Any) -> None:
        if len(trial.dataset.shape) == 3 and not trial.dataset.labelled:
            raise ConfigError("evaluation.name", f"{self.name} needs labels; {trial.dataset.name} has none here")
        super().check(trial)

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        from trainers.evaluation.classifier import classifier_extractor
        from trainers.evaluation.fidelity import FeatureEvaluator

        return FeatureEvaluator(classifier_extractor(data, cache_dir), data, self.samples, cache_dir)


@dataclass(frozen=True, kw_only=True)
class InceptionEvaluation(FeatureEvaluation):
    """``fid``, ``inception_score``, ``kid``, ``precision`` and ``recall`` in the features of torch-fidelity's
    Inception: Heusel et al. 2017, Salimans et al. 2016, Bińkowski et al. 2018, Kynkäänniemi et al. 2019.

    Images of any size, grey ones with their channel three times; ``inception_score_std`` is the score's deviation
    over its ten splits. ``feature_weights`` is the file of weights, and no part of the trial; their hash is
    recorded in ``extractor``. None is the published file, downloaded once. On a GPU trial Inception runs on that
    GPU; a CPU takes about 0.3 s an image and core.
    """

    name: ClassVar[str] = "inception"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("fid", "min", logarithmic=True),
        Metric("inception_score", "max"),
        Metric("kid", "min"),
        Metric("precision", "max"),
        Metric("recall", "max"),
    )
    also_logged: ClassVar[tuple[Metric, ...]] = (Metric("inception_score_std"),)

    samples: int = number(10_000, at_least=100)
    feature_weights: str | None = runtime(None)

    def prepare(self) -> None:
        """Raises :class:`ConfigError` for weights that are not there, are others', or cannot be downloaded."""
        from trainers.evaluation.inception import load_inception

        load_inception(self.feature_weights)

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        from trainers.evaluation.fidelity import FeatureEvaluator
        from trainers.evaluation.inception import inception_extractor

        return FeatureEvaluator(inception_extractor(self.feature_weights, device), data, self.samples, cache_dir)


@dataclass(frozen=True, kw_only=True)
class TransportEvaluation(Evaluation):
    """``exact_w1`` against the held-out points, and the trial's own ``exact_wqp`` against the training points, by POT.

    As many samples as there are points. ``exact_w1`` is the Euclidean W₁ and comparable between trials;
    ``exact_wqp`` = (OT_c)^{1/p} with c = ‖x − y‖_q^p / p includes the 1/p, like ``wasserstein_estimate`` beside it.
    """

    name: ClassVar[str] = "transport"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("exact_w1", "min", logarithmic=True),)
    also_logged: ClassVar[tuple[Metric, ...]] = (Metric("exact_wqp", "min"),)

    def check(self, trial: Any) -> None:
        if len(trial.dataset.shape) != 1:
            raise ConfigError("evaluation.name", f"transport needs points; {trial.dataset.name} has images")

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        from trainers.evaluation.transport import TransportEvaluator

        return TransportEvaluator(data, cost)

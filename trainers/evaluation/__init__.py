"""Evaluations of a generator: FID, IS, KID, precision and recall on images, exact transport on points.

All trials of a sweep are measured with the same noise, the same number of samples and the same reference, which is the
held-out examples. The floor is the value of real training examples against this reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from trainers.metrics import Metric
from trainers.parts import ConfigError, Part, number, path_option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainers.datasets import Data
    from trainers.objectives import GroundCost


class Evaluator(Protocol):
    """Measures samples against one dataset."""

    count: int
    """The number of samples that it measures."""
    info: dict[str, str | float]
    """What the metrics depend on besides the samples, such as the extractor's hash."""

    def measure(self, samples: Tensor) -> dict[str, float]:
        """The metrics of ``count`` samples, which have the type of the dataset's examples."""
        ...

    def floor(self) -> dict[str, float]:
        """The same metrics of real training examples."""
        ...


@dataclass(frozen=True, kw_only=True)
class Evaluation(Part):
    """``times`` evaluations, equally spaced over the budget. The last one is at its end."""

    kind: ClassVar[str] = "evaluation"

    metrics: ClassVar[tuple[Metric, ...]] = ()
    """The metrics that tables show. The first one chooses the best checkpoint, so it must have a direction."""
    also_logged: ClassVar[tuple[Metric, ...]] = ()
    """Further metrics of every evaluation, which tables show only on request."""

    times: int = number(5, at_least=1)
    stop_at: float | None = number(None)
    """The trial ends when an evaluation's first metric is as good as this.

    The evaluation of the untrained generator does not end it. None: the trial ends when its budget is spent."""

    def reached(self, metrics: Mapping[str, float]) -> bool:
        """Whether the first of these metrics is as good as ``stop_at``."""
        if self.stop_at is None or not self.metrics:
            return False
        value = metrics[self.metrics[0].name]
        return value >= self.stop_at if self.metrics[0].direction == "max" else value <= self.stop_at

    def prepare(self) -> None:
        """Makes sure, before anything starts, that files which trials cannot make are here. Downloads missing files.

        Raises :class:`ConfigError` if a file is missing or wrong.
        """

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator | None:
        """The evaluator, or None if nothing is measured. It may keep files in ``cache_dir``. ``cost``: the trial's."""
        return None


@dataclass(frozen=True, kw_only=True)
class NoEvaluation(Evaluation):
    """No metrics beyond the losses."""

    name: ClassVar[str] = "none"

    def check(self, trial: Any) -> None:
        if self.stop_at is not None:
            raise ConfigError("evaluation.stop_at", "evaluation=none measures no metric to stop at: use null")


@dataclass(frozen=True, kw_only=True)
class FeatureEvaluation(Evaluation):
    """Compares ``samples`` generated images with as many held-out ones, by torch-fidelity, in a network's features."""

    samples: int = number(500, at_least=100)

    def check(self, trial: Any) -> None:
        if len(trial.dataset.shape) != 3:
            raise ConfigError("evaluation.name", f"{self.name} needs images; {trial.dataset.name} has points")
        available = min(trial.dataset.held_out_size, trial.dataset.train_size)
        if self.samples > available:
            raise ConfigError(
                "evaluation.samples",
                f"must be at most {available}, the number of held-out or of training images; got {self.samples}",
            )

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        raise NotImplementedError(f"{type(self).__name__} must say in which features")


@dataclass(frozen=True, kw_only=True)
class ClassifierEvaluation(FeatureEvaluation):
    """FID, inception score, KID, precision and recall in the features of a small classifier of the dataset's labels.

    The classifier is trained once for each dataset. It serves for images that are unlike those that Inception was
    trained on. ``classifier_is_std`` is the standard deviation of the inception score over its ten splits. Values can
    be compared only between trials with the same extractor (``extractor`` in the trial's tags) and the same number of
    samples.
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
    """FID, inception score, KID, precision and recall in the features of torch-fidelity's Inception.

    Sources: Heusel et al. 2017, Salimans et al. 2016, Bińkowski et al. 2018, Kynkäänniemi et al. 2019.

    Images may have any size. Grey images are given to Inception with their channel three times. ``inception_score_std``
    is the standard deviation of the inception score over its ten splits. ``feature_weights`` is the file of the
    weights. None means the published file, which is downloaded once. The file is not part of the trial's identity, but
    its hash is recorded in ``extractor``. Inception runs on the trial's device. A CPU takes about 0.3 s an image and
    core.
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
    feature_weights: str | None = path_option()

    def prepare(self) -> None:
        """Raises :class:`ConfigError` for weights that are missing, not Inception's, or cannot be downloaded."""
        from trainers.evaluation.inception import load_inception

        load_inception(self.feature_weights)

    def evaluator(self, data: Data, cost: GroundCost, cache_dir: Path, device: torch.device) -> Evaluator:
        from trainers.evaluation.fidelity import FeatureEvaluator
        from trainers.evaluation.inception import inception_extractor

        return FeatureEvaluator(inception_extractor(self.feature_weights, device), data, self.samples, cache_dir)


@dataclass(frozen=True, kw_only=True)
class TransportEvaluation(Evaluation):
    """Exact transport by POT: ``exact_w1`` to the held-out points and ``exact_wqp`` to the training points.

    There are as many samples as held-out points. ``exact_w1`` is the Euclidean W₁, which can be compared between
    trials. ``exact_wqp`` = (OT_c)^{1/p} with the trial's own cost c = ‖x − y‖_q^p / p. It includes the 1/p, as
    ``wasserstein_estimate`` does.
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

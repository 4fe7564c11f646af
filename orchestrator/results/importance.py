"""How much each option of a search matters for a metric, by Optuna's fANOVA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.sweep.setting import short_value
from orchestrator.sweep.space import Dimension

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 8
"""With fewer values nothing is said of what matters."""
METHOD = "the share of the metric's variance that an option explains, by Optuna's fANOVA (64 trees, seed 0)"


def importances(
    space: Mapping[str, Dimension],
    settings: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    mode: Literal["min", "max"],
) -> dict[str, float]:
    """The importance of each option, the largest first; they sum to 1 (Hutter, Hoos and Leyton-Brown 2014).

    Empty for a space of one option, for fewer than :data:`FEWEST` values, and if all of them are equal. PED-ANOVA,
    Optuna's default, looks at the best tenth of the values, which are two of twenty.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    if len(space) < 2 or len(values) < FEWEST or len(set(values)) == 1:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {name: _distribution(dimension, (each[name] for each in settings)) for name, dimension in space.items()}
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    for setting, value in zip(settings, values, strict=True):
        params = {name: _encoded(dimension, setting[name]) for name, dimension in space.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=kinds, value=value))
    found = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


def _distribution(dimension: Dimension, tried: Iterable[Any]) -> BaseDistribution:
    """A dimension for Optuna. An edited sweep file may have narrowed it: values that were tried before stay inside."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution(tuple(dict.fromkeys(map(short_value, [*dimension.values, *tried]))))
    numbers = [dimension.low, dimension.high, *tried]
    return FloatDistribution(float(min(numbers)), float(max(numbers)), log=dimension.log)


def _encoded(dimension: Dimension, value: Any) -> Any:
    return short_value(value) if dimension.kind == "choice" else float(value)

"""The values that Hydra's sweep syntax names: ``choice(1, 10)``, ``range(0.1, 0.6, 0.1)`` or ``1,10``."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import RangeSweep

MAX_TRIALS = 100_000
"""A sweep with more trials, or an axis with more values, is an error. They are counted before they are made."""


def parse_value(text: str) -> tuple[Any, bool]:
    """What a text means after ``=``, and whether it is a sweep, which means a list of values.

    Raises :class:`UserError`.
    """
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    value = read_sweep(text)
    if isinstance(value, RangeSweep):
        return _range(value, text), True
    if isinstance(value, ChoiceSweep):
        values = plain(value.list)
        if value.shuffle:
            random.shuffle(values)
        return values, True
    check_has_values(text, value)
    return value, False


def read_sweep(text: str) -> Any:
    """What Hydra reads: a ChoiceSweep, RangeSweep, IntervalSweep or Glob, or a value. Raises :class:`UserError`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"axis={text}").value()
    except HydraException as error:
        raise UserError(f"'{text}' is not a Hydra sweep: {str(error).splitlines()[0]}") from None


def check_has_values(text: str, value: Any) -> None:
    """Raises :class:`UserError` for an interval and for a pattern of names: they name no values."""
    kind = type(value).__name__
    if kind == "IntervalSweep":
        raise UserError(
            f"'{text}': an interval names no values; write choice(0, 0.5, 1) or range(0, 1, 0.25), or let a sampler "
            "choose from the interval: it belongs below 'space' of a 'search'"
        )
    if kind == "Glob":
        raise UserError(f"'{text}': patterns of names are not understood; write the names as a list, [NAME, NAME]")


def plain(value: Any) -> Any:
    """A value with Hydra's quoted strings turned into str."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    return value.text if hasattr(value, "text") else value


def _range(sweep: RangeSweep, text: str) -> list[Any]:
    """The numbers of a range."""
    start, step, number = steps(sweep, text)
    if number > MAX_TRIALS:
        raise UserError(f"'{text}' has {number:,} values; an axis has at most {MAX_TRIALS:,}")
    values = [(int if is_whole(sweep) else float)(start + index * step) for index in range(number)]
    if sweep.shuffle:
        random.shuffle(values)
    return values


def steps(sweep: RangeSweep, text: str) -> tuple[Decimal, Decimal, int]:
    """Start, step and number of values of a range, whose stop is no value of it.

    Steps are decimal: 0.1, 0.2, 0.3, and not 0.30000000000000004. Raises :class:`UserError`.
    """
    start, stop, step = (Decimal(repr(each)) for each in (sweep.start, sweep.stop, sweep.step))
    if not all(each.is_finite() for each in (start, stop, step)) or not step:
        raise UserError(f"'{text}': expected finite numbers and a step other than 0")
    return start, step, max(0, math.ceil((stop - start) / step))


def is_whole(sweep: RangeSweep) -> bool:
    """Whether the numbers of a range are whole: start, stop and step are."""
    return all(isinstance(each, int) for each in (sweep.start, sweep.stop, sweep.step))


def check_count(what: str, number: int) -> None:
    """Raises :class:`UserError` if a sweep would have more trials than :data:`MAX_TRIALS`."""
    if number > MAX_TRIALS:
        raise UserError(f"{what} give {number:,} trials; a sweep has at most {MAX_TRIALS:,}")

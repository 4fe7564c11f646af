"""The dimensions of a search space: ``tag(log, interval(1e-5, 1e-2))``, ``int(interval(1, 8))``, ``choice(a, b)``.

The grammar is that of Hydra's Optuna sweeper. A range's stop is no value of it, as everywhere else in Hydra; the
sweeper lets the stop be proposed. ``range(32, 129, 32)`` is 32, 64, 96 and 128 in a space as it is in a grid.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal

from orchestrator.errors import UserError
from orchestrator.files import is_number
from orchestrator.sweep.syntax import is_whole, plain, read_sweep, steps

EXAMPLES = "interval(0, 1), tag(log, interval(1e-5, 1e-2)), int(interval(1, 8)), range(32, 129, 32) or choice(a, b)"


@dataclass(frozen=True)
class Dimension:
    """The values that a search may give one option.

    A number is at least ``low`` and at most ``high``. With a ``step`` it is ``low`` plus a multiple of the step. Where
    ``log`` is true, the logarithm is what is spread evenly. A choice has ``values`` of any kind that YAML has.
    """

    kind: Literal["float", "int", "choice"]
    low: float | int = 0
    high: float | int = 0
    step: float | int | None = None
    log: bool = False
    values: tuple[Any, ...] = ()

    @property
    def count(self) -> int | None:
        """The number of values; None for an interval of floats."""
        if self.kind == "choice":
            return len(self.values)
        if self.kind == "float" and self.step is None:
            return None
        return int((_decimal(self.high) - _decimal(self.low)) / self._step) + 1

    @property
    def _step(self) -> Decimal:
        return _decimal(1 if self.step is None else self.step)

    def nth(self, index: int) -> Any:
        """Value number ``index``, from 0 to ``count`` - 1. Steps are decimal: 0.3, and not 0.30000000000000004."""
        if self.kind == "choice":
            return self.values[index]
        number = _decimal(self.low) + index * self._step
        return int(number) if self.kind == "int" else float(number)

    def index(self, value: Any) -> int | None:
        """The number of a value, the reverse of :meth:`nth`; None for a value that the dimension does not hold."""
        if self.kind == "choice":
            keys = [key_of(each) for each in self.values]
            return keys.index(key_of(value)) if key_of(value) in keys else None
        if not is_number(value) or not self.low <= value <= self.high:
            return None
        index, rest = divmod(_decimal(value) - _decimal(self.low), self._step)
        return None if rest else int(index)

    def holds(self, value: Any) -> bool:
        """Whether a search may propose the value. An integer is a float too, 2.0 is 2, and true is no number."""
        if self.count is None:
            return is_number(value) and self.low <= value <= self.high
        return self.index(value) is not None

    def at(self, fraction: float) -> Any:
        """The value at a fraction of the dimension, 0 ≤ fraction < 1; even fractions give values evenly."""
        if self.log:
            # A whole number gets the part of the axis that rounds to it, as in Optuna.
            half = 0.5 if self.kind == "int" else 0.0
            bottom, top = math.log(self.low - half), math.log(self.high + half)
            return self.near(math.exp(bottom + fraction * (top - bottom)))
        if self.count is None:
            return self.near(self.low + fraction * (self.high - self.low))
        return self.nth(min(int(fraction * self.count), self.count - 1))

    def near(self, number: float) -> Any:
        """The value nearest to a number, of a dimension without steps.

        Floats have 4 significant digits, so that a setting can be read. They have more in an interval such as
        [999, 1000], so that at least 100 values differ. The bounds stay as they are written.
        """
        if self.kind == "int":
            return int(min(max(round(number), self.low), self.high))
        width = 2 - _exponent(self.high - self.low)
        places = max(3 - _exponent(number), width) if number else width
        return float(min(max(round(number, places), self.low), self.high))

    def to_dict(self) -> dict[str, Any]:
        """The dimension as plain values, without those that say nothing."""
        if self.kind == "choice":
            return {"kind": self.kind, "values": list(self.values)}
        given: dict[str, Any] = {"kind": self.kind, "low": self.low, "high": self.high}
        return given | ({} if self.step is None else {"step": self.step}) | ({"log": True} if self.log else {})


def dimension_from(values: Mapping[str, Any]) -> Dimension:
    """The dimension of :meth:`Dimension.to_dict`. Keys that only a newer version knows are ignored."""
    known = {each.name: values[each.name] for each in fields(Dimension) if each.name in values}
    return Dimension(**known | ({"values": tuple(known["values"])} if "values" in known else {}))


def is_dimension(values: Any) -> bool:
    """Whether :func:`dimension_from` makes a valid dimension of the value."""
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        return False
    if not isinstance(values.get("values", []), list) or not isinstance(values.get("log", False), bool):
        return False
    return _problem_of(dimension_from(values)) is None


def parse_dimension(written: Any) -> Dimension:
    """The dimension that a sweep file's text or list names.

    Both bounds of an interval can be proposed. Raises :class:`UserError` with the problem alone.
    """
    if isinstance(written, list):
        told, dimension = str(written), Dimension("choice", values=tuple(written))
    elif isinstance(written, str):
        told, dimension = f"'{written}'", _read(written)
    else:
        raise UserError(f"expected a list of values or a text such as {EXAMPLES}, got {written!r}")
    if problem := _problem_of(dimension):
        raise UserError(f"{told}: {problem}")
    return dimension


def _read(text: str) -> Dimension:
    """The dimension of a text in Hydra's grammar, whose values are not checked yet."""
    sweep = read_sweep(text)
    tags = sorted(getattr(sweep, "tags", ()))
    if unknown := [tag for tag in tags if tag != "log"]:
        raise UserError(f"'{text}': unknown tag '{unknown[0]}'; the one tag that a space knows is 'log'")
    if getattr(sweep, "shuffle", False) or text.lstrip().startswith(("shuffle(", "sort(")):
        raise UserError(f"'{text}': a space has no order; leave shuffle and sort away")
    kind = type(sweep).__name__
    if tags and kind in ("ChoiceSweep", "RangeSweep"):
        raise UserError(f"'{text}': only an interval can be logarithmic, such as tag(log, interval(1e-5, 1e-2))")
    if kind == "ChoiceSweep":
        return Dimension("choice", values=tuple(plain(sweep.list)))
    if kind == "RangeSweep":
        start, step, number = steps(sweep, text)
        if not number:
            raise UserError(f"'{text}' has no values: its stop is not one of them")
        low, high = sorted((start, start + (number - 1) * step))
        if is_whole(sweep):
            return Dimension("int", int(low), int(high), step=None if abs(step) == 1 else int(abs(step)))
        return Dimension("float", float(low), float(high), step=float(abs(step)))
    if kind == "IntervalSweep":
        if sweep.start == sweep.end:
            raise UserError(f"'{text}' has one point; write a higher upper bound, or name the value below 'base'")
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        return Dimension("int" if whole else "float", sweep.start, sweep.end, log=bool(tags))
    if kind == "list":
        raise UserError(f"'{text}' is one value; write the list without quotes, or choice(a, b)")
    raise UserError(f"'{text}' leaves nothing to choose; expected a list of values or a text such as {EXAMPLES}")


def _problem_of(dimension: Dimension) -> str | None:
    """Why a dimension cannot be searched."""
    if dimension.kind == "choice":
        return _problem_of_choice(dimension.values)
    if dimension.kind not in ("float", "int"):
        return f"unknown kind '{dimension.kind}'"
    low, high, step = dimension.low, dimension.high, dimension.step
    if not is_number(low) or not is_number(high) or not math.isfinite(high - low):
        return "expected finite bounds"
    if dimension.kind == "int" and not all(isinstance(each, int) for each in (low, high, step or 1)):
        return "expected whole numbers"
    if low > high:
        return f"the bounds are upside down; write the lower one first: interval({high!r}, {low!r})"
    if dimension.log and low <= 0:
        return f"a logarithmic interval begins above 0, and this one begins at {low!r}"
    if step is None:
        return "expected a lower bound and a higher one" if dimension.kind == "float" and low == high else None
    if not is_number(step) or step <= 0:
        return "expected a step above 0"
    if dimension.log:
        return "a logarithmic dimension has no step"
    if (high - low) / step > 2**53:
        return "expected fewer steps: a float cannot tell so many values apart"
    return "expected an upper bound that the steps reach" if dimension.index(high) is None else None


def _problem_of_choice(values: tuple[Any, ...]) -> str | None:
    if not values:
        return "expected at least one value"
    seen = set()
    for value in values:
        if isinstance(value, float) and math.isnan(value):
            return "'nan' is no value to choose"
        if (key := key_of(value)) in seen:
            return f"{value!r} is there twice"
        seen.add(key)
    return None


def key_of(value: Any) -> Hashable:
    """A key that two values share if they mean the same to an option: 1 and 1.0 do, 1 and true do not."""
    if isinstance(value, list | tuple):
        return ("list", *map(key_of, value))
    if isinstance(value, dict):
        return ("mapping", frozenset((name, key_of(each)) for name, each in value.items()))
    return ("truth", value) if isinstance(value, bool) else value


def _decimal(number: float) -> Decimal:
    return Decimal(repr(number))


def _exponent(number: float) -> int:
    """The power of ten of the first significant digit."""
    return math.floor(math.log10(abs(number)))

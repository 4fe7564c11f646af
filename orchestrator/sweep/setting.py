"""One option of a configuration: whether it is there, and another value for it. Axis values as text."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any


def has_option(config: Mapping[str, Any], path: str) -> bool:
    """Whether a configuration has an option that an axis may set."""
    if path.endswith(".name"):
        return False  # a part's name is set by its preset; the axis for it is the config group
    values: Any = config
    for piece in path.split("."):
        if not isinstance(values, Mapping) or piece not in values:
            return False
        values = values[piece]
    return True


def set_option(config: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the configuration in which the option has another value.

    A mapping changes the options that it names, as an override does, and leaves the others.
    """
    changed = copy.deepcopy(dict(config))
    set_in_place(changed, path, value)
    return changed


def set_in_place(config: dict[str, Any], path: str, value: Any) -> None:
    """As :func:`set_option`, without a copy."""
    *parents, last = path.split(".")
    values = config
    for piece in parents:
        values = values[piece]
    if isinstance(value, Mapping) and isinstance(values.get(last), dict):
        for key, inner in value.items():
            set_in_place(values[last], str(key), inner)
    else:
        values[last] = copy.deepcopy(value)


def short_names(axes: Iterable[str]) -> dict[str, str]:
    """The shortest clear name of each axis: ``q`` for ``objective.q``, unless another axis ends in ``q`` too."""
    names = sorted(set(axes))
    ends = [name.rpartition(".")[2] for name in names]
    return {name: end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)}


def short_value(value: Any) -> str:
    """An axis value as text, distinct for distinct values: 1.0 as ``1``, a neighbourhood as ``(0,1)×1+(1,0)×2``."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list) and value and all(isinstance(each, Mapping) and "offset" in each for each in value):
        return "+".join("({},{})×{}".format(*each["offset"], short_value(each.get("weight", 1))) for each in value)
    if isinstance(value, list):
        return f"[{','.join(map(short_value, value))}]"
    return str(value)


def setting_text(axes: Mapping[str, Any], short: Mapping[str, str]) -> str:
    """Axis values as a table shows them: ``q=1 p=2``."""
    return " ".join(f"{short.get(axis, axis)}={short_value(value)}" for axis, value in axes.items())

"""Turns plain values into typed, validated, frozen dataclasses.

A trial is described by dataclasses whose fields are its options. :func:`build` makes such a dataclass from a
dictionary, which may come from YAML. It checks every value against the field's type and bounds. For an unknown option
it raises an error with the option's path and the nearest valid name.

A *part* is such a dataclass chosen by its ``name``: an objective, a penalty, a dataset, a network, an
evaluation, an opponent or a probe. Other packages register their parts as entry points, in one group for each kind
(``trainers.penalties``).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import os
import sys
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, TypeVar, cast

from trainers.paths import full_path

T = TypeVar("T")

MODULES = {
    "objective": ("trainers.objectives",),
    "penalty": ("trainers.penalties",),
    "dataset": ("trainers.datasets", "trainers.data.image_datasets", "trainers.data.image_folder"),
    "network": ("trainers.networks",),
    "evaluation": ("trainers.evaluation",),
    "opponent": ("trainers.opponents",),
    "probe": ("trainers.probes",),
}
"""The modules of each kind's built-in parts. Every class there that sets a name is a part."""
ENTRY_POINT_GROUPS = {
    "objective": "trainers.objectives",
    "penalty": "trainers.penalties",
    "dataset": "trainers.datasets",
    "network": "trainers.networks",
    "evaluation": "trainers.evaluations",
    "opponent": "trainers.opponents",
    "probe": "trainers.probes",
}
BARE = frozenset({"opponent", "probe"})
"""The kinds whose parts may be written as the name alone if they have no options."""


class ConfigError(ValueError):
    """An option has a value that the trial cannot have.

    ``path`` names the option with dots (``penalty.weight``), ``problem`` says what was expected.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class PartError(TypeError):
    """A part returns something else than its kind promises."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A named, exchangeable piece of a trial. Subclasses set ``name`` and add their options as fields."""

    kind: ClassVar[str]
    name: ClassVar[str]

    def check(self, trial: Any) -> None:
        """Raises :class:`ConfigError` if this part does not fit the rest of the ``TrialConfig``."""


def number(
    default: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    runtime: bool = False,
) -> Any:
    """A dataclass field for a finite number with bounds. With ``runtime`` it is not part of a trial's identity."""
    bounds = {"at_least": at_least, "above": above, "below": below}
    return field(default=default, metadata={**bounds, "runtime": runtime})


def runtime(default: Any) -> Any:
    """A dataclass field that says where or how something is found. It is not part of a trial's identity."""
    return field(default=default, metadata={"runtime": True})


def path_option() -> Any:
    """A :func:`runtime` field for the path of a file or folder, None by default.

    ``~`` and variables in it are replaced, and it becomes absolute: a worker may have another working directory.
    """
    return field(default=None, metadata={"runtime": True, "path": True})


def nearest(word: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or the list of valid names where no name is near."""
    names = sorted(set(valid))

    def likeness(name: str) -> float:
        same_letters = difflib.SequenceMatcher(None, sorted(word), sorted(name)).ratio()  # for swapped letters
        return difflib.SequenceMatcher(None, word, name).ratio() + 0.2 * same_letters

    best = max(names, key=likeness, default="")
    if best and likeness(best) >= 0.75:
        return f"; did you mean '{best}'?"
    return f"; valid: {', '.join(names)}" if names else ""


@functools.cache
def built_in(kind: str) -> dict[str, type[Part]]:
    """This package's parts of one kind, by name."""
    values = [value for module in MODULES[kind] for value in vars(importlib.import_module(module)).values()]
    classes = [value for value in values if isinstance(value, type) and issubclass(value, Part)]
    return {cls.name: cls for cls in classes if "name" in vars(cls)}


def brought_in(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points of other packages' parts of one kind, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUPS[kind])}


@functools.cache
def part_class(kind: str, name: str) -> type[Part]:
    """The class of a part. Raises :class:`ConfigError` if no package has the name, or if its class cannot be loaded."""
    if cls := built_in(kind).get(name):
        return cls
    points = brought_in(kind)
    if name not in points:
        problem = f"there is no {kind} called '{name}'{nearest(name, {*built_in(kind), *points})}"
        raise ConfigError(f"{kind}.name", problem)
    try:
        found = points[name].load()
    except Exception as error:  # whatever the other package raises
        problem = f"the entry point '{points[name].value}' of '{name}' cannot be loaded: {error}"
        raise ConfigError(f"{kind}.name", problem) from None
    stated = getattr(found, "kind", None), getattr(found, "name", None)
    if not (isinstance(found, type) and issubclass(found, Part) and stated == (kind, name)):
        problem = f"the entry point '{points[name].value}' is not a Part class with kind '{kind}' and name '{name}'"
        raise ConfigError(f"{kind}.name", problem)
    return found


def installed(*kinds: str) -> Iterator[type[Part]]:
    """Every part of these kinds that is installed: first this package's, then other packages', which are loaded."""
    for kind in kinds:
        yield from built_in(kind).values()
    for kind in kinds:
        for name in brought_in(kind):
            if name not in built_in(kind) and (cls := stored_class(kind, name)):
                yield cls


def stored_class(kind: str, value: Any) -> type[Part] | None:
    """The class of a part from its plain value, as :func:`plain` writes it. None where its package is missing."""
    name = value.get("name") if isinstance(value, Mapping) else value
    try:
        return part_class(kind, name) if isinstance(name, str) else None
    except ConfigError:
        return None


@functools.cache
def runtime_options(kind: str, name: str) -> frozenset[str]:
    """The names of a part's :func:`runtime` options, from its class. Empty where its package is missing."""
    cls = stored_class(kind, name)
    return frozenset(f.name for f in fields(cls) if f.metadata.get("runtime")) if cls else frozenset()


def is_path_option(name: str) -> bool:
    """Whether an option, such as ``dataset.root``, is a path: a :func:`path_option` of some part."""
    kind, _, option = name.partition(".")
    specs = (spec for cls in installed(kind) for spec in fields(cls)) if kind in MODULES else ()
    return any(spec.name == option and bool(spec.metadata.get("path")) for spec in specs)


def build_part(kind: str, values: Any, path: str = "") -> Part:
    """The part that ``values["name"]`` names, built from the other values.

    A part of a kind in ``BARE`` may also be given as its name alone. Raises :class:`ConfigError`.
    """
    path = path or kind
    if kind in BARE and isinstance(values, str):
        name, options, named_at = values, {}, path
    elif isinstance(values, Mapping) and isinstance(values.get("name"), str):
        name, named_at = values["name"], f"{path}.name"
        options = {key: value for key, value in values.items() if key != "name"}
    else:
        raise ConfigError(path, f"expected a {'name' if kind in BARE else 'mapping with a name'}, got {values!r}")
    try:
        cls = part_class(kind, name)
    except ConfigError as error:
        raise ConfigError(named_at, error.problem) from None
    return build(cls, options, path)


def build(cls: type[T], values: Any, path: str = "") -> T:
    """Builds a dataclass from plain values and checks every field.

    Integers become floats where a float is expected, so that 1 and 1.0 are the same trial. No other value is converted
    silently. Raises :class:`ConfigError` with the path of the first value that does not fit.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(path, f"expected a mapping, got {values!r}")
    hints = _hints(cast(Hashable, cls))
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(_join(path, str(key)), f"unknown option{nearest(str(key), known)}")
    arguments = {}
    for name, spec in known.items():
        here = _join(path, name)
        if name in values:
            arguments[name] = _convert(values[name], hints[name], here)
            if spec.metadata.get("path") and arguments[name] is not None:
                arguments[name] = _absolute(arguments[name], here)
            _check_bounds(arguments[name], spec.metadata, here)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise ConfigError(here, "is missing")
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(_join(path, error.path), error.problem) from None


def plain(value: Any) -> Any:
    """Plain values from dataclasses, the reverse of :func:`build`.

    Dataclasses become dictionaries (parts with their name), and tuples become lists. A part of a kind in ``BARE`` that
    has no options becomes its name.
    """
    if isinstance(value, Part) and value.kind in BARE and not fields(value):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        named = {"name": value.name} if isinstance(value, Part) else {}
        return named | {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _join(path: str, name: str) -> str:
    return ".".join(piece for piece in (path, name) if piece)


def _absolute(value: str, path: str) -> str:
    try:
        return os.path.abspath(full_path(value))
    except ValueError as error:
        raise ConfigError(path, str(error)) from None


def _check_bounds(value: Any, bounds: Mapping[str, Any], path: str) -> None:
    if not bounds or value is None:
        return
    if (low := bounds.get("at_least")) is not None and value < low:
        raise ConfigError(path, f"must be at least {low}, got {_brief(value)}")
    if (low := bounds.get("above")) is not None and value <= low:
        raise ConfigError(path, f"must be greater than {low}, got {_brief(value)}")
    if (high := bounds.get("below")) is not None and value >= high:
        raise ConfigError(path, f"must be less than {high}, got {_brief(value)}")


def _brief(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:20]


def _convert(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), path)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if not any(type(value) is type(item) and value == item for item in allowed):  # not 2.0 for 2: another id
            raise ConfigError(path, f"'{value}' is not one of {', '.join(map(str, allowed))}{_hint(value, allowed)}")
        return value
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(hint), path)
    if hint is bool:
        return _expect(isinstance(value, bool), value, "true or false", path)
    if hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return _expect(whole, value, "a whole number", path)
    if hint is float:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        finite = real and abs(value) <= sys.float_info.max
        return float(_expect(finite, value, "a finite number", path))
    if hint is str:
        return _expect(isinstance(value, str), value, "text", path)
    if isinstance(hint, type) and issubclass(hint, Part):
        return build_part(hint.kind, value, path)
    return build(hint, value, path)


def _convert_union(value: Any, members: Sequence[Any], path: str) -> Any:
    if value is None and type(None) in members:
        return None
    members = [member for member in members if member is not type(None)]
    sequences = [member for member in members if typing.get_origin(member) is tuple]
    if sequences and isinstance(value, list | tuple):
        return _convert(value, sequences[0], path)
    return _convert(value, members[0], path)


def _convert_tuple(value: Any, members: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(path, f"expected a list, got {value!r}")
    if members[-1] is Ellipsis:
        kinds = [members[0]] * len(value)
    elif len(value) != len(members):
        raise ConfigError(path, f"expected {len(members)} values, got {len(value)}")
    else:
        kinds = list(members)
    return tuple(_convert(item, kind, path) for item, kind in zip(value, kinds, strict=True))


def _hint(value: Any, allowed: Sequence[Any]) -> str:
    if value == "gpu" and "cuda" in allowed:
        return "; write 'cuda' for a GPU"
    match = difflib.get_close_matches(str(value), [str(item) for item in allowed], n=1)
    return f"; did you mean '{match[0]}'?" if match else ""


def _expect(fits: bool, value: Any, expected: str, path: str) -> Any:
    if not fits:
        raise ConfigError(path, f"expected {expected}, got {value!r}")
    return value

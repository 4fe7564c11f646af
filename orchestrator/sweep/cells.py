"""The cells of a sweep: every combination of axis values of every variant, with its configuration.

Hydra composes a configuration once for each variant and each combination of config-group axes. The values of the other
axes are set on plain dictionaries, which is a thousand times cheaper.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, disk_errors
from orchestrator.sweep.document import YamlPath
from orchestrator.sweep.file import Axes, SweepFile
from orchestrator.sweep.growing import Search
from orchestrator.sweep.presets import check_preset, compose, option_paths, parse_override, presets
from orchestrator.sweep.searching import check_searches, search_in
from orchestrator.sweep.setting import has_option, set_in_place
from orchestrator.sweep.syntax import check_count
from trainers.config import TrialConfig
from trainers.parts import ConfigError, nearest

Values = dict[str, Any]


@dataclass(frozen=True)
class _Axis:
    """Values that move together: one axis of ``grid``, or all of one ``zip``."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    place: YamlPath
    own: bool  # stands in the variant itself, and so must apply to it

    def place_of(self, name: str) -> YamlPath:
        return (*self.place, name)


@dataclass(frozen=True)
class Cell:
    """A variant with one value for each of its axes.

    ``config`` is its configuration without the seed. Errors about the cell point at ``place``. ``search`` chooses its
    other options, if it is searched.
    """

    variant: str
    axes: Values
    config: dict[str, Any]
    place: YamlPath
    search: Search | None = None


def sweep_cells(sweep_file: SweepFile, options: Sequence[str], cache_dir: Path | None = None) -> list[Cell]:
    """Every cell that is not excluded, in the order of the file. ``options`` are overrides for all cells.

    Some datasets must be read before they can be planned; ``cache_dir`` is where they keep what they read. Raises
    :class:`UserError`, with the line, for anything in the file that has no meaning or no effect.
    """
    cells: list[Cell] = []
    for variant, axes in sweep_file.variants.items():
        cells += _variant_cells(sweep_file, variant, axes, options, cache_dir)
        check_count("these cells", len(cells))
    _check_shared_axes(sweep_file, cells)
    check_searches(sweep_file, [(cell.variant, cell.config, cell.search) for cell in cells])
    kept = _without_excluded(sweep_file, cells)
    if not kept:
        raise sweep_file.document.error((), "every cell is excluded: there is nothing to run")
    return kept


def _variant_cells(
    sweep_file: SweepFile, variant: str, own: Axes, options: Sequence[str], cache_dir: Path | None
) -> Iterator[Cell]:
    """Every cell of a variant."""
    axes = _axes(sweep_file, own)
    axis_names = {name for axis in axes for name in axis.names}
    _check_overrides(sweep_file, own, options, axis_names)
    groups = [axis for axis in axes if set(axis.names) & set(presets())]
    plain = [axis for axis in axes if axis not in groups]
    places = {name: axis.place_of(name) for axis in axes for name in axis.names}
    for axis in groups:
        _check_presets(sweep_file, axis)
    used: set[str] = set()
    for group_rows in itertools.product(*(axis.rows for axis in groups)):
        chosen = _values(groups, group_rows)
        in_presets = {name: value for name, value in chosen.items() if name in presets()}
        template = _template(sweep_file, own, in_presets, options, cache_dir)
        applying = groups + [axis for axis in plain if _applies(sweep_file, axis, template)]
        used |= {name for axis in applying for name in axis.names}
        search = search_in(sweep_file, variant, template, axis_names, options)
        try:
            check_count("these axes", math.prod(len(axis.rows) for axis in applying))
        except UserError as error:
            raise sweep_file.document.error((*own.place, "grid"), str(error)) from None
        for rows in itertools.product(*(axis.rows for axis in applying[len(groups) :])):
            values = _values(applying, [*group_rows, *rows])
            config = copy.deepcopy(template)
            for name, value in values.items():
                if name not in presets():
                    set_in_place(config, name, value)
            in_order = {name: values[name] for name in places if name in values}
            yield Cell(variant, in_order, _validated(sweep_file, config, places, own.place), own.place, search)
    for axis in axes:
        if axis.own and not used & set(axis.names):
            raise _no_such_axis(sweep_file, axis, template)


def _axes(sweep_file: SweepFile, own: Axes) -> list[_Axis]:
    """The file's axes, then the variant's. The variant's axis replaces an axis of the file with the same name."""
    axes = []
    ours = {*own.grid, *own.zip}
    for level, is_own in ((sweep_file.shared, sweep_file.shared.place == own.place), (own, True)):
        if level is own and level.place == sweep_file.shared.place:
            continue  # a file without variants has one level
        for name, values in level.grid.items():
            if name in level.zip:
                raise sweep_file.document.error(
                    (*level.place, "zip", name), "is an axis of grid too; keep one of the two"
                )
            if is_own or name not in ours:
                rows = tuple((value,) for value in values)
                axes.append(_Axis((name,), rows, (*level.place, "grid"), is_own))
        if level.zip and not is_own and (taken := ours & set(level.zip)):
            problem = f"the variant's axis '{min(taken)}' is part of the file's zip, whose axes move together"
            raise sweep_file.document.error(own.place, problem)
        if level.zip:
            rows = tuple(zip(*level.zip.values(), strict=True))
            axes.append(_Axis(tuple(level.zip), rows, (*level.place, "zip"), is_own))
    names = {name: axis for axis in axes for name in axis.names}
    for name, axis in names.items():
        if outer := next((each for each in names if name.startswith(f"{each}.") and each not in presets()), None):
            problem = f"the axis '{outer}' sets this option too; keep one of the two"
            raise sweep_file.document.error(axis.place_of(name), problem)
    for axis in axes:
        if "seed" in axis.names or "seeds" in axis.names:
            raise sweep_file.document.error(axis.place, "a seed cannot be an axis; write seeds: 3, or a list of seeds")
    return axes


def _check_overrides(sweep_file: SweepFile, own: Axes, options: Sequence[str], axis_names: set[str]) -> None:
    for place, texts in ((("base",), sweep_file.shared.base), ((*own.place, "base"), own.base)):
        for index, text in enumerate(texts):
            try:
                parse_override(text)
            except UserError as error:
                raise sweep_file.document.error((*place, index), str(error)) from None
    for text in options:
        key = parse_override(text).key_or_group
        if key in axis_names:
            raise UserError(f"'{text}' names an axis of {sweep_file.document.path}; change the axis in the file")


def _template(
    sweep_file: SweepFile, own: Axes, chosen: Mapping[str, Any], options: Sequence[str], cache_dir: Path | None
) -> dict[str, Any]:
    groups = [f"{group}={preset}" for group, preset in chosen.items()]
    overrides = [*sweep_file.shared.base, *own.base, *groups, *options]
    try:
        return TrialConfig.from_dict(compose(overrides), cache_dir).to_dict()
    except OSError as error:  # a fault of the disk, not of the sweep file
        with disk_errors():
            raise error
    except ConfigError as error:
        culprit = next((text for text in reversed(overrides) if text.partition("=")[0] == error.path), None)
        problem = f"{error.path}: {error.problem}"
    except UserError as error:
        culprit = next((text for text in reversed(overrides) if text.partition("=")[0] in str(error)), None)
        problem = str(error)
    if culprit in options:
        raise UserError(f"'{culprit}': {problem}")
    raise sweep_file.document.error(_place_of_override(sweep_file, own, culprit), problem)


def _place_of_override(sweep_file: SweepFile, own: Axes, text: str | None) -> YamlPath:
    for axes in (own, sweep_file.shared):
        if text in axes.base:
            return (*axes.place, "base", axes.base.index(text))
    return own.place


def _check_presets(sweep_file: SweepFile, axis: _Axis) -> None:
    for column, name in enumerate(axis.names):
        for index, row in enumerate(axis.rows):
            try:
                check_preset(name, row[column])
            except UserError as error:
                raise sweep_file.document.error((*axis.place_of(name), index), str(error)) from None


def _applies(sweep_file: SweepFile, axis: _Axis, template: Mapping[str, Any]) -> bool:
    has = [name in presets() or has_option(template, name) for name in axis.names]
    if any(has) and not all(has):
        raise _no_such_axis(sweep_file, axis, template)
    return all(has)


def _no_such_axis(sweep_file: SweepFile, axis: _Axis, template: Mapping[str, Any]) -> UserError:
    known = [*option_paths(template), *presets()]
    name = next((name for name in axis.names if name not in known), axis.names[0])
    return sweep_file.document.error(
        axis.place_of(name), f"no configuration here has such an option{nearest(name, known)}"
    )


def _check_shared_axes(sweep_file: SweepFile, cells: Sequence[Cell]) -> None:
    """Raises :class:`UserError` for an axis of the whole file that applies to no variant. Some suffice."""
    used = {name for cell in cells for name in cell.axes}
    for key, axes in (("grid", sweep_file.shared.grid), ("zip", sweep_file.shared.zip)):
        for name in axes:
            if name not in used:
                known = {path for cell in cells for path in option_paths(cell.config)} | {*presets()}
                problem = f"no variant's configuration has such an option{nearest(name, known)}"
                raise sweep_file.document.error((key, name), problem)


def _validated(
    sweep_file: SweepFile, config: dict[str, Any], places: Mapping[str, YamlPath], default: YamlPath
) -> dict[str, Any]:
    try:
        return TrialConfig.from_dict(config).to_dict()
    except ConfigError as error:
        axis = max((name for name in places if (error.path + ".").startswith(name + ".")), key=len, default=None)
        place = default if axis is None else _place_of_value(sweep_file, places[axis], axis, config)
        problem = error.problem if axis == error.path else f"{error.path}: {error.problem}"
        raise sweep_file.document.error(place, problem) from None


def _place_of_value(sweep_file: SweepFile, place: YamlPath, axis: str, config: Mapping[str, Any]) -> YamlPath:
    value: Any = config
    for piece in axis.split("."):
        value = value[piece]
    written: Any = sweep_file.document.data
    for step in place:
        written = written[step]
    return (*place, written.index(value)) if isinstance(written, list) and value in written else place


def _without_excluded(sweep_file: SweepFile, cells: Sequence[Cell]) -> list[Cell]:
    kept = list(cells)
    for place, rule, reached in _exclusions(sweep_file, cells):
        hit = [each for each in reached if all(axis in each.axes and each.axes[axis] == rule[axis] for axis in rule)]
        if not hit:
            axes = {axis for each in reached for axis in each.axes}
            wrong = next((str(axis) for axis in rule if axis not in axes), None)
            problem = f"'{wrong}' is not an axis here{nearest(wrong, axes)}" if wrong else "no cell has these values"
            raise sweep_file.document.error(place, problem)
        gone = {id(each) for each in hit}
        kept = [each for each in kept if id(each) not in gone]
    return kept


def _exclusions(
    sweep_file: SweepFile, cells: Sequence[Cell]
) -> Iterator[tuple[YamlPath, Mapping[str, Any], list[Cell]]]:
    """Each exclude rule with its place and the cells that it applies to."""
    for index, rule in enumerate(sweep_file.shared.exclude):
        yield ("exclude", index), rule, list(cells)
    for variant, axes in sweep_file.variants.items():
        if axes.place:  # a file without variants has only the rules at its top level
            for index, rule in enumerate(axes.exclude):
                yield (*axes.place, "exclude", index), rule, [each for each in cells if each.variant == variant]


def _values(axes: Sequence[_Axis], rows: Sequence[tuple[Any, ...]]) -> Values:
    return {
        name: value for axis, row in zip(axes, rows, strict=True) for name, value in zip(axis.names, row, strict=True)
    }

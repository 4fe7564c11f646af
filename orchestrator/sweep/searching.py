"""What a search may choose in a cell: the options of its space that the cell's configuration has."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.document import YamlPath
from orchestrator.sweep.file import SweepFile
from orchestrator.sweep.growing import SAMPLERS, Search
from orchestrator.sweep.presets import option_paths, parse_override, presets
from orchestrator.sweep.setting import has_option, set_option
from orchestrator.sweep.space import Dimension
from trainers.config import TrialConfig, is_runtime_option
from trainers.parts import ConfigError, nearest

MEASURED_BY = ("evaluation", "dataset", "probes", "opponent")
"""What all trials of a sweep must share. :func:`orchestrator.sweep.plan.make_plan` checks it for axes."""


def search_in(
    sweep_file: SweepFile, variant: str, template: Mapping[str, Any], axes: Collection[str], options: Sequence[str]
) -> Search | None:
    """A variant's search, with the options of its space that this configuration has. None if there are none.

    ``axes`` are the names of the cell's axes, ``options`` the overrides for all cells. Raises :class:`UserError`, with
    the line, for an option that a search cannot choose, and for values that the option cannot have.
    """
    search = sweep_file.searches.get(variant)
    if search is None:
        return None
    space = {}
    for name, dimension in search.space.items():
        place = (*search.place, "space", name)
        if problem := _why_not(name, template, axes, search.space):
            raise sweep_file.document.error(place, problem)
        if any(parse_override(text).key_or_group == name for text in options):
            raise UserError(f"'{name}=…' names an option that {sweep_file.document.path} searches; change the file")
        if has_option(template, name):
            _check_values(sweep_file, place, name, dimension, template)
            space[name] = dimension
    return replace(search, space=space) if space else None


def check_searches(sweep_file: SweepFile, cells: Sequence[tuple[str, Mapping[str, Any], Search | None]]) -> None:
    """Raises :class:`UserError` for an option of a search that none of its cells has. Some cells suffice.

    ``cells`` gives the variant, the configuration and the search of each cell.
    """
    used = {(search.place, name) for _, _, search in cells if search is not None for name in search.space}
    for search in sweep_file.searches.values():
        for name in search.space:
            if (search.place, name) not in used:
                there = [config for variant, config, _ in cells if sweep_file.searches.get(variant) == search]
                raise _no_such_option(sweep_file, (*search.place, "space", name), name, there)


def warn_of_random_proposals(sweep_file: SweepFile, searches: Iterable[Search]) -> None:
    """Warns of a search with so few proposals that all of them are random, and of a space that has fewer settings."""
    for search in {each.place: each for each in searches}.values():
        where = sweep_file.document.error((*search.place, "trials"), "")
        start = SAMPLERS[search.sampler]
        if search.settings is not None and search.settings < search.trials:
            warnings.warn(f"{where}the space has {search.settings} settings; the search ends after them", stacklevel=2)
        elif start is not None and search.trials <= start:
            warnings.warn(
                f"{where}{search.sampler} makes its first {start} proposals at random, so that with trials: "
                f"{search.trials} all of them are; give it more trials",
                stacklevel=2,
            )


def _is_part(name: str, of: str) -> bool:
    return name.startswith(f"{of}.")


def _why_not(name: str, template: Mapping[str, Any], axes: Collection[str], space: Collection[str]) -> str | None:
    """Why a search cannot choose an option."""
    if name in ("seed", "seeds"):
        return "a seed cannot be searched; write seeds: 3, or a list of seeds"
    if name in axes:
        return "is an axis of the grid too; keep one of the two"
    plain = [each for each in axes if each not in presets()]  # of a preset a search may choose an option
    if other := next((each for each in plain if _is_part(each, name) or _is_part(name, each)), None):
        return f"the axis '{other}' sets this option too; keep one of the two"
    if other := next((each for each in space if _is_part(each, name)), None):
        return f"the search sets '{other}' too, which is a part of it; keep one of the two"
    if name == "budget":
        return "a search cannot choose the budget, because its proposals are compared at equal work; put it on the grid"
    if name in presets():
        return f"a search cannot choose a preset; compare presets on the grid: grid: {{{name}: […]}}"
    if name.partition(".")[0] in MEASURED_BY:
        return f"all trials are measured in the same way, so that a search cannot change their {name.partition('.')[0]}"
    if is_runtime_option(name, dict(template)):
        return "says how a trial runs, not what it is: no result depends on it"
    return None


def _check_values(
    sweep_file: SweepFile, place: YamlPath, name: str, dimension: Dimension, template: Mapping[str, Any]
) -> None:
    """Raises :class:`UserError` if the option cannot have the first, the last, or one of the named values."""
    for value in extremes(dimension):
        config = set_option(template, name, value)
        try:
            TrialConfig.from_dict(config)
        except ConfigError as error:
            problem = error.problem if error.path == name else f"{error.path}: {error.problem}"
            raise sweep_file.document.error(place, problem) from None


def extremes(dimension: Dimension) -> Sequence[Any]:
    """The first and the last value of a dimension, or all of a choice."""
    return dimension.values if dimension.kind == "choice" else (dimension.low, dimension.high)


def _no_such_option(
    sweep_file: SweepFile, place: YamlPath, name: str, templates: Iterable[Mapping[str, Any]]
) -> UserError:
    known = {path for template in templates for path in option_paths(template)}
    problem = f"no configuration here has such an option{nearest(name, known)}"
    return sweep_file.document.error(place, problem)

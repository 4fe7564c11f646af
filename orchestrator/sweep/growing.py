"""What may make a plan grow: search, race, confirmation. As a sweep file says it, and as ``plan.json`` holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from orchestrator.errors import UserError
from orchestrator.sweep.document import YamlPath
from orchestrator.sweep.names import cell_label
from orchestrator.sweep.reader import Reader
from orchestrator.sweep.setting import setting_text
from orchestrator.sweep.space import Dimension, dimension_from, is_dimension, parse_dimension
from orchestrator.sweep.syntax import check_count
from trainers.parts import nearest

Sampler = Literal["random", "sobol", "tpe", "gp"]
SAMPLERS: dict[Sampler, int | None] = {"random": None, "sobol": None, "tpe": 10, "gp": 10}
"""The samplers of a search, and how many first proposals are random. None: no proposal rests on results."""
FIRST_FRESH_SEED = 1000
"""A confirmation uses the seeds from here on. No other trial of its sweep has them."""


@dataclass(frozen=True)
class Search:
    """A search for the best setting of each cell of a grid.

    A sampler proposes ``trials`` settings from ``space``, for each cell on its own. Proposal number k rests on the
    results of the proposals 0 … k − ``parallel``. ``place`` is where the search stands in the sweep file.
    """

    trials: int
    sampler: Sampler
    space: Mapping[str, Dimension]
    seed: int = 0
    parallel: int = 4
    place: YamlPath = ()

    @property
    def settings(self) -> int | None:
        """The number of settings in the space; None if it has an interval of floats."""
        counts = [dimension.count for dimension in self.space.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def rests_on(self, number: int) -> int:
        """On the results of how many first proposals a proposal rests."""
        start = SAMPLERS[self.sampler]
        return 0 if start is None or number < start else max(0, number - self.parallel + 1)


@dataclass(frozen=True)
class Race:
    """A race: ``first`` seeds for every cell, then further ones, at most ``most``, for cells that may still be best.

    ``trials`` bounds the trials of the sweep. None: nothing does.
    """

    first: int
    most: int
    trials: int | None = None


@dataclass(frozen=True)
class Confirm:
    """The ``best`` cells of each search, or of each variant without one, are run again with this many fresh seeds."""

    best: int
    seeds: int


@dataclass(frozen=True)
class Group:
    """A cell of a grid that is searched, with its configuration but for the seed and what the search chooses."""

    variant: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    search: Search

    def label(self, short: Mapping[str, str]) -> str:
        """The cell in words, with these short names of axes: ``qp-wgan q=1 p=2``."""
        return cell_label(self.variant, setting_text(self.axes, short))


@dataclass(frozen=True)
class Growing:
    """All that may make a plan grow. ``seeds`` are those of every proposal, ``short`` the short names of axes."""

    seeds: tuple[int, ...]
    short: Mapping[str, str]
    groups: tuple[Group, ...] = ()
    race: Race | None = None
    confirm: Confirm | None = None

    def to_dict(self) -> dict[str, Any]:
        """As ``plan.json`` holds it."""
        return {
            "seeds": list(self.seeds),
            "short": dict(self.short),
            "groups": [
                {
                    "variant": group.variant,
                    "axes": dict(group.axes),
                    "config": dict(group.config),
                    "search": _search_dict(group.search),
                }
                for group in self.groups
            ],
            "race": None if self.race is None else asdict(self.race),
            "confirm": None if self.confirm is None else asdict(self.confirm),
        }


def _search_dict(search: Search) -> dict[str, Any]:
    values = {each.name: getattr(search, each.name) for each in fields(Search) if each.name != "place"}
    return {**values, "space": {name: dimension.to_dict() for name, dimension in search.space.items()}}


def growing_from(values: Any) -> Growing | None:
    """Reads what :meth:`Growing.to_dict` wrote; None for None. Raises ValueError if it is damaged."""
    if values is None:
        return None
    try:
        groups = tuple(
            Group(
                str(each["variant"]),
                dict(each["axes"]),
                dict(each["config"]),
                Search(**{**each["search"], "space": _space_from(each["search"]["space"])}),
            )
            for each in values["groups"]
        )
        made = Growing(
            tuple(values["seeds"]),
            dict(values["short"]),
            groups,
            None if values["race"] is None else Race(**values["race"]),
            None if values["confirm"] is None else Confirm(**values["confirm"]),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(str(error)) from None
    searches = [group.search for group in made.groups]
    counts = [*made.seeds, *(number for each in searches for number in (each.trials, each.seed, each.parallel))]
    counts += [number for number in vars(made.race).values() if number is not None] if made.race else []
    counts += [made.confirm.best, made.confirm.seeds] if made.confirm else []
    if made.race and (type(made.race.first) is not int or type(made.race.most) is not int):
        raise ValueError("a race lacks a number")
    if not all(type(number) is int and number >= 0 for number in counts) or not made.seeds:
        raise ValueError("a number is no whole number")
    if not all(each.sampler in SAMPLERS and each.parallel for each in searches):
        raise ValueError("a sampler cannot be used")
    return made


def _space_from(values: Any) -> dict[str, Dimension]:
    if not values or not all(map(is_dimension, values.values())):
        raise ValueError("a space cannot be used")
    return {str(name): dimension_from(each) for name, each in values.items()}


@dataclass(frozen=True)
class Seeds:
    """The seeds of every cell, and the race that gives further ones, if there is one."""

    first: tuple[int, ...]
    race: Race | None = field(default=None)


SEARCH_KEYS = ("trials", "sampler", "seed", "parallel", "space")
RACE_KEYS = ("first", "most", "trials")
CONFIRM_KEYS = ("best", "seeds")


def parse_race(value: Mapping[Any, Any], fail: Callable[[str, str], UserError]) -> Race:
    """The race that ``seeds: {first: 3, most: 20}`` asks for. Raises ``fail(key, problem)``."""
    for key in value:
        if key not in RACE_KEYS:
            raise fail(str(key), f"unknown key{nearest(str(key), RACE_KEYS)}")
    for key in ("first", "most"):
        if key not in value:
            raise fail("", f"expected {key}: NUMBER; a race is written seeds: {{first: 3, most: 20}}")
    for key, number in value.items():
        least = 2 if key == "first" else 1
        if type(number) is not int or number < least:
            why = "; a cell of one seed is told apart from nothing" if key == "first" else ""
            raise fail(key, f"expected a whole number of at least {least}, got {number!r}{why}")
    race = Race(**value)
    if race.most <= race.first:
        problem = f"expected more than first ({race.first}), got {race.most}; without a race, write seeds: {race.first}"
        raise fail("most", problem)
    try:
        check_count("these seeds", race.most)
    except UserError as error:
        raise fail("most", str(error)) from None
    return race


def read_search(reader: Reader, place: YamlPath) -> Search | None:
    """The key ``search`` at a place; None if it is not there. Raises :class:`UserError`, with the line.

    In a variant it may be null, which switches the file's search off.
    """
    if place[-1] not in (reader.get(place[:-1]) or {}) or (len(place) > 1 and reader.get(place) is None):
        return None
    data = reader.mapping(place, SEARCH_KEYS)
    for key, example in (("trials", "20"), ("space", '{critic.lr: "tag(log, interval(1e-5, 1e-2))"}')):
        if key not in data:
            raise reader.fail(place, f"expected {key}, such as {key}: {example}")
    sampler = data.get("sampler", "tpe")
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise reader.fail((*place, "sampler"), f"expected a sampler, got {sampler!r}{nearest(str(sampler), SAMPLERS)}")
    trials = reader.whole((*place, "trials"), 1, at_least=1)
    try:
        check_count("these proposals", trials)
    except UserError as error:
        raise reader.fail((*place, "trials"), str(error)) from None
    space = {}
    for name, written in reader.mapping((*place, "space")).items():
        try:
            space[name] = parse_dimension(written)
        except UserError as error:
            raise reader.fail((*place, "space", name), str(error)) from None
    if not space:
        raise reader.fail((*place, "space"), "the space is empty: expected at least one option to search")
    return Search(
        trials,
        sampler,
        space,
        reader.whole((*place, "seed"), 0, at_least=0),
        reader.whole((*place, "parallel"), Search.parallel, at_least=1),
        place,
    )


def read_confirm(reader: Reader) -> Confirm | None:
    """The key ``confirm``; None if it is not there. Raises :class:`UserError`, with the line."""
    place: YamlPath = ("confirm",)
    if "confirm" not in reader.mapping(()):
        return None
    data = reader.mapping(place, CONFIRM_KEYS)
    if "seeds" not in data:
        raise reader.fail(place, "expected seeds: the number of fresh seeds, such as confirm: {best: 1, seeds: 10}")
    best = reader.whole((*place, "best"), 1, at_least=1)
    seeds = reader.whole((*place, "seeds"), 1, at_least=1)
    try:
        check_count("these seeds", seeds)
    except UserError as error:
        raise reader.fail((*place, "seeds"), str(error)) from None
    return Confirm(best, seeds)

"""Reads a sweep file strictly: anything unknown, repeated or misplaced is an error that names its line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.document import Document, YamlPath, read_document
from orchestrator.sweep.growing import Confirm, Search, Seeds, parse_race, read_confirm, read_search
from orchestrator.sweep.names import check_name, check_sweep_name
from orchestrator.sweep.reader import Reader
from orchestrator.sweep.syntax import check_count, parse_value
from trainers.parts import nearest

AXES_KEYS = ("base", "grid", "zip", "exclude", "search")
SWEEP_KEYS = (
    *("name", "description", *AXES_KEYS, "variants", "seeds", "resources", "retries", "max_failures"),
    *("early_stopping", "continue_from", "compare", "confirm", "paper", "scale"),
)
PAPER_KEYS = {
    "source": "where the numbers stand, such as Mallasto et al., Table 1",
    "rows": "numbers by cell and metric, such as qp-wgan q=1 p=2: {fid: 78.7}",
}
EARLY_STOPPING_KEYS = {"asha": ("reduction_factor",), "median": ("minimum_trials",)}


@dataclass(frozen=True)
class Axes:
    """The axes and overrides of a variant, or of the file for all variants. ``place`` is where they stand."""

    place: YamlPath
    base: tuple[str, ...] = ()
    grid: Mapping[str, list[Any]] = field(default_factory=dict)
    zip: Mapping[str, list[Any]] = field(default_factory=dict)
    exclude: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Resources:
    """What one trial needs of a machine. Trials with a fraction of a GPU share the GPU.

    ``custom`` are resources that the nodes of a Ray cluster were started with.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Compare:
    """The metric that tables compare by, and whether low (``min``) or high (``max``) values are better.

    ``mode`` is empty if the file does not give it; the plan then uses the metric's own direction.
    """

    metric: str
    mode: str


@dataclass(frozen=True)
class Paper:
    """Numbers that a paper reports, by cell (``qp-wgan q=1 p=2``, as tables write it) and metric, and their source."""

    source: str
    rows: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class EarlyStopping:
    """Early stopping by Ray Tune on a logged metric.

    ``scheduler`` is ``asha`` (asynchronous successive halving) or ``median`` (median stopping rule). No trial is
    stopped before ``grace`` critic iterations. At grace · ``reduction_factor``^k critic iterations, ``asha`` stops a
    trial that is not among the best 1/``reduction_factor``. ``median`` stops a trial whose best value is worse than the
    median of the other trials' running means, once ``minimum_trials`` other trials have come as far.
    """

    scheduler: str
    grace: int
    metric: str
    mode: str
    reduction_factor: float = 4.0
    minimum_trials: int = 3


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep file. A file without ``variants`` has one variant with the sweep's name.

    ``searches`` has the search of each variant that has one: its own, or the file's.
    """

    document: Document
    name: str
    description: str
    shared: Axes
    variants: Mapping[str, Axes]
    searches: Mapping[str, Search]
    confirm: Confirm | None
    seeds: Seeds
    resources: Resources
    retries: int
    max_failures: int | None
    early_stopping: EarlyStopping | None
    continue_from: str | None
    compare: Compare | None
    paper: Paper | None
    scale: Mapping[str, tuple[str, ...]]


def read_sweep_file(path: Path, name: str | None = None) -> SweepFile:
    """Reads a sweep file and checks all that can be checked without composing a trial. Raises :class:`UserError`.

    With a ``name`` for the sweep, the file's own name need not be one.
    """
    document = read_document(path)
    reader = _Reader(document)
    data = reader.mapping((), SWEEP_KEYS)
    name = _name(document, data, name)
    shared = reader.axes(())
    if "variants" in data:
        named = reader.mapping(("variants",))
        if not named:
            raise document.error(("variants",), "expected at least one variant")
        for key in named:
            check_name(key, lambda problem, key=key: document.error(("variants", key), problem))
            reader.mapping(("variants", key), AXES_KEYS, empty=True)
        variants = {key: reader.axes(("variants", key)) for key in named}
    else:
        variants = {name: Axes(())}
    return SweepFile(
        document=document,
        name=name,
        description=reader.text(("description",), ""),
        shared=shared,
        variants=variants,
        searches=reader.searches(variants),
        confirm=read_confirm(reader),
        seeds=reader.seeds(("seeds",)),
        resources=reader.resources(),
        retries=reader.whole(("retries",), 2, at_least=0),
        max_failures=reader.whole(("max_failures",), 1, at_least=1) if "max_failures" in data else None,
        early_stopping=reader.early_stopping(),
        continue_from=reader.continue_from(),
        compare=reader.compare(),
        paper=reader.paper(),
        scale=reader.scale(),
    )


def _name(document: Document, data: Mapping[str, Any], given: str | None) -> str:
    """The key ``name``, or else the file's name."""
    if "name" in data:
        return check_sweep_name(data["name"], lambda problem: document.error(("name",), problem))

    def no_name(problem: str) -> UserError:
        return UserError(f"{document.path}: {problem}. Write name: NAME into the file, or give --name NAME")

    try:
        return check_sweep_name(document.path.stem, no_name)
    except UserError:
        if given is None:
            raise
        return check_sweep_name(given, lambda problem: UserError(f"--name: {problem}"))


def parse_seeds(value: Any, fail: Callable[[str, str], UserError]) -> Seeds:
    """The seeds that a value gives: ``3`` means 0, 1 and 2; a list is taken as it is; a mapping asks for a race.

    A text is Hydra's sweep syntax, such as ``0,1,2`` and ``range(3, 6)``. Raises ``fail(key, problem)``, where ``key``
    is one of the mapping, or empty.
    """
    try:
        if isinstance(value, str):
            swept, is_sweep = parse_value(value)
            value = swept if is_sweep else value
        if type(value) is int:
            check_count("these seeds", value)
    except UserError as error:
        raise fail("", str(error)) from None
    if isinstance(value, Mapping):
        race = parse_race(value, fail)
        return Seeds(tuple(range(race.first)), race)
    if type(value) is int and value >= 1:
        return Seeds(tuple(range(value)))
    whole = isinstance(value, list) and all(type(seed) is int and seed >= 0 for seed in value)
    if not whole or not value:
        expected = "expected a number of seeds (1 or more), a list of them, or a race such as {first: 3, most: 20}"
        raise fail("", f"{expected}, got {value!r}")
    twice = sorted(seed for seed, number in Counter(value).items() if number > 1)
    if twice:
        raise fail("", f"seed {twice[0]} is given twice")
    return Seeds(tuple(value))


def is_custom(name: str) -> bool:
    """Whether a resource of a Ray node is a custom one, not one that Ray defines."""
    ours = ("CPU", "GPU", "TPU", "memory", "object_store_memory")
    return name not in ours and not name.startswith(("node:", "accelerator_type:", "bundle_group_"))


class _Reader(Reader):
    """Reads the keys of a sweep file."""

    def axes(self, place: YamlPath) -> Axes:
        return Axes(
            place,
            base=self.words((*place, "base")) if self.get(place) else (),
            grid=self.axis_values((*place, "grid")),
            zip=self.zipped((*place, "zip")),
            exclude=self.excluded((*place, "exclude")),
        )

    def axis_values(self, place: YamlPath) -> dict[str, list[Any]]:
        if not self.get(place[:-1]):
            return {}
        if place[-1] in self.get(place[:-1]) and not self.get(place):
            raise self.fail(place, "expected at least one axis, such as penalty.weight: [1, 10]")
        return {axis: self.values((*place, axis), value) for axis, value in self.mapping(place).items()}

    def values(self, place: YamlPath, value: Any) -> list[Any]:
        if isinstance(value, str):
            value = self.swept(place, value)
        if not isinstance(value, list):
            raise self.fail(place, f"expected a list of values or a Hydra sweep such as choice(1, 10), got {value!r}")
        if not value:
            raise self.fail(place, "expected at least one value")
        return value

    def swept(self, place: YamlPath, text: str) -> list[Any]:
        """The values of Hydra's sweep syntax: ``choice(1, 10)``, ``range(1, 5)`` or ``1,10``."""
        try:
            values, is_sweep = parse_value(text)
        except UserError as error:
            raise self.fail(place, str(error)) from None
        if not is_sweep:
            raise self.fail(place, f"expected a list of values or a Hydra sweep such as choice(1, 10), got '{text}'")
        return values

    def zipped(self, place: YamlPath) -> dict[str, list[Any]]:
        columns = self.axis_values(place)
        lengths = {axis: len(values) for axis, values in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{axis} has {length}" for axis, length in lengths.items())
            raise self.fail(place, f"the axes of a zip need the same number of values, but {told}")
        return columns

    def excluded(self, place: YamlPath) -> tuple[Mapping[str, Any], ...]:
        if not self.get(place[:-1]) or not (value := self.get(place, [])):
            return ()
        if not isinstance(value, list) or not all(isinstance(item, Mapping) and item for item in value):
            raise self.fail(place, f"expected a list of mappings from axes to values, got {value!r}")
        return tuple(value)

    def seeds(self, place: YamlPath) -> Seeds:
        def fail(key: str, problem: str) -> UserError:
            return self.fail((*place, key) if key else place, problem)

        return parse_seeds(self.get(place, 1), fail)

    def searches(self, variants: Mapping[str, Axes]) -> dict[str, Search]:
        shared = read_search(self, ("search",))
        found = {}
        for name, axes in variants.items():
            own = axes.place and self.get(axes.place) and "search" in self.get(axes.place)
            search = read_search(self, (*axes.place, "search")) if own else shared  # search: null switches it off
            if search is not None:
                found[name] = search
        if shared is not None and shared not in found.values():
            raise self.fail(
                ("search",), "every variant has a search of its own, or none, so that this one does nothing"
            )
        return found

    def resources(self) -> Resources:
        place: YamlPath = ("resources",)
        data = self.mapping(place, ("cpus", "gpus", "custom"))
        cpus = self.amount((*place, "cpus"), Resources.cpus)
        gpus = self.amount((*place, "gpus"), Resources.gpus, zero=True)
        custom = {name: self.amount((*place, "custom", name), 0.0) for name in self.mapping((*place, "custom"))}
        for name in custom:
            if not is_custom(name):
                known = {"CPU": "resources.cpus", "GPU": "resources.gpus"}.get(name)
                raise self.fail(
                    (*place, "custom", name),
                    f"'{name}' is a resource of Ray itself; " + (f"write {known}" if known else "choose another name"),
                )
        for key, value in {"gpus": gpus, **custom}.items():
            if value > 1 and value != int(value):
                where = (*place, key) if key in data else (*place, "custom", key)
                kind = "GPU" if key in data else "unit"
                raise self.fail(where, f"expected a fraction of one {kind} or whole {kind}s, got {value!r}")
        return Resources(cpus, gpus, custom)

    def compare(self) -> Compare | None:
        if "compare" not in self.mapping(()):
            return None
        data = self.mapping(("compare",), ("metric", "mode"))
        mode = data.get("mode", "")
        if "mode" in data and mode not in ("min", "max"):
            raise self.fail(("compare", "mode"), f"expected min or max, got {mode!r}")
        if "metric" not in data:
            raise self.fail(("compare",), "expected a metric, such as metric: classifier_fid")
        return Compare(self.text(("compare", "metric"), ""), mode)

    def paper(self) -> Paper | None:
        if "paper" not in self.mapping(()):
            return None
        data = self.mapping(("paper",), ("source", "rows"))
        for key in ("source", "rows"):
            if key not in data:
                raise self.fail(("paper",), f"expected {key}: {PAPER_KEYS[key]}")
        rows = self.mapping(("paper", "rows"))
        for cell in rows:
            for metric, value in self.mapping(("paper", "rows", cell)).items():
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    raise self.fail(("paper", "rows", cell, metric), f"expected a number, got {value!r}")
        return Paper(self.text(("paper", "source"), ""), rows)

    def early_stopping(self) -> EarlyStopping | None:
        """The key ``early_stopping``. An empty metric stands for the one that tables compare by."""
        if "early_stopping" not in self.mapping(()):
            return None
        place: YamlPath = ("early_stopping",)
        scheduler = self.mapping(place).get("scheduler")
        if not isinstance(scheduler, str) or scheduler not in EARLY_STOPPING_KEYS:
            near = nearest(str(scheduler), EARLY_STOPPING_KEYS) if scheduler else "; valid: asha, median"
            raise self.fail((*place, "scheduler"), f"expected a scheduler of Ray Tune, got {scheduler!r}{near}")
        data = self.mapping(place, ("scheduler", "metric", "mode", "grace", *EARLY_STOPPING_KEYS[scheduler]))
        if "grace" not in data:
            raise self.fail(place, "expected grace: the critic iterations before which no trial is stopped")
        mode = data.get("mode", "")
        if mode not in ("", "min", "max"):
            raise self.fail((*place, "mode"), f"expected min or max, got {mode!r}")
        if mode and "metric" not in data:
            raise self.fail((*place, "mode"), "expected metric: NAME beside mode")
        factor = data.get("reduction_factor", EarlyStopping.reduction_factor)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 < factor < math.inf:
            raise self.fail((*place, "reduction_factor"), f"expected a number above 1, got {factor!r}")
        return EarlyStopping(
            scheduler,
            self.whole((*place, "grace"), 1, at_least=1),
            self.text((*place, "metric"), ""),
            mode,
            float(factor),
            self.whole((*place, "minimum_trials"), EarlyStopping.minimum_trials, at_least=1),
        )

    def continue_from(self) -> str | None:
        name = self.get(("continue_from",))
        if name is None:
            return None
        return check_name(name, lambda problem: self.fail(("continue_from",), problem))

    def scale(self) -> dict[str, tuple[str, ...]]:
        scales = self.mapping(("scale",))
        for name in scales:
            check_name(name, lambda problem, name=name: self.fail(("scale", name), problem))
        return {name: self.words(("scale", name)) for name in scales}

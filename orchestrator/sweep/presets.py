"""Composes a trial's configuration from presets and overrides, with Hydra.

Presets lie in ``trainers/conf`` and in the ``conf`` folder of every package that provides a part by an entry point.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import trainers
from orchestrator.errors import UserError
from orchestrator.sweep.syntax import check_has_values
from trainers.parts import ENTRY_POINT_GROUPS, is_path_option, nearest
from trainers.paths import full_path

CONF = Path(trainers.__file__).parent / "conf"


@cache
def preset_folders() -> tuple[Path, ...]:
    """The folders with presets; ours is the first."""
    folders = [CONF]
    for group in ENTRY_POINT_GROUPS.values():
        for point in importlib.metadata.entry_points(group=group):
            spec = importlib.util.find_spec(point.value.partition(":")[0].partition(".")[0])
            for location in (spec.submodule_search_locations or []) if spec else []:
                folder = Path(location) / "conf"
                if folder.is_dir() and folder not in folders:
                    folders.append(folder)
    return tuple(folders)


@cache
def presets() -> dict[str, list[str]]:
    """Every config group with the names of its presets."""
    found: dict[str, set[str]] = {}
    for folder in preset_folders():
        for file in folder.glob("*/*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in found.items()}


def with_full_path(text: str) -> str:
    """An override as Hydra reads it. The value of a path is taken letter by letter, and becomes absolute.

    So it may contain ``=``, spaces, brackets and any letters. Raises :class:`UserError` for a path that is empty or
    names a variable that is not set.
    """
    key, equals, value = text.partition("=")
    if not (equals and is_path_option(key)) or value == "null":
        return text
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    try:
        value = os.path.abspath(full_path(value))
    except ValueError as error:
        raise UserError(f"'{text}': {error}") from None
    if "${" in value:
        raise UserError(f"'{text}': a path with '${{' cannot be given; rename '{value}'")
    return f"{key}={_quoted(value)}"


def _quoted(value: str) -> str:
    """A text in Hydra's quotes. Hydra unescapes only backslashes that stand before a quote; OmegaConf reads ``${``."""
    value = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    value = re.sub(r"(\\+)$", lambda found: found[1] * 2, value)
    return f"'{value}'"


def parse_override(text: str, *, one_trial: bool = False) -> Override:
    """Parses one ``key=value``. Raises :class:`UserError` for bad syntax, several values, or an unknown preset.

    With ``one_trial`` the trial's seed may be set.
    """
    try:
        override = OverridesParser.create().parse_override(with_full_path(text))
    except HydraException as error:
        raise UserError(f"'{text}' is not an override such as penalty.weight=1: {str(error).splitlines()[0]}") from None
    if not override.key_or_group:
        raise UserError(f"'{text}' is not an override such as penalty.weight=1: it names no option")
    if override.is_delete():
        raise UserError(f"'{text}' deletes an option, but a trial has a value for each; write {_instead(override)}")
    check_has_values(text, override.value())
    if override.is_sweep_override():
        raise UserError(f"'{text}' has several values; that is an axis and belongs under grid")
    if "${" in text and not is_path_option(override.key_or_group):  # those of a path are variables
        raise UserError(f"'{text}': interpolations are not allowed here; write the value")
    if override.key_or_group == "seeds" and one_trial:
        raise UserError(f"'{text}': this command trains one trial; write seed=NUMBER")
    if override.key_or_group in ("seed", "seeds") and not one_trial:
        problem = "give seeds in the sweep file, or to orchestrator sweep as seeds=3 (0, 1 and 2) or seeds=[3]"
        raise UserError(f"'{text}': {problem}")
    if override.key_or_group.startswith("hydra"):
        raise UserError(f"'{text}': options of Hydra itself cannot be set here")
    check_preset(override.key_or_group, override.value())
    return override


def _instead(override: Override) -> str:
    key = override.key_or_group
    return f"{key}=none" if "none" in presets().get(key, []) else f"{key}=VALUE"


def check_preset(group: str, name: Any) -> None:
    """Raises :class:`UserError` if ``group`` is a config group that has no preset called ``name``."""
    if group in presets() and name not in presets()[group]:
        raise UserError(f"there is no {group} called '{name}'{nearest(str(name), presets()[group])}")


def compose(overrides: list[str]) -> dict[str, Any]:
    """A trial's configuration as plain values. Raises :class:`UserError` for an override that does not fit."""
    search_path = ",".join(f"'file://{folder}'" for folder in preset_folders()[1:])
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            extra = [f"hydra.searchpath=[{search_path}]"] if search_path else []
            config = hydra_compose("config", overrides=[*extra, *map(with_full_path, overrides)])
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        problem = str(error).splitlines()[0]
        if unknown := re.fullmatch(r"Could not override '(.+)'\.", problem):
            problem = f"there is no option '{unknown[1]}'{_near_option(unknown[1], overrides)}"
        raise UserError(problem) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def option_paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every option that an axis can name. A part's ``name`` is not one, because its preset sets it."""
    for key, value in values.items():
        if key != "name":
            yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from option_paths(value, f"{prefix}{key}.")


def _near_option(name: str, overrides: list[str]) -> str:
    others = [text for text in overrides if text.partition("=")[0] != name]
    return nearest(name, option_paths(compose(others))) if len(others) < len(overrides) else ""

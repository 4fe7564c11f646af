"""Reads YAML strictly, with the line of every value. Keys must be unique; floats are parsed as OmegaConf does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from orchestrator.errors import UserError

YamlPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """``data`` as plain values; ``error`` points at the line of a place such as ``("grid", "penalty.weight", 0)``."""

    path: Path
    text: str
    data: Any
    lines: dict[YamlPath, int] = field(repr=False)

    def error(self, place: YamlPath, problem: str) -> UserError:
        """An error that names the file, the line and the place."""
        while place not in self.lines:
            place = place[:-1]
        where = ".".join(str(piece) for piece in place if isinstance(piece, str))
        return UserError(f"{self.path}:{self.lines[place]}: {where + ': ' if where else ''}{problem}")


def read_document(path: Path) -> Document:
    """Reads a file. Raises :class:`UserError` if it is missing, is not valid YAML, or repeats a key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file{_beside(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    try:
        loader = get_yaml_loader()(text)
        root = loader.get_single_node()
        lines: dict[YamlPath, int] = {(): 1}
        if root is not None:
            _record_lines(root, (), lines, path)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise UserError(f"{path}:{line}: this is not valid YAML: {problem}") from None
    except RecursionError:
        raise UserError(f"{path}: nested deeper than a sweep file can be") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: this is not valid YAML: {problem}") from None
    except ValueError as error:  # a tag such as !!int that does not fit its value
        raise UserError(f"{path}: this is not valid YAML: {error}") from None
    return Document(path, text, data, lines)


def _record_lines(
    node: yaml.Node, place: YamlPath, lines: dict[YamlPath, int], path: Path, above: tuple[yaml.Node, ...] = ()
) -> None:
    if any(node is each for each in above):
        raise UserError(f"{path}:{node.start_mark.line + 1}: an anchor contains itself")
    above = (*above, node)
    if len(above) > 50:
        raise UserError(f"{path}:{node.start_mark.line + 1}: nested deeper than a sweep file can be")
    if node.tag.startswith("tag:yaml.org,2002:python/") or node.tag.startswith("!"):
        raise UserError(f"{path}:{node.start_mark.line + 1}: a tag such as '{node.tag}' is not allowed here")
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else str(key)
            line = key.start_mark.line + 1
            if (*place, name) in lines:
                raise UserError(f"{path}:{line}: '{name}' is given twice (first on line {lines[*place, name]})")
            lines[*place, name] = line
            _record_lines(value, (*place, name), lines, path, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record_lines(value, (*place, index), lines, path, above)


def _beside(path: Path) -> str:
    from trainers.parts import nearest

    folder = path.parent
    files = [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []
    return nearest(path.name, files) if files else ""

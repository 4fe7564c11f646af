"""Reads YAML strictly, with the line of every value.

Keys must be unique. Floats are parsed as OmegaConf does. What YAML 1.1 reads otherwise than a person is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from orchestrator.errors import UserError

YamlPath = tuple[str | int, ...]
MAX_VALUES = 200_000
"""A file with more values, each anchor counted as often as it is used, is an error."""
MERGE = "tag:yaml.org,2002:merge"


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
        return _error(self.path, self.lines[place], place, problem)


def _error(path: Path, line: int, place: YamlPath, problem: str) -> UserError:
    """An error that names the file, the line and the place."""
    where = ".".join(piece for piece in place if isinstance(piece, str))
    return UserError(f"{path}:{line}: {where + ': ' if where else ''}{problem}")


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
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # a tag that does not fit its value
        raise UserError(
            f"{path}: this is not valid YAML: a tag such as !!int does not fit its value ({error})"
        ) from None
    return Document(path, text, data, lines)


def _record_lines(
    node: yaml.Node, place: YamlPath, lines: dict[YamlPath, int], path: Path, above: tuple[yaml.Node, ...] = ()
) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if problem := _unusable(node, above, len(lines)):
        raise UserError(f"{path}:{node.start_mark.line + 1}: {problem}")
    above = (*above, node)
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, place, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else str(key)
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                _check_scalar(key, place, path)
            if (*place, name) in lines:
                raise UserError(f"{path}:{line}: '{name}' is given twice (first on line {lines[*place, name]})")
            lines[*place, name] = line
            _record_lines(value, (*place, name), lines, path, above)
        for key, value in node.value:
            if key.tag == MERGE:
                _record_merged(value, place, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record_lines(value, (*place, index), lines, path, above)


def _unusable(node: yaml.Node, above: tuple[yaml.Node, ...], number: int) -> str | None:
    """Why a sweep file cannot hold this node, below the nodes ``above`` and after ``number`` others. None if it can."""
    if any(node is each for each in above):
        return "an anchor contains itself"
    if len(above) > 49:
        return "nested deeper than a sweep file can be"
    if node.tag.startswith("tag:yaml.org,2002:python/") or node.tag.startswith("!"):
        return f"a tag such as '{node.tag}' is not allowed here"
    return f"more than {MAX_VALUES:,} values are too many" if number > MAX_VALUES else None


def _record_merged(node: yaml.Node, place: YamlPath, lines: dict[YamlPath, int]) -> None:
    """Records the lines of keys that ``<<`` brings in, unless the mapping has them itself."""
    for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        for key, _ in each.value if isinstance(each, yaml.MappingNode) else []:
            if isinstance(key, yaml.ScalarNode):
                lines.setdefault((*place, key.value), key.start_mark.line + 1)


def _check_scalar(node: yaml.ScalarNode, place: YamlPath, path: Path) -> None:
    """Raises :class:`UserError` for a value or key that YAML 1.1 reads otherwise than a person."""
    if problem := _misread(node):
        raise _error(path, node.start_mark.line + 1, place, problem)


def _misread(node: yaml.ScalarNode) -> str | None:
    """Why a scalar is ambiguous, and what to write instead. None if YAML reads it as a person does."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    quote = f'or "{text}" if it is text'
    if kind == "bool" and text.lower() in ("yes", "on", "no", "off"):
        meant = "true" if text.lower() in ("yes", "on") else "false"
        return f"YAML reads '{text}' as {meant}; write {meant}, {quote}"
    if kind in ("int", "float") and ":" in text:
        return f"YAML reads '{text}' as a number to base 60; write the number in decimal digits, {quote}"
    if kind in ("int", "float") and re.search(r"(?<![0-9a-fA-F])_|_(?![0-9a-fA-F])", text):
        return f"'{text}' is no usual way to write a number; write {text.replace('_', '')}, {quote}"
    unquoted_text = kind == "str" and node.style is None
    if unquoted_text and re.fullmatch(r"[-+]?0[oO][0-9_]+", text):
        return f"YAML reads '{text}' as text; write the number in decimal digits, {quote}"
    if (unquoted_text or kind == "int") and (found := re.fullmatch(r"([-+]?)0([0-9_]+)", text)):
        sign, digits = found[1].strip("+"), found[2].replace("_", "").lstrip("0") or "0"
        read = "as text" if kind == "str" else f"as an octal number, {sign}{int(digits, 8)}"
        return f"YAML reads '{text}' {read}; write {sign}{digits}, {quote}"
    if unquoted_text and re.search(r"[0-9]", text) and (number := _float(text)) is not None:
        return f"YAML reads '{text}' as text; write {number!r}, {quote}"
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _beside(path: Path) -> str:
    from trainers.parts import nearest

    folder = path.parent
    files = [file.name for file in folder.glob("*.y*ml")] if folder.is_dir() else []
    return nearest(path.name, files) if files else ""

"""YAML that this program wrote, read back: without tags, and bounded."""

from __future__ import annotations

from typing import Any

import yaml

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is available
MAX_VALUES = 200_000
"""A text with more values, each anchor counted as often as it is used, is refused."""
DEPTH = 50
"""The number of levels that a text may have."""
SHORT = 2**12
"""A text with at most as many letters has too few levels to be dangerous."""


def read_yaml(content: bytes) -> Any:
    """The value of a YAML text. Raises ValueError or yaml.YAMLError for any other text, and for too many values."""
    text = content.decode()
    if len(text) > SHORT:
        _check_depth(text)
    if "*" not in text:  # without aliases the value is as large as the text
        return yaml.load(text, Loader=SAFE_LOADER)
    loader = SAFE_LOADER(text)
    try:
        root = loader.get_single_node()
        _count(root, {})
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """Raises ValueError for too many levels. Building them, PyYAML's C code would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=SAFE_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError("it is nested too deeply")


def _count(node: yaml.Node | None, known: dict[int, int], depth: int = 0) -> int:
    """The number of values of a node, with those that its aliases stand for."""
    if depth > DEPTH:
        raise ValueError("it is nested too deeply")
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_count(part, known, depth + 1) for part in parts)
    if known[id(node)] > MAX_VALUES:
        raise ValueError(f"it has more than {MAX_VALUES:,} values")
    return known[id(node)]

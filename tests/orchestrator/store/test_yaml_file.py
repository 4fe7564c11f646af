"""Stored YAML is read back without tags, and as large as it says it is."""

from __future__ import annotations

import itertools
import string

import pytest
import yaml

from orchestrator.store.yaml_file import read_yaml


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "é"], "b": {"c": {}}}, {"star": "2*3"}])
def test_what_was_written_is_read(value: object) -> None:
    assert read_yaml(yaml.safe_dump(value, sort_keys=False).encode()) == value


def test_a_few_aliases_are_read() -> None:
    """PyYAML writes one for a list that stands at two places."""
    shared = [1, 2]
    text = yaml.safe_dump({"a": shared, "b": shared})
    assert "*" in text
    assert read_yaml(text.encode()) == {"a": [1, 2], "b": [1, 2]}


def test_aliases_that_multiply_are_refused_at_once() -> None:
    names = string.ascii_lowercase[:15]
    lines = [f"{names[0]}: &{names[0]} [{', '.join('x' * 9)}]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise(names)]
    with pytest.raises(ValueError, match="more than 200,000 values"):
        read_yaml("\n".join(lines).encode())


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 100_000, "- " * 100_000, "a: &b 1\nc: " + "[" * 5000 + "*b"])
def test_what_has_no_end_is_refused(text: str) -> None:
    """PyYAML's C code ends the process for these: its stack overflows."""
    with pytest.raises((ValueError, yaml.YAMLError)):
        read_yaml(text.encode())


@pytest.mark.parametrize("depth", [40, 2000])
def test_a_short_text_is_read_however_deep_it_is(depth: int) -> None:
    value = read_yaml(("[" * depth + "]" * depth).encode())
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: !!python/name:os.system", b"a: ["])
def test_what_is_no_plain_yaml_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        read_yaml(content)

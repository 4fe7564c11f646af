"""YAML, read strictly, with the line of every value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import write_file

from orchestrator.errors import UserError
from orchestrator.sweep.document import YamlPath, read_document

TEXT = """\
# a comment
name: s
grid:
  penalty.weight: [1,
    10]
variants:
  one:
    exclude:
      - {penalty.weight: 1}
"""


@pytest.mark.parametrize(
    ("place", "line", "where"),
    [
        pytest.param((), 1, "", id="the file"),
        pytest.param(("name",), 2, "name: ", id="a key"),
        pytest.param(("grid", "penalty.weight"), 4, "grid.penalty.weight: ", id="a key below"),
        pytest.param(("grid", "penalty.weight", 1), 5, "grid.penalty.weight: ", id="an item of a list"),
        pytest.param(("variants", "one", "exclude", 0), 9, "variants.one.exclude: ", id="a mapping in a list"),
        pytest.param(("variants", "one", "grid", "x"), 7, "variants.one: ", id="what is not there: the nearest above"),
    ],
)
def test_an_error_points_at_the_line_of_its_place(tmp_path: Path, place: YamlPath, line: int, where: str) -> None:
    path = write_file(tmp_path, TEXT)
    assert str(read_document(path).error(place, "is odd")) == f"{path}:{line}: {where}is odd"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        pytest.param("1e-4", 1e-4, id="exponent without a point"),
        pytest.param("1.0", 1.0, id="float"),
        pytest.param("1", 1, id="integer"),
        pytest.param("1_000", 1000, id="underscores"),
        pytest.param("1_000.5", 1000.5, id="a float with underscores"),
        pytest.param("0x10", 16, id="hexadecimal"),
        pytest.param("-0", 0, id="zero"),
        pytest.param("00.5", 0.5, id="a float with leading zeros"),
        pytest.param("2024-01-02", "2024-01-02", id="no dates"),
        pytest.param("'010'", "010", id="digits in quotes"),
        pytest.param("'yes'", "yes", id="yes in quotes"),
        pytest.param("007_a", "007_a", id="a word that begins with zeros"),
        pytest.param("12:99", "12:99", id="no number to base 60"),
        pytest.param("~", None, id="YAML's sign for null"),
        pytest.param("true", True, id="true"),
        pytest.param("cross", "cross", id="word"),
        pytest.param("null", None, id="null"),
        pytest.param("[1, {a: 2}]", [1, {"a": 2}], id="nested"),
    ],
)
def test_values_are_what_omegaconf_makes_of_them(tmp_path: Path, written: str, value: object) -> None:
    read = read_document(write_file(tmp_path, f"value: {written}\n")).data["value"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", 3, ["'a'", "twice", "line 1"], id="duplicate key"),
        pytest.param("a:\n  b: 1\n  b: 2\n", 3, ["'b'", "twice", "line 2"], id="duplicate key below"),
        pytest.param("a: [1, 2\nb: 3\n", 2, ["not valid YAML"], id="bracket left open"),
        pytest.param("a: 1\n\tb: 2\n", 2, ["not valid YAML"], id="tab"),
        pytest.param("a: !!python/object/apply:os.system [ls]\n", 1, ["python/object/apply:os.system"], id="call"),
        pytest.param("a: 1\nb: !!python/name:os.system\n", 2, ["python/name:os.system"], id="name"),
        pytest.param("a: &a [1, *a]\n", 1, ["contains itself"], id="a list that holds itself"),
        pytest.param("a: *b\n", 1, ["undefined alias"], id="undefined alias"),
        pytest.param("? [1, 2]\n: 3\n", 1, ["unhashable"], id="a list as key"),
        pytest.param("a: 1\n---\nb: 2\n", 2, ["document"], id="two documents"),
    ],
)
def test_what_cannot_be_read_is_an_error_at_its_line(tmp_path: Path, text: str, line: int, told: list[str]) -> None:
    path = write_file(tmp_path, text)
    with pytest.raises(UserError) as raised:
        read_document(path)
    message = str(raised.value)
    assert message.startswith(f"{path}:{line}: ")
    assert all(word in message for word in told), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("written", "told"),
    [
        pytest.param("010", ["octal number, 8", "write 10,"], id="leading zero"),
        pytest.param("-064", ["octal number, -52", "write -64,"], id="a negative number with a leading zero"),
        pytest.param("0_7", ["octal number, 7", "write 7,"], id="leading zero and underscore"),
        pytest.param("08", ["as text", "write 8,"], id="a leading zero that makes it text"),
        pytest.param("0o10", ["as text", "decimal digits"], id="octal of YAML 1.2"),
        pytest.param("1:30", ["base 60"], id="sexagesimal"),
        pytest.param("1:30.5", ["base 60"], id="sexagesimal float"),
        pytest.param('!!int "010"', ["octal number, 8"], id="a tag before quotes"),
        pytest.param("1__0", ["write 10,"], id="two underscores"),
        pytest.param("1_", ["write 1,"], id="an underscore at the end"),
        pytest.param("-.5", ["as text", "write -0.5,"], id="no digit before a point"),
        pytest.param(".5e3", ["as text", "write 500.0,"], id="no digit before a point, exponent"),
        *(pytest.param(word, ["as true", "write true,"], id=word) for word in ("yes", "Yes", "on", "ON")),
        *(pytest.param(word, ["as false", "write false,"], id=word) for word in ("no", "NO", "off", "Off")),
    ],
)
def test_what_yaml_reads_otherwise_than_a_person_is_an_error(tmp_path: Path, written: str, told: list[str]) -> None:
    for text in (f"a: 1\nb: {written}\n", f"a: 1\nb: [2, {written}]\n", f"a: 1\nb: {{c: {written}}}\n"):
        path = write_file(tmp_path, text)
        with pytest.raises(UserError) as raised:
            read_document(path)
        message = str(raised.value)
        assert message.startswith(f"{path}:2: b")
        assert "if it is text" in message
        assert all(word in message for word in told), message


def test_a_key_that_yaml_reads_as_a_truth_value_is_an_error(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a:\n  on: 1\n")
    with pytest.raises(UserError, match=r":2: a: YAML reads 'on' as true"):
        read_document(path)


def test_merged_keys_have_lines(tmp_path: Path) -> None:
    path = write_file(tmp_path, "x: &a {b: 1,\n  d: 1}\nc:\n  <<: *a\n  d: 2\n")
    document = read_document(path)
    assert document.data["c"] == {"b": 1, "d": 2}
    assert str(document.error(("c", "b"), "is odd")) == f"{path}:1: c.b: is odd"
    assert str(document.error(("c", "d"), "is odd")) == f"{path}:5: c.d: is odd"


def test_anchors_that_multiply_are_an_error_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match="200,000 values"):
        read_document(write_file(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"a: caf\xe9\n", id="latin-1"),
        pytest.param(b"a: \x00\n", id="a control character"),
        pytest.param(b"a: !!int three\n", id="a tag that does not fit its value"),
        pytest.param(b"a: !!int\n", id="a tag without a value"),
        pytest.param(b"a: !!bool perhaps\n", id="a tag of another kind"),
        pytest.param(b"a: !!timestamp soon\n", id="a tag of a time"),
    ],
)
def test_a_file_of_the_wrong_content_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_document(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    write_file(tmp_path, "a: 1\n", "ground_metrics.yaml")
    with pytest.raises(UserError, match=r"groundmetrics\.yaml: there is no such file.*did you mean 'ground_metrics\."):
        read_document(tmp_path / "groundmetrics.yaml")


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        read_document(tmp_path)


def test_an_empty_file_has_no_data(tmp_path: Path) -> None:
    assert read_document(write_file(tmp_path, "")).data is None

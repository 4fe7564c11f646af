"""The dimensions of a search space: what a sweep file may write, what each holds, and what comes of damaged ones."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.sweep.space import Dimension, dimension_from, is_dimension, key_of, parse_dimension
from orchestrator.sweep.syntax import parse_value

WRITTEN = {
    "interval(0, 1)": Dimension("float", 0.0, 1.0),
    "interval(-2.5, 1)": Dimension("float", -2.5, 1.0),
    "tag(log, interval(1e-5, 1e-2))": Dimension("float", 1e-5, 1e-2, log=True),
    "int(interval(1, 8))": Dimension("int", 1, 8),
    "tag(log, int(interval(1, 64)))": Dimension("int", 1, 64, log=True),
    "int(tag(log, interval(1, 64)))": Dimension("int", 1, 64, log=True),
    "range(32, 129, 32)": Dimension("int", 32, 128, step=32),
    "range(1, 9)": Dimension("int", 1, 8),
    "range(4)": Dimension("int", 0, 3),
    "range(5, 0, -2)": Dimension("int", 1, 5, step=2),
    "range(7, 8)": Dimension("int", 7, 7),
    "range(0, 1, 0.25)": Dimension("float", 0.0, 0.75, step=0.25),
    "range(0.1, 0.6, 0.1)": Dimension("float", 0.1, 0.5, step=0.1),
    "range(1, 0, -0.25)": Dimension("float", 0.25, 1.0, step=0.25),
    "float(range(0, 4))": Dimension("float", 0.0, 3.0, step=1.0),
    "choice(a, b)": Dimension("choice", values=("a", "b")),
    "choice(1)": Dimension("choice", values=(1,)),
    "1, 10": Dimension("choice", values=(1, 10)),
    "choice('1', 1, true)": Dimension("choice", values=("1", 1, True)),
    "choice([[0, 1], [1, 0]], {a: 'b'})": Dimension("choice", values=([[0, 1], [1, 0]], {"a": "b"})),
}


@pytest.mark.parametrize(("text", "dimension"), WRITTEN.items(), ids=WRITTEN)
def test_a_space_is_written_as_for_hydras_optuna_sweeper(text: str, dimension: Dimension) -> None:
    read = parse_dimension(text)
    assert read == dimension
    assert [type(value) for value in (read.low, read.high)] == [
        type(value) for value in (dimension.low, dimension.high)
    ]


def test_a_list_is_a_choice() -> None:
    assert parse_dimension([0.1, "gradient", True, None, [[1, 0]]]).values == (0.1, "gradient", True, None, [[1, 0]])


@pytest.mark.parametrize("text", [text for text in WRITTEN if text.startswith(("range", "choice", "1,"))])
def test_a_range_and_a_choice_name_the_same_values_as_in_a_grid(text: str) -> None:
    dimension, (values, _) = parse_dimension(text), parse_value(text)
    assert dimension.count == len(values)
    in_space = [dimension.nth(index) for index in range(len(values))]
    assert {repr(value) for value in in_space} == {repr(value) for value in values}


BAD: list[tuple[Any, str]] = [
    ([], "[]: expected at least one value"),
    ("choice()", "'choice()' is not a Hydra sweep: "),
    ("choice(1, 1.0)", "'choice(1, 1.0)': 1.0 is there twice"),
    ([1, True, 1], "[1, True, 1]: 1 is there twice"),
    ("choice(nan)", "'choice(nan)': 'nan' is no value to choose"),
    ("interval(1, 0)", "'interval(1, 0)': the bounds are upside down; write the lower one first: interval(0.0, 1.0)"),
    ("interval(1, 1)", "'interval(1, 1)' has one point; write a higher upper bound, or name the value below 'base'"),
    ("int(interval(3, 3))", "'int(interval(3, 3))' has one point; "),
    (
        "tag(log, interval(0, 1))",
        "'tag(log, interval(0, 1))': a logarithmic interval begins above 0, and this one begins",
    ),
    ("tag(log, int(interval(-1, 4)))", "begins above 0, and this one begins at -1"),
    ("range(5, 5)", "'range(5, 5)' has no values: its stop is not one of them"),
    ("range(0, 5, -1)", "'range(0, 5, -1)' has no values"),
    ("range(0, 5, 0)", "expected finite numbers and a step other than 0"),
    ("range(0, inf)", "expected finite numbers and a step other than 0"),
    ("range(0, 1, 1e-300)", "'range(0, 1, 1e-300)': expected fewer steps"),
    ("interval(0, inf)", "'interval(0, inf)': expected finite bounds"),
    ("interval(nan, 1)", "'interval(nan, 1)': expected finite bounds"),
    ("interval(-1e308, 1e308)", "expected finite bounds"),
    ("int(interval(0, inf))", "'int(interval(0, inf))'"),
    (
        "tag(lgo, interval(1, 2))",
        "'tag(lgo, interval(1, 2))': unknown tag 'lgo'; the one tag that a space knows is 'log'",
    ),
    ("tag(log, range(1, 9, 2))", "only an interval can be logarithmic, such as tag(log, interval(1e-5, 1e-2))"),
    ("tag(log, choice(1, 10))", "only an interval can be logarithmic"),
    ("shuffle(range(1, 9))", "a space has no order; leave shuffle and sort away"),
    ("sort(choice(2, 1))", "a space has no order; leave shuffle and sort away"),
    ("5", "'5' leaves nothing to choose; expected a list of values or a text such as interval(0, 1), "),
    ("gradient", "'gradient' leaves nothing to choose"),
    ("*", "'*' leaves nothing to choose"),
    ("glob(*)", "'glob(*)' leaves nothing to choose"),
    ("[1, 2]", "'[1, 2]' is one value; write the list without quotes, or choice(a, b)"),
    ("interval(", "'interval(' is not a Hydra sweep: "),
    (5, "expected a list of values or a text such as interval(0, 1), "),
    (None, "expected a list of values or a text such as"),
    ({"low": 0}, "expected a list of values or a text such as"),
]


@pytest.mark.parametrize(("written", "problem"), BAD, ids=[str(written) for written, _ in BAD])
def test_what_names_no_space_is_an_error_that_says_why(written: Any, problem: str) -> None:
    with pytest.raises(UserError) as error:
        parse_dimension(written)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_grid_sends_an_interval_to_a_search() -> None:
    with pytest.raises(UserError, match=r"an interval names no values; .* it belongs below 'space' of a 'search'"):
        parse_value("interval(0, 1)")


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def dimensions(draw: st.DrawFn) -> Dimension:
    match draw(st.sampled_from(["float", "log", "int", "log int", "stepped float", "stepped int", "choice"])):
        case "float":
            low, high = draw(st.tuples(numbers(-1e6, 1e6), numbers(-1e6, 1e6)).filter(lambda pair: pair[0] < pair[1]))
            return Dimension("float", low, high)
        case "log":
            low, high = draw(st.tuples(numbers(1e-12, 1e6), numbers(1e-12, 1e6)).filter(lambda pair: pair[0] < pair[1]))
            return Dimension("float", low, high, log=True)
        case "int":
            low_whole = draw(st.integers(-1000, 1000))
            return Dimension("int", low_whole, low_whole + draw(st.integers(0, 1000)))
        case "log int":
            low_whole = draw(st.integers(1, 1000))
            return Dimension("int", low_whole, low_whole + draw(st.integers(1, 10**6)), log=True)
        case "stepped float":
            start, step = draw(st.integers(-100, 100)), draw(st.integers(1, 50))
            return parse_dimension(f"range({start / 100}, {start / 100 + draw(st.integers(1, 500))}, {step / 100})")
        case "stepped int":
            start, step = draw(st.integers(-100, 100)), draw(st.integers(1, 50))
            return parse_dimension(f"range({start}, {start + draw(st.integers(1, 500))}, {step})")
        case _:
            values = st.one_of(
                st.integers(-5, 5), st.text(max_size=2), st.booleans(), st.lists(st.integers(0, 1), max_size=2)
            )
            return Dimension("choice", values=tuple(draw(st.lists(values, min_size=1, max_size=5, unique_by=key_of))))


fractions = st.floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=300)
@given(dimension=dimensions(), fraction=fractions)
def test_a_dimension_holds_what_it_proposes_also_after_json(dimension: Dimension, fraction: float) -> None:
    value = dimension.at(fraction)
    stored = json.loads(json.dumps(dimension.to_dict()))
    assert is_dimension(stored)
    assert dimension_from(stored) == dimension
    assert dimension.holds(json.loads(json.dumps(value)))
    if dimension.count is not None:
        index = dimension.index(value)
        assert index is not None
        assert 0 <= index < dimension.count
        assert dimension.nth(index) == value


def is_wide(dimension: Dimension) -> bool:
    """Whether an interval is no narrow part far from 0."""
    width = dimension.high - dimension.low
    return dimension.count is None and 5 * width > max(abs(dimension.low), abs(dimension.high))


@settings(deadline=None, max_examples=300)
@given(dimension=dimensions().filter(is_wide), fraction=fractions)
def test_a_float_has_four_significant_digits(dimension: Dimension, fraction: float) -> None:
    value = dimension.at(fraction)
    assert value in (dimension.low, dimension.high, float(f"{value:.4g}"))


def test_a_narrow_interval_keeps_a_hundred_values_apart() -> None:
    for text in ("interval(999, 1000)", "interval(0.99999, 1)", "tag(log, interval(1, 1.001))"):
        dimension = parse_dimension(text)
        assert len({dimension.at(part / 500) for part in range(500)}) >= 100


def test_steps_are_decimal() -> None:
    dimension = parse_dimension("range(0, 1, 0.1)")
    assert [dimension.nth(index) for index in range(dimension.count or 0)] == [
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
    ]
    assert dimension.holds(0.3)
    assert not dimension.holds(0.1 + 0.2)


def test_the_logarithm_is_spread_evenly() -> None:
    dimension = parse_dimension("tag(log, interval(1e-4, 1))")
    assert [dimension.at(part / 4) for part in range(4)] == [1e-4, 1e-3, 1e-2, 0.1]
    whole = parse_dimension("tag(log, int(interval(1, 64)))")
    drawn = [whole.at(part / 1000) for part in range(1000)]
    assert math.isclose(
        sum(value <= 8 for value in drawn) / 1000, math.log(8.5 / 0.5) / math.log(64.5 / 0.5), abs_tol=0.01
    )
    assert (drawn[0], drawn[-1]) == (1, 64)


@pytest.mark.parametrize(
    ("text", "held", "others"),
    [
        ("interval(0, 1)", [0, 1, 0.5, 1e-300], [-1e-9, 1.1, "0.5", True, None, math.nan, math.inf, [0.5]]),
        ("int(interval(1, 8))", [1, 8, 2.0], [0, 9, 2.5, True, "2"]),
        ("range(32, 129, 32)", [32, 128], [33, 129, 160, 0]),
        ("choice(1, a, [0, 1], {b: 2})", [1, 1.0, "a", [0, 1], {"b": 2.0}], [True, "1", [1, 0], {"b": 3}, None, []]),
    ],
)
def test_a_value_outside_is_not_held(text: str, held: list[Any], others: list[Any]) -> None:
    dimension = parse_dimension(text)
    assert all(map(dimension.holds, held))
    assert not any(map(dimension.holds, others))


DAMAGED: list[Any] = [
    None,
    [],
    {},
    {"kind": "float"},
    {"kind": "folat", "low": 0, "high": 1},
    {"kind": ["float"], "low": 0, "high": 1},
    {"kind": "float", "low": "0", "high": 1},
    {"kind": "float", "low": 0, "high": math.inf},
    {"kind": "float", "low": 1, "high": 0},
    {"kind": "float", "low": 0, "high": 1, "log": True},
    {"kind": "float", "low": 0, "high": 1, "log": "no"},
    {"kind": "float", "low": 0, "high": 1, "step": 0},
    {"kind": "float", "low": 0, "high": 1, "step": 0.3},
    {"kind": "float", "low": 0, "high": 1, "step": "0.5"},
    {"kind": "int", "low": 0.5, "high": 1},
    {"kind": "int", "low": True, "high": 3},
    {"kind": "int", "low": 1, "high": 9, "step": 2, "log": True},
    {"kind": "choice"},
    {"kind": "choice", "values": []},
    {"kind": "choice", "values": "ab"},
    {"kind": "choice", "values": [1, 1]},
]


@pytest.mark.parametrize("stored", DAMAGED, ids=str)
def test_a_damaged_dimension_is_recognised(stored: Any) -> None:
    assert not is_dimension(stored)


def test_a_key_of_a_newer_version_is_ignored() -> None:
    stored = {"kind": "int", "low": 1, "high": 8, "prior": "even"}
    assert is_dimension(stored)
    assert dimension_from(stored) == parse_dimension("int(interval(1, 8))")

"""The grammar of filters: what is read, and the one line for what is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.where import (
    All,
    Any,
    Compare,
    Condition,
    IsNull,
    IsTrue,
    Not,
    OneOf,
    Value,
    columns_of,
    parse_where,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", Compare("a", "=", 1)),
        ("a == 'x'", Compare("a", "=", "x")),
        ('a <> "x"', Compare("a", "!=", "x")),
        ("a>=-1.5e3", Compare("a", ">=", -1500.0)),
        ("a = 'it''s'", Compare("a", "=", "it's")),
        ("a = TRUE", Compare("a", "=", True)),
        ("`my column` < 3", Compare("my column", "<", 3)),
        ('"my column" < 3', Compare("my column", "<", 3)),
        ("größe_1.cm <= .5", Compare("größe_1.cm", "<=", 0.5)),
        ("in_stock", IsTrue("in_stock")),
        ("not in_stock", Not(IsTrue("in_stock"))),
        ("a IN ('x', 2)", OneOf("a", ("x", 2), negated=False)),
        ("a not in (1)", OneOf("a", (1,), negated=True)),
        ("a is null", IsNull("a", negated=False)),
        ("a IS NOT NULL", IsNull("a", negated=True)),
        ("a and b or c", Any((All((IsTrue("a"), IsTrue("b"))), IsTrue("c")))),
        ("a and (b or not c)", All((IsTrue("a"), Any((IsTrue("b"), Not(IsTrue("c"))))))),
    ],
)
def test_a_filter_is_read(text: str, expected: Condition) -> None:
    assert parse_where(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found nothing at letter 1, where the name of a column must stand"),
        ("a =", "found nothing at letter 4, where a number, a text in quotes, true or false must stand"),
        ("department != FUEL", r"found FUEL at letter 15, .*text stands in quotes: 'FUEL'"),
        ("'FUEL' = department", "found FUEL .* where the name of a column must stand .text comes after"),
        ("a = null", "write: is null"),
        ("a = 'x", "the quote at letter 5 has no end: 'x"),
        ("a in 1", r"found 1 at letter 6, where '\(' must stand"),
        ("a in ()", "where a number"),
        ("(a = 1", r"found nothing at letter 7, where '\)' must stand"),
        ("a = 1 b = 2", "found b at letter 7, where 'and', 'or' or the end must stand"),
        ("a is 3", "where null or not null must stand"),
        ("a not 3", "where in must stand"),
        ("a like 'x'", "found like at letter 3, where =, !=, "),
        ("a = 1; drop", "cannot read ; drop at letter 6"),
        ("__import__('os')", r"found \( at letter 11"),
        ("a = 1 && b", "cannot read && b at letter 7"),
        ("a = 1.2.3", "cannot read 1.2.3 at letter 5"),
        ("(" * 1000 + "a" + ")" * 1000, "more than 50 conditions within each other"),
        ("not " * 5000 + "a", "more than 50"),
        ("a = '" + "x" * 100_000 + "'", "100,006 letters; at most 100,000"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_where(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_many_conditions_beside_each_other_are_no_depth() -> None:
    found = parse_where(" or ".join(f"a = {number}" for number in range(5000)))
    assert isinstance(found, Any)
    assert len(found.of) == 5000


def test_columns_are_named_once_in_order() -> None:
    assert columns_of(parse_where("b = 1 and not (a or c is null) or b in (2)")) == ["b", "a", "c"]


VALUES: st.SearchStrategy[Value] = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="`"), min_size=1, max_size=6).map(str)
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Compare, NAMES, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), VALUES),
    st.builds(OneOf, NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple), st.booleans()),
    st.builds(IsNull, NAMES, st.booleans()),
    st.builds(IsTrue, NAMES),
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Any, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def written(condition: Condition) -> str:
    """The filter that says it, every part in brackets."""
    match condition:
        case Compare(column, operator, value):
            return f"`{column}` {operator} {value_text(value)}"
        case OneOf(column, values, negated):
            return f"`{column}` {'not ' * negated}in ({', '.join(map(value_text, values))})"
        case IsNull(column, negated):
            return f"`{column}` is {'not ' * negated}null"
        case IsTrue(column):
            return f"`{column}`"
        case Not(inner):
            return f"not ({written(inner)})"
        case All(parts):
            return " and ".join(f"({written(part)})" for part in parts)
        case Any(parts):
            return " or ".join(f"({written(part)})" for part in parts)


def value_text(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else json.dumps(value)


@given(CONDITIONS)
def test_what_is_written_out_is_read_back(condition: Condition) -> None:
    assert parse_where(written(condition)) == condition


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_one_line(text: str) -> None:
    try:
        parse_where(text)
    except ValueError as error:
        mistake = str(error)
    else:
        mistake = "none"
    assert mistake
    assert "\n" not in mistake

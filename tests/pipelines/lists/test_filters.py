"""Filters over columns of items: what is let in, and the one line for what cannot be asked."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind_core.diversity import NO_CATEGORY
from pipelines.config.where import parse_where
from pipelines.dataset.dataset import FeatureInfo
from pipelines.errors import UserError
from pipelines.lists.columns import ItemColumns
from pipelines.lists.filters import filtered

COLUMNS = ItemColumns(
    {
        "id": pa.array(["a", "b", "c", "d"]),
        "department": pa.array(["FUEL", "DELI", None, "DELI"]).dictionary_encode(),
        "price": pa.array([1.5, 9.0, 3.0, None]),
        "size": pa.array([1, 2, 3, 2**62 + 1]),
        "in_stock": pa.array([True, False, None, True]),
        "since": pa.array([date(2020, 1, 1), date(2024, 5, 5), None, date(2025, 1, 1)]),
        "cost": pa.array([Decimal("1.10"), Decimal("2.20"), None, Decimal("0.50")]),
        "genres": pa.array(["Drama|War", "War", "", None]),
        "tags": pa.array([["x", "y"], [], None, ["z"]]),
        "my column": pa.array(["it's", "", "x", "y"]),
        "nothing": pa.nulls(4),
    },
    (FeatureInfo("genres", "multi", 5, separator="|"),),
)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("department != 'FUEL'", "bd"),  # c has none: neither equal nor not
        ("department != 'FUEL' or department is null", "bcd"),
        ("not department = 'FUEL'", "bd"),
        ("department in ('FUEL', 'DELI') and price < 5", "a"),
        ("department not in ('FUEL')", "bd"),
        ("price >= 3", "bc"),
        ("price = 9", "b"),
        ("size > 2.5", "cd"),
        (f"size = {2**62 + 1}", "d"),
        (f"size < {10**30}", "abcd"),
        ("in_stock", "ad"),
        ("in_stock = false", "b"),
        ("not in_stock", "b"),
        ("since >= '2024-05-05'", "bd"),
        ("cost < 2", "ad"),
        ("genres = 'War'", "ab"),
        ("genres != 'War'", "c"),  # an empty text has no genre; d has no value at all
        ("genres in ('Drama', 'Crime')", "a"),
        ("tags not in ('x', 'z')", "b"),
        ("tags is null", "c"),
        ("`my column` = 'it''s'", "a"),
        ("nothing = 3 or id = 'a'", "a"),
        ("nothing is null", "abcd"),
        ("id in ('a', 'd', 'nobody')", "ad"),
    ],
)
def test_a_filter_lets_in(text: str, inside: str) -> None:
    found = filtered(parse_where(text), COLUMNS)
    assert "".join(COLUMNS.ids.filter(found.inside).to_pylist()) == inside
    assert found.inside.null_count == 0


def test_items_that_are_out_because_a_value_is_empty_are_counted() -> None:
    assert filtered(parse_where("department != 'FUEL'"), COLUMNS).unknown == 1
    assert filtered(parse_where("department != 'FUEL' or price > 1"), COLUMNS).unknown == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("departmnt = 'x'", "no column 'departmnt'; did you mean department[?] There are id, department, price"),
        ("department > 3", "column 'department' holds text, like 'FUEL'; it cannot be compared with 3 .a number"),
        ("price = 'cheap'", "column 'price' holds numbers .double., like 1.5; it cannot be compared with 'cheap'"),
        ("price", "column 'price' holds numbers .double., not true or false"),
        ("price = true", "cannot be compared with true"),
        ("in_stock = 1", "column 'in_stock' holds true or false, like True; it cannot be compared with 1"),
        ("since > 'soon'", "column 'since' holds date32"),
        ("genres > 'A'", "column 'genres' holds several values an item: it can be asked with ="),
        ("tags = 3", "column 'tags' holds text"),
    ],
)
def test_what_cannot_be_asked_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"lists.where: .*{message}") as error:
        filtered(parse_where(text), COLUMNS)
    assert "\n" not in str(error.value)


@given(
    st.lists(st.one_of(st.none(), st.integers(-3, 3)), min_size=1, max_size=20),
    st.integers(-3, 3),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.booleans(),
)
def test_numbers_are_compared_as_python_does_and_empty_ones_never(
    values: list[int | None], other: int, operator: str, as_float: bool
) -> None:
    columns = ItemColumns({"id": pa.array(range(len(values))), "x": pa.array(values, pa.int8())})
    found = filtered(parse_where(f"x {operator} {float(other) if as_float else other}"), columns)
    python = {"=": "==", **{each: each for each in ("!=", "<", "<=", ">", ">=")}}[operator]
    expected = [value is not None and eval(f"{value} {python} {other}") for value in values]
    assert found.inside.to_pylist() == expected
    assert found.unknown == values.count(None)


def test_a_model_of_before_says_that_it_holds_no_values_of_a_feature() -> None:
    older = ItemColumns({"id": pa.array([1])}, (FeatureInfo("brand", "categorical", 5),))
    with pytest.raises(UserError, match=r"lists.where: this model holds no values of the item feature 'brand'"):
        filtered(parse_where("brand = 'x'"), older)


def test_categories_number_the_values_and_of_several_the_first() -> None:
    department = COLUMNS.categories("department", "lists.cap")[2:].tolist()
    assert department[2] == NO_CATEGORY
    assert department[1] == department[3] != department[0]
    genres = COLUMNS.categories("genres", "lists.cap")[2:].tolist()
    assert genres[2:] == [NO_CATEGORY, NO_CATEGORY]
    assert genres[0] != genres[1]
    tags = COLUMNS.categories("tags", "lists.cap")
    assert tags[:2].tolist() == [NO_CATEGORY] * 2
    assert (tags[2:] >= 0).tolist() == [True, False, False, True]
    with pytest.raises(UserError, match=r"lists.cap: no column 'colour'"):
        COLUMNS.categories("colour", "lists.cap")


def test_a_column_of_another_table_takes_the_place_of_one_of_the_same_name() -> None:
    more = COLUMNS.beside({"price": pa.array([1, 1, 1, 1]), "genres": pa.array(["a|b"] * 4)})
    assert filtered(parse_where("price = 1 and genres = 'a|b'"), more).inside.to_pylist() == [True] * 4
    assert np.asarray(filtered(parse_where("price = 1.5"), COLUMNS).inside).tolist() == [True, False, False, False]

import datetime as dt
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.log.order_keys import NUMBER, TEXT, TIME, WHOLE, as_tie, common_tie, tie_kind, tie_of


def keys(*blocks: pa.Array) -> tuple[str, list[Any]]:
    """What the column is, and the keys of all blocks."""
    ties = [tie_of(block, "") for block in blocks]
    kind = common_tie({tie_kind(tie) for tie in ties}, "log")
    return kind, [key for tie in ties for key in as_tie(tie, kind).to_pylist()]


def test_fractions_order() -> None:
    for column in (
        pa.array([0.5, 0.25, None, -0.5]),
        pa.array(["0.5", " 0.25", None, "-0.5"]),
        pa.array(["0.5", "2.5e-1", None, "-5e-1"]),
        pa.array([Decimal("0.50"), Decimal("0.25"), None, Decimal("-0.50")]),
    ):
        assert keys(column) == (NUMBER, [0.5, 0.25, float("-inf"), -0.5])


def test_whole_numbers_are_exact_and_mix_with_fractions() -> None:
    assert keys(pa.array([2**62, 2**62 + 1])) == (WHOLE, [2**62, 2**62 + 1])
    assert keys(pa.array(["7", "7.0", None]), pa.array([8])) == (WHOLE, [7, 7, -(2**63), 8])
    assert keys(pa.array([1, 2]), pa.array(["1.5"])) == (NUMBER, [1.0, 2.0, 1.5])
    assert keys(pa.array([1, 2**64 - 1], pa.uint64()))[0] == NUMBER


def test_text_orders_as_text_and_times_as_times() -> None:
    assert keys(pa.array(["b", None, "a"]), pa.array(["10"])) == (TEXT, ["b", "", "a", "10"])
    moment = dt.datetime(1970, 1, 1, 0, 0, 1)
    for column in (pa.array([moment]), pa.array([moment], pa.timestamp("ns")), pa.array(["1970-01-01T01:00:01+01:00"])):
        assert keys(column) == (TIME, [10**6])
    assert keys(pa.array([None, None])) == (TEXT, ["", ""])


def test_what_has_no_order_is_refused() -> None:
    for column in (pa.array([True]), pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"x"])):
        with pytest.raises(UserError, match=r"log: values of type .* have no order; use numbers, times or text"):
            tie_of(column, "log")
    with pytest.raises(UserError, match="log: holds times in one file and other values in another"):
        keys(pa.array([dt.datetime(1970, 1, 1)]), pa.array([1]))


VALUES = st.none() | st.integers(-(2**70), 2**70).map(str) | st.floats(allow_nan=False).map(str) | st.sampled_from(
    ["2024", "2024-01-01", "a", "", " 7", "1e5", "nan"]
)  # fmt: skip


@given(st.lists(VALUES, min_size=1), st.data())
def test_keys_do_not_depend_on_how_the_log_is_cut(values: list[str | None], data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    blocks = [pa.array(values[a:b], pa.string()) for a, b in pairwise([0, *edges, len(values)])]
    assert keys(*blocks) == keys(pa.array(values, pa.string()))


@given(st.lists(st.integers(-(2**62), 2**62) | st.none(), min_size=2))
def test_integers_order_as_they_do(values: list[int | None]) -> None:
    kind, found = keys(pa.array(values, pa.int64()))
    assert kind in (WHOLE, TEXT)
    if kind == WHOLE:
        expected = sorted(range(len(values)), key=lambda n: (values[n] is not None, values[n] or 0))
        assert np.argsort(np.array(found), kind="stable").tolist() == expected

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mind_core.special_rows import MISSING, UNKNOWN
from pipelines.config.schema import Feature
from pipelines.dataset.vocabulary import build_items, encode_columns, fit
from pipelines.errors import UserError


def test_items_are_ordered_by_count_then_id_from_index_2() -> None:
    table = build_items(pa.table({"id": ["c", "b", "a"], "count": [5, 1, 5]}))
    assert table.to_pydict() == {"index": [2, 3, 4], "id": ["a", "c", "b"], "count": [5, 5, 1]}
    assert table.schema.field("index").type == pa.int32()


def test_rare_values_are_unknown_and_blank_ones_missing() -> None:
    column = pa.array(["x", "x", "y", "y", "y", "rare", "", None])
    encoder = fit("f", Feature(min_count=2), column)
    assert encoder.table().to_pydict() == {"index": [3, 4], "value": ["y", "x"], "count": [3, 2]}
    assert encoder.size == 5
    assert encoder.encode(column).to_pylist() == [4, 4, 3, 3, 3, UNKNOWN, MISSING, MISSING]
    assert encoder.encode(pa.array(["never seen"])).to_pylist() == [UNKNOWN]
    assert encoder.encode(pa.nulls(2)).to_pylist() == [MISSING, MISSING]


def test_values_compare_as_text_when_a_request_brings_another_type() -> None:
    encoder = fit("age", Feature(), pa.array([25, 25, 35]))
    assert encoder.encode(pa.array(["25", "35", "x"])).to_pylist() == [3, 4, UNKNOWN]
    assert encoder.encode(pa.array([35.0, float("nan")])).to_pylist() == [4, MISSING]


def test_lists_have_no_repeats_and_are_never_empty() -> None:
    column = pa.array([["a", "b", "a"], [], None, ["", None], ["rare1", "rare2"]])
    encoder = fit("tags", Feature(kind="multi", min_count=1), pa.array([["a"], ["a", "b", "b"]]))
    assert encoder.table()["count"].to_pylist() == [2, 1]
    assert encoder.encode(column).to_pylist() == [[3, 4], [MISSING], [MISSING], [MISSING], [UNKNOWN]]


def test_lists_as_text_are_split_and_trimmed() -> None:
    encoder = fit("genres", Feature(kind="multi", separator="|"), pa.array(["Drama|Comedy", "Drama", None]))
    assert encoder.encode(pa.array(["Comedy| Drama", "", "War"])).to_pylist() == [[4, 3], [MISSING], [UNKNOWN]]


def test_numbers_are_standardised_and_missing_ones_null() -> None:
    encoder = fit("price", Feature(kind="numeric"), pa.array([1.0, 3.0, None, float("nan"), float("inf")]))
    assert (encoder.mean, encoder.std, encoder.size) == (2.0, 1.0, 0)
    assert encoder.encode(pa.array([2.0, 4.0, None, float("nan")])).to_pylist() == [0.0, 2.0, None, None]
    assert encoder.encode(pa.array(["3", "three"])).to_pylist() == [1.0, None]
    assert fit("same", Feature(kind="numeric"), pa.array([7, 7])).std == 1.0


def test_buckets_hold_equal_shares() -> None:
    encoder = fit("price", Feature(kind="bucket", buckets=4), pa.array(np.arange(100.0)))
    assert encoder.size == 3 + 4
    assert np.bincount(encoder.encode(pa.array(np.arange(100.0))).to_numpy()).tolist() == [0, 0, 0, 25, 25, 25, 25]
    assert encoder.encode(pa.array([-1e9, 1e9, None])).to_pylist() == [3, 6, MISSING]
    assert encoder.table()["count"].to_pylist() == [25] * 4
    assert fit("constant", Feature(kind="bucket"), pa.array([1, 1, 1])).size == 5


def test_a_column_of_the_wrong_type_is_an_error_that_names_the_feature() -> None:
    wrong = [
        (Feature(kind="numeric"), pa.array([["a"]])),
        (Feature(kind="multi"), pa.array(["a|b"])),
        (Feature(kind="multi"), pa.array([1])),
        (Feature(), pa.array([["a"]])),
    ]
    for feature, column in wrong:
        with pytest.raises(UserError, match="feature 'f'"):
            fit("f", feature, column)


def test_an_absent_column_is_missing_everywhere() -> None:
    encoders = [fit("a", Feature(), pa.array(["x"])), fit("b", Feature(kind="multi"), pa.array([["x"]]))]
    encoded = encode_columns(encoders, pa.table({"a": ["x", "y"]}), "profile")
    assert encoded["profile_a"].to_pylist() == [3, UNKNOWN]
    assert encoded["profile_b"].to_pylist() == [[MISSING], [MISSING]]


@given(
    st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "b", "ü"])), max_size=4))),
    st.randoms(use_true_random=False),
)
def test_an_encoder_does_not_depend_on_the_order_of_rows(lists: list[list[str | None] | None], random: object) -> None:
    shuffled = list(lists)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands out a random.Random
    kind = pa.list_(pa.string())
    first, second = (fit("f", Feature(kind="multi"), pa.array(each, kind)) for each in (lists, shuffled))
    assert first.table().equals(second.table())
    assert all(len(rows) == len(set(rows)) > 0 for rows in first.encode(pa.array(lists, kind)).to_pylist())

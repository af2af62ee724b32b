"""Item pooling and profile concatenation: id, categorical, multi-valued and numeric features, unknown and missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.embeddings import EmbeddingTable, pool_all
from mind_core.features import (
    Bags,
    FeatureColumn,
    FeatureSpec,
    item_bags,
    profile_bags,
    row_offsets,
    unknown_rows,
)
from tests.mind_core import reference
from tests.mind_core.given import generator, item_columns, profile_columns


def bag(bags: Bags, index: int) -> list[tuple[int, float]]:
    span = slice(int(bags.offsets[index]), int(bags.offsets[index + 1]))
    return sorted(zip(bags.rows[span].tolist(), bags.weights[span].tolist(), strict=True))


def table_of(weight: Tensor) -> EmbeddingTable:
    table = EmbeddingTable(*weight.shape, 1.0, generator(), [])
    table.weight.copy_(weight)
    return table


def value_of(column: FeatureColumn, entity: int) -> Any:
    if column.offsets is None:
        return column.values[entity].item()
    return column.values[column.offsets[entity] : column.offsets[entity + 1]].tolist()


# --- by hand ---


def test_an_item_without_features_is_its_own_row() -> None:
    bags = item_bags([], items=4)
    assert [bag(bags, i) for i in range(4)] == [[], [(1, 1.0)], [(2, 1.0)], [(3, 1.0)]]


def test_an_item_is_the_mean_of_its_id_and_of_each_feature() -> None:
    # given two real items (indices 2 and 3): a category, tags (two and none) and a price (known and missing)
    columns = [
        FeatureColumn(FeatureSpec("category", "categorical", 5), torch.tensor([4, 1])),
        FeatureColumn(FeatureSpec("tags", "multi", 6), torch.tensor([3, 5]), torch.tensor([0, 2, 2])),
        FeatureColumn(FeatureSpec("price", "numeric", 0), torch.tensor([1.5, math.nan])),
    ]
    # when rows are laid out: 4 item ids, 5 categories from 4, 6 tags from 9, slope, intercept, missing from 15
    bags = item_bags(columns, items=4)
    # then each of the four embeddings weighs a quarter, each of two tags an eighth, the slope row 1.5 times its share
    assert bag(bags, 0) == [], "padding contributes nothing"
    assert bag(bags, 2) == [(2, 0.25), (8, 0.25), (12, 0.125), (14, 0.125), (15, 0.375), (16, 0.25)]
    assert bag(bags, 3) == [(3, 0.25), (5, 0.25), (17, 0.25)]


def test_the_unknown_item_has_the_unknown_row_of_every_feature() -> None:
    columns = item_columns(items=6)
    starts = row_offsets([c.spec for c in columns], 6)
    bags = item_bags(columns, items=6)
    expected = [1, starts[0] + 1, starts[1] + 1, starts[2] + 2]  # a number is never unknown: it is missing
    assert bag(bags, 1) == [(row, 0.25) for row in expected]


def test_profile_bags_are_one_per_user_and_feature() -> None:
    columns = [
        FeatureColumn(FeatureSpec("gender", "categorical", 4), torch.tensor([3, 2])),
        FeatureColumn(FeatureSpec("age", "numeric", 0), torch.tensor([math.nan, -2.0])),
    ]
    bags = profile_bags(columns)  # row 0 is padding, gender 1 to 4, age 5 to 7
    assert [bag(bags, i) for i in range(4)] == [
        [(4, 1.0)],
        [(7, 1.0)],
        [(3, 1.0)],
        [(5, -2.0), (6, 1.0)],
    ]


def test_rows_of_features_do_not_overlap_and_begin_after_the_ids() -> None:
    specs = [FeatureSpec("a", "categorical", 5), FeatureSpec("b", "numeric", 0), FeatureSpec("c", "multi", 4)]
    assert row_offsets(specs, first=10) == [10, 15, 18]
    assert unknown_rows(specs, first=10) == [11, 19]
    assert [s.rows for s in specs] == [5, 3, 4]


def test_a_column_of_the_wrong_length_is_refused_by_name() -> None:
    column = FeatureColumn(FeatureSpec("brand", "categorical", 5), torch.tensor([3, 4]))
    with pytest.raises(ValueError, match=r"brand.*2 items.*3"):
        item_bags([column], items=5)


# --- cold items ---


def test_a_cold_item_is_the_mean_of_its_features_without_its_own_row() -> None:
    # given three real items, the last one cold: it shares its category and one of two tags with the others
    columns = [
        FeatureColumn(FeatureSpec("category", "categorical", 5), torch.tensor([4, 3, 4])),
        FeatureColumn(FeatureSpec("tags", "multi", 6), torch.tensor([3, 4, 3, 5]), torch.tensor([0, 1, 2, 4])),
    ]
    cold = torch.tensor([False, False, False, False, True])
    # when rows are laid out: 5 item ids, 5 categories from 5, 6 tags from 10
    bags = item_bags(columns, items=5, cold=cold)
    # then neither its own row 4 nor tag row 15, which nothing trains, is in its bag; a tag still weighs half
    assert bag(bags, 4) == [(9, 0.5), (13, 0.25)]
    assert bag(bags, 2) == [(2, pytest.approx(1 / 3)), (9, pytest.approx(1 / 3)), (13, pytest.approx(1 / 3))]


def test_a_price_that_only_a_cold_item_lacks_says_nothing() -> None:
    # the row of a missing price is as random as on the first day, when everything that is sold has one
    columns = [
        FeatureColumn(FeatureSpec("category", "categorical", 4), torch.tensor([3, 3])),
        FeatureColumn(FeatureSpec("price", "numeric", 0), torch.tensor([1.5, math.nan])),
    ]
    bags = item_bags(columns, items=4, cold=torch.tensor([False, False, False, True]))
    assert bag(bags, 3) == [(7, 0.5)]


def test_a_cold_item_of_which_nothing_is_known_has_the_zero_vector() -> None:
    columns = [FeatureColumn(FeatureSpec("category", "categorical", 5), torch.tensor([3, 4]))]
    bags = item_bags(columns, items=4, cold=torch.tensor([False, False, False, True]))
    assert bag(bags, 3) == []
    assert torch.equal(pool_all(table_of(torch.randn(9, 4)), bags)[3], torch.zeros(4))


def test_cold_items_without_features_are_refused() -> None:
    with pytest.raises(ValueError, match="cold items need features"):
        item_bags([], items=4, cold=torch.tensor([False, False, False, True]))


@settings(deadline=None, max_examples=60)
@given(items=st.integers(3, 30), seed=st.integers(0, 1000), data=st.data())
def test_cold_items_are_made_of_trained_rows_and_change_no_other_bag(
    items: int, seed: int, data: st.DataObject
) -> None:
    columns = item_columns(items, seed)
    cold = torch.tensor([False, False, *data.draw(st.lists(st.booleans(), min_size=items - 2, max_size=items - 2))])
    bags, plain = item_bags(columns, items, cold), item_bags(columns, items)
    warm = torch.arange(1, items)[~cold[1:]]
    trained = {row for i in warm.tolist() if i > 1 for row, _ in bag(bags, i)}
    for i in warm.tolist():
        assert bag(bags, i) == bag(plain, i)
    for i in cold.nonzero().squeeze(1).tolist():
        known = [(row, weight) for row, weight in bag(plain, i) if row in trained]
        assert [row for row, _ in bag(bags, i)] == [row for row, _ in known]
        assert [w for _, w in bag(bags, i)] == pytest.approx([4 / 3 * w for _, w in known]), "a third, not a quarter"


# --- against the reference ---


def test_item_vectors_equal_the_reference() -> None:
    items, dim = 23, 6
    columns = item_columns(items)
    starts = row_offsets([c.spec for c in columns], items)
    weight = torch.randn(items + sum(c.spec.rows for c in columns), dim, generator=generator(3))
    weight[0] = 0
    vectors = pool_all(table_of(weight), item_bags(columns, items))
    table = weight.double().numpy()
    for item in range(2, items):
        features = [
            reference.feature_vector(c.spec.kind, value_of(c, item - 2), table[start : start + c.spec.rows])
            for c, start in zip(columns, starts, strict=True)
        ]
        np.testing.assert_allclose(vectors[item].numpy(), reference.item_vector(table[item], features), atol=1e-6)
    assert torch.equal(vectors[0], torch.zeros(dim))


def test_profile_vectors_equal_the_reference() -> None:
    users, dim = 17, 5
    columns = profile_columns(users)
    starts = row_offsets([c.spec for c in columns], 1)
    weight = torch.randn(1 + sum(c.spec.rows for c in columns), dim, generator=generator(4))
    profiles = pool_all(table_of(weight), profile_bags(columns)).view(users, -1)
    table = weight.double().numpy()
    for user in range(users):
        features = [
            reference.feature_vector(c.spec.kind, value_of(c, user), table[start : start + c.spec.rows])
            for c, start in zip(columns, starts, strict=True)
        ]
        np.testing.assert_allclose(profiles[user].numpy(), reference.profile_vector(features), atol=1e-6)


# --- Bags.select ---


def test_select_by_hand() -> None:
    bags = Bags(torch.tensor([0, 2, 2, 3]), torch.tensor([7, 8, 9]), torch.tensor([0.5, 0.25, 1.0]))
    chosen = bags.select(torch.tensor([2, 1, 0, 2]))
    assert [bag(chosen, i) for i in range(4)] == [[(9, 1.0)], [], [(7, 0.5), (8, 0.25)], [(9, 1.0)]]


@settings(deadline=None, max_examples=80)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=8), data=st.data())
def test_select_equals_picking_bags_one_by_one(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    bags = Bags(torch.tensor([0, *sizes]).cumsum(0), torch.arange(total) + 100, torch.arange(total).float() / 7)
    index = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=10))
    chosen = bags.select(torch.tensor(index, dtype=torch.int64))
    assert len(chosen) == len(index)
    assert [bag(chosen, i) for i in range(len(index))] == [bag(bags, i) for i in index]


@settings(deadline=None, max_examples=40)
@given(items=st.integers(3, 30), seed=st.integers(0, 1000))
def test_every_real_items_categories_weigh_one_over_the_number_of_embeddings(items: int, seed: int) -> None:
    columns = item_columns(items, seed)[:2]  # id, category, tags: shares of a third, none of it beyond 1
    bags = item_bags(columns, items)
    untagged = columns[1].offsets.diff() == 0 if columns[1].offsets is not None else torch.zeros(0)
    totals = torch.zeros(items).index_add_(
        0, torch.repeat_interleave(torch.arange(items), bags.offsets.diff()), bags.weights
    )
    expected = torch.where(untagged, 2 / 3, 1.0)
    assert torch.allclose(totals[2:], expected, atol=1e-6)
    assert totals[:2].tolist() == pytest.approx([0.0, 1.0])
    assert (bags.rows > 0).all(), "nothing points at the padding row"

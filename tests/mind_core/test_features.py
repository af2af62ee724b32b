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

"""Tables read by distinct rows: initial rows, gathering, pooling, and the gradient that a block collects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core import embeddings
from mind_core.embeddings import WHOLE, EmbeddingTable, Shard, gather, pool, pool_all
from mind_core.features import Bags
from tests.mind_core.given import generator

# three bags: rows 1 and 3 halved, none, row 3 doubled
BAGS = Bags(torch.tensor([0, 2, 2, 3]), torch.tensor([1, 3, 3]), torch.tensor([0.5, 0.5, 2.0]))


def table(rows: int = 5, dim: int = 2, unknown: list[int] | None = None) -> EmbeddingTable:
    return EmbeddingTable(rows, dim, 1.0, generator(), unknown or [])


def test_padding_and_unknown_rows_start_at_zero_and_the_others_with_the_given_spread() -> None:
    weight = EmbeddingTable(2000, 16, 0.3, generator(), [1, 7]).weight
    assert torch.equal(weight[[0, 1, 7]], torch.zeros(3, 16))
    rest = torch.cat([weight[2:7], weight[8:]])
    assert 0.29 < rest.std().item() < 0.31
    assert (rest.norm(dim=1) > 0).all()


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 70), ranks=st.integers(1, 5), at_a_time=st.sampled_from([4, 8, 64]))
def test_shards_together_hold_the_rows_of_the_whole_table(rows: int, ranks: int, at_a_time: int) -> None:
    unknown = [row for row in (1, 7, 30) if row < rows]

    def weight(shard: Shard) -> torch.Tensor:
        return EmbeddingTable(rows, 4, 0.5, generator(), unknown, shard).weight

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embeddings, "INIT_ROWS", at_a_time)
        whole = weight(WHOLE)
        for rank in range(ranks):
            assert torch.equal(weight(Shard(rank, ranks)), whole[rank::ranks])


def test_the_table_takes_no_part_in_autograd() -> None:
    assert not table().weight.requires_grad
    block = gather(table(), BAGS).block
    assert block.values.is_leaf
    assert block.values.requires_grad


def test_gather_copies_each_distinct_row_once() -> None:
    source = table()
    block = gather(source, BAGS).block
    assert block.rows.tolist() == [1, 3]
    assert torch.equal(block.values, source.weight[[1, 3]])
    block.values.detach().fill_(9.0)
    assert not (source.weight == 9.0).any(), "a copy: writing to it leaves the table alone"


def test_pooling_by_hand() -> None:
    source = table()
    source.weight.copy_(torch.tensor([[0.0, 0], [1, 2], [5, 5], [3, 6], [7, 7]]))
    gathered = gather(source, BAGS)
    expected = torch.tensor([[2.0, 4.0], [0.0, 0.0], [6.0, 12.0]])
    assert torch.equal(gathered.pooled(gathered.block.values), expected)
    assert torch.equal(pool_all(source, BAGS), expected)


def test_the_block_collects_the_gradient_of_all_uses_of_a_row() -> None:
    # given row 3 in two bags at weights 0.5 and 2
    gathered = gather(table(), BAGS)
    (gathered.pooled(gathered.block.values) * torch.tensor([[1.0], [10.0], [100.0]])).sum().backward()
    assert gathered.block.values.grad is not None
    assert gathered.block.values.grad[:, 0].tolist() == [0.5, 0.5 + 200.0]


def test_no_bags_at_all_pool_to_nothing() -> None:
    nothing = Bags(torch.zeros(1).long(), torch.zeros(0).long(), torch.zeros(0))
    assert gather(table(), nothing).block.values.shape == (0, 2)
    assert pool_all(table(), nothing).shape == (0, 2)


@settings(deadline=None, max_examples=60)
@given(
    contents=st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.floats(-2, 2, width=32)), max_size=4), min_size=1, max_size=6
    )
)
def test_pooling_equals_sums_bag_by_bag(contents: list[list[tuple[int, float]]]) -> None:
    flat = [pair for one in contents for pair in one]
    bags = Bags(
        torch.tensor([0, *(len(one) for one in contents)]).cumsum(0),
        torch.tensor([row for row, _ in flat], dtype=torch.int64),
        torch.tensor([weight for _, weight in flat], dtype=torch.float32),
    )
    values = torch.randn(7, 3, generator=generator(1), dtype=torch.float64)
    expected = np.zeros((len(contents), 3))
    for i, one in enumerate(contents):
        for row, weight in one:
            expected[i] += weight * values[row].numpy()
    np.testing.assert_allclose(pool(values, bags.rows, bags).numpy(), expected, atol=1e-12)
    source = table(7, 3)
    gathered = gather(source, bags)
    assert torch.allclose(gathered.pooled(gathered.block.values), pool_all(source, bags), atol=1e-6)

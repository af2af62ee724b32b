"""The factors that an item table begins with: a truncated SVD of who had what, of what is no label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core import factors
from mind_core.embeddings import EmbeddingTable, Shard
from mind_core.factors import begin_with_factors, item_factors
from mind_core.sequences import Sequences
from tests.mind_core.given import generator

HISTORIES = [[2, 3, 2, 5], [], [4, 5, 1, 6], [3, 4], [6, 7, 7], [2, 7, 3]]


def sequences_of(lists: list[list[int]], past: list[int] | None = None) -> Sequences:
    items = torch.tensor([item for each in lists for item in each], dtype=torch.int32)
    offsets = torch.tensor([0, *np.cumsum([len(each) for each in lists]).tolist()])
    return Sequences(items, offsets, past=None if past is None else torch.tensor(past))


def found(lists: list[list[int]], items: int, dim: int, past: list[int] | None = None) -> torch.Tensor:
    return item_factors(lambda: [sequences_of(lists, past)], items, dim, generator(0))


def by_numpy(lists: list[list[int]], items: int, dim: int) -> np.ndarray:
    """Cosines between the rows of V S, by a whole SVD in float64."""
    matrix = np.zeros((len(lists), items))
    for user, each in enumerate(lists):
        matrix[user, [item for item in each if item >= 2]] = 1
    of_users, of_items = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    _, singular, right = np.linalg.svd(matrix / np.sqrt(np.maximum(of_users, 1) * np.maximum(of_items, 1)))
    rows = right[: len(singular)].T[:, :dim] * singular[:dim]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0)
    return rows @ rows.T


def test_they_are_a_truncated_svd_of_users_and_items() -> None:
    """Four of five directions, whose singular values differ: a cut between equal ones would be anybody's."""
    ours = found(HISTORIES, 9, 4).double()
    np.testing.assert_allclose((ours @ ours.T).numpy(), by_numpy(HISTORIES, 9, 4), atol=1e-3)
    assert ours[2:8].any(1).all()


@settings(deadline=None, max_examples=60)
@given(
    lists=st.lists(st.lists(st.integers(0, 11), max_size=8), min_size=1, max_size=9),
    at_once=st.integers(1, 9),
    split=st.integers(0, 9),
)
def test_rows_are_of_norm_one_where_somebody_had_the_item_and_portions_change_nothing(
    lists: list[list[int]], at_once: int, split: int
) -> None:
    whole = found(lists, 12, 8)
    assert whole.shape == (12, 8)
    assert torch.isfinite(whole).all()
    had = torch.zeros(12, dtype=torch.bool)
    had[[item for each in lists for item in each]] = True
    had[:2] = False
    assert torch.equal(whole.any(1), had)
    norms = whole.norm(dim=1)[had]
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-4)
    before = factors.EVENTS_AT_ONCE
    factors.EVENTS_AT_ONCE = at_once
    try:
        parts = [sequences_of(part) for part in (lists[:split], lists[split:])]
        cut = item_factors(lambda: parts, 12, 8, generator(0))
    finally:
        factors.EVENTS_AT_ONCE = before
    assert torch.equal(cut.any(1), whole.any(1))


def test_the_portions_that_a_log_is_read_in_change_no_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found(HISTORIES, 9, 4)
    monkeypatch.setattr(factors, "EVENTS_AT_ONCE", 3)
    parts = item_factors(lambda: map(sequences_of, (HISTORIES[:2], HISTORIES[2:])), 9, 4, generator(0))
    torch.testing.assert_close(parts @ parts.T, whole @ whole.T, rtol=0, atol=1e-4)


def test_labels_are_not_looked_at() -> None:
    """The newest events of three users would tie 8 to 2 and 9 to 4."""
    lists = [[2, 3, 8], [2, 3, 8], [4, 5, 9], [4, 5]]
    ours = found(lists, 10, 4, past=[2, 2, 2, 2])
    assert not ours[8:].any()
    torch.testing.assert_close(ours, found([each[:2] for each in lists], 10, 4))


def test_nobody_and_a_catalogue_of_one_item() -> None:
    assert not found([[], []], 5, 4).any()
    assert found([[2], [2, 2]], 3, 4)[2].norm() == pytest.approx(1, abs=1e-5)


def test_users_who_have_nothing_but_labels_take_no_room() -> None:
    sequences = sequences_of([[2, 3]] * 50 + [[2, 3, 4]], past=[0] * 50 + [3])
    (pairs,) = factors._portions(lambda: [sequences], 5)
    assert len(pairs.starts) == len(pairs.weight) == 1
    assert pairs.items.tolist() == [2, 3, 4]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_of_a_shard_begin_where_those_of_the_whole_table_do(ranks: int) -> None:
    def begun(shard: Shard) -> tuple[torch.Tensor, torch.Tensor]:
        table = EmbeddingTable(12, 4, 0.1, generator(1), [1], shard)
        drawn = table.weight.clone()
        begin_with_factors(table, lambda: [sequences_of(HISTORIES)], 9, 0.1, seed=0)
        return drawn, table.weight

    drawn, whole = begun(Shard())
    for rank in range(ranks):
        assert torch.equal(begun(Shard(rank, ranks))[1], whole[rank::ranks])
    changed = (drawn != whole).any(1)
    assert changed.tolist() == [False, False, *[True] * 6, False, *[False] * 3]  # nobody had 8; 9 to 11 are features
    torch.testing.assert_close(whole[changed].norm(dim=1), torch.full((6,), 0.1 * 4**0.5))


def test_users_shared_out_among_ranks_add_up_to_all() -> None:
    """X^T X is a sum over users: halves of them give the whole, whoever has which."""
    sequences = sequences_of(HISTORIES)
    shares = [replace(sequences, past=sequences.lengths * (torch.arange(6) % 2 == rank)) for rank in range(2)]
    together = item_factors(lambda: shares, 9, 4, generator(0))
    whole = found(HISTORIES, 9, 4)
    torch.testing.assert_close(together @ together.T, whole @ whole.T, rtol=0, atol=1e-4)

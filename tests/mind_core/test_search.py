"""Exact search over blocks of the catalogue, and the merge of candidates: every score, tie and bit as stated."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mind_core.search
from mind_core.hits import merge_interests
from mind_core.search import Catalogue, inner_products, search
from tests.mind_core import reference
from tests.mind_core.given import generator, own_mask

# four real items on a plane; rows 0 (padding) and 1 (unknown) would win every search
ITEMS = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.6], [-1.0, -1.0]])
INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])


# --- search ---


def test_the_score_is_the_best_match_over_interests() -> None:
    items, scores, interest = search(Catalogue(ITEMS), INTERESTS, torch.tensor([[True, True]]), 3)
    assert items.tolist() == [[3, 4, 2]]
    assert scores[0].tolist() == pytest.approx([2.0, 1.2, 1.0])
    assert interest.tolist() == [[1, 1, 0]]


def test_interests_that_are_not_the_users_find_nothing() -> None:
    items, scores, interest = search(Catalogue(ITEMS), INTERESTS, torch.tensor([[True, False]]), 3)
    assert items.tolist() == [[2, 4, 3]]
    assert scores[0].tolist() == pytest.approx([1.0, 0.6, 0.0])
    assert interest.tolist() == [[0, 0, 0]]


def test_padding_and_unknown_are_never_found_and_a_small_catalogue_runs_out() -> None:
    items, scores, _ = search(Catalogue(ITEMS), INTERESTS, torch.tensor([[True, True]]), 9)
    assert items.tolist() == [[3, 4, 2, 5, 0, 0, 0, 0, 0]]
    assert scores[0, 4:].tolist() == [-math.inf] * 5


def test_seen_items_are_left_out_of_their_users_list_only() -> None:
    two = INTERESTS.repeat(2, 1, 1)
    items, _, _ = search(Catalogue(ITEMS), two, torch.ones(2, 2).bool(), 2, (torch.tensor([1]), torch.tensor([3])))
    assert items.tolist() == [[3, 4], [4, 2]]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 4),
    interests=st.integers(1, 4),
    items=st.integers(3, 15),
    n=st.integers(1, 18),
    levels=st.integers(1, 3),
)
def test_search_equals_brute_force_ties_by_item_index(
    seed: int, users: int, interests: int, items: int, n: int, levels: int
) -> None:
    # given small whole numbers, so that scores are exact and ties are many
    g = generator(seed)
    vectors = torch.randint(-levels, levels + 1, (items, 2), generator=g).float()
    v = torch.randint(-levels, levels + 1, (users, interests, 2), generator=g).float()
    counts = torch.randint(1, interests + 1, (users,), generator=g).tolist()
    seen = torch.rand(users, items, generator=g) < 0.2
    found = search(Catalogue(vectors), v, own_mask(counts, interests), n, tuple(seen.nonzero().T))
    for b in range(users):
        hidden = seen[b].nonzero().flatten().tolist()
        expected = reference.top_items(vectors.double().numpy(), v[b].double().numpy(), counts[b], n, hidden)
        empty = n - len(expected)
        assert found[0][b].tolist() == [i for i, _, _ in expected] + [0] * empty
        assert found[1][b].tolist() == [s for _, s, _ in expected] + [-math.inf] * empty
        assert found[2][b, : len(expected)].tolist() == [j for _, _, j in expected]


def test_a_tie_across_the_last_place_goes_to_the_lower_item_index_in_a_large_catalogue() -> None:
    # given 5000 items, every one of the same score
    items, _, _ = search(Catalogue(torch.ones(5002, 1)), torch.ones(1, 1, 1), torch.ones(1, 1).bool(), 10)
    assert items.tolist() == [list(range(2, 12))]


# --- merge ---


def test_an_item_found_by_several_interests_appears_once_with_its_best_score() -> None:
    items = torch.tensor([[[5, 6, 7], [7, 8, 5]]])
    scores = torch.tensor([[[9.0, 4.0, 3.0], [8.0, 7.0, 1.0]]])
    merged, top, interest = merge_interests(items, scores, 4)
    assert merged.tolist() == [[5, 7, 8, 6]]
    assert top.tolist() == [[9.0, 8.0, 7.0, 4.0]]
    assert interest.tolist() == [[0, 1, 1, 0]]


def test_different_items_of_one_score_are_both_kept() -> None:
    merged, _, _ = merge_interests(torch.tensor([[[5, 6], [7, 6]]]), torch.full((1, 2, 2), 2.0), 4)
    assert merged.tolist() == [[5, 6, 7, 0]]


def test_empty_places_and_foreign_interests_give_nothing() -> None:
    items, scores = torch.tensor([[[5, -1], [7, 8]]]), torch.tensor([[[1.0, 9.0], [-math.inf, -math.inf]]])
    merged, top, _ = merge_interests(items, scores, 3)
    assert merged.tolist() == [[5, 0, 0]]
    assert top.tolist() == [[1.0, -math.inf, -math.inf]]


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 4),
    interests=st.integers(1, 5),
    depth=st.integers(1, 6),
    catalogue=st.integers(1, 12),
    n=st.integers(1, 35),
)
def test_the_merge_equals_brute_force(
    seed: int, users: int, interests: int, depth: int, catalogue: int, n: int
) -> None:
    g = generator(seed)
    shape = (users, interests, depth)
    items = torch.randint(-1, catalogue + 1, shape, generator=g)
    scores = torch.randint(-3, 4, shape, generator=g).float()
    scores[torch.rand(shape[:2], generator=g) < 0.2] = -math.inf
    merged, top, interest = merge_interests(items, scores, n)
    assert merged.shape == top.shape == interest.shape == (users, n)
    for b in range(users):
        expected = reference.merge(items[b].numpy(), scores[b].double().numpy(), n)
        empty = n - len(expected)
        assert merged[b].tolist() == [i for i, _, _ in expected] + [0] * empty
        assert top[b].tolist() == [s for _, s, _ in expected] + [-math.inf] * empty
        assert interest[b, : len(expected)].tolist() == [j for _, _, j in expected]
        found = merged[b][merged[b] > 0].tolist()
        assert len(found) == len(set(found)), "no item twice"


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), interests=st.integers(1, 4), n=st.integers(1, 12))
def test_merging_each_interests_own_list_is_exact_search(seed: int, interests: int, n: int) -> None:
    g = generator(seed)
    vectors = torch.randint(-3, 4, (14, 2), generator=g).float()
    v = torch.randint(-3, 4, (2, interests, 2), generator=g).float()
    counts = torch.randint(1, interests + 1, (2,), generator=g).tolist()
    own = own_mask(counts, interests)
    alone = own_mask([1], 1)
    lists = [[search(Catalogue(vectors), v[b, j].view(1, 1, 2), alone, n) for j in range(interests)] for b in range(2)]
    items = torch.stack([torch.cat([x[0] for x in row]) for row in lists])
    scores = torch.stack([torch.cat([x[1] for x in row]) for row in lists]).masked_fill(~own.unsqueeze(2), -math.inf)
    merged, exact = merge_interests(items, scores, n), search(Catalogue(vectors), v, own, n)
    assert torch.equal(merged[0], exact[0])
    assert torch.equal(merged[1], exact[1])


# --- blocks, bounds and bits ---


def given_catalogue(
    items: int, users: int, dim: int = 16, interests: int = 3, seed: int = 0
) -> tuple[Catalogue, Tensor]:
    g = generator(seed)
    return Catalogue(torch.randn(items, dim, generator=g)), torch.randn(users, interests, dim, generator=g)


@pytest.mark.parametrize("scores_at_once", [1, 500, 2**20])
@pytest.mark.parametrize("rows_at_once", [1, 7, 64])
@pytest.mark.parametrize("n", [1, 40, 700])
def test_blocks_and_users_together_do_not_show_in_a_list(
    monkeypatch: pytest.MonkeyPatch, scores_at_once: int, rows_at_once: int, n: int
) -> None:
    catalogue, users = given_catalogue(items=601, users=9)
    own = own_mask([1, 2, 3] * 3, 3)
    seen = torch.arange(9).repeat_interleave(50), torch.randint(0, 601, (450,), generator=generator(3))
    allowed = torch.rand(601, generator=generator(4)) < 0.9
    whole = search(catalogue, users, own, n, seen, allowed)
    # when the same search is made in other pieces
    monkeypatch.setattr(mind_core.search, "SCORES_AT_ONCE", {"cpu": scores_at_once})
    monkeypatch.setattr(mind_core.search, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(mind_core.search, "EXACT_AT_ONCE", scores_at_once)
    pieces = search(catalogue, users, own, n, seen, allowed)
    assert all(torch.equal(a, b) for a, b in zip(pieces, whole, strict=True))
    # then it is the sorted list of all scores
    hidden = torch.zeros(9, 601).bool()
    hidden[seen] = True
    hidden |= ~allowed
    scores = inner_products(users.unsqueeze(2), catalogue.vectors).masked_fill(~own.unsqueeze(2), -math.inf).amax(1)
    for user in range(9):
        expected = [i for i in range(2, 601) if not hidden[user, i]]
        expected.sort(key=lambda i: (-scores[user, i].item(), i))
        found = whole.items[user][whole.items[user] > 0].tolist()
        assert found == expected[:n]
        assert whole.scores[user, : len(found)].tolist() == scores[user, found].tolist()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.0, 1e-7, 1e-6, 1e-4]), n=st.integers(1, 60))
def test_items_closer_than_the_product_rounds_are_told_apart_by_the_score_that_counts(
    seed: int, spread: float, n: int
) -> None:
    # given items that are nearly one item, and as far from 0 as the last bit matters
    g = generator(seed)
    one = torch.randn(1, 64, generator=g)
    catalogue = Catalogue(one + spread * torch.randn(300, 64, generator=g))
    user = torch.randn(1, 2, 64, generator=g) * 100
    found = search(catalogue, user, torch.ones(1, 2).bool(), n)
    scores = inner_products(user[0].unsqueeze(1), catalogue.vectors).amax(0)
    order = sorted(range(2, 300), key=lambda i: (-scores[i].item(), i))
    assert found.items[0].tolist() == order[:n]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    dim=st.integers(1, 130),
    rows=st.integers(1, 5),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_a_product_and_the_score_that_counts_are_within_the_stated_error(
    seed: int, dim: int, rows: int, scale: float
) -> None:
    g = generator(seed)
    users, items = scale * torch.randn(rows, dim, generator=g), torch.randn(40, dim, generator=g)
    search_ = mind_core.search._Search(Catalogue(items), users.unsqueeze(1), torch.ones(rows, 1).bool(), 1, None, None)
    exact = users.double() @ items.double().T
    for found in (users @ items.T, inner_products(users.unsqueeze(1), items)):
        assert ((found.double() - exact).abs()[:, 2:] <= search_.error.double().unsqueeze(1) / 2).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_score_has_the_same_bits_in_any_shape_and_at_any_place(threads: int) -> None:
    """Unlike a matrix product's: with MKL one to three rows are rounded otherwise than four or more."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        catalogue, users = given_catalogue(items=20_000, users=40, dim=64)
        own = torch.ones(40, 3).bool()
        whole = search(catalogue, users, own, 50)
        all_scores = inner_products(users[:2].unsqueeze(2), catalogue.vectors).amax(1)
        assert torch.equal(all_scores.gather(1, whole.items[:2]), whole.scores[:2])
        order = torch.randperm(40, generator=generator(9))
        moved = search(catalogue, users[order], own, 50)
        assert all(torch.equal(a, b[order]) for a, b in zip(moved, whole, strict=True))
        for user in (0, 1, 20, 39):
            alone = search(catalogue, users[user : user + 1], own[:1], 50)
            assert all(torch.equal(a[0], b[user]) for a, b in zip(alone, whole, strict=True))
    finally:
        torch.set_num_threads(before)


def test_a_catalogue_of_equal_items_is_searched_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mind_core.search, "SCORES_AT_ONCE", {"cpu": 1000})
    found = search(Catalogue(torch.ones(9000, 4)), torch.ones(3, 1, 4), torch.ones(3, 1).bool(), 5)
    assert found.items.tolist() == [[2, 3, 4, 5, 6]] * 3


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    # given the largest product that is ever asked for
    widths = []
    product = torch.mm

    def recorded(rows: Tensor, items: Tensor, *, out: Tensor) -> Tensor:
        widths.append(len(rows) * items.shape[1])
        return product(rows, items, out=out)

    monkeypatch.setattr(torch, "mm", recorded)
    monkeypatch.setattr(mind_core.search, "SCORES_AT_ONCE", {"cpu": 10_000})
    catalogue, users = given_catalogue(items=30_000, users=200)
    search(catalogue, users, torch.ones(200, 3).bool(), 10)
    assert max(widths) <= 10_000


@pytest.mark.parametrize("broken", ["user", "item"])
def test_what_is_not_a_number_finds_nothing_and_hurts_nobody_else(broken: str) -> None:
    catalogue, users = given_catalogue(items=50, users=2)
    own = torch.ones(2, 3).bool()
    whole = search(catalogue, users, own, 4)
    if broken == "user":
        users[0] = math.nan
        found = search(catalogue, users, own, 4)
        assert found.items[0].tolist() == [0, 0, 0, 0]
        assert torch.equal(found.items[1], whole.items[1])
    else:
        vectors = catalogue.vectors.clone()
        vectors[7] = math.nan
        assert search(Catalogue(vectors), users, own, 4).items.tolist() == [[0] * 4] * 2


def test_zero_is_one_score_whatever_its_sign() -> None:
    items = torch.tensor([[9.0], [9.0], [-0.0], [0.0], [-0.0]])
    assert search(Catalogue(items), torch.ones(1, 1, 1), torch.ones(1, 1).bool(), 3).items.tolist() == [[2, 3, 4]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same_bits() -> None:
    catalogue, users = given_catalogue(items=200_000, users=300, dim=64)
    own = own_mask([1, 2, 3] * 100, 3)
    here = search(catalogue, users, own, 100)
    there = search(Catalogue(catalogue.vectors.cuda()), users.cuda(), own.cuda(), 100)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))

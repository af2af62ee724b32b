"""Serving: exact search, the merge of interests, and that a user's answer never depends on the company it is in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.config import ModelConfig
from mind_core.inference import (
    MINDRetriever,
    PopularityRetriever,
    Scores,
    merge_interests,
    recommend,
    recommend_shelves,
    search,
    top_lists,
)
from mind_core.sequences import Sequences, full_histories
from tests.mind_core import reference
from tests.mind_core.given import World, generator, own_mask, random_sequences, sequences_of, world

# four real items on a plane; rows 0 (padding) and 1 (unknown) would win every search
ITEMS = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.6], [-1.0, -1.0]])
INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])


# --- search ---


def test_the_score_is_the_best_match_over_interests() -> None:
    items, scores, interest = search(ITEMS, INTERESTS, torch.tensor([[True, True]]), 3)
    assert items.tolist() == [[3, 4, 2]]
    assert scores[0].tolist() == pytest.approx([2.0, 1.2, 1.0])
    assert interest.tolist() == [[1, 1, 0]]


def test_interests_that_are_not_the_users_find_nothing() -> None:
    items, scores, interest = search(ITEMS, INTERESTS, torch.tensor([[True, False]]), 3)
    assert items.tolist() == [[2, 4, 3]]
    assert scores[0].tolist() == pytest.approx([1.0, 0.6, 0.0])
    assert interest.tolist() == [[0, 0, 0]]


def test_padding_and_unknown_are_never_found_and_a_small_catalogue_runs_out() -> None:
    items, scores, _ = search(ITEMS, INTERESTS, torch.tensor([[True, True]]), 9)
    assert items.tolist() == [[3, 4, 2, 5, 0, 0, 0, 0, 0]]
    assert scores[0, 4:].tolist() == [-math.inf] * 5


def test_seen_items_are_left_out_of_their_users_list_only() -> None:
    two = INTERESTS.repeat(2, 1, 1)
    items, _, _ = search(ITEMS, two, torch.ones(2, 2).bool(), 2, (torch.tensor([1]), torch.tensor([3])))
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
    found = search(vectors, v, own_mask(counts, interests), n, tuple(seen.nonzero().T))
    for b in range(users):
        hidden = seen[b].nonzero().flatten().tolist()
        expected = reference.top_items(vectors.double().numpy(), v[b].double().numpy(), counts[b], n, hidden)
        empty = n - len(expected)
        assert found[0][b].tolist() == [i for i, _, _ in expected] + [0] * empty
        assert found[1][b].tolist() == [s for _, s, _ in expected] + [-math.inf] * empty
        assert found[2][b, : len(expected)].tolist() == [j for _, _, j in expected]


def test_a_tie_across_the_last_place_goes_to_the_lower_item_index_in_a_large_catalogue() -> None:
    # given 5000 items, every one of the same score
    items, _, _ = search(torch.ones(5002, 1), torch.ones(1, 1, 1), torch.ones(1, 1).bool(), 10)
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
    lists = [[search(vectors, v[b, j].view(1, 1, 2), alone, n) for j in range(interests)] for b in range(2)]
    items = torch.stack([torch.cat([x[0] for x in row]) for row in lists])
    scores = torch.stack([torch.cat([x[1] for x in row]) for row in lists]).masked_fill(~own.unsqueeze(2), -math.inf)
    merged, exact = merge_interests(items, scores, n), search(vectors, v, own, n)
    assert torch.equal(merged[0], exact[0])
    assert torch.equal(merged[1], exact[1])


# --- recommend ---


def given_retriever(
    users: int = 300, items: int = 120, seed: int = 0, **changes: object
) -> tuple[World, MINDRetriever]:
    w = world(random_sequences(users, items, 14, seed, shortest=0), items, seed=seed, **changes)
    return w, MINDRetriever.of(w.model, w.bags)


def test_everything_a_user_has_seen_is_left_out_even_beyond_the_newest_behaviours() -> None:
    # given a history of 12 with a model that looks at the newest 4
    lists = [list(range(2, 14)), [5, 6]]
    w = world(lists, 20, max_history=4)
    retriever = MINDRetriever.of(w.model, w.bags)
    items, scores, _ = recommend(retriever, w.sequences, torch.tensor([0, 1]), 18, exclude_seen=True)
    assert sorted(items[0][scores[0] > -math.inf].tolist()) == list(range(14, 20))
    assert sorted(items[1][scores[1] > -math.inf].tolist()) == [i for i in range(2, 20) if i not in (5, 6)]
    everything, _, _ = recommend(retriever, w.sequences, torch.tensor([0]), 18, exclude_seen=False)
    assert sorted(everything[0].tolist()) == list(range(2, 20))


def test_recommendations_equal_brute_force_over_the_catalogue() -> None:
    w, retriever = given_retriever(users=20)
    users = torch.arange(20)
    items, scores, interest = recommend(retriever, w.sequences, users, 10, exclude_seen=True)
    vectors, own = retriever.interests(full_histories(w.sequences, users, w.model.view))
    for u in range(20):
        seen = w.sequences.items[w.sequences.offsets[u] : w.sequences.offsets[u + 1]].tolist()
        v = vectors[u].double().numpy()
        expected = reference.top_items(retriever.item_vectors.double().numpy(), v, int(own[u].sum()), 10, seen)
        assert items[u].tolist() == [i for i, _, _ in expected]
        np.testing.assert_allclose(scores[u].numpy(), [s for _, s, _ in expected], rtol=1e-4, atol=1e-5)
        assert interest[u].tolist() == [j for _, _, j in expected]


def test_popularity_gives_everybody_the_most_frequent_items() -> None:
    counts = torch.tensor([99, 99, 3, 7, 7, 0, 1])
    retriever = PopularityRetriever(counts, max_history=5)
    sequences = sequences_of([[3], []])
    items, _, _ = recommend(retriever, sequences, torch.tensor([0, 1]), 5, exclude_seen=False)
    assert items.tolist() == [[3, 4, 2, 6, 5]] * 2
    unseen, _, _ = recommend(retriever, sequences, torch.tensor([0, 1]), 2, exclude_seen=True)
    assert unseen.tolist() == [[4, 2], [3, 4]]


def test_no_users_have_no_recommendations() -> None:
    w, retriever = given_retriever(users=3)
    items, scores, interest = recommend(retriever, w.sequences, torch.zeros(0).long(), 5, exclude_seen=True)
    assert items.shape == scores.shape == interest.shape == (0, 5)


def test_item_vectors_are_scored_as_the_model_says() -> None:
    _, plain = given_retriever(normalize_items=False)
    _, unit = given_retriever(normalize_items=True)
    assert torch.equal(plain.item_vectors, plain.behaviour_vectors)
    assert torch.allclose(unit.item_vectors[2:].norm(dim=1), torch.ones(118), atol=1e-6)
    assert torch.equal(unit.behaviour_vectors, plain.behaviour_vectors), "behaviours enter the routing unnormalised"


# --- shelves ---


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    users=st.integers(1, 4),
    items=st.integers(3, 15),
    n=st.integers(1, 18),
    longest=st.integers(0, 20),
    levels=st.integers(1, 4),
)
def test_the_shelves_divide_the_whole_list_and_keep_its_order(
    seed: int, users: int, items: int, n: int, longest: int, levels: int
) -> None:
    # given scores with many ties, and histories that may name the unknown item, or every item
    g = generator(seed)
    values = torch.randint(0, levels, (users, items), generator=g).float()
    row = torch.randint(0, users, (longest,), generator=g)
    item = torch.randint(1, items, (longest,), generator=g)
    # when each list is as long as the catalogue, and n
    whole = top_lists(Scores(values.clone()), (row, item), {"all": items, "again": items, "new": items})
    some = top_lists(Scores(values.clone()), (row, item), {"new": n, "again": n, "all": n})
    for user in range(users):
        everything = whole["all"].items[user][whole["all"].items[user] > 0].tolist()
        assert everything == sorted(range(2, items), key=lambda i: (-values[user, i].item(), i))
        history = set(item[row == user].tolist())
        expected = {
            "all": everything,
            "again": [each for each in everything if each in history],
            "new": [each for each in everything if each not in history],
        }
        for shelf, wanted in expected.items():
            for lists, size in ((whole, items), (some, n)):
                found = lists[shelf]  # type: ignore[index]
                kept = wanted[:size]
                assert found.items[user].tolist() == kept + [0] * (size - len(kept)), shelf
                scores = [values[user, each].item() for each in kept] + [-math.inf] * (size - len(kept))
                assert found.scores[user].tolist() == scores, shelf


@pytest.mark.parametrize("shelf", ["all", "again", "new"])
def test_a_shelf_asked_for_alone_is_the_one_asked_for_beside_others(shelf: Any) -> None:
    w, retriever = given_retriever()
    users = torch.arange(300)
    together = recommend_shelves(retriever, w.sequences, users, {"all": 7, "again": 4, "new": 9})
    size = together[shelf].items.shape[1]
    alone = recommend_shelves(retriever, w.sequences, users, {shelf: size})[shelf]
    assert all(torch.equal(a, b) for a, b in zip(alone, together[shelf], strict=True))
    if shelf != "again":
        same = recommend(retriever, w.sequences, users, size, exclude_seen=shelf == "new")
        assert all(torch.equal(a, b) for a, b in zip(same, alone, strict=True))


def test_an_items_score_and_interest_are_the_same_on_every_list() -> None:
    w, retriever = given_retriever(users=40, items=30)
    lists = recommend_shelves(retriever, w.sequences, torch.arange(40), {"all": 28, "again": 28, "new": 28})
    whole = lists["all"]
    for user in range(40):
        places = {int(item): place for place, item in enumerate(whole.items[user])}
        for shelf in ("again", "new"):
            found = lists[shelf]  # type: ignore[index]
            for item, score, interest in zip(found.items[user], found.scores[user], found.interest[user], strict=True):
                if item > 0:
                    place = places[int(item)]
                    assert score == whole.scores[user, place]
                    assert interest == whole.interest[user, place]


def test_a_shelf_of_nothing_is_empty_places() -> None:
    w, retriever = given_retriever(users=3)
    empty = Sequences(torch.zeros(0).long(), torch.zeros(4).long(), w.sequences.profile)
    items, scores, _ = recommend_shelves(retriever, empty, torch.arange(3), {"again": 2})["again"]
    assert items.tolist() == [[0, 0]] * 3
    assert (scores == -math.inf).all()


# --- the same answer in any company ---

MODELS = {
    "paper": {},
    "normalised": {"normalize_items": True, "normalize_interests": True, "residual": True, "recency": True},
    "wide": {"dim": 64, "interests": 4, "max_history": 50, "hidden": (128,), "profile_dim": 16},
    "odd": {"dim": 36, "interests": 5, "max_history": 21, "hidden": (52, 28), "routing_update": "cosine"},
    "narrow layer": {"hidden": (4,)},
    "one interest": {"interests": 1},
    "mean": {"encoder": "mean", "interests": 1},
}


@pytest.mark.parametrize("setting", [{"dim": 30}, {"profile_dim": 6}, {"hidden": (8, 7)}])
def test_widths_whose_rounding_depends_on_the_place_in_the_batch_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="multiple"):
        ModelConfig(**setting)


@pytest.mark.parametrize(("model", "threads"), [*((model, 1) for model in MODELS), ("wide", 2)])
def test_a_users_vectors_and_list_are_bit_identical_in_any_batch(model: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        w, retriever = given_retriever(**MODELS[model])
        everyone = torch.arange(300)
        vectors, own = interests_of(retriever, w.sequences, everyone)
        lists = recommend(retriever, w.sequences, everyone, 20, exclude_seen=True)
        # when the same users come alone, at other places, and with another padding width
        order = torch.randperm(300, generator=generator(5))
        moved, moved_own = interests_of(retriever, w.sequences, order)
        moved_lists = recommend(retriever, w.sequences, order, 20, exclude_seen=True)
        wide, _ = interests_of(retriever, w.sequences, everyone, width=w.config.max_history)
        # then nothing changes, to the last bit
        assert torch.equal(moved, vectors[order])
        assert torch.equal(moved_own, own[order])
        assert torch.equal(wide, vectors)
        assert all(torch.equal(a, b[order]) for a, b in zip(moved_lists, lists, strict=True))
        for user in (0, 1, 127, 128, 255, 299):
            alone, _ = interests_of(retriever, w.sequences, torch.tensor([user]))
            assert torch.equal(alone[0], vectors[user])
            one = recommend(retriever, w.sequences, torch.tensor([user]), 20, exclude_seen=True)
            assert all(torch.equal(a[0], b[user]) for a, b in zip(one, lists, strict=True))
    finally:
        torch.set_num_threads(before)


def interests_of(
    retriever: MINDRetriever, sequences: Sequences, users: Tensor, width: int | None = None
) -> tuple[Tensor, Tensor]:
    return retriever.interests(full_histories(sequences, users, retriever.view, width))


@pytest.mark.parametrize("model", MODELS)
def test_empty_histories_give_finite_vectors_and_lists(model: str) -> None:
    w, retriever = given_retriever(users=5, **MODELS[model])
    empty = Sequences(torch.zeros(0).long(), torch.zeros(6).long(), w.sequences.profile)
    vectors, own = interests_of(retriever, empty, torch.arange(5))
    assert vectors.isfinite().all()
    assert own.sum(1).tolist() == [1] * 5
    items, scores, _ = recommend(retriever, empty, torch.arange(5), 10, exclude_seen=True)
    assert (items >= 2).all()
    assert scores.isfinite().all()


def test_unknown_items_in_a_history_are_behaviours_and_padding_is_not() -> None:
    # given two histories that differ by an unknown item: K'_u counts it, though its vector is untrained
    w, retriever = given_retriever(users=2)
    vectors, own = interests_of(
        retriever, sequences_of([[5, 6, 7], [5, 6, 7, 1]], w.sequences.profile), torch.arange(2)
    )
    assert own.sum(1).tolist() == [1, 2]
    assert vectors.isfinite().all()

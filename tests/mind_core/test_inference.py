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
from mind_core.inference import MINDRetriever, PopularityRetriever, recommend, recommend_shelves
from mind_core.sequences import Sequences, full_histories
from mind_core.shelves import top_lists
from tests.mind_core import reference
from tests.mind_core.given import World, generator, random_sequences, sequences_of, world

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
    whole = top_lists(values.clone(), (row, item), {"all": items, "again": items, "new": items})
    some = top_lists(values.clone(), (row, item), {"new": n, "again": n, "all": n})
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

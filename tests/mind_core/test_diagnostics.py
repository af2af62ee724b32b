"""Figures that tell working interests from collapsed ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mind_core.diagnostics import (
    COLLAPSED_ABOVE,
    cluster_agreement,
    coupling_entropy,
    pairwise_cosine,
    routing_diagnostics,
    unmoved_share,
)
from mind_core.inference import MINDRetriever
from mind_core.sequences import View, full_histories
from tests.mind_core.given import generator, own_mask, prefix_mask, random_sequences, world

FIGURES = {
    "routing/map_norm",
    "routing/coupling_entropy",
    "routing/unmoved_share",
    "routing/interest_cosine",
    "routing/interest_collapse",
    "routing/interests_per_user",
}


def test_cosine_of_parallel_orthogonal_and_opposite_interests() -> None:
    interests = torch.tensor([[[1.0, 0], [5, 0]], [[1, 0], [0, 3]], [[1, 0], [-2, 0]]])
    assert pairwise_cosine(interests, torch.ones(3, 2).bool()).tolist() == pytest.approx([1, 0, -1])


def test_cosine_looks_at_own_interests_only_and_a_single_one_has_none() -> None:
    interests = torch.tensor([[[1.0, 0], [0, 1], [1, 0]]]).repeat(2, 1, 1)
    cosine = pairwise_cosine(interests, own_mask([2, 1], 3))
    assert cosine[0].item() == pytest.approx(0)
    assert cosine[1].isnan()


def test_entropy_is_one_when_spread_evenly_and_zero_when_each_behaviour_has_one_interest() -> None:
    even, sharp = torch.full((1, 2, 3), 0.5), torch.tensor([[[1.0, 0, 1], [0, 1, 0]]])
    mask, own = torch.ones(1, 3).bool(), torch.ones(1, 2).bool()
    assert coupling_entropy(even, mask, own).tolist() == pytest.approx([1.0])
    assert coupling_entropy(sharp, mask, own).tolist() == [0.0]


def test_entropy_by_hand_with_padding() -> None:
    # given one behaviour split 3 : 1 and one place of padding
    weights = torch.tensor([[[0.75, 0.0], [0.25, 0.0]]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert coupling_entropy(weights, prefix_mask([1], 2), torch.ones(1, 2).bool()).tolist() == pytest.approx([expected])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), users=st.integers(1, 5), interests=st.integers(2, 6))
def test_cosine_and_entropy_stay_in_their_range(seed: int, users: int, interests: int) -> None:
    g = generator(seed)
    own = own_mask(torch.randint(2, interests + 1, (users,), generator=g).tolist(), interests)
    vectors = torch.randn(users, interests, 4, generator=g)
    cosine = pairwise_cosine(vectors, own)
    for b in range(users):
        unit = torch.nn.functional.normalize(vectors[b][own[b]], dim=1)
        pairs = [float(unit[i] @ unit[j]) for i in range(len(unit)) for j in range(len(unit)) if i != j]
        assert cosine[b].item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    weights = torch.randn(users, interests, 3, generator=g).masked_fill(~own.unsqueeze(2), -math.inf).softmax(1)
    entropy = coupling_entropy(weights, torch.ones(users, 3).bool(), own)
    assert ((entropy >= 0) & (entropy <= 1 + 1e-5)).all()


# --- agreement with planted clusters ---


def agreement_of(interests: list[list[int]], clusters: list[list[int]], lengths: list[int]) -> list[float]:
    """Each behaviour wholly in the interest given."""
    weights = torch.nn.functional.one_hot(torch.tensor(interests), 3).transpose(1, 2).float()
    return cluster_agreement(weights, prefix_mask(lengths, len(clusters[0])), torch.tensor(clusters)).tolist()


def test_agreement_is_one_when_interests_are_the_clusters_under_any_names() -> None:
    assert agreement_of([[2, 2, 0, 0]], [[7, 7, 1, 1]], [4]) == [1.0]


def test_agreement_of_one_interest_is_chance_and_of_one_cluster_undefined() -> None:
    single, undefined = agreement_of([[1, 1, 1, 1], [0, 1, 2, 0]], [[0, 0, 1, 1], [3, 3, 3, 3]], [4, 4])
    assert single == 0.0
    assert math.isnan(undefined)


def test_agreement_by_hand_with_padding() -> None:
    # given interests {0, 1}, {2, 3} of clusters {0, 1, 2}, {3}: 1 pair together in both, 2 and 3 pairs each, of 6;
    # by chance 2 * 3 / 6 = 1, hence (1 - 1) / (2.5 - 1) = 0; the fifth place is padding
    assert agreement_of([[0, 0, 1, 1, 1]], [[5, 5, 5, 6, 6]], [4]) == [0.0]


@settings(deadline=None, max_examples=60)
@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=2, max_size=9))
def test_agreement_equals_the_adjusted_rand_index_by_counting_pairs(pairs: list[tuple[int, int]]) -> None:
    couples = list(itertools.combinations(pairs, 2))
    both = sum(a == c and b == d for (a, b), (c, d) in couples)
    first, second = sum(a == c for (a, _), (c, _) in couples), sum(b == d for (_, b), (_, d) in couples)
    (ours,) = agreement_of([[a for a, _ in pairs]], [[b for _, b in pairs]], [len(pairs)])
    if second == len(couples):
        assert math.isnan(ours)
        return
    assume(first + second > 0)  # else no two behaviours are together in either: both are all alone
    chance = first * second / len(couples)
    assert ours == pytest.approx((both - chance) / ((first + second) / 2 - chance))


def test_unmoved_share_by_hand_with_padding_foreign_and_single_interests() -> None:
    # given initial logits that pick interests 0, 1, 2 for the three places; interest 2 is foreign to user 0
    initial = torch.tensor([[3.0, 0, 1], [2, 5, 2], [1, 0, 9]])
    weights = torch.zeros(3, 3, 3)
    weights[0, [0, 0, 1], [0, 1, 2]] = 1.0  # place 1 moved, place 2 is where the logits of its own interests put it
    weights[1, [0, 1], [0, 1]] = 1.0  # two behaviours and padding
    weights[2, 0] = 1.0
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    found = unmoved_share(weights, initial, mask, own_mask([2, 3, 1], 3))
    assert found[:2].tolist() == pytest.approx([2 / 3, 1.0])
    assert found[2].isnan()


def test_without_routing_iterations_nothing_moves_and_with_strong_ones_much_does() -> None:
    still, strong = (
        world(random_sequences(40, 30, 8, shortest=4), 30, iterations=r, routing_scale=scale, sigma=1.0)
        for r, scale in ((1, 1.0), (3, 50.0))
    )
    shares = []
    for w in (still, strong):
        histories = full_histories(w.sequences, torch.arange(40), w.model.view)
        shares.append(routing_diagnostics(MINDRetriever.of(w.model, w.bags), histories)["routing/unmoved_share"])
    assert shares[0] == 1.0
    assert shares[1] < 0.8


def test_diagnostics_of_a_model_name_every_figure() -> None:
    w = world(random_sequences(40, 30, 12), 30)
    retriever = MINDRetriever.of(w.model, w.bags)
    figures = routing_diagnostics(retriever, full_histories(w.sequences, torch.arange(40), w.model.view))
    assert set(figures) == FIGURES
    assert all(math.isfinite(value) for value in figures.values())
    assert 1 <= figures["routing/interests_per_user"] <= 3


def test_map_norm_is_the_mean_length_of_s_e_over_real_behaviours() -> None:
    w = world([[2, 3], [4, 3, 2, 4]], 6, features=False, profile=False)
    retriever = MINDRetriever.of(w.model, w.bags)
    figures = routing_diagnostics(retriever, full_histories(w.sequences, torch.arange(2), View(8)))
    lengths = (retriever.behaviour_vectors @ w.model.encoder.shared_map).detach().norm(dim=1)
    expected = lengths[torch.tensor([2, 3, 4, 3, 2, 4])].mean().item()
    assert figures["routing/map_norm"] == pytest.approx(expected, rel=1e-5)


def test_collapse_is_reported_by_name() -> None:
    # given tiny embeddings, with which routing does nothing, and behaviours that are all the same item
    w = world([[5] * 8] * 4, 30, features=False, profile=False, init_std=0.02)
    retriever = MINDRetriever.of(w.model, w.bags)
    figures = routing_diagnostics(retriever, full_histories(w.sequences, torch.arange(4), View(8)))
    assert figures["routing/interest_cosine"] > COLLAPSED_ABOVE
    assert figures["routing/interest_collapse"] == 1.0

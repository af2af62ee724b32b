"""Rules without training: by hand, and item-kNN against a dense reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.baselines import NEGLIGIBLE, ItemKNN, PersonalFrequency, RecentPopularity, recent_counts
from mind_core.inference import TILE_USERS, Scorer, recommend
from tests.mind_core.given import generator, random_sequences, sequences_of

# items 2 to 6 by popularity: 5, 4, 3, 2, 1
COUNTS = torch.tensor([0, 0, 5, 4, 3, 2, 1])


def listed(rule: Scorer, lists: list[list[int]], n: int, *, exclude_seen: bool = False) -> list[list[int]]:
    items, _, _ = recommend(rule, sequences_of(lists), torch.arange(len(lists)), n, exclude_seen=exclude_seen)
    return items.tolist()


# --- recent popularity ---


def test_what_is_recent_is_the_newest_share_by_time_whoever_it_is_of() -> None:
    # given a user of early events and one of late events
    users, items = torch.tensor([0, 0, 0, 1]), torch.tensor([2, 2, 3, 4])
    times = torch.tensor([1, 2, 3, 9])
    assert recent_counts(users, items, times, 5, 0.25).tolist() == [0, 0, 0, 0, 1]
    assert recent_counts(users, items, times, 5, 0.5).tolist() == [0, 0, 0, 1, 1]
    # and events of the same time count alike
    assert recent_counts(users, items, torch.tensor([1, 9, 9, 9]), 5, 0.25).tolist() == [0, 0, 1, 1, 1]


def test_where_times_do_not_compare_each_users_newest_share_is_recent() -> None:
    users, items = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([2, 2, 3, 4, 2])
    assert recent_counts(users, items, None, 5, 0.5).tolist() == [0, 0, 1, 1, 1]
    assert recent_counts(users, items, None, 5, 0.1).tolist() == [0, 0, 1, 0, 1], "one event of each at least"
    assert recent_counts(users[:0], items[:0], None, 5, 0.1).tolist() == [0] * 5


def test_among_equally_recent_items_the_more_popular_comes_first() -> None:
    rule = RecentPopularity(torch.tensor([0, 0, 1, 3, 1, 0, 0]), COUNTS)
    assert listed(rule, [[2], []], 5) == [[3, 2, 4, 5, 6]] * 2


def test_a_long_catalogue_has_no_ties_that_its_counts_have_not() -> None:
    # given neighbouring large counts, whose logarithms are equal in float32
    counts = torch.cat([torch.zeros(2), torch.arange(10_000_000, 10_000_050)]).long()
    values = RecentPopularity(torch.zeros_like(counts), counts).values
    assert len(values[2:].unique()) == 50


# --- personal frequency ---


def test_a_users_items_come_by_count_then_newest_then_the_popular() -> None:
    # given 6 twice, then 4 and 5 once, 4 being newer, and nothing of 2 and 3
    assert listed(PersonalFrequency(COUNTS), [[6, 5, 6, 4]], 5) == [[6, 4, 5, 2, 3]]


def test_nobodys_history_is_popularity_and_so_is_what_is_left_without_seen_items() -> None:
    rule = PersonalFrequency(COUNTS)
    assert listed(rule, [[], [1]], 5) == [[2, 3, 4, 5, 6]] * 2, "the unknown item is no item"
    assert listed(rule, [[6, 5, 6, 4]], 2, exclude_seen=True) == [[2, 3]]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), users=st.integers(1, 5))
def test_personal_frequency_equals_sorting_each_history(seed: int, users: int) -> None:
    lists = random_sequences(users, 7, 12, seed, shortest=0)
    for found, history in zip(listed(PersonalFrequency(COUNTS), lists, 5), lists, strict=True):
        last = {item: place for place, item in enumerate(history)}
        own = sorted(last, key=lambda item: (-history.count(item), -last[item]))
        assert found == [*own, *(item for item in (2, 3, 4, 5, 6) if item not in own)]


# --- item-kNN ---


def neighbourhood(items: int, most: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed)
    near = torch.stack([torch.randperm(items - 2, generator=g)[:most] + 2 for _ in range(items)])
    similarity = torch.rand(items, most, generator=g)
    similarity[near == torch.arange(items).unsqueeze(1)] = 0  # no item is a neighbour of its own
    near[similarity == 0] = 0
    return near, similarity


def test_item_knn_by_hand() -> None:
    # given 2 ~ 3 (.5) and 4 ~ 5 (.25), and a user who did 2, 4, 4 in this order
    near = torch.tensor([[0], [0], [3], [2], [5], [4], [0]])
    similarity = torch.tensor([[0.0], [0.0], [0.5], [0.5], [0.25], [0.25], [0.0]])
    values = ItemKNN(near, similarity, COUNTS, decay=0.5).score(sequences_of([[2, 4, 4]]), torch.tensor([0]))
    # then 4 counts 1 + .5, 2 counts .25, and each its neighbour by so much
    assert values[0, 2:6].tolist() == pytest.approx([0.25, 0.125, 1.5, 0.375])
    assert values[0, 6] < 0, "what nobody says anything of"
    assert listed(ItemKNN(near, similarity, COUNTS, 0.5), [[2, 4, 4]], 5) == [[4, 5, 2, 3, 6]]
    assert listed(ItemKNN(near, similarity, COUNTS, 0.5), [[2, 4, 4]], 3, exclude_seen=True) == [[5, 3, 6]]
    assert listed(ItemKNN(near, similarity, COUNTS, 0.5), [[]], 3) == [[2, 3, 4]], "the popular, without a history"


@pytest.mark.parametrize("decay", [0.8, 0.95, 1.0])
def test_item_knn_equals_a_dense_loop_in_float64(decay: float) -> None:
    items, lists = 40, random_sequences(30, 40, 60, shortest=0)
    near, similarity = neighbourhood(items, 6, 1)
    counts = torch.arange(items)
    found = ItemKNN(near, similarity, counts, decay).score(sequences_of(lists), torch.arange(30))
    dense = np.eye(items)
    for item in range(items):
        for place, other in enumerate(near[item].tolist()):
            dense[item, other] += float(similarity[item, place])
    for user, history in enumerate(lists):
        expected = np.zeros(items)
        for age, item in enumerate(reversed(history)):
            expected += decay**age * dense[item]
        ours, told = found[user, 2:].double().numpy(), expected[2:] > 0
        np.testing.assert_allclose(ours[told], expected[2:][told], rtol=1e-5)
        assert (ours[~told] < 0).all()


def test_a_behaviour_of_negligible_weight_counts_for_its_own_item_alone() -> None:
    near = torch.tensor([[0], [0], [3], [2], [5], [4], [0]])
    rule = ItemKNN(near, torch.full((7, 1), 0.5), COUNTS, decay=0.1)
    values = rule.score(sequences_of([[2, *[4] * 7]]), torch.tensor([0]))[0]
    assert values[2].item() == pytest.approx(1e-7)
    assert values[3] < 0
    assert values[2] > values[6], "it still comes before what nothing is known of"
    assert NEGLIGIBLE > 1e-7


@pytest.mark.parametrize("rule", ["personal", "knn"])
def test_a_users_scores_are_bit_identical_in_any_company(rule: str) -> None:
    lists = random_sequences(TILE_USERS, 40, 60, shortest=0)
    counts = torch.arange(40)
    scorer: Scorer = PersonalFrequency(counts) if rule == "personal" else ItemKNN(*neighbourhood(40, 6, 2), counts, 0.8)
    sequences = sequences_of(lists)
    together = scorer.score(sequences, torch.arange(TILE_USERS))
    order = torch.randperm(TILE_USERS, generator=generator(3))
    assert torch.equal(scorer.score(sequences, order), together[order])
    for user in (0, 5, 127):
        assert torch.equal(scorer.score(sequences, torch.tensor([user]))[0], together[user])

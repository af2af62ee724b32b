"""Ranks and per-user metrics: by hand, and against brute force with ties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.metrics import group_metrics, target_ranks, user_metrics
from mind_core.search import Catalogue, search
from tests.mind_core import reference


def ranked(scores: list[float], depth: int) -> tuple[Tensor, Tensor]:
    """The top `depth` items of one user, whose item i scores scores[i] (0 and 1 are never items)."""
    items, top, _ = search(
        Catalogue(torch.tensor(scores).unsqueeze(1)), torch.ones(1, 1, 1), torch.ones(1, 1).bool(), depth
    )
    return items, top


def test_ranks_by_hand() -> None:
    items, scores = torch.tensor([[7, 5, 9, 4]]), torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    ranks = target_ranks(items, scores, torch.tensor([0, 0, 0]), torch.tensor([7, 9, 8]))
    assert ranks[:2].tolist() == [1, 3]
    assert ranks[2] >= 4, "not in the top 3"


def test_a_target_ranks_behind_every_item_of_its_score() -> None:
    items, scores = torch.tensor([[7, 5, 9, 4]]), torch.tensor([[4.0, 3.0, 3.0, 1.0]])
    assert target_ranks(items, scores, torch.tensor([0, 0]), torch.tensor([5, 9])).tolist() == [3, 3]


def test_a_target_tied_with_the_place_below_the_list_is_not_in_it() -> None:
    # given a list one deeper than the cutoff 2, whose places 2 and 3 are tied
    items, scores = torch.tensor([[7, 5, 9]]), torch.tensor([[4.0, 3.0, 3.0]])
    assert target_ranks(items, scores, torch.tensor([0]), torch.tensor([5])).item() > 2


def test_targets_belong_to_their_own_users_list() -> None:
    items, scores = torch.tensor([[7, 5], [5, 7]]), torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    assert target_ranks(items, scores, torch.tensor([1, 0]), torch.tensor([7, 7])).tolist() == [2, 1]


@settings(deadline=None, max_examples=100)
@given(scores=st.lists(st.integers(0, 4), min_size=1, max_size=12), n=st.integers(1, 8), data=st.data())
def test_ranks_equal_brute_force_with_pessimistic_ties(scores: list[int], n: int, data: st.DataObject) -> None:
    values = [math.inf, math.inf, *map(float, scores)]  # padding and unknown would win, were they ranked
    items, top = ranked(values, n + 1)
    target = data.draw(st.integers(2, len(values) - 1))
    ours = int(target_ranks(items, top, torch.tensor([0]), torch.tensor([target])))
    exact = reference.pessimistic_rank([-math.inf, -math.inf, *values[2:]], target)
    assert ours == exact if exact <= n else ours > n


def test_metrics_by_hand() -> None:
    # given user 0 with targets at ranks 1 and 3, user 1 with one at rank 2, user 2 with one far below
    metrics = user_metrics(torch.tensor([3, 2, 1, 99]), torch.tensor([0, 1, 0, 2]), users=3, cutoffs=[1, 3])
    ideal = 1 + 1 / math.log2(3)
    expected = {
        "hit_rate@1": [1, 0, 0],
        "recall@1": [0.5, 0, 0],
        "ndcg@1": [1, 0, 0],
        "mrr@1": [1, 0, 0],
        "hit_rate@3": [1, 1, 0],
        "recall@3": [1, 1, 0],
        "ndcg@3": [(1 + 0.5) / ideal, 1 / math.log2(3), 0],
        "mrr@3": [1, 0.5, 0],
    }
    assert set(metrics) == set(expected)
    for name, values in expected.items():
        assert metrics[name].dtype == torch.float64
        assert metrics[name].tolist() == pytest.approx(values), name


def test_a_perfect_ranking_has_ndcg_one_even_with_more_targets_than_places() -> None:
    metrics = user_metrics(torch.arange(1, 8), torch.zeros(7).long(), users=1, cutoffs=[3, 7, 10])
    assert [metrics[f"ndcg@{n}"].item() for n in (3, 7, 10)] == pytest.approx([1.0, 1.0, 1.0])


@settings(deadline=None, max_examples=80)
@given(
    ranks=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=5),
    cutoffs=st.lists(st.integers(1, 25), min_size=1, max_size=3, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_metrics_equal_brute_force_in_any_order_of_targets(
    ranks: list[list[int]], cutoffs: list[int], order: object
) -> None:
    pairs = [(u, r) for u, of_user in enumerate(ranks) for r in of_user]
    order.shuffle(pairs)  # type: ignore[attr-defined]
    row, flat = torch.tensor([u for u, _ in pairs]), torch.tensor([r for _, r in pairs])
    metrics = user_metrics(flat, row, users=len(ranks), cutoffs=cutoffs)
    for user, of_user in enumerate(ranks):
        for n in cutoffs:
            for name, value in reference.user_metrics(of_user, n).items():
                assert metrics[name][user].item() == pytest.approx(value), name


@settings(deadline=None, max_examples=60)
@given(
    targets=st.lists(
        st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12), st.booleans()), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    n=st.integers(1, 12),
)
def test_a_groups_metrics_are_those_of_its_targets_alone(targets: list[list[tuple[int, int, bool]]], n: int) -> None:
    flat = [(user, *target) for user, of_user in enumerate(targets) for target in of_user]
    row, ranks, shelf_ranks, again = map(torch.tensor, zip(*flat, strict=True))
    found = group_metrics(ranks, shelf_ranks, again, row, len(targets), [n])
    places = {"again": (1, True), "new": (1, False), "shelf_again": (2, True), "shelf_new": (2, False)}
    for prefix, (place, group) in places.items():
        if not any(g == group for _, _, _, g in flat):
            assert not [name for name in found if name.startswith(f"{prefix}/")], "a group of nobody has no metrics"
            continue
        for user in range(len(targets)):
            of_user = [each[place] for each in flat if each[0] == user and each[3] == group]
            for name in reference.user_metrics([1], n):
                value = found[f"{prefix}/{name}"][user].item()
                if of_user:
                    assert value == pytest.approx(reference.user_metrics(of_user, n)[name]), (prefix, name)
                else:
                    assert math.isnan(value)
    # the whole is its two groups: a hit of either is a hit, and recall is their mean, weighted by their targets
    for user, of_user in enumerate(targets):
        parts = [found[f"{g}/hit_rate@{n}"][user].item() for g in ("again", "new") if f"{g}/hit_rate@{n}" in found]
        assert found[f"hit_rate@{n}"][user].item() == max(part for part in parts if not math.isnan(part))
        hits = sum(
            found[f"{g}/recall@{n}"][user].item() * sum(each[2] == (g == "again") for each in of_user)
            for g in ("again", "new")
            if any(each[2] == (g == "again") for each in of_user)
        )
        assert found[f"recall@{n}"][user].item() * len(of_user) == pytest.approx(hits)


def test_a_score_that_is_not_a_number_finds_nothing() -> None:
    nan = float("nan")
    ranks = target_ranks(
        torch.tensor([[5, 3, 7]]), torch.tensor([[nan, nan, 1.0]]), torch.tensor([0, 0]), torch.tensor([5, 7])
    )
    assert ranks.tolist() == [4, 1]

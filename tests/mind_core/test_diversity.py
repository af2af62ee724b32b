"""What a list holds: every policy against a bare loop in float64, and what must be true of any list."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.diversity import NO_CATEGORY, Cap, best, greedy, pooled, quota, round_robin
from mind_core.hits import TopList, merge_interests
from mind_core.variety import variety
from tests.mind_core.given import generator

Found = list[tuple[int, float, int]]  # item, score, interest


class Given:
    """Candidates of one to four users, of small whole scores so that ties are many, with categories and caps."""

    def __init__(self, seed: int, interests: int, depth: int, items: int, kinds: int):
        g = generator(seed)
        users = int(torch.randint(1, 5, (1,), generator=g))
        count = min(depth, items)
        draws = [torch.randperm(items, generator=g)[:count] + 2 for _ in range(users * interests)]
        self.items = torch.stack(draws).view(users, interests, count)
        self.scores = torch.randint(-3, 4, self.items.shape, generator=g) / 4
        empty = torch.rand(self.items.shape, generator=g) < 0.15
        self.items[empty] = 0
        foreign = torch.arange(interests) >= torch.randint(1, interests + 1, (users, 1), generator=g)
        self.scores[foreign] = -math.inf
        self.category = torch.randint(-1, kinds, (items + 2,), generator=g)
        self.cap = Cap(torch.randint(-1, kinds, (items + 2,), generator=g), int(torch.randint(0, 4, (1,), generator=g)))
        self.interests = interests
        self.pool = pooled(self.items, self.scores)

    def candidates(self, user: int) -> Found:
        """By falling score, then item, then interest."""
        found = [
            (int(self.items[user, j, m]), float(self.scores[user, j, m]), j)
            for j in range(self.interests)
            for m in range(self.items.shape[2])
        ]
        kept = [each for each in found if each[0] > 0 and each[1] > -math.inf]
        return sorted(kept, key=lambda each: (-each[1], each[0], each[2]))


GIVEN = st.builds(
    Given,
    seed=st.integers(0, 2**31),
    interests=st.integers(1, 4),
    depth=st.integers(1, 8),
    items=st.integers(1, 12),
    kinds=st.integers(1, 4),
)
N = st.integers(1, 14)
any_case = settings(deadline=None, max_examples=80)


def fits(item: int, listed: Found, cap: Cap) -> bool:
    kind = int(cap.category[item])
    there = sum(int(cap.category[other]) == kind for other, _, _ in listed)
    return item not in [other for other, _, _ in listed] and (kind == NO_CATEGORY or there < cap.limit)


def reference_greedy(case: Given, user: int, n: int, weight: float) -> Found:
    """The loop of algorithm 1, as it is written."""
    listed: Found = []
    while len(listed) < n:
        free = [each for each in case.candidates(user) if fits(each[0], listed, case.cap)]
        if not free:
            break
        kind = case.category

        def worth(each: tuple[int, float, int], listed: Found = listed, kind: Tensor = kind) -> float:
            return each[1] + weight * sum(int(kind[each[0]] != kind[k]) for k, _, _ in listed)

        listed.append(max(free, key=worth))  # the first of equals
    return listed


def reference_turns(case: Given, user: int, n: int, places: float) -> Found:
    """Interests in turn until each has `places`, then whoever has the highest score."""
    candidates, listed = case.candidates(user), []
    order = sorted({each[2] for each in candidates}, key=lambda j: (-max(s for _, s, k in candidates if k == j), j))
    filled = dict.fromkeys(order, 0)
    while len(listed) < n:
        free = [each for each in candidates if fits(each[0], listed, case.cap)]
        if not free:
            break
        waiting = [j for j in order if filled[j] < places and any(k == j for _, _, k in free)]
        if waiting:
            turn = min(waiting, key=lambda j: (filled[j], order.index(j)))
            free = [each for each in free if each[2] == turn]
        listed.append(free[0])
        filled[free[0][2]] += 1
    return listed


def rows(found: TopList) -> list[Found]:
    """What stands in each list, and that what is empty comes last."""
    lists = []
    for items, scores, interest in zip(*(column.tolist() for column in found), strict=True):
        full = sum(item > 0 for item in items)
        assert not any(items[full:])
        assert all(score == -math.inf for score in scores[full:])
        lists.append(list(zip(items[:full], scores[:full], interest[:full], strict=True)))
    return lists


# --- against the loops ---


@any_case
@given(case=GIVEN, n=N, weight=st.sampled_from([0.0, 0.1, 0.25, 0.3, 2.0]))
def test_greedy_is_the_algorithm_of_comirec(case: Given, n: int, weight: float) -> None:
    found = rows(greedy(case.pool, n, case.category, weight, [case.cap]))
    assert found == [reference_greedy(case, user, n, weight) for user in range(len(found))]


@any_case
@given(case=GIVEN, n=N)
def test_interests_take_turns(case: Given, n: int) -> None:
    found = rows(round_robin(case.pool, n, case.interests, [case.cap]))
    assert found == [reference_turns(case, user, n, math.inf) for user in range(len(found))]


@any_case
@given(case=GIVEN, n=N, places=st.integers(0, 5))
def test_each_interest_has_its_places_and_the_rest_goes_by_score(case: Given, n: int, places: int) -> None:
    found = rows(quota(case.pool, n, case.interests, places, [case.cap]))
    expected = [reference_turns(case, user, n, places) for user in range(len(found))]
    assert found == [sorted(each, key=lambda entry: -entry[1]) for each in expected]


# --- what is true of any list ---


def lists_of(case: Given, n: int) -> dict[str, TopList]:
    caps = [case.cap]
    return {
        "best": best(case.pool, n, caps),
        "greedy": greedy(case.pool, n, case.category, 0.3, caps),
        "round_robin": round_robin(case.pool, n, case.interests, caps),
        "quota": quota(case.pool, n, case.interests, 2, caps),
    }


@any_case
@given(case=GIVEN, n=N)
def test_a_list_holds_no_item_twice_and_nothing_that_was_no_candidate(case: Given, n: int) -> None:
    for found in lists_of(case, n).values():
        for user, listed in enumerate(rows(found)):
            assert len({item for item, _, _ in listed}) == len(listed) <= n
            assert set(listed) <= set(case.candidates(user))


@any_case
@given(case=GIVEN, n=N)
def test_caps_hold_and_a_list_is_short_only_where_they_leave_nothing(case: Given, n: int) -> None:
    for found in lists_of(case, n).values():
        for user, listed in enumerate(rows(found)):
            kinds = [int(case.cap.category[item]) for item, _, _ in listed]
            assert all(kinds.count(kind) <= case.cap.limit for kind in kinds if kind != NO_CATEGORY)
            assert len(listed) == n or not any(fits(item, listed, case.cap) for item, _, _ in case.candidates(user))


@any_case
@given(case=GIVEN, n=N)
def test_without_lambda_and_caps_greedy_is_the_best_match(case: Given, n: int) -> None:
    found = greedy(case.pool, n, case.category, 0.0)
    merged = merge_interests(case.items, case.scores, n)
    assert torch.equal(found.items, merged.items)
    assert torch.equal(found.scores, merged.scores)


@any_case
@given(case=GIVEN, n=N)
def test_a_user_gets_the_same_list_alone(case: Given, n: int) -> None:
    together = lists_of(case, n)
    for user in range(len(case.items)):
        alone = Given.__new__(Given)
        alone.__dict__ = {**case.__dict__, "pool": TopList(*(column[user : user + 1] for column in case.pool))}
        for name, found in lists_of(alone, n).items():
            assert [column[0].tolist() for column in found] == [column[user].tolist() for column in together[name]]


def test_a_large_lambda_takes_each_category_before_any_twice() -> None:
    # given ten items by falling score, of three categories in blocks
    pool = TopList(torch.arange(2, 12).unsqueeze(0), torch.linspace(1, 0.1, 10).unsqueeze(0), torch.zeros(1, 10).long())
    category = torch.tensor([0, 0, *[1] * 6, *[2] * 2, *[3] * 2])
    assert greedy(pool, 6, category, 5.0).items.tolist() == [[2, 8, 10, 3, 9, 11]]
    assert greedy(pool, 6, category, 0.0).items.tolist() == [[2, 3, 4, 5, 6, 7]]


def test_a_cap_does_not_bind_items_without_a_category() -> None:
    pool = TopList(torch.tensor([[2, 3, 4, 5]]), torch.tensor([[4.0, 3.0, 2.0, 1.0]]), torch.zeros(1, 4).long())
    cap = Cap(torch.tensor([0, 0, NO_CATEGORY, NO_CATEGORY, 7, 7]), 1)
    assert best(pool, 4, [cap]).items.tolist() == [[2, 3, 4, 0]]


# --- metrics of variety ---


def test_variety_counts_pairs_and_leaves_empty_places_out() -> None:
    g = generator(3)
    vectors, category = torch.randn(20, 4, generator=g), torch.randint(-1, 3, (20,), generator=g)
    items = torch.stack([torch.randperm(18, generator=g)[:6] + 2 for _ in range(5)])
    items[1, 4:], items[2, 1:], items[3] = 0, 0, 0
    interest = torch.randint(0, 3, items.shape, generator=g)
    found = variety(TopList(items, torch.zeros(items.shape), interest), category, vectors)
    for user in range(len(items)):
        there = [(i, j) for i, j in zip(items[user].tolist(), interest[user].tolist(), strict=True) if i]
        pairs = list(combinations(there, 2))
        expected: dict[str, Any] = {
            "categories": len({int(category[i]) for i, _ in there}),
            "interests": len({j for _, j in there}),
            "category_diversity": mean([float(category[a] != category[b]) for (a, _), (b, _) in pairs]),
            "intra_list": mean([apart(vectors, a, b) for (a, _), (b, _) in pairs]),
            "across_interests": mean([apart(vectors, a, b) for (a, j), (b, k) in pairs if j != k]),
        }
        measured = {name: float(value[user]) for name, value in found.items()}
        assert measured == pytest.approx(expected, nan_ok=True, abs=1e-6)


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def apart(vectors: Tensor, one: int, other: int) -> float:
    return 1 - float(torch.nn.functional.cosine_similarity(vectors[one].double(), vectors[other].double(), dim=0))

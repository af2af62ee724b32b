"""What lists are made of, against bare loops."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.features import Bags
from mind_core.list_metrics import (
    SMOOTHING,
    calibration,
    category_shares,
    diversity_by_interest,
    gini,
    jaccard_distances,
    list_diversity,
    novelty,
    self_information,
)
from tests.mind_core.given import generator

Sets = list[list[int]]  # of the categories of each item index

item_categories = st.lists(st.lists(st.integers(0, 4), unique=True, max_size=3), min_size=1, max_size=6)


def bags_of(sets: Sets) -> Bags:
    """Items from index 2 with these categories; padding and unknown have none."""
    sizes = torch.tensor([0, 0, *map(len, sets)])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    rows = torch.tensor([category for each in sets for category in each], dtype=torch.int64)
    return Bags(offsets, rows, torch.tensor([1 / len(each) for each in sets for _ in each]))


def same(value: float, expected: list[float]) -> None:
    """The mean of what a loop found, or NaN where it found nothing."""
    if expected:
        assert value == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    else:
        assert math.isnan(value)


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_gini_is_half_the_mean_difference_over_the_mean(counts: list[int]) -> None:
    total, n = sum(counts), len(counts)
    apart = sum(abs(a - b) for a in counts for b in counts)
    assert gini(torch.tensor(counts)) == pytest.approx(apart / (2 * n * total) if total else 0.0, abs=1e-12)


@given(counts=st.lists(st.integers(0, 50), min_size=3, max_size=9), seed=st.integers(0, 99))
def test_novelty_equals_a_loop(counts: list[int], seed: int) -> None:
    items = torch.randint(0, len(counts), (4, 3), generator=generator(seed))
    total = max(1, sum(counts))
    found = novelty(items, self_information(torch.tensor(counts)))
    for user in range(4):
        bits = [-math.log2(max(1, counts[item]) / total) for item in items[user].tolist() if item]
        if bits:
            assert found[user].item() == pytest.approx(sum(bits) / len(bits), abs=1e-5)
        else:
            assert found[user].isnan()


@settings(deadline=None, max_examples=60)
@given(sets=item_categories, seed=st.integers(0, 999), n=st.integers(1, 5))
def test_diversity_equals_loops_over_pairs(sets: Sets, seed: int, n: int) -> None:
    g = generator(seed)
    items = torch.randint(0, len(sets) + 2, (3, n), generator=g)
    items[items == 1] = 0  # an empty place
    interest = torch.randint(0, 2, (3, n), generator=g)
    distances = jaccard_distances(items, bags_of(sets))
    overall, (within, across) = list_diversity(distances), diversity_by_interest(distances, interest)
    known: list[Sets] = [[], [], *([each] for each in sets)]
    for user in range(3):
        found: dict[bool, list[float]] = {True: [], False: []}
        for one, other in combinations(range(n), 2):
            a, b = (set(known[items[user, place]][0] if known[items[user, place]] else []) for place in (one, other))
            if a and b:
                found[bool(interest[user, one] == interest[user, other])].append(1 - len(a & b) / len(a | b))
        same(overall[user].item(), found[True] + found[False])
        same(within[user].item(), found[True])
        same(across[user].item(), found[False])


@settings(deadline=None, max_examples=60)
@given(sets=item_categories, seed=st.integers(0, 999))
def test_calibration_equals_a_loop_over_categories(sets: Sets, seed: int) -> None:
    g, users = generator(seed), 3
    bags = bags_of(sets)
    shares, loops = [], []
    for size in (7, 4):
        row = torch.randint(0, users, (size,), generator=g)
        items = torch.randint(2, len(sets) + 2, (size,), generator=g)
        shares.append(category_shares(row, items, bags, users, 5))
        sums = [Counter[int]() for _ in range(users)]
        for user, item in zip(row.tolist(), items.tolist(), strict=True):
            for category in sets[item - 2]:
                sums[user][category] += 1 / len(sets[item - 2])  # type: ignore[assignment]
        loops.append([{c: value / each.total() for c, value in each.items()} for each in sums])
    found = calibration(*shares)
    for user in range(users):
        p, q = loops[0][user], loops[1][user]
        for category in range(5):
            assert shares[0][user, category].item() == pytest.approx(p.get(category, 0), abs=1e-6)
        if not p or not q:
            assert found[user].isnan()
            continue
        mixed = {c: (1 - SMOOTHING) * q.get(c, 0) + SMOOTHING * share for c, share in p.items()}
        assert found[user].item() == pytest.approx(sum(s * math.log(s / mixed[c]) for c, s in p.items()), abs=1e-5)


def test_a_list_of_a_history_is_calibrated_and_one_of_something_else_costs_the_most() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert calibration(one, one).item() == 0
    assert calibration(one, other).item() == pytest.approx(math.log(1 / SMOOTHING), abs=1e-5)


def test_empty_lists_and_a_catalogue_without_categories_have_no_diversity() -> None:
    nothing = Bags(torch.zeros(5, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert list_diversity(jaccard_distances(torch.tensor([[2, 3], [0, 0]]), nothing)).isnan().all()
    assert category_shares(torch.tensor([0]), torch.tensor([2]), nothing, 1, 2).tolist() == [[0.0, 0.0]]

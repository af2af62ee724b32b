"""Overlap of interests' lists and the recall of the best one, against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.interest_metrics import best_interest_recall, list_overlap
from tests.mind_core.given import generator, own_mask


def test_empty_places_are_no_items_in_common() -> None:
    lists = torch.tensor([[[2, 3, 0, 0], [3, 0, 0, 0]]])
    assert list_overlap(lists, own_mask([2], 2)).tolist() == [0.25]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), counts=st.lists(st.integers(1, 3), min_size=1, max_size=4), n=st.integers(1, 5))
def test_overlap_and_recall_equal_loops(seed: int, counts: list[int], n: int) -> None:
    g = generator(seed)
    users, own = len(counts), own_mask(counts, 3)
    lists = torch.rand(users, 3, 8, generator=g).argsort(-1)[..., :n] + 2
    targets = [2 + torch.randperm(8, generator=g)[:3] for _ in range(users)]
    row, flat = torch.arange(users).repeat_interleave(3), torch.cat(targets)
    overlap, recall = list_overlap(lists, own), best_interest_recall(lists, own, row, flat)
    for user, count in enumerate(counts):
        sets = [set(lists[user, j].tolist()) for j in range(count)]
        pairs = [len(a & b) / n for a, b in itertools.combinations(sets, 2)]
        if pairs:
            assert overlap[user].item() == pytest.approx(sum(pairs) / len(pairs))
        else:
            assert overlap[user].isnan()
        wanted = set(targets[user].tolist())
        assert recall[user].item() == pytest.approx(max(len(each & wanted) for each in sets) / 3)

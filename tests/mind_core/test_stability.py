"""Interests stay: one more event moves few of the behaviours that are still in the window to another interest."""

from __future__ import annotations

import pytest
import torch

from mind_core.diagnostics import moved_by_one_event, moved_share
from mind_core.inference import MINDRetriever
from tests.mind_core.given import generator, planted_interests, world


def test_a_behaviour_that_changes_its_interest_is_counted_after_interests_are_matched() -> None:
    # given six behaviours whose interests swap names, and one of them that truly moves
    before = torch.tensor([[0, 0, 0, 1, 1, 1]])
    after = torch.tensor([[1, 1, 1, 0, 0, 1]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    assert moved_share(before, after, mask, interests=2).tolist() == [pytest.approx(1 / 6)]
    assert moved_share(before, 1 - before, mask, interests=2).tolist() == [0.0]


@pytest.mark.parametrize("length", [9, 16, 40])
def test_logits_made_of_the_item_keep_most_behaviours_where_they_were(length: int) -> None:
    """Users shorter than, as long as and longer than the window of 16, whose items lie in clusters."""
    lists, items = planted_interests(60, clusters=4, per_cluster=6, length=length, seed=2)
    moved = {}
    for initial in ("position", "item"):
        w = world(lists, items, features=False, profile=False, dim=16, interests=3, max_history=16,
                  initial_logits=initial)  # fmt: skip
        g = generator(4)
        centres = torch.randn(4, 16, generator=g).repeat_interleave(6, 0)
        with torch.no_grad():
            w.model.item_table.weight[2:] = centres + 0.3 * torch.randn(24, 16, generator=g)
        moved[initial] = moved_by_one_event(MINDRetriever.of(w.model, w.bags), w.sequences, torch.arange(60)).nanmean()
    assert moved["item"] < 0.1
    if length >= 16:
        assert moved["position"] > 2 * moved["item"]

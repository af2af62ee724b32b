"""Full-ranking evaluation: what counts as a target, and that ranks are over the whole catalogue."""

from __future__ import annotations

import pytest
import torch

from mind_core.evaluation import Targets, evaluate
from mind_core.inference import MINDRetriever, PopularityRetriever
from mind_core.sequences import full_histories
from tests.mind_core import reference
from tests.mind_core.given import random_sequences, sequences_of, world

# items 2 to 6 by popularity: 5, 4, 3, 2, 1
POPULAR = PopularityRetriever(torch.tensor([0, 0, 5, 4, 3, 2, 1]), max_history=4)


def targets_of(lists: list[list[int]]) -> Targets:
    flat = sequences_of(lists)
    return Targets(flat.items, flat.offsets)


def test_targets_follow_the_users_asked_for() -> None:
    row, items = targets_of([[2], [3, 4], [5]]).of(torch.tensor([2, 1]))
    assert row.tolist() == [0, 1, 1]
    assert items.tolist() == [5, 3, 4]


def test_popularity_by_hand_with_seen_items_filtered() -> None:
    # given user 0, who saw 2 and will buy 4 (third, second once 2 is left out), and user 1, who will buy 2 and 6
    outcome = evaluate(
        POPULAR, sequences_of([[2], [3]]), targets_of([[4], [2, 6]]), torch.arange(2), [2], exclude_seen=True
    )
    assert outcome.users.tolist() == [0, 1]
    assert outcome.top_items.tolist() == [[3, 4], [2, 4]]
    assert outcome.metrics["hit_rate@2"].tolist() == [1.0, 1.0]
    assert outcome.metrics["recall@2"].tolist() == [1.0, 0.5]
    assert outcome.metrics["mrr@2"].tolist() == [0.5, 1.0]
    assert outcome.seen_targets == 0


def test_a_seen_target_is_not_asked_for_when_seen_items_are_filtered() -> None:
    sequences, targets = sequences_of([[2, 3], [3]]), targets_of([[2, 4], [3]])
    filtered = evaluate(POPULAR, sequences, targets, torch.arange(2), [3], exclude_seen=True)
    assert filtered.seen_targets == 2
    assert filtered.users.tolist() == [0], "a user without any other target is not counted"
    assert filtered.targets.tolist() == [4]
    assert filtered.ranks.tolist() == [1]
    kept = evaluate(POPULAR, sequences, targets, torch.arange(2), [3], exclude_seen=False)
    assert kept.seen_targets == 0
    assert kept.ranks.tolist() == [1, 3, 2]


def test_when_nobody_has_a_target_left_nobody_is_counted() -> None:
    outcome = evaluate(POPULAR, sequences_of([[2]]), targets_of([[2]]), torch.arange(1), [3], exclude_seen=True)
    assert outcome.users.tolist() == []
    assert outcome.seen_targets == 1
    w = world([[2, 3], [3]], 7, features=False, profile=False)
    trained = MINDRetriever.of(w.model, w.bags)
    outcome = evaluate(trained, w.sequences, targets_of([[2], [3]]), torch.arange(2), [3], exclude_seen=True)
    assert outcome.users.tolist() == []
    assert outcome.metrics["recall@3"].shape == (0,)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_metrics_equal_brute_force_over_the_whole_catalogue(exclude_seen: bool) -> None:
    lists = random_sequences(25, 30, 12)
    w = world([x[:-2] for x in lists], 30)
    targets = [sorted(set(x[-2:])) for x in lists]
    retriever, users = MINDRetriever.of(w.model, w.bags), torch.arange(25)
    outcome = evaluate(retriever, w.sequences, targets_of(targets), users, [1, 5, 10], exclude_seen=exclude_seen)
    vectors, own = retriever.interests(full_histories(w.sequences, users, w.model.view))
    counted = 0
    for u in range(25):
        seen = set(lists[u][:-2]) if exclude_seen else set()
        asked = [i for i in targets[u] if i not in seen]
        if not asked:
            continue
        ranking = reference.top_items(
            retriever.item_vectors.double().numpy(), vectors[u].double().numpy(), int(own[u].sum()), 99, sorted(seen)
        )
        ranks = [1 + [i for i, _, _ in ranking].index(item) for item in asked]
        for n in (1, 5, 10):
            for name, value in reference.user_metrics(ranks, n).items():
                assert outcome.metrics[name][counted].item() == pytest.approx(value), (u, name)
        counted += 1
    assert len(outcome.users) == counted

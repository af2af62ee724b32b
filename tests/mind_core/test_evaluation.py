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


def test_groups_and_shelves_by_hand() -> None:
    # given user 0 with 2 and 4 in the history, who will take 4 again and 5 anew, and user 1, who takes 3 anew
    sequences, targets = sequences_of([[2, 4], [2]]), targets_of([[4, 5], [3]])
    outcome = evaluate(POPULAR, sequences, targets, torch.arange(2), [2], exclude_seen=False, shelves=True)
    assert outcome.again.tolist() == [True, False, False]
    assert outcome.ranks[0] == 3
    assert outcome.ranks[1] > 2
    assert outcome.ranks[2] == 2
    # then on its shelf {2, 4} item 4 is the second, on {3, 5, 6} item 5; on {3, 4, 5, 6} item 3 is the first
    assert outcome.shelf_ranks is not None
    assert outcome.shelf_ranks.tolist() == [2, 2, 1]
    found = {name: values.tolist() for name, values in outcome.metrics.items() if "recall" in name}
    assert found.pop("again/recall@2") == pytest.approx([0.0, float("nan")], nan_ok=True)
    assert found.pop("shelf_again/recall@2") == pytest.approx([1.0, float("nan")], nan_ok=True)
    assert found == {"recall@2": [0.0, 1.0], "new/recall@2": [0.0, 1.0], "shelf_new/recall@2": [1.0, 1.0]}


def test_filtered_evaluation_is_the_new_shelf_of_one_that_keeps() -> None:
    lists = random_sequences(40, 30, 12)
    w = world([x[:-3] for x in lists], 30)
    targets, users = targets_of([sorted(set(x[-3:])) for x in lists]), torch.arange(40)
    retriever = MINDRetriever.of(w.model, w.bags)
    filtered = evaluate(retriever, w.sequences, targets, users, [1, 5], exclude_seen=True)
    kept = evaluate(retriever, w.sequences, targets, users, [1, 5], exclude_seen=False, shelves=True)
    assert kept.again.any()
    assert kept.shelf_ranks is not None
    assert torch.equal(filtered.ranks, kept.shelf_ranks[~kept.again])
    for name, values in filtered.metrics.items():
        of_kept = kept.metrics[f"shelf_new/{name}"]
        assert torch.equal(values, of_kept[~of_kept.isnan()]), name
    with pytest.raises(ValueError, match="shelves=True"):
        evaluate(retriever, w.sequences, targets, users, [1], exclude_seen=True, shelves=True)


def test_a_target_ranks_on_its_shelf_behind_those_of_its_group_before_it() -> None:
    # given a catalogue that every list holds whole
    lists = random_sequences(40, 20, 14, seed=2)
    w = world([x[:-2] for x in lists], 20)
    targets = targets_of([sorted(set(x[-2:])) for x in lists])
    outcome = evaluate(
        MINDRetriever.of(w.model, w.bags),
        w.sequences,
        targets,
        torch.arange(40),
        [18],
        exclude_seen=False,
        shelves=True,
    )
    assert outcome.shelf_ranks is not None
    for t, (row, item) in enumerate(zip(outcome.row.tolist(), outcome.targets.tolist(), strict=True)):
        user = int(outcome.users[row])
        history = set(lists[user][:-2])
        assert bool(outcome.again[t]) == (item in history), "exactly one group"
        before = outcome.top_items[row, : int(outcome.ranks[t]) - 1].tolist()
        others = [each for each in before if (each in history) == (item in history)]
        assert int(outcome.shelf_ranks[t]) == 1 + len(others)


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

"""Windows, samples and behaviour dropout against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.features import profile_bags
from mind_core.repeats import MEMORIES
from mind_core.sequences import (
    REACH,
    AllTargets,
    DrawnTargets,
    Samples,
    Sequences,
    View,
    full_histories,
    hide_behaviours,
    windows,
)
from tests.mind_core.given import all_targets, generator, prefix_mask, profile_columns, sequences_of

LISTS = [[10, 11, 12, 13, 14], [], [20], [30, 31]]
lists_of_repeats = st.lists(st.lists(st.integers(2, 6), max_size=30), min_size=1, max_size=4)
lists_of_items = st.lists(st.lists(st.integers(1, 50), max_size=9), min_size=1, max_size=6)


# --- windows ---


def test_a_window_keeps_the_newest_behaviours_oldest_first() -> None:
    histories = full_histories(sequences_of(LISTS), torch.tensor([0, 3]), View(3))
    assert histories.items.tolist() == [[12, 13, 14], [30, 31, 0]]
    assert histories.mask.tolist() == [[True] * 3, [True, True, False]]


def test_a_window_ends_before_the_label_and_never_reaches_into_another_user() -> None:
    # given the label 31, the second item of user 3, at flat position 7
    histories = windows(sequences_of(LISTS), torch.tensor([3]), torch.tensor([7]), View(5))
    assert histories.items.tolist() == [[30]]


def test_users_without_behaviours_have_an_empty_window_of_width_one() -> None:
    histories = full_histories(sequences_of(LISTS), torch.tensor([1]), View(3))
    assert histories.items.tolist() == [[0]]
    assert histories.mask.tolist() == [[False]]


def test_a_log_without_any_event_has_empty_windows() -> None:
    histories = full_histories(sequences_of([[], []]), torch.tensor([0, 1]), View(3), width=2)
    assert histories.items.tolist() == [[0, 0], [0, 0]]
    assert not histories.mask.any()


def test_items_may_be_stored_in_32_bits() -> None:
    narrow = Sequences(torch.tensor([5, 6], dtype=torch.int32), torch.tensor([0, 2]))
    assert full_histories(narrow, torch.tensor([0]), View(4)).items.dtype == torch.int64


@settings(deadline=None, max_examples=80)
@given(lists=lists_of_items, longest=st.integers(1, 6), extra=st.integers(0, 3), data=st.data())
def test_windows_equal_slices(lists: list[list[int]], longest: int, extra: int, data: st.DataObject) -> None:
    sequences = sequences_of(lists)
    users = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=8))
    ends = [data.draw(st.integers(0, len(lists[u]))) for u in users]
    absolute = torch.tensor([int(sequences.offsets[u]) + e for u, e in zip(users, ends, strict=True)])
    slices = [lists[u][:e][-longest:] for u, e in zip(users, ends, strict=True)]
    width = max(1, *(len(x) for x in slices)) + extra
    histories = windows(sequences, torch.tensor(users), absolute, View(longest), width if extra else None)
    assert histories.items.tolist() == [x + [0] * (width - len(x)) for x in slices]
    assert histories.mask.tolist() == [[True] * len(x) + [False] * (width - len(x)) for x in slices]


@settings(deadline=None, max_examples=80)
@given(lists=lists_of_repeats, longest=st.integers(1, 5), data=st.data())
def test_distinct_windows_hold_each_item_at_its_newest_event_with_what_came_before(
    lists: list[list[int]], longest: int, data: st.DataObject
) -> None:
    sequences = sequences_of(lists)
    users = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=6))
    ends = [data.draw(st.integers(0, len(lists[u]))) for u in users]
    absolute = torch.tensor([int(sequences.offsets[u]) + e for u, e in zip(users, ends, strict=True)])
    found = windows(sequences, torch.tensor(users), absolute, View(longest, distinct=True, traits=True))
    assert found.traits is not None
    for row, (user, end) in enumerate(zip(users, ends, strict=True)):
        before = lists[user][:end]
        near = before[-REACH * longest :]
        newest = sorted({item: place for place, item in enumerate(before)}.items(), key=lambda pair: pair[1])
        expected = [pair for pair in newest if pair[0] in near][-longest:]
        length = int(found.mask[row].sum())
        assert found.items[row, :length].tolist() == [item for item, _ in expected]
        assert not found.items[row, length:].any()
        for column, (item, last) in enumerate(expected):
            count, age = before.count(item), end - last
            gap = (last - before.index(item)) / (count - 1) if count > 1 else 0
            overdue = math.log(age / gap) if count > 1 else 0
            traits = [math.log(count), math.log(age), math.log(count / end), float(count > 1), overdue]
            ages = [end - 1 - place for place, other in enumerate(before) if other == item]
            traits += [math.log1p(sum(math.exp(-each / memory) for each in ages)) for memory in MEMORIES]
            assert found.traits[row, column].tolist() == pytest.approx(traits, abs=1e-5)


@settings(deadline=None, max_examples=40)
@given(lists=lists_of_repeats)
def test_a_window_of_events_marks_the_newest_event_of_each_item(lists: list[list[int]]) -> None:
    sequences = sequences_of(lists)
    found = full_histories(sequences, torch.arange(len(lists)), View(4, traits=True))
    assert found.newest is not None
    for row, items in enumerate(lists):
        shown = items[-4:]
        marked = [shown[i] not in shown[i + 1 :] for i in range(len(shown))]
        assert found.newest[row].tolist()[: len(shown)] == marked
        assert not found.newest[row, len(shown) :].any()


def test_what_comes_later_is_not_seen_in_a_window_before_it() -> None:
    # given item 5 once before the label, and twice after
    sequences = sequences_of([[5, 6, 7, 5, 5]])
    found = windows(sequences, torch.tensor([0]), torch.tensor([2]), View(4, distinct=True, traits=True))
    assert found.items.tolist() == [[5, 6]]
    assert found.traits is not None
    assert found.traits[0, :, 0].tolist() == [0.0, 0.0]  # log of a count of 1


def test_profiles_follow_their_users() -> None:
    bags = profile_bags(profile_columns(4))
    histories = full_histories(sequences_of(LISTS, bags), torch.tensor([2, 0]), View(3))
    expected = bags.select(torch.tensor([6, 7, 8, 0, 1, 2]))
    assert histories.profile is not None
    assert torch.equal(histories.profile.offsets, expected.offsets)
    assert torch.equal(histories.profile.rows, expected.rows)
    assert torch.equal(histories.profile.weights, expected.weights)


# --- samples ---


def test_every_item_but_a_users_first_is_a_label() -> None:
    samples = all_targets(sequences_of(LISTS))
    assert samples.users.tolist() == [0, 0, 0, 0, 3]
    assert sequences_of(LISTS).items[samples.positions].tolist() == [11, 12, 13, 14, 31]


def pairs(samples: Samples) -> list[tuple[int, int]]:
    return list(zip(samples.users.tolist(), samples.positions.tolist(), strict=True))


@settings(deadline=None, max_examples=80)
@given(lists=lists_of_items, data=st.data())
def test_all_targets_equal_brute_force_in_any_order(lists: list[list[int]], data: st.DataObject) -> None:
    expected, start = [], 0
    for user, items in enumerate(lists):
        expected += [(user, start + i) for i in range(1, len(items))]
        start += len(items)
    targets = AllTargets(sequences_of(lists))
    assert len(targets) == len(expected)
    numbers = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=9)) if expected else []
    assert pairs(targets[torch.tensor(numbers, dtype=torch.int64)]) == [expected[number] for number in numbers]


@settings(deadline=None, max_examples=50)
@given(lists=lists_of_items, per_user=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
def test_drawn_targets_are_labels_of_their_user_and_the_same_in_any_order(
    lists: list[list[int]], per_user: int, seed: int, data: st.DataObject
) -> None:
    sequences = sequences_of(lists)
    targets = DrawnTargets(sequences, per_user, seed)
    samples = targets[torch.arange(len(targets))]
    assert samples.users.tolist() == [u for u, x in enumerate(lists) for _ in range(per_user) if len(x) >= 2]
    for user, position in pairs(samples):
        assert int(sequences.offsets[user]) < position < int(sequences.offsets[user + 1])
    numbers = torch.tensor(data.draw(st.permutations(range(len(targets)))), dtype=torch.int64)
    assert pairs(targets[numbers]) == pairs(samples[numbers])


def test_drawn_targets_reach_every_label_evenly() -> None:
    targets = DrawnTargets(sequences_of([[1, 2, 3, 4, 5]]), 4000, 0)
    shares = torch.bincount(targets[torch.arange(4000)].positions, minlength=5) / 4000
    assert shares[0] == 0
    assert torch.allclose(shares[1:], torch.full((4,), 0.25), atol=0.04)


def test_each_key_draws_other_targets() -> None:
    sequences, everything = sequences_of([list(range(2, 42))] * 5), torch.arange(500)
    first, again, other = (DrawnTargets(sequences, 100, 7, "targets", epoch)[everything] for epoch in (0, 0, 1))
    assert pairs(first) == pairs(again)
    assert (first.positions == other.positions).float().mean().item() < 0.1


# --- behaviour dropout ---


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=6), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_dropout_hides_only_behaviours_and_never_the_newest(lengths: list[int], share: float, seed: int) -> None:
    mask = prefix_mask(lengths, 7)
    hidden = hide_behaviours(mask, share, generator(seed))
    assert not (hidden & ~mask).any()
    assert [bool(hidden[b, n - 1]) for b, n in enumerate(lengths) if n] == [True] * sum(n > 0 for n in lengths)
    if share == 0:
        assert torch.equal(hidden, mask)


def test_dropout_hides_the_given_share() -> None:
    mask = torch.ones(400, 11).bool()
    hidden = hide_behaviours(mask, 0.3, generator())
    assert hidden[:, :-1].float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert hide_behaviours(mask, 1.0, generator()).sum(1).tolist() == [1] * 400

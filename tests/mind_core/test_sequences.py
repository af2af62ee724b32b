"""Windows, samples, epochs and behaviour dropout against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.features import profile_bags
from mind_core.sequences import (
    Sequences,
    all_targets,
    draw_targets,
    epoch_batches,
    full_histories,
    hide_behaviours,
    windows,
)
from tests.mind_core.given import generator, prefix_mask, profile_columns, sequences_of

LISTS = [[10, 11, 12, 13, 14], [], [20], [30, 31]]
lists_of_items = st.lists(st.lists(st.integers(1, 50), max_size=9), min_size=1, max_size=6)


# --- windows ---


def test_a_window_keeps_the_newest_behaviours_oldest_first() -> None:
    histories = full_histories(sequences_of(LISTS), torch.tensor([0, 3]), max_history=3)
    assert histories.items.tolist() == [[12, 13, 14], [30, 31, 0]]
    assert histories.mask.tolist() == [[True] * 3, [True, True, False]]


def test_a_window_ends_before_the_label_and_never_reaches_into_another_user() -> None:
    # given the label 31, the second item of user 3, at flat position 7
    histories = windows(sequences_of(LISTS), torch.tensor([3]), torch.tensor([7]), max_history=5)
    assert histories.items.tolist() == [[30]]


def test_users_without_behaviours_have_an_empty_window_of_width_one() -> None:
    histories = full_histories(sequences_of(LISTS), torch.tensor([1]), max_history=3)
    assert histories.items.tolist() == [[0]]
    assert histories.mask.tolist() == [[False]]


def test_a_log_without_any_event_has_empty_windows() -> None:
    histories = full_histories(sequences_of([[], []]), torch.tensor([0, 1]), max_history=3, width=2)
    assert histories.items.tolist() == [[0, 0], [0, 0]]
    assert not histories.mask.any()


def test_items_may_be_stored_in_32_bits() -> None:
    narrow = Sequences(torch.tensor([5, 6], dtype=torch.int32), torch.tensor([0, 2]))
    assert full_histories(narrow, torch.tensor([0]), 4).items.dtype == torch.int64


@settings(deadline=None, max_examples=80)
@given(lists=lists_of_items, longest=st.integers(1, 6), extra=st.integers(0, 3), data=st.data())
def test_windows_equal_slices(lists: list[list[int]], longest: int, extra: int, data: st.DataObject) -> None:
    sequences = sequences_of(lists)
    users = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=8))
    ends = [data.draw(st.integers(0, len(lists[u]))) for u in users]
    absolute = torch.tensor([int(sequences.offsets[u]) + e for u, e in zip(users, ends, strict=True)])
    slices = [lists[u][:e][-longest:] for u, e in zip(users, ends, strict=True)]
    width = max(1, *(len(x) for x in slices)) + extra
    histories = windows(sequences, torch.tensor(users), absolute, longest, width if extra else None)
    assert histories.items.tolist() == [x + [0] * (width - len(x)) for x in slices]
    assert histories.mask.tolist() == [[True] * len(x) + [False] * (width - len(x)) for x in slices]


def test_profiles_follow_their_users() -> None:
    bags = profile_bags(profile_columns(4))
    histories = full_histories(sequences_of(LISTS, bags), torch.tensor([2, 0]), max_history=3)
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


@settings(deadline=None, max_examples=50)
@given(lists=lists_of_items)
def test_all_targets_equal_brute_force(lists: list[list[int]]) -> None:
    sequences, expected, start = sequences_of(lists), [], 0
    for user, items in enumerate(lists):
        expected += [(user, start + i) for i in range(1, len(items))]
        start += len(items)
    samples = all_targets(sequences)
    assert list(zip(samples.users.tolist(), samples.positions.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=50)
@given(lists=lists_of_items, per_user=st.integers(1, 4), seed=st.integers(0, 99))
def test_drawn_targets_are_labels_of_their_user(lists: list[list[int]], per_user: int, seed: int) -> None:
    sequences = sequences_of(lists)
    samples = draw_targets(sequences, per_user, generator(seed))
    assert samples.users.tolist() == [u for u, x in enumerate(lists) for _ in range(per_user) if len(x) >= 2]
    for user, position in zip(samples.users.tolist(), samples.positions.tolist(), strict=True):
        assert int(sequences.offsets[user]) < position < int(sequences.offsets[user + 1])


def test_drawn_targets_reach_every_label_evenly() -> None:
    sequences = sequences_of([[1, 2, 3, 4, 5]])
    positions = draw_targets(sequences, 4000, generator()).positions
    shares = torch.bincount(positions, minlength=5) / 4000
    assert shares[0] == 0
    assert torch.allclose(shares[1:], torch.full((4,), 0.25), atol=0.04)


# --- epochs ---


@settings(deadline=None, max_examples=120)
@given(samples=st.integers(1, 60), size=st.integers(1, 20), ranks=st.integers(1, 6), seed=st.integers(0, 99))
def test_an_epoch_covers_all_samples_and_gives_every_rank_an_equal_share(
    samples: int, size: int, ranks: int, seed: int
) -> None:
    cut = epoch_batches(samples, size, ranks, generator(seed))
    shares = [[batch[rank::ranks] for rank in range(ranks)] for batch in cut]
    assert all(len(share) == len(of_batch[0]) > 0 for of_batch in shares for share in of_batch)
    everything = torch.cat(cut)
    assert set(everything.tolist()) == set(range(samples))
    assert len(everything) < samples + ranks, "at most ranks - 1 samples are repeated"


def test_an_epoch_is_shuffled_by_its_generator() -> None:
    first = torch.cat(epoch_batches(50, 8, 2, generator(0)))
    assert torch.equal(first, torch.cat(epoch_batches(50, 8, 2, generator(0))))
    assert not torch.equal(first, torch.cat(epoch_batches(50, 8, 2, generator(1))))
    assert first.tolist() != sorted(first.tolist())


def test_global_batches_do_not_depend_on_the_number_of_ranks() -> None:
    alone = epoch_batches(48, 8, 1, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(alone, epoch_batches(48, 8, 4, generator(0)), strict=True))


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

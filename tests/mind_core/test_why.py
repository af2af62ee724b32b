"""What an interest is made of."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mind_core.why import reasons


def test_shares_of_a_users_interests_sum_to_one_and_padding_counts_for_nothing() -> None:
    weights = torch.tensor([[[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]]])
    found = reasons(weights, torch.tensor([[5, 6, 0]]), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found.share, torch.tensor([[0.55, 0.45]]))
    assert found.places.tolist() == [[[0, 1, -1], [1, 0, -1]]]


def test_of_equal_coupling_the_newest_comes_first() -> None:
    found = reasons(torch.full((1, 1, 4), 1.0), torch.tensor([[5, 6, 7, 8]]), torch.ones(1, 4, dtype=torch.bool))
    assert found.places.tolist() == [[[3, 2, 1]]]


def test_nobody_has_no_reasons() -> None:
    found = reasons(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.bool))
    assert found.share.tolist() == [[0.0, 0.0]]
    assert found.places.tolist() == [[[-1] * 3] * 2]


@given(st.lists(st.integers(2, 6), min_size=1, max_size=12), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_no_item_is_named_twice_and_the_strongest_are(history: list[int], count: int) -> None:
    generator = torch.Generator().manual_seed(len(history))
    weights = torch.rand(1, count, len(history), generator=generator).softmax(1)
    found = reasons(weights, torch.tensor([history]), torch.ones(1, len(history), dtype=torch.bool))
    newest = {item: place for place, item in enumerate(history)}  # of each item
    for interest in range(count):
        named = [place for place in found.places[0, interest].tolist() if place >= 0]
        best = sorted(newest.values(), key=lambda place: (-float(weights[0, interest, place]), -place))
        assert named == best[:3]

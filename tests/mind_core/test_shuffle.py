"""Orders and draws that are never stored: one place per number, and no pattern that a test would see."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mind_core.shuffle import Permutation, draw

BINS = 20
keys = st.tuples(st.integers(), st.text(max_size=5), st.integers(0, 99))


def whole(size: int, *key: object) -> Tensor:
    return Permutation(size, *key)[torch.arange(size)]


def dependence(a: Tensor, b: Tensor) -> float:
    """Chi-square of independence of two columns of bins, in standard deviations from its mean: 5 is no chance."""
    table = torch.bincount(a * BINS + b, minlength=BINS * BINS).view(BINS, BINS).double()
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    freedom = (BINS - 1) ** 2
    return float(((table - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def binned(values: Tensor, below: int) -> Tensor:
    return values * BINS // below


# --- orders ---


@settings(deadline=None, max_examples=200)
@given(size=st.integers(0, 3000), key=keys)
def test_every_number_has_one_place(size: int, key: tuple[object, ...]) -> None:
    assert whole(size, *key).sort().values.tolist() == list(range(size))


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 2**60), key=keys, data=st.data())
def test_places_can_be_looked_at_in_any_pieces(size: int, key: tuple[object, ...], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8, unique=True))
    order = Permutation(size, *key)
    together = order[torch.tensor(places)]
    assert [int(order[torch.tensor([place])]) for place in places] == together.tolist()
    assert len(set(together.tolist())) == len(places)
    assert all(0 <= number < size for number in together.tolist())
    assert torch.equal(order[torch.tensor(places).view(1, -1)], together.view(1, -1))


def test_an_order_is_a_function_of_its_key_for_ever() -> None:
    # a run that is resumed under another version of this program finds the order that it began with
    assert whole(10, 0, "order", 0).tolist() == [8, 4, 7, 0, 9, 3, 1, 5, 2, 6]
    assert draw(torch.arange(8), 100, 0, "targets", 0).tolist() == [15, 99, 91, 47, 63, 69, 68, 41]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_a_few_numbers_are_equally_frequent(size: int) -> None:
    seen = Counter(tuple(whole(size, key).tolist()) for key in range(2000))
    orders = {2: 2, 3: 6, 4: 24}[size]
    expected = 2000 / orders
    chi_square = sum((seen[order] - expected) ** 2 / expected for order in seen)
    assert len(seen) == orders
    assert chi_square < orders - 1 + 5 * (2 * (orders - 1)) ** 0.5


@pytest.mark.parametrize("size", [20_000, 65_536, 100_003, 1_000_000])
def test_an_order_shows_no_pattern(size: int) -> None:
    order, place = whole(size, 0), torch.arange(size)
    columns = Permutation(size, 0).columns
    found = {
        "a number by its place": dependence(binned(place, size), binned(order, size)),
        "a number by the one before": dependence(binned(order[:-1], size), binned(order[1:], size)),
        "a number by the one a row above": dependence(binned(order[:-columns], size), binned(order[columns:], size)),
        "the last digits by those before": dependence(order[:-1] % BINS, order[1:] % BINS),
        "the last digits by the place's": dependence(place % BINS, order % BINS),
        "a number by its column in the grid": dependence(binned(place % columns, columns), binned(order, size)),
        "another key's number": dependence(binned(order, size), binned(whole(size, 1), size)),
        "another key's step": dependence(binned(order.diff() % size, size), binned(whole(size, 1).diff() % size, size)),
    }
    assert {name: sigmas for name, sigmas in found.items() if abs(sigmas) > 5} == {}
    correlation = torch.corrcoef(torch.stack([order[:-1], order[1:]]).double())[0, 1]
    assert abs(float(correlation)) * size**0.5 < 5
    assert int((order == place).sum()) < 10, "as many stay where they are as by chance: one"


# --- draws ---


@settings(deadline=None, max_examples=60)
@given(below=st.lists(st.integers(1, 2**40), min_size=1, max_size=9), key=keys)
def test_draws_are_below_their_bounds(below: list[int], key: tuple[object, ...]) -> None:
    drawn = draw(torch.arange(len(below)), torch.tensor(below), *key)
    assert all(0 <= value < bound for value, bound in zip(drawn.tolist(), below, strict=True))
    alone = [int(draw(torch.tensor([n]), bound, *key)) for n, bound in enumerate(below)]
    assert drawn.tolist() == alone


def test_draws_are_uniform_and_independent_of_each_other_and_of_another_key() -> None:
    numbers = torch.arange(200_000)
    drawn, other = draw(numbers, BINS, 0), draw(numbers, BINS, 1)
    counts = torch.bincount(drawn, minlength=BINS).double()
    chi_square = float(((counts - 10_000) ** 2 / 10_000).sum())
    assert chi_square < BINS - 1 + 5 * (2 * (BINS - 1)) ** 0.5
    assert abs(dependence(drawn[:-1], drawn[1:])) < 5
    assert abs(dependence(drawn, other)) < 5
    assert abs(dependence(numbers % BINS, drawn)) < 5

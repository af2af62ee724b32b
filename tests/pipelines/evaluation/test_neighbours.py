"""Neighbours of items, against a dense product, and what bounds them."""

from __future__ import annotations

import numpy as np
import pytest

import pipelines.evaluation.neighbours as neighbours
from pipelines.evaluation.neighbours import nearest


def events(users: int, items: int, length: int, seed: int = 0) -> tuple[neighbours.Ints, neighbours.Ints]:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, length, users)
    return np.repeat(np.arange(users), sizes), generator.integers(2, items, sizes.sum())


def dense(users: neighbours.Ints, items: neighbours.Ints, catalogue: int) -> np.ndarray:
    """Compute the (V, V) cosines of a binary users x items matrix in float64, nothing on the diagonal."""
    had = np.zeros((users.max() + 1, catalogue))
    had[users, items] = 1
    norm = np.sqrt(np.maximum(had.sum(0), 1))
    cosine = (had.T @ had) / np.outer(norm, norm)
    np.fill_diagonal(cosine, 0)
    return cosine


def as_dense(found: tuple[neighbours.Int32s, neighbours.Floats], catalogue: int) -> np.ndarray:
    out = np.zeros((catalogue, catalogue))
    np.put_along_axis(out, found[0].astype(np.int64), found[1], axis=1)
    return out


@pytest.mark.parametrize("block", [1, 50, 2**24])
def test_neighbours_are_those_of_the_dense_product(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_PAIRS", block)
    users, items = events(40, 30, 25)
    found = nearest(users, items, 30, most=30)
    expected = dense(users, items, 30)
    np.testing.assert_allclose(as_dense(found, 30)[:, 2:], expected[:, 2:], rtol=1e-6)
    assert (np.diff(found[1], axis=1) <= 0).all(), "by falling similarity"


def test_only_the_nearest_are_kept() -> None:
    users, items = events(40, 30, 25)
    few, all_ = nearest(users, items, 30, most=4), nearest(users, items, 30, most=30)
    np.testing.assert_array_equal(few[1], all_[1][:, :4])
    assert (few[0][2:] >= 2).all()


def test_an_item_that_nobody_has_has_no_neighbours() -> None:
    near, similarity = nearest(np.array([0, 0]), np.array([2, 3]), 6, most=2)
    assert near.tolist() == [[0, 0], [0, 0], [3, 0], [2, 0], [0, 0], [0, 0]]
    assert similarity[4:].tolist() == [[0, 0], [0, 0]]
    assert not nearest(np.zeros(0, np.int64), np.zeros(0, np.int64), 6)[0].any()


def test_a_user_of_too_many_pairs_counts_with_the_newest_items(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a user of four items, the newest of which are 5 and 2 (again), and a budget for two
    monkeypatch.setattr(neighbours, "PAIRS", 4)
    monkeypatch.setattr(neighbours, "USER_ITEMS", 4)
    near, _ = nearest(np.zeros(5, np.int64), np.array([2, 3, 4, 5, 2]), 6, most=3)
    assert near[2].tolist() == [5, 0, 0]
    assert not near[[3, 4]].any()


def test_a_large_catalogue_has_fewer_neighbours_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ENTRIES", 65)
    assert nearest(*events(40, 30, 25), 30, most=10)[0].shape == (30, 2)

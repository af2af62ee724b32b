"""Whether a doubt is raised where there is reason, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.models.doubts import below_popularity, fell_from_the_start, never_asked

METRIC = "ndcg@20"


@pytest.mark.parametrize("values", [[], [0.1], [0.2, 0.1], [0.1, 0.2, 0.1], [0.2, 0.1, 0.2]])
def test_a_training_that_rose_or_is_short_is_not_doubted(values: list[float]) -> None:
    assert fell_from_the_start(values, METRIC) is None


@given(st.lists(st.floats(0, 0.4), min_size=2))
def test_a_training_whose_first_validation_is_the_best_is_doubted(later: list[float]) -> None:
    line = fell_from_the_start([0.5, *later], METRIC)
    assert line is not None
    assert ".5000" in line
    assert "\n" not in line


def test_a_model_is_held_against_popularity() -> None:
    assert below_popularity(0.2, 0.2, METRIC, "7 users") is None
    line = below_popularity(0.1, 0.2, METRIC, "7 users")
    assert line is not None
    assert line.startswith("Below popularity: ndcg@20 .1000 against .2000 on 7 users")
    assert "--preset quick" in line


@given(st.lists(st.floats(0.02, 1), max_size=8))
def test_interests_that_fill_places_are_not_doubted(shares: list[float]) -> None:
    assert never_asked(shares) is None


def test_idle_interests_are_counted() -> None:
    assert never_asked([1.0]) is None
    one, two = never_asked([0.9, 0.1, 0.0]), never_asked([0.999, 0.001, 0.0])
    assert one is not None
    assert two is not None
    assert "1 of 3 is as good as never asked. Try --set model.interests=2" in one
    assert "2 of 3 are as good as never asked. Try --set model.interests=1" in two

"""Buckets and parts: every user in exactly one, which is a function of the id and of the counts alone."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.preprocess.buckets import BUCKETS, bucket_of, group, part_of_users


@given(st.lists(st.text()), st.integers(1, 9))
def test_every_user_is_in_the_part_whose_run_has_its_bucket(users: list[str], size: int) -> None:
    ids = pa.array(users, pa.string())
    runs = group(np.bincount(bucket_of(ids), minlength=BUCKETS), size) if users else [(0, BUCKETS)]
    parts = part_of_users(ids, runs)
    for bucket, part in zip(bucket_of(ids).tolist(), parts.tolist(), strict=True):
        first, stop = runs[part]
        assert first <= bucket < stop


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_a_number_and_its_text_share_a_bucket(values: list[int]) -> None:
    numbers = pa.array(values, pa.int64())
    assert bucket_of(numbers).tolist() == bucket_of(numbers.cast(pa.string())).tolist()
    large = pa.array([value % 2**64 for value in values], pa.uint64())
    assert bucket_of(large).tolist() == bucket_of(large.cast(pa.string())).tolist()


@given(st.lists(st.text()), st.lists(st.text()))
def test_an_id_has_one_bucket_whatever_stands_beside_it(first: list[str], second: list[str]) -> None:
    together = bucket_of(pa.array([*first, *second, "7", "007"], pa.string()))
    apart = [bucket_of(pa.array(part, pa.string())) for part in (first, second, ["7"], ["007"])]
    assert together.tolist() == np.concatenate(apart).tolist()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=64), st.integers(1, 5000))
def test_groups_are_runs_that_cover_all_buckets(counts: list[int], size: int) -> None:
    if not sum(counts):
        counts[0] = 1
    runs = group(np.array(counts), size)
    assert [bucket for first, stop in runs for bucket in range(first, stop)] == list(range(len(counts)))
    sizes = [sum(counts[first:stop]) for first, stop in runs]
    assert max(sizes) <= 1.5 * size + 2 * max(counts)


def test_groups_of_even_buckets_are_even() -> None:
    runs = group(np.full(1024, 500), 2**14)
    assert len(runs) == 31
    assert {stop - first for first, stop in runs} == {33, 34}

"""The exchange on disk: every event in exactly one bucket, which is a function of the user's id alone."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.preprocess.buckets import BUCKETS, bucket_of, group, read_buckets, write_block


def test_a_block_comes_back_whole_and_by_bucket(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    users = pa.array([f"user {n}" for n in rng.integers(0, 300, 2000)])
    events = pa.table({"user": users, "item": np.arange(2000)})
    counts = write_block(events, tmp_path / "block.arrow")
    assert counts.sum() == 2000
    edges = [0, 1, 77, 78, 500, BUCKETS]
    parts = [read_buckets(str(tmp_path / "block.arrow"), a, b) for a, b in itertools.pairwise(edges)]
    for (first, stop), part in zip(itertools.pairwise(edges), parts, strict=True):
        assert part.num_rows == counts[first:stop].sum()
        buckets = bucket_of(part["user"].combine_chunks()) if part.num_rows else np.array([], np.uint16)
        assert ((buckets >= first) & (buckets < stop)).all()
    joined = pa.concat_tables(parts).sort_by("item")
    assert joined.equals(events)


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

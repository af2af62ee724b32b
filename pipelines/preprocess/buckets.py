"""Which part of a dataset a user belongs to: users' hash buckets, and the buckets cut into parts.

A user's bucket is a function of the id alone: a later log's events of a user find the same part. Where the buckets are
cut depends on the number of clean events in each, so that the parts come out the same however the input was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import WHOLE_DECIMAL, Int64s, UInt64s, hash64, whole

BUCKETS = 1024  # by the hash's highest ten bits
LONG = 10**18  # the first whole number that ids.WHOLE_NUMBER does not match
Run = tuple[int, int]  # of buckets: the first, and the last + 1


def bucket_of(users: pa.Array) -> npt.NDArray[np.uint16]:
    """Find each id's bucket, (n,); the same for 7, "7" and "7.0", as text has no type until all is read."""
    return (_hash(users) >> np.uint64(54)).astype(np.uint16)


def _hash(ids: pa.Array) -> UInt64s:
    """Hash a whole number as such, of at most 18 digits; every other id as its text."""
    hashes = hash64(ids)
    if pa.types.is_string(ids.type):
        numbers = pc.match_substring_regex(ids, WHOLE_DECIMAL)
        if pc.any(numbers, min_count=0).as_py():
            hashes[numbers.to_numpy(zero_copy_only=False)] = hash64(whole(ids.filter(numbers)))
        return hashes
    long = pc.greater_equal(ids, pa.scalar(LONG, ids.type))
    if pa.types.is_int64(ids.type):
        long = pc.or_(long, pc.less_equal(ids, pa.scalar(-LONG, ids.type)))
    if pc.any(long, min_count=0).as_py():
        hashes[long.to_numpy(zero_copy_only=False)] = hash64(ids.filter(long).cast(pa.string()))
    return hashes


def group(counts: Int64s, size: int) -> list[Run]:
    """Cut the buckets into runs of about `size` events each; a function of the counts alone."""
    runs = max(1, round(int(counts.sum()) / size))
    ends = np.cumsum(counts)
    edges = np.searchsorted(ends, ends[-1] * np.arange(1, runs) / runs, side="left") + 1
    bounds: Sequence[int] = [0, *np.unique(edges[edges < len(counts)]).tolist(), len(counts)]
    return list(pairwise(bounds))


def part_of_users(users: pa.Array, runs: Sequence[Run]) -> npt.NDArray[np.int32]:
    """Find the number of the run that each user's bucket lies in, (n,)."""
    part_of_bucket = np.repeat(np.arange(len(runs), dtype=np.int32), [stop - first for first, stop in runs])
    return part_of_bucket[bucket_of(users)]

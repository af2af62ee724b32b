"""The exchange between reading and sorting: clean events on disk, in the order of their users' hash buckets.

A reader task writes each of its blocks once, sorted by bucket; a sorter task maps the files of all blocks and takes its
run of buckets out of each. What crosses is every event once, nothing is held in memory, and whoever is killed finds
what was written. A user's bucket is a function of the id alone: a later log's events of a user find the same part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import WHOLE_NUMBER, Int64s, UInt64s, as_array, hash64
from pipelines.storage.atomic import whole
from pipelines.storage.home_files import fetch

BUCKETS = 1024  # by the hash's highest ten bits
LONG = 10**18  # the first whole number that ids.WHOLE_NUMBER does not match
_OFFSETS = b"mind.bucket_offsets"


def bucket_of(users: pa.Array) -> npt.NDArray[np.uint16]:
    """Each id's bucket, (n,); the same for 7 and "7", as a text file's ids have no type until all are read."""
    return (_hash(users) >> np.uint64(54)).astype(np.uint16)


def _hash(ids: pa.Array) -> UInt64s:
    """A whole number is hashed as such, of at most 18 digits; every other id as its text."""
    hashes = hash64(ids)
    if pa.types.is_string(ids.type):
        whole = pc.match_substring_regex(ids, WHOLE_NUMBER)
        if pc.any(whole, min_count=0).as_py():
            hashes[whole.to_numpy(zero_copy_only=False)] = hash64(ids.filter(whole).cast(pa.int64()))
        return hashes
    long = pc.greater_equal(ids, pa.scalar(LONG, ids.type))
    if pa.types.is_int64(ids.type):
        long = pc.or_(long, pc.less_equal(ids, pa.scalar(-LONG, ids.type)))
    if pc.any(long, min_count=0).as_py():
        hashes[long.to_numpy(zero_copy_only=False)] = hash64(ids.filter(long).cast(pa.string()))
    return hashes


def write_block(events: pa.Table, path: Path) -> Int64s:
    """Write events (column user, and any others) by bucket; the number of events of each, (BUCKETS,)."""
    bucket = bucket_of(as_array(events["user"]))
    order = np.argsort(bucket, kind="stable")  # a radix sort: the values have 16 bits
    counts = np.bincount(bucket, minlength=BUCKETS)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    table = events.take(pa.array(order)).combine_chunks()
    table = table.replace_schema_metadata({_OFFSETS: json.dumps(offsets.tolist())})
    with whole(path) as aside, pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)  # not compressed, so that it can be mapped
    return counts


def read_buckets(path: str, first: int, stop: int) -> pa.Table:
    """The events of buckets `first` to `stop`, mapped from the file."""
    with pa.memory_map(str(fetch(path))) as source:
        table = pa.ipc.open_file(source).read_all()
    offsets = json.loads(table.schema.metadata[_OFFSETS])
    return table.slice(offsets[first], offsets[stop] - offsets[first]).replace_schema_metadata(None)


def group(counts: Int64s, size: int) -> list[tuple[int, int]]:
    """Cut the buckets into runs (first, stop) of about `size` events each; a function of the counts alone."""
    runs = max(1, round(int(counts.sum()) / size))
    ends = np.cumsum(counts)
    edges = np.searchsorted(ends, ends[-1] * np.arange(1, runs) / runs, side="left") + 1
    bounds: Sequence[int] = [0, *np.unique(edges[edges < len(counts)]).tolist(), len(counts)]
    return list(pairwise(bounds))

"""What a sequence may say of each behaviour beside its item and time: weight, session, time gap. Pure NumPy; no Ray."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import Int64s

Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def type_weights(types: pa.Array, weights: dict[str, float]) -> Floats:
    """Look up the weight of each event's type, (E,); 1 for a type that is not in the list, or missing.

    >>> type_weights(pa.array(["view", "buy", None]), {"buy": 5.0}).tolist()
    [1.0, 5.0, 1.0]
    """
    place = pc.index_in(types, value_set=pa.array(list(weights), pa.string())).fill_null(len(weights)).to_numpy()
    weight: Floats = np.array([*weights.values(), 1.0], np.float32)[place]
    return weight


def time_since_last(user: Int32s, time: Int64s) -> Int64s:
    """Subtract the time before from each, (E,) of events sorted by user and time: t_n - t_(n-1).

    It is -1 at a user's first event, and at most what 64 bits hold.

    >>> time_since_last(np.array([0, 0, 1], np.int32), np.array([10, 25, 3])).tolist()
    [-1, 15, -1]
    """
    since = np.full(len(time), -1)
    since[1:] = np.where(user[1:] == user[:-1], elapsed(time[:-1], time[1:]), -1)
    return since


def elapsed(earlier: Int64s, later: Int64s) -> Int64s:
    """Count from one time to the next, -1 where it is before; at most 2^63 - 1, however far apart they are.

    >>> elapsed(np.array([3, 5]), np.array([10, 4])).tolist()
    [7, -1]
    """
    apart = later.view(np.uint64) - earlier.view(np.uint64)  # signed, it would overflow
    forward: Int64s = np.minimum(apart, np.uint64(2**63 - 1)).view(np.int64)
    return np.where(later < earlier, -1, forward)


def sessions(user: Int32s, since_last: Int64s, gap: float) -> Int32s:
    """Number each event's session among its user's, from 0: a gap longer than `gap` opens the next.

    since_last : of `time_since_last`, `gap` in its unit.

    >>> sessions(np.array([0, 0, 0, 1], np.int32), np.array([-1, 5, 90, -1]), gap=60).tolist()
    [0, 0, 1, 0]
    """
    opens = np.cumsum(since_last > gap)
    is_first = since_last < 0
    before = np.maximum.accumulate(np.where(is_first, opens, 0)) if len(opens) else opens
    return (opens - before).astype(np.int32)


def gap_buckets(since_last: Int64s, unit: float) -> Int32s:
    """Bucket the gaps before events: 0 at a user's first, else 1 + floor(log2(1 + gap / unit)), in seconds.

    unit : how much of `since_last` is a second. 1: under a second, 7: one to two minutes, 13: one to two hours,
    17: about a day, 25: about a year.

    >>> gap_buckets(np.array([-1, 0, 1, 90, 86_400]), unit=1).tolist()
    [0, 1, 2, 7, 17]
    """
    return np.where(since_last < 0, 0, 1 + np.floor(np.log2(1 + np.maximum(since_last, 0) / unit))).astype(np.int32)

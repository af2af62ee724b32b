"""The three evaluation protocols: which stretch of a user's events infers, and which is to be found.

Every split of a user is two stretches of the sorted events, so a protocol is arithmetic on offsets. Pure NumPy; no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.config.schema import Split
from pipelines.log.ids import Int64s, hash64

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Stretches:
    """S users of one split; history and targets as half-open ranges of event rows."""

    user: Int64s  # (S,) ascending
    start: Int64s  # (S,) history
    stop: Int64s  # (S,)
    target_start: Int64s  # (S,)
    target_stop: Int64s  # (S,); equal to target_start in train
    skipped: int = 0  # users of this split without history or without targets


def split_users(
    split: Split, users: pa.Array, offsets: Int64s, time: Int64s, cutoffs: tuple[int, int] | None
) -> dict[str, Stretches]:
    """Apply the protocol.

    leave_one_out   train [1 .. m-2], validation [1 .. m-2] -> m-1, test [1 .. m-1] -> m
    temporal        train t < v, validation t < v -> v <= t < w, test t < w -> t >= w, with the cut-offs v and w
    user_holdout    train all events of most users; validation and test: the first events of others -> their last

    >>> one = split_users(Split(), pa.array(["ann"]), np.array([0, 5]), np.arange(5), None)["test"]
    >>> (one.start.item(), one.stop.item()), (one.target_start.item(), one.target_stop.item())
    ((0, 4), (4, 5))

    Parameters
    ----------
    split
        The protocol and its settings.
    users
        (U,) ids; they decide who is held out.
    offsets
        (U + 1,) first event row of each user, each user having at least one event.
    time
        (E,) ascending within a user.
    cutoffs
        (validation_from, test_from) in the unit of `time`, for `temporal`.
    """
    start, stop = offsets[:-1], offsets[1:]
    if split.protocol == "leave_one_out":
        return _leave_one_out(start, stop)
    if split.protocol == "temporal":
        assert cutoffs is not None, "the configuration requires them for temporal"
        first, second = (start + np.add.reduceat((time < cut).astype(np.int64), start) if len(start) else start
                         for cut in cutoffs)  # fmt: skip
        return {
            "train": _stretches(start, first, first, first, needs_targets=False),
            "validation": _stretches(start, first, first, second),
            "test": _stretches(start, second, second, stop),
        }
    return _user_holdout(split, users, start, stop)


def _stretches(
    start: Int64s,
    stop: Int64s,
    target_start: Int64s,
    target_stop: Int64s,
    among: npt.NDArray[np.bool_] | None = None,
    needs_targets: bool = True,
) -> Stretches:
    among = np.ones(len(start), bool) if among is None else among
    usable = among & (stop > start)
    if needs_targets:
        usable &= target_stop > target_start
    user = np.flatnonzero(usable)
    return Stretches(user, start[user], stop[user], target_start[user], target_stop[user], int(among.sum()) - len(user))


def _leave_one_out(start: Int64s, stop: Int64s) -> dict[str, Stretches]:
    """Last event = test, the one before = validation; users of fewer than 3 events only train."""
    enough = stop - start >= 3
    known = np.where(enough, stop - 2, stop)
    return {
        "train": _stretches(start, known, known, known, needs_targets=False),
        "validation": _stretches(start, known, known, np.where(enough, stop - 1, stop)),
        "test": _stretches(start, np.where(enough, stop - 1, stop), np.where(enough, stop - 1, stop), stop),
    }


def _user_holdout(split: Split, users: pa.Array, start: Int64s, stop: Int64s) -> dict[str, Stretches]:
    """Users drawn by a hash of their id: nobody changes sides when the log grows."""
    draw = hash64(users, split.seed) / 2.0**64
    observed = np.floor((stop - start) * split.observed + 1e-9).astype(np.int64)  # 0.29 * 100 must give 29
    known = start + np.maximum(1, observed)
    validation, test = draw < split.held_out, (draw >= split.held_out) & (draw < 2 * split.held_out)
    return {
        "train": _stretches(start, stop, stop, stop, ~(validation | test), needs_targets=False),
        "validation": _stretches(start, known, known, stop, validation),
        "test": _stretches(start, known, known, stop, test),
    }


def gather(values: npt.NDArray[np.generic], start: Int64s, stop: Int64s) -> pa.Array:
    """Cut out the lists ``values[start[i]:stop[i]]``, one per row, as an Arrow list array.

    >>> gather(np.array([5, 6, 7]), np.array([0, 1]), np.array([2, 3])).to_pylist()
    [[5, 6], [6, 7]]
    """
    length = stop - start
    offsets = np.concatenate([[0], np.cumsum(length)])
    rows = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values[rows]))


def first_occurrences(lists: pa.Array) -> pa.Array:
    """Take the repeats out of each list, in the order of first occurrence. Values are non-negative int32, none is null.

    >>> first_occurrences(pa.array([[3, 1, 3], []], pa.list_(pa.int32()))).to_pylist()
    [[3, 1], []]
    """
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.int64)
    row = np.repeat(np.arange(len(lists)), np.diff(offsets))
    _, first = np.unique(row * (values.max(initial=0) + 1) + values, return_index=True)
    first.sort()
    length = np.bincount(row[first], minlength=len(lists))
    new_offsets = np.concatenate([[0], np.cumsum(length)])
    return pa.ListArray.from_arrays(pa.array(new_offsets, pa.int32()), pa.array(values[first], pa.int32()))

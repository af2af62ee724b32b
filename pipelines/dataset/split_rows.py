"""From the events of users to the rows of every split: the same code for a new dataset and for `--append`. No Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.config.schema import DataConfig
from pipelines.dataset.behaviours import gap_buckets, sessions, time_since_last, type_weights
from pipelines.dataset.dataset import SplitCounts
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.dataset.splits import Stretches, first_occurrences, gather, split_users
from pipelines.log.ids import Int64s
from pipelines.log.times import TimeUnit

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SplitRows:
    """Rows of one split: user, items, times, what the configuration wants beside them, targets.

    cut : which of the users each of the S rows is of, and its stretches of their events.
    """

    cut: Stretches
    table: pa.Table

    @property
    def counts(self) -> SplitCounts:
        known, wanted = (self.table[name].combine_chunks() for name in ("items", "targets"))
        return SplitCounts(len(self.cut.user), len(known.values), len(wanted.values), self.cut.skipped)

    def values(self, column: Literal["items", "targets"]) -> Int32s:
        """Return all members of a column's lists, one after the other."""
        values: Int32s = self.table[column].combine_chunks().values.to_numpy()
        return values


def split_rows(
    histories: SortedEvents,
    items: Int32s,
    index: Int64s,
    data: DataConfig,
    unit: TimeUnit,
    cutoffs: tuple[int, int] | None,
) -> dict[str, SplitRows]:
    """Cut every user's events into the splits.

    Parameters
    ----------
    items : (E,) what stands for the events' items in the rows.
    index : (U,) what stands for the users.
    """
    offsets = _offsets(histories)
    behaviours: dict[str, npt.NDArray[Any]] = {"items": items, "times": histories.time}
    behaviours |= _behaviours(histories, data, unit)
    rows: dict[str, SplitRows] = {}
    for split, cut in split_users(data.split, histories.users, offsets, histories.time, cutoffs).items():
        columns = {
            "user": pa.array(index[cut.user], pa.int64()),
            **{name: gather(values, cut.start, cut.stop) for name, values in behaviours.items()},
            "targets": first_occurrences(gather(items, cut.target_start, cut.target_stop)),
        }
        rows[split] = SplitRows(cut, pa.table(columns))
    return rows


def newcomers(histories: SortedEvents, items: Int32s, index: Int64s, rows: dict[str, SplitRows]) -> SplitRows:
    """Make a row of each user that no split has: nothing to infer from but what is held out, which serving may know.

    Parameters
    ----------
    items, index : as in `split_rows`.  rows : what it gave.
    """
    offsets = _offsets(histories)
    known = np.zeros(len(histories.users), bool)
    for each in rows.values():
        known[each.cut.user] = True
    user = np.flatnonzero(~known)
    start, stop = offsets[user], offsets[user + 1]
    table = pa.table(
        {
            "user": pa.array(index[user], pa.int64()),
            "items": gather(items, start, start),
            "targets": first_occurrences(gather(items, start, stop)),
        }
    )
    return SplitRows(Stretches(user, start, start, start, stop), table)


def _offsets(histories: SortedEvents) -> Int64s:
    """(U + 1,) first event of each user."""
    count = np.bincount(histories.user, minlength=len(histories.users))
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


COUNTED: tuple[tuple[str, Literal["items", "targets"]], ...] = (("train", "items"), ("test", "targets"))
"""What is counted by item: the histories of train, for the negatives; the targets of test, for the quality report."""


def item_occurrences(rows: dict[str, SplitRows]) -> pa.Table:
    """Count how often each item stands in what is COUNTED: columns item, train, test, where either is above 0."""
    found = {split: np.unique(rows[split].values(column), return_counts=True) for split, column in COUNTED}
    some = np.union1d(*(items for items, _ in found.values()))
    counts = {}
    for split, (items, occurrences) in found.items():
        counts[split] = np.zeros(len(some), np.int64)
        counts[split][np.searchsorted(some, items)] = occurrences
    return pa.table({"item": some, **counts})


def stretches(rows: dict[str, SplitRows]) -> dict[str, Stretches]:
    """Return the cuts of all splits."""
    return {split: each.cut for split, each in rows.items()}


def _behaviours(histories: SortedEvents, data: DataConfig, unit: TimeUnit) -> dict[str, npt.NDArray[Any]]:
    """Find what the configuration wants to know of each event beside its item and time."""
    second = 1e6 if unit == "us" else 1
    found: dict[str, npt.NDArray[Any]] = {}
    if data.events.type_weights is not None:
        assert histories.type is not None, "the configuration requires event_type"
        found["weights"] = type_weights(histories.type, data.events.type_weights)
    if data.session_gap is None and not data.time_gaps:
        return found
    since_last = time_since_last(histories.user, histories.time)
    if data.session_gap is not None:
        found["sessions"] = sessions(histories.user, since_last, data.session_gap * second)
    if data.time_gaps:
        found["gaps"] = gap_buckets(since_last, second)
    return found

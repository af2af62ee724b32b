"""The events of a range of users, sorted: duplicates, rare items, short histories. Pure NumPy and Arrow; no Ray.

Between the passes of preprocessing a range lies on disk as an Arrow file with user and item as dictionaries, so that
each pass works on integer codes whatever the ids are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.log.ids import Int64s, as_array, rank
from pipelines.storage.tables import read_arrow, write_arrow

DUPLICATE = "duplicate"
REPEAT = "repeat of the item before"
RARE_ITEM = "item below min_item_events"
SHORT_USER = "user below min_user_events"
OLD = "older than the newest max_user_events"
SETTLED = (REPEAT, RARE_ITEM, SHORT_USER, OLD)  # what `settle` drops; a later event can change it

Int32s = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SortedEvents:
    """E events of U users over V items, sorted by (user, time, tie, item id, type)."""

    users: pa.Array  # (U,) ids, ascending
    items: pa.Array  # (V,) ids, ascending
    user: Int32s  # (E,) rows of `users`, ascending
    item: Int32s  # (E,) rows of `items`
    time: Int64s  # (E,)
    tie: pa.Array | None = None  # (E,) int64, float64 or text, where the log has tie breaks
    type: pa.Array | None = None  # (E,) text, where the log has event types

    def write(self, path: Path) -> None:
        """Write to an Arrow file; a killed writer leaves no file of that name."""
        columns = {
            "user": pa.DictionaryArray.from_arrays(pa.array(self.user), self.users),
            "item": pa.DictionaryArray.from_arrays(pa.array(self.item), self.items),
            "time": pa.array(self.time),
        }
        if self.tie is not None:
            columns["tie"] = self.tie
        if self.type is not None:
            columns["type"] = self.type.dictionary_encode()
        write_arrow(pa.table(columns), path)

    @classmethod
    def read(cls, path: Path) -> SortedEvents:
        """Read what `write` wrote."""
        table = read_arrow(path)
        user, item = table["user"].combine_chunks(), table["item"].combine_chunks()
        if isinstance(user, pa.ChunkedArray):  # an empty table has no chunk
            user, item = (column.chunk(0) for column in (user, item))
        return cls(
            user.dictionary,
            item.dictionary,
            user.indices.to_numpy(),
            item.indices.to_numpy(),
            table["time"].to_numpy(),
            as_array(table["tie"]) if "tie" in table.column_names else None,
            as_array(table["type"]) if "type" in table.column_names else None,
        )

    def events(self) -> pa.Table:
        """Return the events as `sort_events` takes them."""
        columns = {
            "user": self.users.take(pa.array(self.user)),
            "item": self.items.take(pa.array(self.item)),
            "time": pa.array(self.time),
        }
        if self.tie is not None:
            columns["tie"] = self.tie
        if self.type is not None:
            columns["type"] = self.type
        return pa.table(columns)

    def of_users(self, users: pa.Array) -> SortedEvents:
        """Take the events of those of its users that are among `users`."""
        stays = pc.is_in(self.users, value_set=users).to_numpy(zero_copy_only=False)
        return self.of(stays, np.flatnonzero(stays[self.user]))

    def of(self, stays: Mask, kept: Rows) -> SortedEvents:
        """Take the events number `kept`, all of them of users that stay, (U,); `items` is unchanged."""
        new_user = (np.cumsum(stays) - 1).astype(np.int32)
        return SortedEvents(
            self.users.filter(pa.array(stays)),
            self.items,
            new_user[self.user[kept]],
            self.item[kept],
            self.time[kept],
            None if self.tie is None else self.tie.take(pa.array(kept)),
            None if self.type is None else self.type.take(pa.array(kept)),
        )


def sort_events(events: pa.Table, drop_duplicates: bool) -> tuple[SortedEvents, int]:
    """Sort the normalised events of some users and drop all but one of equal rows.

    Parameters
    ----------
    events
        Columns user, item, time, and optionally tie and type.
    drop_duplicates
        Equal in every column; otherwise equal rows stay.

    Returns
    -------
    histories
        Ordered by (user, time, tie, item id, type): the same for any order of the rows.
    dropped
        Number of rows dropped.
    """
    user, users = rank(as_array(events["user"]))
    item, items = rank(as_array(events["item"]))
    time = events["time"].to_numpy()
    tie = as_array(events["tie"]) if "tie" in events.column_names else None
    kind = as_array(events["type"]) if "type" in events.column_names else None
    minor: list[Any] = [item]
    if tie is not None:
        minor.insert(0, rank(tie)[0] if pa.types.is_string(tie.type) else tie.to_numpy(zero_copy_only=False))
    if kind is not None:
        minor.append(rank(kind.fill_null("\0"))[0])
    order, run = _order(user, time, minor)
    if drop_duplicates and len(order):
        same = run[1:] == run[:-1]  # equal user and time
        for key in minor:
            sorted_key = key[order]
            same &= sorted_key[1:] == sorted_key[:-1]
        if same.any():
            order = order[np.concatenate([[True], ~same])]
    histories = SortedEvents(
        users,
        items,
        user[order],
        item[order],
        time[order],
        None if tie is None else tie.take(pa.array(order)),
        None if kind is None else kind.take(pa.array(order)),
    )
    return histories, len(user) - len(order)


def _order(user: Int32s, time: Int64s, minor: list[Any]) -> tuple[Rows, Rows]:
    """Sort the rows by (user, time, *minor); with the number of each one's (user, time) run, in that order.

    User and time share one 64-bit key where they fit, which sorts several times faster than two keys; only the rows of
    equal keys are then sorted by the rest.
    """
    first = int(time.min(initial=0))
    span = int(time.max(initial=0)) - first + 1
    if (int(user.max(initial=0)) + 1) * span >= 2**63:
        order = np.lexsort([*reversed(minor), time, user])
        user, time = user[order], time[order]
        new = (user[1:] != user[:-1]) | (time[1:] != time[:-1])
    else:
        key = user * np.int64(span) + (time - first)
        order = np.argsort(key)
        key = key[order]
        new = key[1:] != key[:-1]
        tied = np.flatnonzero(np.concatenate([~new, [False]]) | np.concatenate([[False], ~new]))
        if len(tied):
            rows = order[tied]
            order[tied] = rows[np.lexsort([*(each[rows] for each in reversed(minor)), key[tied]])]
    return order, np.concatenate([[0], np.cumsum(new)]) if len(order) else order


def settle(
    histories: SortedEvents, rare: Mask, min_user_events: int, collapse: bool, max_user_events: int | None = None
) -> tuple[SortedEvents, Counter[str]]:
    """Drop the events of rare items, then repeats (if `collapse`), then all but each user's newest
    `max_user_events`, then users left with too few events.

    Parameters
    ----------
    histories
        Sorted events.
    rare
        (V,) items to drop.

    Returns
    -------
    histories
        The events left; `users` holds only users that still have events, `items` is unchanged.
    set_aside
        Count of the others by reason.
    """
    nothing_to_drop = min_user_events <= 1 and max_user_events is None and not collapse and not rare.any()
    if nothing_to_drop:
        return histories, Counter()
    kept = np.flatnonzero(~rare[histories.item])
    set_aside = Counter({RARE_ITEM: len(histories.item) - len(kept)})
    if collapse:
        user, item = histories.user[kept], histories.item[kept]
        repeat = np.zeros(len(kept), bool)
        repeat[1:] = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
        set_aside[REPEAT] = int(repeat.sum())
        kept = kept[~repeat]
    length = np.bincount(histories.user[kept], minlength=len(histories.users))
    if max_user_events is not None:
        to_come = np.cumsum(length)[histories.user[kept]] - np.arange(len(kept))  # of the user, this one counted
        set_aside[OLD] = int((to_come > max_user_events).sum())
        kept = kept[to_come <= max_user_events]
        length = np.minimum(length, max_user_events)
    stays = length >= max(1, min_user_events)
    enough = stays[histories.user[kept]]
    set_aside[SHORT_USER] = int((~enough).sum())
    return histories.of(stays, kept[enough]), +set_aside


def item_counts(histories: SortedEvents) -> pa.Table:
    """Count the events per item that has any: columns id, count (int64)."""
    count = np.bincount(histories.item, minlength=len(histories.items))
    table = pa.table({"id": histories.items, "count": pa.array(count, pa.int64())})
    return table.filter(pc.greater(table["count"], 0))

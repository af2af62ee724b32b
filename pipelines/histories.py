"""The events of a range of users, sorted: duplicates, rare items, short histories. Pure NumPy and Arrow; no Ray.

Between the passes of preprocessing a range lies on disk as an Arrow file with user and item as dictionaries, so that
each pass works on integer codes whatever the ids are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from pipelines.ids import Int64s, as_array, rank

DUPLICATE = "duplicate"
REPEAT = "repeat of the item before"
RARE_ITEM = "item below min_item_events"
SHORT_USER = "user below min_user_events"

Int32s = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Histories:
    """E events of U users over V items, sorted by (user, time, tie, item id)."""

    users: pa.Array  # (U,) ids, ascending
    items: pa.Array  # (V,) ids, ascending
    user: Int32s  # (E,) rows of `users`, ascending
    item: Int32s  # (E,) rows of `items`
    time: Int64s  # (E,)

    def write(self, path: Path) -> None:
        """Write to an Arrow file; a killed writer leaves no file of that name."""
        columns = {
            "user": pa.DictionaryArray.from_arrays(pa.array(self.user), self.users),
            "item": pa.DictionaryArray.from_arrays(pa.array(self.item), self.items),
            "time": pa.array(self.time),
        }
        write_arrow(pa.table(columns), path)

    @classmethod
    def read(cls, path: Path) -> Histories:
        """Read what `write` wrote."""
        table = feather.read_table(path, memory_map=False)
        user, item = table["user"].combine_chunks(), table["item"].combine_chunks()
        if isinstance(user, pa.ChunkedArray):  # an empty table has no chunk
            user, item = (column.chunk(0) for column in (user, item))
        return cls(
            user.dictionary,
            item.dictionary,
            user.indices.to_numpy(),
            item.indices.to_numpy(),
            table["time"].to_numpy(),
        )


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write an Arrow file in one step: aside, then renamed."""
    aside = path.with_suffix(".writing")
    feather.write_feather(table, aside, compression="lz4", chunksize=max(1, table.num_rows))
    aside.rename(path)


def sort_events(events: pa.Table, drop_duplicates: bool) -> tuple[Histories, int]:
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
        Ordered by (user, time, tie, item id): the same for any order of the rows.
    dropped
        Number of rows dropped.
    """
    user, users = rank(as_array(events["user"]))
    item, items = rank(as_array(events["item"]))
    keys = [item, events["time"].to_numpy(), user]  # least significant first, as lexsort takes them
    if "tie" in events.column_names:
        keys.insert(1, events["tie"].to_numpy())
    if "type" in events.column_names:
        keys.insert(0, rank(as_array(events["type"]).fill_null("\0"))[0])
    order = np.lexsort(keys)
    if drop_duplicates and len(order):
        keys = [key[order] for key in keys]
        same = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
        order = order[np.concatenate([[True], ~same])]
    return Histories(users, items, user[order], item[order], events["time"].to_numpy()[order]), len(user) - len(order)


def settle(histories: Histories, rare: Mask, min_user_events: int, collapse: bool) -> tuple[Histories, Counter[str]]:
    """Drop the events of rare items, then repeats (if `collapse`), then users left with too few events.

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
    kept = np.flatnonzero(~rare[histories.item])
    set_aside = Counter({RARE_ITEM: len(histories.item) - len(kept)})
    if collapse:
        user, item = histories.user[kept], histories.item[kept]
        repeat = np.zeros(len(kept), bool)
        repeat[1:] = (user[1:] == user[:-1]) & (item[1:] == item[:-1])
        set_aside[REPEAT] = int(repeat.sum())
        kept = kept[~repeat]
    length = np.bincount(histories.user[kept], minlength=len(histories.users))
    stays = length >= max(1, min_user_events)
    enough = stays[histories.user[kept]]
    set_aside[SHORT_USER] = int((~enough).sum())
    kept = kept[enough]
    new_user = (np.cumsum(stays) - 1).astype(np.int32)
    left = Histories(
        histories.users.filter(pa.array(stays)),
        histories.items,
        new_user[histories.user[kept]],
        histories.item[kept],
        histories.time[kept],
    )
    return left, +set_aside


def item_counts(histories: Histories) -> pa.Table:
    """Events per item that has any: columns id, count (int64)."""
    count = np.bincount(histories.item, minlength=len(histories.items))
    table = pa.table({"id": histories.items, "count": pa.array(count, pa.int64())})
    return table.filter(pc.greater(table["count"], 0))

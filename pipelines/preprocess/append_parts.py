"""What `--append` does to each part: sort its new events, find the users that change, write them anew.

A part's clean events of the new log become one more segment of its `events/`. The users whose sequences change are
written to files numbered generation * parts + part, and their old rows are superseded (pipelines.dataset.part_files).
With minimum counts, or another setting by which an event may bring back or push out others, every event of the part is
sorted anew; without, only the new ones and their users' old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mind_core.splitmix import GOLDEN
from pipelines.config.schema import DataConfig
from pipelines.dataset.dataset import Layout
from pipelines.dataset.part_files import supersede
from pipelines.dataset.sorted_events import SortedEvents, item_counts, sort_events
from pipelines.dataset.split_rows import item_occurrences, split_rows, stretches
from pipelines.log.ids import Int64s, Lookup, UInt64s, as_array, hash64
from pipelines.log.times import TimeUnit
from pipelines.preprocess.core_items import settled
from pipelines.preprocess.sort_parts import Part, segment_name
from pipelines.preprocess.write_parts import Shared, write_sequences
from pipelines.quality.part_stats import Stats, part_stats
from pipelines.storage.digests import table_digest
from pipelines.storage.home_files import exists, listed
from pipelines.storage.tables import read_arrow, read_table, write_arrow, write_table

ODD = np.uint64(GOLDEN)  # order times it tells places apart, and sums modulo 2^64 with the events' hashes


@dataclass(frozen=True)
class Change:
    """What the tasks must know. The layout is of the folder that will take the dataset's place."""

    data: DataConfig
    unit: TimeUnit
    cutoffs: tuple[int, int] | None
    layout: Layout
    folder: Path  # of what `touch_part` leaves to `rewrite_part`
    generation: int  # of this append, from 1
    parts: int
    minimum: bool  # whether an event can bring back or push out another
    rare_before: pa.Array | None
    rare_after: pa.Array | None

    def numbers(self, part: int) -> Iterator[int]:
        """Yield the numbers of the part's files, as the dataset was; then that of this append."""
        return (generation * self.parts + part for generation in range(self.generation + 1))


@dataclass(frozen=True)
class Touched:
    """What becomes of a part's users that change: differences to what was, but for set_aside.

    set_aside : by what a later event can change, of all users of the part.  removed : what their rows were, by split.
    stats : of what they were.
    """

    events: int
    users: int
    new_users: int  # without a row in the vocabulary
    duplicates: int
    set_aside: dict[str, int]
    removed: dict[str, dict[str, int]]
    stats: Stats


def part_of(number: int, layout: Layout, data: DataConfig) -> Part:
    """Open a part with all its segments."""
    files = listed(layout.events, f"part-{number:05d}-*.arrow")
    return Part(number, tuple(map(str, files)), data.events.duplicates == "drop")


def write_segment(layout: Layout, generation: int, data: DataConfig, number: int, events: pa.Table) -> dict[str, Any]:
    """Sort a part's new events into a segment; none is written where there is none."""
    segment, dropped = sort_events(events, data.events.duplicates == "drop")
    if len(segment.item):
        segment.write(layout.events / segment_name(number, generation))
    return {"events": len(segment.item), "duplicates": dropped}


def touch_part(part: Part, change: Change) -> dict[str, Any]:
    """As a task, find a part's users that change, and what changes with them; nothing of the dataset is written."""
    own = str(change.layout.events / segment_name(part.number, change.generation))
    new = [segment for segment in part.segments if segment == own]
    before = Part(part.number, tuple(segment for segment in part.segments if segment != own), part.drop)
    if new:
        added = SortedEvents.read(Path(new[0]))
        raw_was = before.read(None if change.minimum else added.users)
        raw_now, duplicates = sort_events(pa.concat_tables([raw_was.events(), added.events()]), part.drop)
    else:
        raw_was = raw_now = before.read()
        duplicates = 0
    was, _ = settled(raw_was, change.rare_before, change.data)
    now, set_aside = settled(raw_now, change.rare_after, change.data)
    users = changed_users(was, now)
    was, now = was.of_users(users), now.of_users(users)

    name = f"{part.number:05d}.arrow"
    now.write(change.folder / f"now-{name}")
    write_arrow(pa.table({"id": was.users}), change.folder / f"was-{name}")
    more, less = item_counts(now), item_counts(was)
    less = less.set_column(1, "count", pc.negate(less["count"]))
    write_arrow(pa.concat_tables([more, less]), change.folder / f"items-{name}")
    rows = split_rows(was, was.item, np.arange(len(was.users)), change.data, change.unit, change.cutoffs)
    occurrences = item_occurrences(rows)
    occurrences = occurrences.set_column(0, "id", was.items.take(occurrences["item"]))
    write_arrow(occurrences, change.folder / f"rows-{name}")
    known = Lookup(_vocabulary(part.number, change)["id"])
    found = Touched(
        len(now.item) - len(was.item),
        len(now.users) - len(was.users),
        int((known.places(now.users) < 0).sum()),
        duplicates,
        dict(set_aside),
        {split: asdict(each.counts) for split, each in rows.items()},
        part_stats(was, stretches(rows), change.unit),
    )
    return asdict(found)


def rewrite_part(number: int, first_new: int, shared: tuple[Change, Shared]) -> dict[str, Any]:
    """As a task, write the rows of a part's users that change, and supersede their old ones.

    first_new : index of the part's first new user.
    """
    change, writing = shared
    now = SortedEvents.read(change.folder / f"now-{number:05d}.arrow")
    was = read_arrow(change.folder / f"was-{number:05d}.arrow")
    *old_files, own = change.numbers(number)
    vocabulary = _vocabulary(number, change)
    known = Lookup(vocabulary["id"])
    place = known.places(now.users)
    is_new = place < 0
    old_index = vocabulary["index"].to_numpy()
    index = np.where(is_new, first_new + np.cumsum(is_new) - 1, old_index[place] if len(old_index) else 0)
    rows, digests = write_sequences(now, index, own, writing)
    count = np.bincount(now.user, minlength=len(now.users)).astype(np.int64)
    users = pa.table({"index": index[is_new], "id": now.users.filter(pa.array(is_new)), "count": count[is_new]})
    write_table(users, change.layout.users(own))
    gone = old_index[known.places(as_array(was["id"]))]
    _recount(old_files, gone, index[~is_new], count[~is_new], change.layout)
    for old in old_files:
        file = change.layout.part("train", old)
        if len(gone) and exists(file):
            supersede(file, gone)
    write_arrow(item_occurrences(rows), writing.counts / f"items-{number:05d}.arrow")
    return {
        "splits": {split: asdict(each.counts) for split, each in rows.items()},
        "digests": [*digests, table_digest(users)],
        "stats": part_stats(now, stretches(rows), change.unit),
    }


def changed_users(was: SortedEvents, now: SortedEvents) -> pa.Array:
    """Find the ids of the users whose events are not the same in both."""
    place = Lookup(was.users).places(now.users)
    before, after = _user_hashes(was), _user_hashes(now)
    same = place >= 0
    same[same] = before[place[same]] == after[same]
    gone = np.ones(len(was.users), bool)
    gone[place[place >= 0]] = False
    return pa.concat_arrays([now.users.filter(pa.array(~same)), was.users.filter(pa.array(gone))])


def _user_hashes(histories: SortedEvents) -> UInt64s:
    """(U,) a hash of each user's events in their order."""
    if not len(histories.users):
        return np.zeros(0, np.uint64)
    event = hash64(histories.items)[histories.item] ^ hash64(pa.array(histories.time), seed=1)
    if histories.type is not None:
        event ^= hash64(histories.type.fill_null(""), seed=2)
    start = np.flatnonzero(np.diff(histories.user, prepend=-1))
    order = (np.arange(len(event)) - np.repeat(start, np.diff([*start, len(event)]))).astype(np.uint64)
    hashes: UInt64s = np.add.reduceat(hash64(pa.array((event + order * ODD).view(np.int64))), start)
    return hashes


def _vocabulary(number: int, change: Change) -> dict[str, Any]:
    """Read the part's users as the dataset was: id, index."""
    *old_files, _ = change.numbers(number)
    files = [change.layout.users(old) for old in old_files]
    table = pa.concat_tables([read_table(file) for file in files if exists(file)])
    return {"id": as_array(table["id"]), "index": as_array(table["index"])}


def _recount(numbers: list[int], gone: Int64s, index: Int64s, count: Int64s, layout: Layout) -> None:
    """Bring the counts of known users up to date: those `gone` have none, unless `index` has them with a new one."""
    for number in numbers:
        file = layout.users(number)
        if not exists(file):
            continue
        table = read_table(file)
        own, counts = table["index"].to_numpy(), table["count"].to_numpy().copy()
        counts[np.isin(own, gone)] = 0
        place = np.searchsorted(own, index).clip(max=max(len(own) - 1, 0))
        here = own[place] == index if len(own) else np.zeros(len(index), bool)
        counts[place[here]] = count[here]
        if not np.array_equal(counts, table["count"].to_numpy()):
            write_table(table.set_column(2, "count", pa.array(counts)), file)

"""Pass 2 of preprocessing: every part's run of buckets -> its users' events, sorted, without duplicates.

Where the buckets are cut into parts depends on the users' hashes and the number of clean events alone, so that the
parts come out the same however the input was cut into files and blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.cluster.ray_data import Json, mapped, records
from pipelines.config.schema import DataConfig
from pipelines.dataset.sorted_events import DUPLICATE, SortedEvents, item_counts, sort_events
from pipelines.preprocess.buckets import Run
from pipelines.preprocess.clean_log import CleanLog, Kinds, with_types
from pipelines.preprocess.exchange import events_by_part, parts_in
from pipelines.preprocess.heavy_users import heaviest, require_room_to_sort, warn_of_heaviest
from pipelines.preprocess.workspace import Workspace, key_of, recording
from pipelines.storage.home_files import fetch
from pipelines.storage.tables import read_arrow, write_arrow

EVENTS_PER_PART = 2**19


@dataclass(frozen=True)
class Part:
    """A part's sorted events on disk, and the items that are in them.

    segments : Arrow files of pipelines.dataset.sorted_events; the first of the whole part, one more for each
    `--append`. drop : whether equal events of several segments are one.
    counts : Arrow file of events per item: id, count.
    """

    number: int
    segments: tuple[str, ...]
    drop: bool
    counts: str = ""
    users: int = 0

    def read(self, users: pa.Array | None = None) -> SortedEvents:
        """Read the events, or those of some users."""
        found = [SortedEvents.read(Path(segment)) for segment in self.segments]
        if users is not None:
            found = [each.of_users(users) for each in found]
        if len(found) == 1:
            return found[0]
        return sort_events(pa.concat_tables([each.events() for each in found]), self.drop)[0]

    def item_counts(self) -> pa.Table:
        """Count the events per item: columns id, count."""
        return read_arrow(self.counts)


def sort_parts(
    data: DataConfig, log: CleanLog, runs: list[Run], work: Workspace, folder: Path
) -> tuple[list[Part], Counter[str]]:
    """Sort every part, a run of buckets, into a file of `folder`.

    Returns
    -------
    parts
        In user order.
    set_aside
        The duplicates dropped.
    """
    require_room_to_sort(data, log.bucket_counts, runs)
    counts = work.root / "sort"
    drop = data.events.duplicates == "drop"
    parts = [
        Part(number, (str(folder / segment_name(number, 0)),), drop, str(counts / f"counts-{number:05d}.arrow"))
        for number in range(len(runs))
    ]
    found = for_each_part("sort", partial(_sort_part, parts), log, runs, log.kinds, work, "Sorting by user and time")
    warn_of_heaviest(data, [each["heaviest"] for each in found])
    parts = [replace(part, users=each["users"]) for part, each in zip(parts, found, strict=True)]
    return parts, +Counter({DUPLICATE: sum(each["duplicates"] for each in found)})


def for_each_part(
    stage: str,
    task: Callable[[int, pa.Table], Json],
    log: CleanLog,
    runs: list[Run],
    kinds: Kinds,
    work: Workspace,
    what: str,
) -> list[Json]:
    """Run ``task(number, events)`` for every part; results in order. Those that are on record are not run again.

    events : of a part's users in the log, in any order.
    """
    done = work.recorded(stage)
    missing = [number for number in range(len(runs)) if key_of(number) not in done]
    if missing:
        recorded = recording(task, work.root / stage)

        def sort_block(block: pa.Table) -> pa.Table:
            return records((key_of(n), recorded(key_of(n), n, events)) for n, events in parts_in(block))

        exchanged = events_by_part(log, runs, missing, kinds)
        done |= work.execute(stage, mapped(exchanged, sort_block, what), what, len(missing))
        for number in missing:  # a part may have no event at all
            if key_of(number) not in done:
                done[key_of(number)] = recorded(key_of(number), number, no_events(log, kinds))
    return [done[key_of(number)] for number in range(len(runs))]


def no_events(log: CleanLog, kinds: Kinds) -> pa.Table:
    """Make a table of none, with the columns of the others."""
    return with_types(pq.read_schema(fetch(log.files[0].path)).empty_table(), kinds)


def segment_name(number: int, generation: int) -> str:
    """Name a part's file of events: the first, or that of the generation-th `--append`."""
    return f"part-{number:05d}-{generation:06d}.arrow"


def _sort_part(parts: list[Part], number: int, events: pa.Table) -> Json:
    """Sort a part's events, and count its items."""
    part = parts[number]
    sorted_events, duplicates = sort_events(events, part.drop)
    sorted_events.write(Path(part.segments[0]))
    write_arrow(item_counts(sorted_events), Path(part.counts))
    return {"duplicates": duplicates, "users": len(sorted_events.users), "heaviest": heaviest(sorted_events)}

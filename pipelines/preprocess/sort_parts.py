"""Pass 2 of preprocessing: every part's run of buckets -> its users' events, sorted, without duplicates.

Where the buckets are cut into parts depends on the users' hashes and the number of clean events alone, so that the
parts come out the same however the input was cut into files and blocks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.cluster.session import share
from pipelines.config.schema import DataConfig
from pipelines.dataset.sorted_events import DUPLICATE, Histories, item_counts, sort_events
from pipelines.preprocess.buckets import read_buckets
from pipelines.preprocess.clean_log import CleanLog, with_types
from pipelines.preprocess.workspace import Workspace
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

    def read(self, users: pa.Array | None = None) -> Histories:
        """The events, or those of some users."""
        found = [Histories.read(Path(segment)) for segment in self.segments]
        if users is not None:
            found = [each.of_users(users) for each in found]
        if len(found) == 1:
            return found[0]
        return sort_events(pa.concat_tables([each.events() for each in found]), self.drop)[0]

    def item_counts(self) -> pa.Table:
        """Events per item: columns id, count."""
        return read_arrow(self.counts)


def sort_parts(
    data: DataConfig, log: CleanLog, runs: list[tuple[int, int]], work: Workspace, folder: Path
) -> tuple[list[Part], Counter[str]]:
    """Sort every part, a run of buckets, into a file of `folder`.

    Returns
    -------
    parts
        In user order.
    set_aside
        The duplicates dropped.
    """
    counts = work.root / "sort"
    kinds = {"user": log.user_type, "item": log.item_type}
    drop = data.events.duplicates == "drop"
    parts = [
        Part(number, (str(folder / segment_name(number, 0)),), drop, str(counts / f"counts-{number:05d}.arrow"))
        for number in range(len(runs))
    ]
    blocks = share(log.blocks)
    arguments = [(part, blocks, *run, kinds) for part, run in zip(parts, runs, strict=True)]
    found = work.run("sort", _sort_part, arguments, "Sorting by user and time")
    parts = [replace(part, users=each["users"]) for part, each in zip(parts, found, strict=True)]
    return parts, +Counter({DUPLICATE: sum(each["duplicates"] for each in found)})


def segment_name(number: int, generation: int) -> str:
    """Of a part's file of events: the first, or that of the generation-th `--append`."""
    return f"part-{number:05d}-{generation:06d}.arrow"


def bucket_events(blocks: list[str], first: int, stop: int, kinds: dict[str, pa.DataType]) -> pa.Table:
    """A run of buckets out of all blocks, ids brought to one type."""
    return pa.concat_tables([with_types(read_buckets(block, first, stop), kinds) for block in blocks])


def _sort_part(part: Part, blocks: list[str], first: int, stop: int, kinds: dict[str, pa.DataType]) -> dict[str, Any]:
    """Task: gather a part's events and sort them."""
    histories, duplicates = sort_events(bucket_events(blocks, first, stop, kinds), part.drop)
    histories.write(Path(part.segments[0]))
    write_arrow(item_counts(histories), Path(part.counts))
    return {"duplicates": duplicates, "users": len(histories.users)}

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
import pyarrow.feather as feather

from pipelines.buckets import group, read_buckets
from pipelines.clean_log import CleanLog, with_types
from pipelines.config import DataConfig
from pipelines.histories import DUPLICATE, item_counts, sort_events, write_arrow
from pipelines.workspace import Workspace

EVENTS_PER_PART = 2**19


@dataclass(frozen=True)
class Part:
    """A part's sorted events on disk, and the items that are in them."""

    number: int
    path: str
    counts: str  # Arrow file: id, count
    users: int = 0

    def item_counts(self) -> pa.Table:
        """Events per item: columns id, count."""
        return feather.read_table(self.counts, memory_map=False)


def sort_parts(data: DataConfig, log: CleanLog, work: Workspace, folder: Path) -> tuple[list[Part], Counter[str]]:
    """Sort every part into a file of `folder`.

    Returns
    -------
    parts
        In user order.
    set_aside
        The duplicates dropped.
    """
    runs = group(log.bucket_counts, EVENTS_PER_PART)
    counts = work.root / "sort"
    kinds = {"user": log.user_type, "item": log.item_type}
    drop = data.events.duplicates == "drop"
    parts = [
        Part(number, str(folder / f"part-{number:05d}.arrow"), str(counts / f"counts-{number:05d}.arrow"))
        for number in range(len(runs))
    ]
    arguments = [(part, log.blocks, *run, kinds, drop) for part, run in zip(parts, runs, strict=True)]
    found = work.run("sort", _sort_part, arguments, "Sorting by user and time")
    parts = [replace(part, users=each["users"]) for part, each in zip(parts, found, strict=True)]
    return parts, +Counter({DUPLICATE: sum(each["duplicates"] for each in found)})


def _sort_part(
    part: Part, blocks: list[str], first: int, stop: int, kinds: dict[str, pa.DataType], drop: bool
) -> dict[str, Any]:
    """Task: gather a run of buckets from all blocks and sort it."""
    events = pa.concat_tables([with_types(read_buckets(block, first, stop), kinds) for block in blocks])
    histories, duplicates = sort_events(events, drop)
    histories.write(Path(part.path))
    write_arrow(item_counts(histories), Path(part.counts))
    return {"duplicates": duplicates, "users": len(histories.users)}

"""Pass 2 of preprocessing, on Ray Data: shuffle the clean blocks to ranges of users, sort each, drop duplicates.

Where the ranges are cut depends on the set of users and the number of clean events alone, so that the dataset's parts
come out the same however the input was cut into files and blocks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import ray
import ray.data
import ray.exceptions

from pipelines.clean_log import CleanLog
from pipelines.config import DataConfig
from pipelines.histories import DUPLICATE, sort_events
from pipelines.ids import as_array, buckets
from pipelines.progress import progress
from pipelines.session import raise_user_error

EVENTS_PER_PART = 2**19  # a range of users holds about that many
RANGES_PER_BLOCK = 4  # of the shuffle: several small ranges even out what a hash puts together by chance


@dataclass(frozen=True)
class Range:
    """The file of the sorted events of consecutive users, and what pass 3 left of them."""

    number: int
    path: str
    users: int = 0
    events: int = 0


def partition(data: DataConfig, log: CleanLog, staging: Path) -> tuple[list[Range], Counter[str]]:
    """Write one file per range of users into `staging`; the blocks of the log are removed.

    Returns
    -------
    ranges
        In user order.
    set_aside
        The duplicates dropped.
    """
    bounds = _bounds(log.sample, -(-log.events // EVENTS_PER_PART))
    count = len(bounds) + 1
    types = {"user": log.user_type, "item": log.item_type}

    def load(files: pa.Table) -> pa.Table:
        table = feather.read_table(files["path"][0].as_py(), memory_map=False)
        for side, kind in types.items():
            place = table.column_names.index(side)
            table = table.set_column(place, side, table[side].cast(kind))
        return table.append_column("range", pa.array(buckets(as_array(table["user"]), bounds)))

    def write_ranges(block: pa.Table) -> pa.Table:
        written: dict[str, list[Any]] = {"number": [], "path": [], "duplicates": []}
        numbers = block["range"].to_numpy() if block.num_columns else np.array([], np.int64)
        for number in np.unique(numbers):  # a handful of ranges per block
            events = block.filter(pa.array(numbers == number)).drop_columns(["range"])
            histories, dropped = sort_events(events, data.events.duplicates == "drop")
            path = staging / f"range-{number:05d}.arrow"
            histories.write(path)
            for name, value in zip(written, (int(number), str(path), dropped), strict=True):
                written[name].append(value)
        return pa.table(
            written, schema=pa.schema({"number": pa.int64(), "path": pa.string(), "duplicates": pa.int64()})
        )

    blocks = data.partitions or min(count, max(2, -(-count // RANGES_PER_BLOCK)))
    files = [pa.table({"path": [path]}) for path in log.blocks]
    shuffled = (
        ray.data.from_arrow(files)
        .map_batches(load, batch_size=1, batch_format="pyarrow")
        .repartition(blocks, keys=["range"])
        .map_batches(write_ranges, batch_size=None, batch_format="pyarrow")
    )
    ranges, duplicates = [], 0
    try:
        with progress("Partitioning by user", total=count) as advance:
            for row in shuffled.iter_rows():
                ranges.append(Range(row["number"], row["path"]))
                duplicates += row["duplicates"]
                advance(1)
    except ray.exceptions.RayError as error:
        raise_user_error(error)
        raise
    for path in log.blocks:
        Path(path).unlink()
    return sorted(ranges, key=lambda each: each.number), +Counter({DUPLICATE: duplicates})


def _bounds(sample: pa.Array, ranges: int) -> pa.Array:
    """Ascending user ids that cut the users into at most that many ranges of about equal numbers."""
    ordered = sample.take(pc.sort_indices(sample))
    places = np.unique(np.arange(1, ranges) * len(ordered) // max(ranges, 1))
    return ordered.take(pa.array(places[places > 0], pa.int64()))

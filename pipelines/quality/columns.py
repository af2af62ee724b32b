"""What the report says of each column of the log, and which items have most events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset.column_summary import TOP, ColumnSummary
from pipelines.dataset.dataset import Manifest
from pipelines.log.ids import Int64s
from pipelines.log.normalise import BAD_TIME, MISSING_ITEM, MISSING_TIME, MISSING_USER
from pipelines.quality.part_stats import HEAVIEST, Stats


def event_columns(manifest: Manifest, stats: Stats, top: list[list[object]]) -> Iterator[ColumnSummary]:
    """Summarise the columns of the log: what is missing, of all rows; what is distinct and common, in the dataset.

    top : `top_items`.
    """
    source, rows, aside = manifest.config["events"], manifest.rows_read, manifest.set_aside

    def column(role: str, missing: int, distinct: int | None, commonest: list[list[object]]) -> ColumnSummary:
        shown = tuple((str(name), int(str(count))) for name, count in commonest[:TOP])
        return ColumnSummary("events", source[role], rows, missing, distinct, shown)

    yield column("user", aside.get(MISSING_USER, 0), manifest.users, stats.get("heaviest", []))
    yield column("item", aside.get(MISSING_ITEM, 0), manifest.items, top)
    yield column("time", aside.get(MISSING_TIME, 0) + aside.get(BAD_TIME, 0), None, [])
    if source.get("event_type") is not None:
        types = stats.get("types", {})
        ranked = sorted(types.items(), key=lambda pair: (-pair[1], pair[0]))
        yield column("event_type", max(0, rows - sum(types.values())), len(types), [list(pair) for pair in ranked])


def top_items(file: Path, count: Int64s, named: str) -> list[list[object]]:
    """List [title, events] of the items with most events, of equal ones the first; the id where there is no title.

    file : of the items.  count : (items,) events of each.  named : the column that names them.
    """
    places = np.argsort(-count, kind="stable")[:HEAVIEST]
    places = places[count[places] > 0]
    found: dict[int, str] = {}
    start = 0
    for batch in pq.ParquetFile(file).iter_batches(columns=list(dict.fromkeys(["id", named]))):
        here = places[(places >= start) & (places < start + len(batch))]
        some = batch.take(pa.array(here - start))
        titles = zip(some[named].to_pylist(), some["id"].to_pylist(), strict=True)
        found |= {
            int(place): str(own if title is None else title) for place, (title, own) in zip(here, titles, strict=True)
        }
        start += len(batch)
    return [[found[int(place)], int(count[place])] for place in places]

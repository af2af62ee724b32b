"""What the report says of each column of the log, and which items have most events."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.dataset.column_summary import TOP, ColumnSummary
from pipelines.dataset.dataset import Manifest
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


def top_items(items: pa.Table, named: str) -> list[list[object]]:
    """List [title, events] of the items with most events, of equal ones the first; the id where there is no title.

    items : columns id, count and the one that names them.
    """
    count = items["count"].to_numpy()
    places = pa.array(np.argsort(-count, kind="stable")[:HEAVIEST])
    some = items.take(places)
    found = zip(some[named].to_pylist(), some["id"].to_pylist(), some["count"].to_pylist(), strict=True)
    return [[str(own if title is None else title), events] for title, own, events in found if events]

"""Write the quality report of a dataset: quality.json, quality.html, and what the next `--append` must know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.dataset.column_summary import ColumnSummary
from pipelines.dataset.dataset import Layout, Manifest
from pipelines.log.formats import Note
from pipelines.log.ids import Int64s
from pipelines.quality.columns import event_columns, top_items
from pipelines.quality.page import page
from pipelines.quality.part_stats import Stats
from pipelines.quality.report import Quality, assemble, raw_report, unknown_test_items
from pipelines.storage.home_files import fetch
from pipelines.storage.tables import read_table, write_arrow, write_text


def write_quality(
    layout: Layout,
    manifest: Manifest,
    stats: Stats,
    test_count: Int64s,
    previous: Path,
    notes: Sequence[Note] = (),
    columns: Sequence[ColumnSummary] = (),
) -> Quality:
    """Write quality.json and quality.html into a dataset's folder, and what `--append` must know to write the next.

    Parameters
    ----------
    layout
        Of the dataset, whose item table is written.
    manifest
        Of the dataset.
    stats
        Of all users: `part_stats`, merged.
    test_count
        (items,) how often each is a test target.
    previous
        Folder of the dataset that it replaces, if there is one.
    notes
        Of what was odd in the log and the tables.
    columns
        Of the item and the profile table.
    """
    title = next(iter((manifest.config.get("items") or {}).get("show", ())), None)
    named = "id" if title is None else f"show_{title}"
    items = read_table(layout.items, ["count", "train_count"])
    test_items = unknown_test_items(items["train_count"].to_numpy(), test_count)
    before = raw_report(Layout(previous).quality)
    count = items["count"].to_numpy()
    top = top_items(fetch(layout.items), count, named)
    columns = [*event_columns(manifest, stats, top), *columns]
    quality = assemble(manifest, stats, count, test_items, before, notes, columns, top)
    write_text(quality.to_json(), layout.quality)
    write_text(page(quality), layout.quality_page)
    write_text(json.dumps(stats), layout.stats)
    write_arrow(pa.table({"test_count": test_count}), layout.test_count)
    return quality

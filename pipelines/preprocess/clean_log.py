"""Pass 1 of preprocessing: every piece of the log -> clean events by user bucket on disk, counts, and a quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import DataConfig, EventSource
from pipelines.errors import UserError
from pipelines.log.formats import Fragment, read_blocks
from pipelines.log.ids import Int64s, common_type, is_whole_numbers
from pipelines.log.normalise import MALFORMED, UNREADABLE, TimeUnit, needed_columns, normalise, time_unit
from pipelines.log.sources import TEXT_FORMATS
from pipelines.preprocess.buckets import BUCKETS, write_block
from pipelines.preprocess.workspace import Workspace
from pipelines.storage.tables import write_table

BLOCK_EVENTS = 2**21  # clean events that a task gathers before it writes them: few files, each with all buckets


@dataclass(frozen=True)
class CleanLog:
    """All pieces together."""

    rows_read: int
    rows_by_file: Counter[int]
    set_aside: Counter[str]
    blocks: list[str]  # files of pipelines.preprocess.buckets
    bucket_counts: Int64s  # (BUCKETS,) events in all blocks
    user_type: pa.DataType
    item_type: pa.DataType

    @property
    def events(self) -> int:
        return int(self.bucket_counts.sum())


def log_time_unit(source: EventSource, pieces: list[Fragment]) -> TimeUnit:
    """That of the settings, else from the first block with a time in it."""
    if source.time_unit is not None:
        return "us"
    for piece in pieces:
        for block in read_blocks(piece, source, [source.time]):
            if block.table[source.time].null_count < block.table.num_rows:
                return time_unit(block.table[source.time], f"{piece.shown}: time column {source.time!r}")
    return "number"


def read_log(
    data: DataConfig, pieces: list[Fragment], unit: TimeUnit, work: Workspace, quarantine: Path, prefix: str = ""
) -> CleanLog:
    """Clean every piece into `work`, and write the rows that are no good to `quarantine`.

    prefix : of the names of the latter's files.

    Raises
    ------
    UserError
        If a piece cannot be read, too many rows are unusable, or none is left.
    """
    quarantine.mkdir(parents=True, exist_ok=True)
    arguments = [
        (piece, n, data.events, unit, work.root / "read", quarantine / f"{prefix}part-{n:05d}.parquet")
        for n, piece in enumerate(pieces)
    ]
    found = work.run("read", _read_piece, arguments, "Reading the log")
    rows_by_file, set_aside = Counter[int](), Counter[str]()
    for piece, part in zip(pieces, found, strict=True):
        rows_by_file[piece.number] += part["rows_read"]
        set_aside.update(part["set_aside"])
    _stop_if_bad(data, rows_by_file.total(), set_aside, quarantine)
    counts = np.sum([part["bucket_counts"] for part in found], axis=0)
    if not counts.sum():
        listed = ", ".join(f"{count:,} {reason}" for reason, count in set_aside.items())
        raise UserError(f"{data.events.path}: no row is left of {rows_by_file.total():,} read ({listed})")
    return CleanLog(
        rows_by_file.total(),
        rows_by_file,
        set_aside,
        [str(work.root / "read" / name) for part in found for name in part["blocks"]],
        counts,
        _common([part["user_types"] for part in found]),
        _common([part["item_types"] for part in found]),
    )


def _common(names: list[list[str]]) -> pa.DataType:
    return common_type({pa.type_for_alias(name) for some in names for name in some})


def _read_piece(
    piece: Fragment, number: int, source: EventSource, unit: TimeUnit, folder: Path, quarantine: Path
) -> dict[str, Any]:
    """Task: clean a piece of the log into files of `folder` named after its number."""
    columns = needed_columns(source)
    rows_read = 0
    set_aside: Counter[str] = Counter()
    bad = [_lines(())]
    types: dict[str, set[str]] = {"user": set(), "item": set()}

    def cleaned() -> Iterator[pa.Table]:
        nonlocal rows_read
        for block in read_blocks(piece, source, columns):
            found = normalise(block.table, source, unit, piece.shown)
            rows_read += block.table.num_rows + len(block.unreadable)
            set_aside.update(found.set_aside)
            set_aside[UNREADABLE] += len(block.unreadable)
            bad.extend((found.quarantine, _lines(block.unreadable)))
            if found.events.num_rows:
                for side, names in types.items():
                    names.add(str(_own_type(found.events[side], piece.format)))
                yield found.events

    blocks: list[str] = []
    bucket_counts = np.zeros(BUCKETS, np.int64)
    for events in _gathered(cleaned()):
        blocks.append(f"{number:05d}-{len(blocks):05d}.arrow")
        bucket_counts += write_block(events, folder / blocks[-1])
    rows = pa.concat_tables(bad, promote_options="default")
    if rows.num_rows:
        place = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows.num_rows, np.int32)), pa.array([piece.path]))
        write_table(rows.append_column("file", place), quarantine)
    return {
        "rows_read": rows_read,
        "set_aside": dict(+set_aside),
        "blocks": blocks,
        "bucket_counts": bucket_counts.tolist(),
        "user_types": sorted(types["user"]),
        "item_types": sorted(types["item"]),
    }


def _lines(unreadable: tuple[str, ...]) -> pa.Table:
    text = pa.array(unreadable, pa.string())
    return pa.table({"reason": pa.array([UNREADABLE] * len(unreadable), pa.string()), "line": text})


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least BLOCK_EVENTS, the last one apart."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(each.num_rows for each in held) >= BLOCK_EVENTS:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """End to end; ids of several types as text."""
    kinds = {side: common_type({table[side].type for table in tables}) for side in ("user", "item")}
    return pa.concat_tables([with_types(table, kinds) for table in tables])


def with_types(events: pa.Table, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Events with ids of the given types."""
    for side, kind in kinds.items():
        if events[side].type != kind:
            events = events.set_column(events.column_names.index(side), side, events[side].cast(kind))
    return events


def _own_type(ids: pa.ChunkedArray, file_format: str) -> pa.DataType:
    """The ids' type; a text file's are integers if all of them are (over the whole log: see `common_type`)."""
    whole = file_format in TEXT_FORMATS and pa.types.is_string(ids.type) and is_whole_numbers(ids)
    return pa.int64() if whole else ids.type


def _stop_if_bad(data: DataConfig, rows_read: int, set_aside: Counter[str], quarantine: Path) -> None:
    if rows_read == 0:
        raise UserError(f"{data.events.path}: empty log, it has no row")
    bad = {reason: set_aside[reason] for reason in MALFORMED if set_aside[reason]}
    if sum(bad.values()) > data.max_bad_fraction * rows_read:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in bad.items())
        raise UserError(
            f"{data.events.path}: {sum(bad.values()):,} of {rows_read:,} rows cannot be used ({listed}), more "
            f"than data.max_bad_fraction={data.max_bad_fraction}; look at them in {quarantine}, then mend the log or "
            "raise the limit: the same command goes on"
        )

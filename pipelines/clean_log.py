"""Pass 1 of preprocessing: every piece of the log -> clean blocks on disk, counts, and a sample of the users."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.config import DataConfig, EventSource
from pipelines.errors import UserError
from pipelines.formats import Fragment, read_blocks
from pipelines.histories import write_arrow
from pipelines.ids import as_array, common_type, is_whole_numbers, smallest_hashes
from pipelines.normalise import MALFORMED, UNREADABLE, TimeUnit, needed_columns, normalise, time_unit
from pipelines.session import run_tasks
from pipelines.sources import TEXT_FORMATS

SAMPLE = 16_384  # users that the ranges of pass 2 are cut by


@dataclass(frozen=True)
class CleanPiece:
    """A piece of the log after cleaning."""

    rows_read: int
    set_aside: Counter[str]
    blocks: list[str]  # Arrow files of clean events
    events: int  # in the blocks
    sample: pa.Array  # user ids of the smallest hashes
    user_types: set[pa.DataType]  # over the blocks
    item_types: set[pa.DataType]


@dataclass(frozen=True)
class CleanLog:
    """All pieces together."""

    rows_read: int
    rows_by_file: Counter[int]
    set_aside: Counter[str]
    blocks: list[str]
    events: int
    sample: pa.Array
    user_type: pa.DataType
    item_type: pa.DataType


def log_time_unit(source: EventSource, pieces: list[Fragment]) -> TimeUnit:
    """From the first block with a time in it."""
    for piece in pieces:
        for block in read_blocks(piece, source, [source.time]):
            if block.table[source.time].null_count < block.table.num_rows:
                return time_unit(block.table[source.time], f"{piece.path}: time column {source.time!r}")
            break
    return "number"


def read_log(data: DataConfig, pieces: list[Fragment], unit: TimeUnit, staging: Path) -> CleanLog:
    """Clean every piece into `staging`.

    Raises
    ------
    UserError
        If a piece cannot be read, too many rows are unusable, or none is left.
    """
    arguments = [(piece, data.events, unit, str(staging / f"read-{n:05d}")) for n, piece in enumerate(pieces)]
    cleaned = list(run_tasks(_read_piece, arguments, "Reading the log"))
    rows_by_file, set_aside = Counter[int](), Counter[str]()
    for piece, part in zip(pieces, cleaned, strict=True):
        rows_by_file[piece.number] += part.rows_read
        set_aside += part.set_aside
    rows_read = rows_by_file.total()
    _stop_if_bad(data, rows_read, set_aside)
    some = [part for part in cleaned if part.blocks]
    if not some:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in set_aside.items())
        raise UserError(f"{data.events.path}: no row is left of {rows_read:,} read ({listed})")
    user_type = common_type(set().union(*(part.user_types for part in some)))
    return CleanLog(
        rows_read,
        rows_by_file,
        set_aside,
        [path for part in some for path in part.blocks],
        sum(part.events for part in some),
        smallest_hashes(pa.concat_arrays([part.sample.cast(user_type) for part in some]), SAMPLE),
        user_type,
        common_type(set().union(*(part.item_types for part in some))),
    )


def _read_piece(piece: Fragment, source: EventSource, unit: TimeUnit, prefix: str) -> CleanPiece:
    """Task: clean a piece of the log into Arrow files beginning with `prefix`."""
    rows_read = rows_kept = 0
    set_aside: Counter[str] = Counter()
    blocks: list[str] = []
    types: dict[str, set[pa.DataType]] = {"user": set(), "item": set()}
    sample = pa.nulls(0, pa.int64())
    for number, block in enumerate(read_blocks(piece, source, needed_columns(source))):
        events, reasons = normalise(block.table, source, unit, piece.path)
        rows_read += block.table.num_rows + block.unreadable
        set_aside += reasons + Counter({UNREADABLE: block.unreadable})
        if not events.num_rows:
            continue
        for side, found in types.items():
            found.add(_own_type(events[side], piece.format))
        users = as_array(events["user"])
        kind = common_type({users.type, sample.type}) if len(sample) else users.type
        sample = smallest_hashes(pa.concat_arrays([sample.cast(kind), users.cast(kind)]), SAMPLE)
        path = f"{prefix}-{number:05d}.arrow"
        write_arrow(events, Path(path))
        blocks.append(path)
        rows_kept += events.num_rows
    return CleanPiece(rows_read, set_aside, blocks, rows_kept, sample, types["user"], types["item"])


def _own_type(ids: pa.ChunkedArray, file_format: str) -> pa.DataType:
    """The ids' type; a text file's are integers if all of them are (over the whole log: see `common_type`)."""
    whole = file_format in TEXT_FORMATS and pa.types.is_string(ids.type) and is_whole_numbers(ids)
    return pa.int64() if whole else ids.type


def _stop_if_bad(data: DataConfig, rows_read: int, set_aside: Counter[str]) -> None:
    if rows_read == 0:
        raise UserError(f"{data.events.path}: empty log, it has no row")
    bad = {reason: set_aside[reason] for reason in MALFORMED if set_aside[reason]}
    if sum(bad.values()) > data.max_bad_fraction * rows_read:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in bad.items())
        raise UserError(
            f"{data.events.path}: {sum(bad.values()):,} of {rows_read:,} rows cannot be used ({listed}), more "
            f"than data.max_bad_fraction={data.max_bad_fraction}; mend the log or raise the limit"
        )

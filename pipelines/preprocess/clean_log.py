"""Pass 1 of preprocessing: every block of the log -> a file of clean events, its counts, and a quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from pipelines.cluster.ray_data import Json, mapped, records
from pipelines.config.schema import DataConfig, EventSource
from pipelines.errors import UserError
from pipelines.log.datasource import LogDatasource, blocks_of
from pipelines.log.formats import Block, Fragment, read_blocks
from pipelines.log.ids import Int64s, as_array, common_type, is_whole_numbers
from pipelines.log.normalise import MALFORMED, UNREADABLE, TimeUnit, needed_columns, normalise, time_unit
from pipelines.log.null_words import without_nulls
from pipelines.log.sources import TEXT_FORMATS
from pipelines.preprocess.buckets import BUCKETS, bucket_of
from pipelines.preprocess.workspace import Workspace, key_of, recording
from pipelines.storage.tables import write_scratch, write_table

STAGE = "read"


@dataclass(frozen=True)
class CleanFile:
    """Clean events of one block, as Parquet: columns user, item, time, and tie and type where the log has them."""

    path: str
    events: int
    user_type: str
    item_type: str


@dataclass(frozen=True)
class CleanLog:
    """All blocks together."""

    rows_read: int
    rows_by_file: Counter[int]
    set_aside: Counter[str]
    files: list[CleanFile]
    bucket_counts: Int64s  # (BUCKETS,) events in all files
    user_type: pa.DataType
    item_type: pa.DataType

    @property
    def events(self) -> int:
        """How many clean events there are."""
        return int(self.bucket_counts.sum())


def log_time_unit(source: EventSource, pieces: list[Fragment]) -> TimeUnit:
    """Take the time unit from the settings, else from the first block with a time in it."""
    if source.time_unit is not None:
        return "us"
    for piece in pieces:
        for block in read_blocks(piece, source, [source.time]):
            times = without_nulls(block.table[source.time], source.null_values)
            if times.null_count < len(times):
                return time_unit(times, f"{piece.shown}: time column {source.time!r}")
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
    done = work.recorded(STAGE)
    missing = {number: piece for number, piece in enumerate(pieces) if not _is_whole(number, done)}
    if missing:
        cleaner = Cleaner(missing, data.events, unit, work.root / STAGE, quarantine, prefix)
        rows = ray.data.read_datasource(
            LogDatasource(missing, data.events, needed_columns(data.events)), override_num_blocks=len(missing)
        )
        done |= work.execute(STAGE, mapped(rows, cleaner, "Clean the log"), "Reading the log", None)
    blocks = [done[key] for key in sorted(done)]
    rows_by_file, set_aside = Counter[int](), Counter[str]()
    for block in blocks:
        rows_by_file[pieces[block["piece"]].number] += block["rows_read"]
        set_aside.update(block["set_aside"])
    _stop_if_bad(data, rows_by_file.total(), set_aside, quarantine)
    kept = [block for block in blocks if block["file"] is not None]
    if not kept:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in set_aside.items())
        raise UserError(f"{data.events.path}: no row is left of {rows_by_file.total():,} read ({listed})")
    return CleanLog(
        rows_by_file.total(),
        rows_by_file,
        set_aside,
        [CleanFile(**block["file"]) for block in kept],
        np.sum([block["bucket_counts"] for block in kept], axis=0),
        _common([block["own_types"][0] for block in kept]),
        _common([block["own_types"][1] for block in kept]),
    )


def _is_whole(piece: int, done: dict[str, Json]) -> bool:
    """Say whether every block of a piece is on record, the last one too."""
    place = 0
    while (block := done.get(key_of(piece, place))) is not None:
        if block["last"]:
            return True
        place += 1
    return False


def _common(names: Sequence[str]) -> pa.DataType:
    return common_type({pa.type_for_alias(name) for name in names})


@dataclass(frozen=True)
class Cleaner:
    """What the tasks of the pass must know; called with rows of `LogDatasource`, gives back records."""

    pieces: dict[int, Fragment]
    source: EventSource
    unit: TimeUnit
    folder: Path  # of the clean events
    quarantine: Path
    prefix: str

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Clean the blocks one after the other."""
        clean = recording(self._clean, self.folder)
        return records(
            (key := key_of(piece, place), clean(key, key, piece, last, block))
            for piece, place, last, block in blocks_of(rows)
        )

    def _clean(self, key: str, number: int, last: bool, block: Block) -> Json:
        piece = self.pieces[number]
        found = normalise(block.table, self.source, self.unit, piece.shown)
        set_aside = found.set_aside + Counter({UNREADABLE: len(block.unreadable)})
        bad = pa.concat_tables([found.quarantine, _lines(block.unreadable)], promote_options="default")
        if bad.num_rows:
            file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(bad.num_rows, np.int32)), pa.array([piece.path]))
            write_table(bad.append_column("file", file), self.quarantine / f"{self.prefix}part-{key}.parquet")
        events = found.events
        result: Json = {
            "piece": number,
            "last": last,
            "rows_read": block.table.num_rows + len(block.unreadable),
            "set_aside": dict(+set_aside),
            "file": None,
        }
        if events.num_rows:
            path = self.folder / f"{key}.parquet"
            write_scratch(events, path)
            sides = (events["user"], events["item"])
            result["file"] = {
                "path": str(path),
                "events": events.num_rows,
                "user_type": str(sides[0].type),
                "item_type": str(sides[1].type),
            }
            result["own_types"] = [str(_own_type(ids, piece.format)) for ids in sides]
            buckets = bucket_of(as_array(events["user"]))
            result["bucket_counts"] = np.bincount(buckets, minlength=BUCKETS).tolist()
        return result


def _lines(unreadable: tuple[str, ...]) -> pa.Table:
    text = pa.array(unreadable, pa.string())
    return pa.table({"reason": pa.array([UNREADABLE] * len(unreadable), pa.string()), "line": text})


def with_types(events: pa.Table, kinds: dict[str, pa.DataType]) -> pa.Table:
    """Cast the events' ids to the given types."""
    for side, kind in kinds.items():
        if events[side].type != kind:
            events = events.set_column(events.column_names.index(side), side, events[side].cast(kind))
    return events


def _own_type(ids: pa.ChunkedArray, file_format: str) -> pa.DataType:
    """Find the ids' type; a text file's are integers if all of them are (over the whole log: see `common_type`)."""
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

"""Pass 1 of preprocessing: every block of the log -> a file of clean events, its counts, and a quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray.data

from pipelines.cluster.ray_data import Json, mapped, records
from pipelines.config.redact import redact
from pipelines.config.schema import DataConfig, EventSource
from pipelines.errors import UserError
from pipelines.log.datasource import LogDatasource, blocks_of
from pipelines.log.formats import Block, Fragment, Note, absent_note, read_blocks
from pipelines.log.ids import WHOLE_DECIMAL, Int64s, as_array, as_kind, common_type, is_whole_numbers
from pipelines.log.normalise import (
    BAD_TIME,
    LONGEST_EXAMPLE,
    MALFORMED,
    UNREADABLE,
    needed_columns,
    normalise,
    numbers_note,
)
from pipelines.log.null_words import without_nulls
from pipelines.log.order_keys import as_tie, common_tie, tie_kind
from pipelines.log.sources import TEXT_FORMATS, no_such_key
from pipelines.log.times import ACCEPTED, TimeUnit, time_format, time_unit
from pipelines.preprocess.buckets import BUCKETS, bucket_of
from pipelines.preprocess.workspace import Workspace, key_of, recording
from pipelines.storage.tables import write_scratch, write_table

STAGE = "read"
Kinds = dict[str, "pa.DataType | str"]
"""By column: the type of ids, and what tie breaks are."""


@dataclass(frozen=True)
class CleanFile:
    """Clean events of one block, as Parquet: columns user, item, time, and tie and type where the log has them."""

    path: str
    events: int
    user_type: str
    item_type: str
    tie_type: str = ""


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
    tie: str | None  # pipelines.log.order_keys
    notes: tuple[Note, ...]
    types: Counter[str]  # rows by event type

    @property
    def kinds(self) -> Kinds:
        """What the columns of all files are brought to."""
        ids: Kinds = {"user": self.user_type, "item": self.item_type}
        return ids if self.tie is None else ids | {"tie": self.tie}

    @property
    def events(self) -> int:
        """How many clean events there are."""
        return int(self.bucket_counts.sum())


BLOCKS_FOR_FORMAT = 20  # that are read to tell days from months


def log_times(source: EventSource, pieces: list[Fragment]) -> tuple[TimeUnit, str | None]:
    """Take the unit of times, and the form of their text, from the settings, else from the first blocks with times."""
    if source.time_unit is not None or source.time_format is not None:
        return "us", source.time_format
    blocks = _times(source, pieces)
    where, first = next(blocks, ("", None))
    if first is None:
        return "number", None
    unit = time_unit(first, where)
    if unit == "number" or not pa.types.is_string(first.type):
        return unit, None
    texts = (times for _, times in islice(blocks, BLOCKS_FOR_FORMAT) if pa.types.is_string(times.type))
    return unit, time_format(chain([first], texts), where)


def _times(source: EventSource, pieces: list[Fragment]) -> Iterator[tuple[str, pa.Array]]:
    """Yield the time column of each block that has a time, and name it."""
    for piece in pieces:
        for block in read_blocks(piece, source, [source.time]):
            times = without_nulls(block.table[source.time], source.null_values)
            if times.null_count < len(times):
                yield f"{piece.shown}: time column {source.time!r}", times


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
    rows_by_file, set_aside, examples = Counter[int](), Counter[str](), dict[str, str]()
    notes: dict[str, Note] = {}
    types = Counter[str]()
    for block in blocks:
        rows_by_file[pieces[block["piece"]].number] += block["rows_read"]
        set_aside.update(block["set_aside"])
        types.update(block.get("types", {}))  # records of an older version have none
        examples = block["examples"] | examples
        for name, count, example in block["notes"]:
            before = notes.get(name, (name, 0, example))
            notes[name] = (name, before[1] + count, before[2] or example)
    _stop_if_column_says_nothing(data.events, rows_by_file.total() - set_aside[UNREADABLE], notes)
    _stop_if_bad(data, rows_by_file.total(), set_aside, examples, quarantine)
    as_they_should = {numbers_note(rule, True) for rule in data.events.exclude}
    kept = [block for block in blocks if block["file"] is not None]
    tie_break = data.events.tie_break
    if not kept:
        listed = _listed(set_aside, examples)
        raise UserError(f"{data.events.path}: no row is left of {rows_by_file.total():,} read ({listed})")
    return CleanLog(
        rows_by_file.total(),
        rows_by_file,
        set_aside,
        [CleanFile(**block["file"]) for block in kept],
        np.sum([block["bucket_counts"] for block in kept], axis=0),
        _common([block["own_types"][0] for block in kept]),
        _common([block["own_types"][1] for block in kept]),
        None
        if tie_break is None
        else common_tie({block["tie"] for block in kept}, f"{data.events.path}: {tie_break!r}"),
        tuple(note for name, note in sorted(notes.items()) if name not in as_they_should),
        types,
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
    """Find the one type of ids: that of `_own_type` of all blocks. Text of numbers is numbers beside numbers."""
    kinds = set(names)
    if DECIMALS in kinds and "int64" in kinds and kinds <= {DECIMALS, WHOLES, "int64"}:
        return pa.int64()
    return common_type({pa.string() if name in (DECIMALS, WHOLES) else pa.type_for_alias(name) for name in kinds})


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
            "examples": found.examples | {UNREADABLE: block.unreadable[0][:LONGEST_EXAMPLE]}
            if block.unreadable
            else found.examples,
            "notes": [*block.notes, *found.notes],
            "types": dict(found.types),
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
            if "tie" in events.column_names:
                result["tie"] = tie_kind(as_array(events["tie"]))
                result["file"]["tie_type"] = str(events["tie"].type)
            result["own_types"] = [_own_type(ids, piece.format) for ids in sides]
            buckets = bucket_of(as_array(events["user"]))
            result["bucket_counts"] = np.bincount(buckets, minlength=BUCKETS).tolist()
        return result


def _lines(unreadable: tuple[str, ...]) -> pa.Table:
    text = pa.array(unreadable, pa.string())
    return pa.table({"reason": pa.array([UNREADABLE] * len(unreadable), pa.string()), "line": text})


def with_types(events: pa.Table, kinds: Kinds) -> pa.Table:
    """Bring the events' ids and tie breaks to the given types."""
    for side, kind in kinds.items():
        column = events[side]
        if isinstance(kind, str):
            events = events.set_column(events.column_names.index(side), side, as_tie(column, kind))
        elif column.type != kind:
            events = events.set_column(events.column_names.index(side), side, as_kind(column, kind))
    return events


WHOLES, DECIMALS = "text of integers", "text of integers, some as 7.0"


def _own_type(ids: pa.ChunkedArray, file_format: str) -> str:
    """Find the ids' type; a text file's are integers if all of them are, over the whole log: see `_common`."""
    if not pa.types.is_string(ids.type) or not is_whole_numbers(ids, WHOLE_DECIMAL):
        return str(ids.type)
    if file_format in TEXT_FORMATS:
        return "int64"
    return WHOLES if is_whole_numbers(ids) else DECIMALS


def _listed(set_aside: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """Say how many rows were set aside for what, each with an example, and what would not have been."""
    found = []
    for reason, count in set_aside.items():
        found.append(f"{count:,} {reason}" + (f" such as {examples[reason]}" if reason in examples else ""))
    return ", ".join(found) + (f"; accepted times are {ACCEPTED}" if BAD_TIME in set_aside else "")


def _stop_if_column_says_nothing(source: EventSource, rows: int, notes: Mapping[str, Note]) -> None:
    """Refuse a log of JSON in which no object has a key that is asked for, and numbers of which none is one."""
    for name in needed_columns(source):
        _, count, keys = notes.get(absent_note(name), ("", 0, ""))
        if rows and count == rows:
            raise UserError(no_such_key(redact(source.path), name, keys))
    for rule in source.exclude:
        _, _, example = wrong = notes.get(numbers_note(rule, False), ("", 0, ""))
        if wrong[1] and numbers_note(rule, True) not in notes:
            raise UserError(
                f"{redact(source.path)}: exclusion {rule.reason!r} is by number, but no value of {rule.column!r} is "
                f"one, such as {example!r}; use prefix or values"
            )


def _stop_if_bad(
    data: DataConfig, rows_read: int, set_aside: Counter[str], examples: Mapping[str, str], quarantine: Path
) -> None:
    if rows_read == 0:
        raise UserError(f"{data.events.path}: empty log, it has no row")
    bad = {reason: set_aside[reason] for reason in MALFORMED if set_aside[reason]}
    if sum(bad.values()) > data.max_bad_fraction * rows_read:
        listed = _listed(bad, examples)
        raise UserError(
            f"{data.events.path}: {sum(bad.values()):,} of {rows_read:,} rows cannot be used ({listed}), more "
            f"than data.max_bad_fraction={data.max_bad_fraction}; look at them in {quarantine}, then mend the log or "
            "raise the limit: the same command goes on"
        )

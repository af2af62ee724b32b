"""Find the files of a table and hand them out in pieces; small tables (items, profiles) are read whole from here.

A path is a file, a folder or a glob, local or on any file system that pyarrow.fs opens by URI;
``package://name/path`` is a file inside an installed Python package. Folders named ``key=value`` on the way to a file,
as Hive writes them, are columns of it: see `partition`. No Ray.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.config.redact import redact
from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.formats import (
    Fragment,
    absent_note,
    columns_inside,
    is_blank,
    read_blocks,
    reading,
    require_columns,
)
from pipelines.log.ids import WHOLE_DECIMAL, WHOLE_NUMBER, as_array, is_whole_numbers, whole
from pipelines.log.null_words import without_nulls
from pipelines.storage.at_once import at_once
from pipelines.storage.filesystems import hint, open_filesystem, reason

ROWS_AT_ONCE = 2**20  # of a table that is reduced while it is read
FRAGMENT_BYTES = 128 * 2**20  # of uncompressed row groups per Parquet fragment
TEXT_FORMATS = ("csv", "recbole", "sessions")  # their values carry no type
_SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".dat": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".inter": "recbole", ".item": "recbole", ".user": "recbole",
}  # fmt: skip
_COMPRESSIONS = {".gz", ".zst", ".bz2", ".lz4"}
_WILDCARDS = frozenset("*?[")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def fragments(source: TableSource, columns: list[str]) -> list[Fragment]:
    """List the pieces of a source in path order, checked as far as a look at the files' heads can tell.

    Files without data are left out.

    Raises
    ------
    UserError
        For a path that leads to no file, an unknown format, an unreadable file, or a missing column.
    """
    filesystem, infos = find_files(source.path)
    files = [
        Fragment(
            filesystem,
            info.path,
            source.format or guess_format(info.path),
            number,
            info.size,
            info.mtime_ns or 0,
            partition=partition(info.path),
        )
        for number, info in enumerate(infos)
        if info.size
    ]
    pieces = [piece for found in at_once(partial(_pieces, columns=columns), files) for piece in found]
    if not pieces:
        raise UserError(f"{redact(source.path)}: empty, no data in {len(infos)} file(s)")
    if pieces[0].format in ("csv", "recbole"):  # the others are checked where they are read
        require_columns(pieces[0].shown, columns_inside(pieces[0], source), columns, dict(pieces[0].partition))
    return pieces


def partition(path: str) -> tuple[tuple[str, str | None], ...]:
    """Split the folders ``key=value`` of a file's path into key and value, as Hive, Spark and Arrow name them.

    Values are text, %-decoded, or None for Hive's null. All folders count, so that a file is the same by itself, in a
    glob and in a folder. In a column that the file has as well, the file's values count, and the path's fill its nulls.

    >>> partition("log/day=2024-01-01/shop=a%2Fb/part-0.parquet")
    (('day', '2024-01-01'), ('shop', 'a/b'))
    """
    pairs = [map(unquote, folder.split("=", 1)) for folder in path.split("/")[:-1] if folder.find("=") > 0]
    return tuple((key, None if value == _HIVE_NULL else value) for key, value in pairs)


def read_source(
    source: TableSource,
    columns: list[str],
    as_they_are: Collection[str] = (),
    id_column: str | None = None,
    reduced: Callable[[pa.Table], pa.Table] | None = None,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Read a whole table, `columns` only, and say what was read (see `lineage`).

    What stands for a missing value is null, but in the columns `as_they_are`. Text columns of a CSV in which every
    value is an integer become int64; `id_column` also if some are written as 7.0.

    Parameters
    ----------
    reduced
        Gives a part of the rows; from time to time it is given all that were read, so that they never fill the memory.
    """
    pieces = fragments(source, columns)
    tables: list[pa.Table] = []
    left = 0  # rows after they were last reduced
    rows, unreadable, absent = Counter[int](), dict[int, list[str]](), Counter[str]()
    schema, keys = pa.schema([(name, pa.null()) for name in columns]), dict[str, str]()
    for piece in pieces:
        for block in read_blocks(piece, source, columns):
            found = {name: as_array(block.table[name]) for name in columns}
            found |= {n: without_nulls(found[n], source.null_values) for n in columns if n not in as_they_are}
            table = pa.table(found)
            schema = _widened(schema, table.schema, piece.shown)
            tables.append(table)
            if reduced is not None and sum(each.num_rows for each in tables) > ROWS_AT_ONCE + 2 * left:
                tables = [reduced(_joined(schema, tables, source))]
                left = tables[0].num_rows
            rows[piece.number] += table.num_rows
            if block.unreadable:
                unreadable.setdefault(piece.number, []).extend(block.unreadable)
            absent.update({note: count for note, count, _ in block.notes})
            keys |= {note: example for note, _, example in block.notes}
    for name in columns:
        if rows.total() and absent[absent_note(name)] == rows.total():
            raise UserError(no_such_key(redact(source.path), name, keys[absent_note(name)]))
    table = _joined(schema, tables, source)
    if pieces[0].format in TEXT_FORMATS:
        for place, name in enumerate(table.column_names):
            column = table[name]
            pattern = WHOLE_DECIMAL if name == id_column else WHOLE_NUMBER
            if (
                pa.types.is_string(column.type)
                and column.null_count < len(column)
                and is_whole_numbers(column, pattern)
            ):
                table = table.set_column(place, name, whole(column))
    return table, lineage(pieces, rows, unreadable)


def _joined(schema: pa.Schema, tables: list[pa.Table], source: TableSource) -> pa.Table:
    try:
        return pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:  # a number that the common type cannot hold
        raise UserError(f"{redact(source.path)}: files disagree on a column's type: {reason(error)}") from None


def no_such_key(path: str, name: str, keys: str) -> str:
    """Word the error of JSON in which no object has a key."""
    return f"{path}: no line has the key {name!r}; the keys are {keys}"


def _widened(schema: pa.Schema, other: pa.Schema, path: str) -> pa.Schema:
    """Find the schema that holds both, e.g. int64 for int32 and int64."""
    fields = []
    for before, field in zip(schema, other, strict=True):
        try:
            (widened,) = pa.unify_schemas([pa.schema([before]), pa.schema([field])], promote_options="permissive")
        except pa.ArrowException:
            raise UserError(
                f"{path}: column {field.name!r} holds {field.type}, but {before.type} in the files before it; store it "
                "with one type"
            ) from None
        fields.append(widened)
    return pa.schema(fields)


def identity(pieces: list[Fragment]) -> list[list[Any]]:
    """Return what tells the pieces from those of other files, or of files that have changed, as JSON holds it."""
    return [[each.path, each.size_bytes, each.modified_ns, list(each.row_groups)] for each in pieces]


def size_of(pieces: list[Fragment]) -> int:
    """Add up the bytes of the files that the pieces are of."""
    return sum({piece.number: piece.size_bytes for piece in pieces}.values())


def lineage(
    pieces: list[Fragment], rows: Mapping[int, int], unreadable: Mapping[int, Sequence[str]] | None = None
) -> list[dict[str, Any]]:
    """List the files that were read: path (no credentials), bytes, and rows by file number.

    unreadable : lines that are no rows, by file number; a file that has any says how many, and the first.
    """
    files: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        files[piece.number] = {
            "path": piece.shown,
            "bytes": piece.size_bytes,
            "modified_ns": piece.modified_ns,
            "rows": rows[piece.number],
        }
        if lines := (unreadable or {}).get(piece.number):
            files[piece.number] |= {"unreadable": len(lines), "first_unreadable": lines[0][:200]}
    return list(files.values())


def find_files(path: str) -> tuple[Any, list[Any]]:
    """Find the file system of `path`, and the sorted file infos it stands for."""
    filesystem, where = open_filesystem(path)
    try:
        found = _list(filesystem, where)
    except OSError as error:
        raise UserError(f"{redact(path)}: cannot be listed: {reason(error)}{hint(path)}") from None
    files = sorted((info for info in found if info.type == pafs.FileType.File), key=lambda info: str(info.path))
    if not files:
        raise UserError(f"{redact(path)}: no such file (looked for {where}); correct path: in the configuration")
    return filesystem, files


def _list(filesystem: Any, where: str) -> list[Any]:
    """Infos of the files, and of folders between them, that a path or glob stands for."""
    if _WILDCARDS & set(where):
        base = where[: min(where.index(c) for c in _WILDCARDS & set(where))].rpartition("/")[0] or "/"
        found = filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
        asked = _hidden(where[len(base) :])  # the pattern itself spells a hidden name
        matching = [info for info in found if fnmatch.fnmatchcase(info.path, where)]
        return [info for info in matching if asked or not _hidden(info.path[len(base) :])]
    info = filesystem.get_file_info(where)
    if info.type != pafs.FileType.Directory:
        return [info]
    found = filesystem.get_file_info(pafs.FileSelector(where, recursive=True))
    return [info for info in found if not _hidden(info.path[len(where) :])]


def _hidden(inside: str) -> bool:
    """Folders hold bookkeeping too: _SUCCESS, .crc and the like are not data."""
    return any(part.startswith(("_", ".")) for part in inside.split("/"))


def guess_format(path: str) -> str:
    """Guess the format from a file name's suffix, a compression suffix apart."""
    name = Path(path.split("?")[0])
    suffix = Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: cannot tell the format from the suffix {suffix!r}; set format: parquet, csv, jsonl, "
                        "sessions or recbole")  # fmt: skip
    return _SUFFIXES[suffix]


def _pieces(file: Fragment, columns: list[str]) -> list[Fragment]:
    """Runs of a Parquet file's row groups; a text file whole, or nothing of one that holds nothing."""
    if file.format == "parquet":
        return _row_group_runs(file, columns)
    return [] if is_blank(file) else [file]


def _row_group_runs(piece: Fragment, columns: list[str]) -> list[Fragment]:
    with reading(piece.shown, "parquet"), piece.filesystem.open_input_file(piece.path) as raw:
        file = pq.ParquetFile(raw)
        require_columns(piece.shown, file.schema_arrow.names, columns, dict(piece.partition))
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    runs: list[list[int]] = []
    filled = FRAGMENT_BYTES
    for number, group in enumerate(groups):
        if not group.num_rows:
            continue
        size = group.total_byte_size
        if filled + size > FRAGMENT_BYTES:
            runs.append([])
            filled = 0
        runs[-1].append(number)
        filled += size
    return [replace(piece, row_groups=tuple(run)) for run in runs]

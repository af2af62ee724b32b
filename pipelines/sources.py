"""Find the files of a table and hand them out in pieces; small tables (items, profiles) are read whole from here.

A path is a file, a folder or a glob, local or on any file system that pyarrow.fs opens by URI;
``package://name/path`` is a file inside an installed Python package. No Ray.
"""

from __future__ import annotations

import fnmatch
import importlib.util
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.config import TableSource
from pipelines.errors import UserError
from pipelines.formats import Fragment, column_names, read_blocks, reading, require_columns
from pipelines.ids import is_whole_numbers

FRAGMENT_BYTES = 128 * 2**20  # of uncompressed row groups per Parquet fragment
TEXT_FORMATS = ("csv", "sessions")  # their values carry no type
_SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".dat": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_COMPRESSIONS = {".gz", ".zst", ".bz2", ".lz4"}
_WILDCARDS = frozenset("*?[")


def fragments(source: TableSource, columns: list[str]) -> list[Fragment]:
    """The pieces of a source in path order, checked as far as a look at the files' heads can tell.

    Files without a byte are left out.

    Raises
    ------
    UserError
        For a path that leads to no file, an unknown format, an unreadable file, or a missing column.
    """
    filesystem, paths = _find(source.path)
    pieces: list[Fragment] = []
    for number, info in enumerate(paths):
        piece = Fragment(
            filesystem, info.path, source.format or guess_format(info.path), number, info.size, info.mtime_ns or 0
        )
        if info.size == 0:
            continue
        if piece.format == "parquet":
            pieces.extend(_row_group_runs(piece, columns))
        else:
            if piece.format == "csv" and not pieces:  # the others are checked where they are read
                require_columns(piece.path, column_names(piece, source), columns)
            pieces.append(piece)
    if not pieces:
        raise UserError(f"{source.path}: empty, no data in {len(paths)} file(s)")
    return pieces


def read_table(source: TableSource, columns: list[str]) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Read a whole table, `columns` only, and say what was read (see `lineage`).

    Text columns of a CSV in which every value is an integer become int64.
    """
    pieces = fragments(source, columns)
    tables = []
    rows: Counter[int] = Counter()
    for piece in pieces:
        for block in read_blocks(piece, source, columns):
            tables.append(block.table)
            rows[piece.number] += block.table.num_rows
    try:
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise UserError(f"{source.path}: files disagree on a column's type: {str(error).splitlines()[0]}") from None
    if pieces[0].format in TEXT_FORMATS:
        for place, name in enumerate(table.column_names):
            column = table[name]
            if pa.types.is_string(column.type) and column.null_count < len(column) and is_whole_numbers(column):
                table = table.set_column(place, name, column.cast(pa.int64()))
    return table, lineage(pieces, rows)


def lineage(pieces: list[Fragment], rows: Mapping[int, int]) -> list[dict[str, Any]]:
    """The files that were read: path (no credentials), bytes, and rows by file number."""
    files = {}
    for piece in pieces:
        scheme = piece.filesystem.type_name
        files[piece.number] = {
            "path": piece.path if scheme == "local" else f"{scheme}://{piece.path}",
            "bytes": piece.size_bytes,
            "rows": rows[piece.number],
        }
    return list(files.values())


def _find(path: str) -> tuple[Any, list[Any]]:
    """The file system of `path`, and the sorted file infos it stands for."""
    filesystem, where = _resolve(path)
    try:
        if _WILDCARDS & set(where):
            base = where[: min(where.index(c) for c in _WILDCARDS & set(where))].rpartition("/")[0] or "/"
            found = filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
            found = [info for info in found if fnmatch.fnmatchcase(info.path, where)]
        else:
            info = filesystem.get_file_info(where)
            if info.type != pafs.FileType.Directory:
                found = [info]
            else:
                found = filesystem.get_file_info(pafs.FileSelector(where, recursive=True))
                found = [info for info in found if not _hidden(info.path[len(where) :])]
    except OSError as error:
        raise UserError(f"{path}: cannot be listed: {str(error).splitlines()[0]}") from None
    files = sorted((info for info in found if info.type == pafs.FileType.File), key=lambda info: str(info.path))
    if not files:
        raise UserError(f"{path}: no such file (looked for {where}); correct path: in the configuration")
    return filesystem, files


def _resolve(path: str) -> tuple[Any, str]:
    if path.startswith("package://"):
        package, _, inside = path.removeprefix("package://").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"{path}: the package {package} is not installed; run: pip install {package}")
        return pafs.LocalFileSystem(), str(Path(spec.submodule_search_locations[0], inside))
    if "://" not in path:
        return pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    try:
        filesystem, where = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a path or URI that pyarrow.fs opens: {str(error).splitlines()[0]}") from None
    return filesystem, where


def _hidden(inside: str) -> bool:
    """Folders hold bookkeeping too: _SUCCESS, .crc and the like are not data."""
    return any(part.startswith(("_", ".")) for part in inside.split("/"))


def guess_format(path: str) -> str:
    """The format that a file name's suffix stands for, a compression suffix apart."""
    name = Path(path.split("?")[0])
    suffix = Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: cannot tell the format from the suffix {suffix!r}; set format: parquet, csv, jsonl "
                        "or sessions")  # fmt: skip
    return _SUFFIXES[suffix]


def _row_group_runs(piece: Fragment, columns: list[str]) -> list[Fragment]:
    with reading(piece.path, "parquet"), piece.filesystem.open_input_file(piece.path) as raw:
        file = pq.ParquetFile(raw)
        require_columns(piece.path, list(file.schema_arrow.names), columns)
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
    runs: list[list[int]] = []
    filled = FRAGMENT_BYTES
    for group, size in enumerate(sizes):
        if filled + size > FRAGMENT_BYTES:
            runs.append([])
            filled = 0
        runs[-1].append(group)
        filled += size
    return [replace(piece, row_groups=tuple(run)) for run in runs]

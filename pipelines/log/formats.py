"""Read one file, or a run of its row groups, as Arrow tables of bounded size: Parquet, CSV, JSON lines, session lines.

CSV and session values arrive as text: a text file has no types, and a guess from its first block would refuse the
first odd value later on. Whoever knows the whole column (pipelines.preprocess.preprocess, pipelines.log.sources)
decides. No Ray.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.limits import is_too_deep, shown, suspects, within_expansion

BLOCK_BYTES = 16 * 2**20  # of text per block
BLOCK_ROWS = 2**20  # of Parquet per block
BLANK_BYTES = 1024  # a compressed file of nothing is smaller: a header, at most with the file's name
SESSION_COLUMNS = ("user", "item", "time")
_NO_CHARACTER = "\x1f"  # ASCII unit separator: stands for a long delimiter, and splits nothing in a session line
_NULLS = ["", "NULL", "null", "NaN", "nan"]
_UNREADABLE = (pa.ArrowException, OSError, EOFError, UnicodeError, zlib.error)


@dataclass(frozen=True)
class Fragment:
    """A piece of a source that one task reads."""

    filesystem: Any  # pyarrow.fs.FileSystem
    path: str
    format: str
    number: int  # of the file within its source, in path order
    size_bytes: int
    modified_ns: int = 0  # 0 where the file system does not say
    row_groups: tuple[int, ...] = ()  # Parquet only
    partition: tuple[tuple[str, str | None], ...] = ()  # columns that the path gives: the same value in every row

    @property
    def shown(self) -> str:
        """The path or URI by which its owner knows it."""
        kind = self.filesystem.type_name
        return self.path if kind == "local" else f"{'gs' if kind == 'gcs' else kind}://{self.path}"


@dataclass(frozen=True)
class Block:
    """Rows of a fragment, and the lines between them that are no rows at all."""

    table: pa.Table
    unreadable: tuple[str, ...] = ()


@contextmanager
def reading(path: str, file_format: str) -> Iterator[None]:
    """Turn what goes wrong inside a file into one line that names it."""
    try:
        yield
    except UnicodeError as error:
        raise UserError(f"{path}: not in the declared encoding ({error}); set encoding:, e.g. latin-1") from None
    except _UNREADABLE as error:
        text = str(error).strip() or type(error).__name__
        if "straddl" in text:  # a line that no block holds
            text = f"a line of more than {BLOCK_BYTES // 2**20} MiB; is a quote never closed?"
        hint = "; set encoding:, e.g. latin-1" if "UTF8" in text else ""
        raise UserError(f"{path}: cannot be read as {file_format}: {text.splitlines()[0]}{hint}") from None


def is_blank(fragment: Fragment) -> bool:
    """Say whether a text file holds not a byte, once decompressed."""
    if fragment.size_bytes > BLANK_BYTES:
        return False
    with reading(fragment.shown, fragment.format), _stream(fragment, TableSource(path=fragment.path)) as raw:
        return not raw.read(1)


def column_names(fragment: Fragment, source: TableSource) -> list[str]:
    """List the columns of the fragment's file and of its path; not of JSON lines, where each line has its own."""
    return list(dict.fromkeys([*_columns_inside(fragment, source), *dict(fragment.partition)]))


def _columns_inside(fragment: Fragment, source: TableSource) -> list[str]:
    if fragment.format == "sessions":
        return list(SESSION_COLUMNS)
    if fragment.format == "csv" and source.columns is not None:
        return list(source.columns)
    with reading(fragment.shown, fragment.format):
        if fragment.format == "parquet":
            return list(pq.read_schema(fragment.path, filesystem=fragment.filesystem).names)
        with _stream(fragment, source) as raw:
            return list(_open_csv(raw, source, None, []).schema.names)


def read_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    """Yield the fragment's rows, `columns` only, in file order.

    What the file has no value for is taken from the path, see `pipelines.log.sources.partition`.

    Raises
    ------
    UserError
        If the file lacks a column (the text lists those it has) or cannot be read.
    """
    given = dict(fragment.partition)
    if fragment.format == "jsonl":  # a line may leave out a key: that is a missing value, not a missing column
        with reading(fragment.shown, fragment.format):
            for block in _json_blocks(fragment, source):
                yield Block(_with_columns(block.table, columns, given), block.unreadable)
        return
    inside = _columns_inside(fragment, source)
    require_columns(fragment.shown, [*inside, *given], columns)
    # CSV: no column at all would mean all of them
    wanted = [name for name in columns if name in inside] or inside[:1]
    with reading(fragment.shown, fragment.format):
        for block in _table_blocks(fragment, source, wanted):
            yield Block(_with_columns(block.table, columns, given), block.unreadable)


def _table_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    if fragment.format == "parquet":
        yield from _parquet_blocks(fragment, columns)
    elif fragment.format == "sessions":
        yield from _session_blocks(fragment, source, columns)
    else:
        with _stream(fragment, source) as raw:
            yield from _csv_blocks(raw, source, columns)


def require_columns(path: str, present: list[str], wanted: list[str]) -> None:
    """Raise a UserError naming the columns that the file lacks, and those that it has."""
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{path}: no column {', '.join(map(repr, missing))}; the file has {', '.join(present)}")


def _parquet_blocks(fragment: Fragment, columns: list[str]) -> Iterator[Block]:
    with fragment.filesystem.open_input_file(fragment.path) as raw:
        file = pq.ParquetFile(raw)
        for batch in file.iter_batches(BLOCK_ROWS, row_groups=list(fragment.row_groups), columns=columns):
            yield Block(pa.Table.from_batches([batch]).select(columns))


@contextmanager
def _stream(fragment: Fragment, source: TableSource) -> Iterator[BinaryIO]:
    """Open the file's bytes, decompressed by its suffix (.gz, .zst, .bz2, .lz4), as far as it may expand."""
    with fragment.filesystem.open_input_stream(fragment.path, compression="detect") as raw:
        yield within_expansion(raw, fragment.path, fragment.size_bytes, source.max_expansion)


def _csv_blocks(raw: Any, source: TableSource, columns: list[str]) -> Iterator[Block]:
    bad: list[str] = []  # lines of the wrong number of fields
    reader = _open_csv(raw, source, columns, bad)
    for batch in reader:
        yield Block(pa.Table.from_batches([batch]), tuple(bad))
        bad.clear()
    if bad:
        yield Block(reader.schema.empty_table(), tuple(bad))


def _open_csv(raw: Any, source: TableSource, columns: list[str] | None, bad: list[str]) -> Any:
    long_delimiter = len(source.delimiter) > 1

    def skip(row: Any) -> str:
        bad.append(row.text)
        return "skip"

    return csv.open_csv(
        pa.PythonFile(_Replaced(raw, source.delimiter.encode(source.encoding)), mode="r") if long_delimiter else raw,
        csv.ReadOptions(
            column_names=source.columns, encoding=source.encoding, block_size=BLOCK_BYTES, use_threads=False
        ),
        csv.ParseOptions(
            delimiter=_NO_CHARACTER if long_delimiter else source.delimiter,
            quote_char=False if long_delimiter else '"',  # formats with long delimiters do not quote
            newlines_in_values=not long_delimiter,
            invalid_row_handler=skip,
        ),
        csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns or source.columns or [], pa.string()),
            null_values=_NULLS,
            strings_can_be_null=True,
        ),
    )


class _Replaced(io.RawIOBase):
    """A byte stream with a long delimiter replaced by one character, as Arrow's CSV reader takes single bytes only."""

    def __init__(self, raw: Any, delimiter: bytes) -> None:
        super().__init__()
        self._raw = raw
        self._delimiter = delimiter

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._raw.read(size)
        prefixes = tuple(self._delimiter[:n] for n in range(1, len(self._delimiter)))
        while data.endswith(prefixes) and (more := self._raw.read(1)):  # never cut inside a delimiter
            data += more
        return data.replace(self._delimiter, _NO_CHARACTER.encode())


def _session_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    """One session a line: the line's number (from 1) is the user, the place in the line (from 0) the time."""
    options = csv.ReadOptions(
        column_names=["line"], encoding=source.encoding, block_size=BLOCK_BYTES, use_threads=False
    )
    parse = csv.ParseOptions(delimiter=_NO_CHARACTER, quote_char=False, ignore_empty_lines=False)
    convert = csv.ConvertOptions(column_types={"line": pa.string()})
    first = 1 + (fragment.number << 40)  # lines of several files are different users
    with _stream(fragment, source) as raw:
        for batch in csv.open_csv(raw, options, parse, convert):
            items = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(batch["line"]))
            length = pc.list_value_length(items).to_numpy()
            start = np.cumsum(length) - length
            flat = items.flatten()
            table = pa.table(
                {
                    "user": np.repeat(np.arange(first, first + len(length)), length),
                    "item": pc.if_else(pc.equal(flat, ""), pa.scalar(None, pa.string()), flat),
                    "time": np.arange(len(flat)) - np.repeat(start, length),
                }
            )
            filled = pc.is_valid(table["item"])  # a blank line is a session without items
            yield Block(table.filter(filled).select(columns))
            first += len(length)


def _json_blocks(fragment: Fragment, source: TableSource) -> Iterator[Block]:
    """Each block infers its own types, so that a key first seen, or null, late in the file is no error."""
    longest = source.max_row_bytes
    with _stream(fragment, source) as raw:
        rest, skipped = b"", 0  # the beginning of a line, and how much of it was too long to be kept
        while chunk := raw.read(BLOCK_BYTES):
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline and skipped:
                _, _, lines = lines.partition(b"\n")
                skipped = 0
            if newline:
                yield _json_block(lines, longest)
            if len(rest) > longest:
                if not skipped:
                    yield Block(pa.table({}), (shown(rest, longest),))
                rest, skipped = b"", skipped + len(rest)
        if rest.strip() and not skipped:
            yield _json_block(rest, longest)


def _json_block(data: bytes, longest: int) -> Block:
    if not suspects(data, longest):
        try:
            return Block(_parse_json(data))
        except pa.ArrowInvalid:  # slow, and only for a block that holds a broken line
            pass
    lines = [line for line in data.split(b"\n") if line.strip()]
    is_good = [_is_json_object(line, longest) for line in lines]
    bad = tuple(shown(line, longest) for line, good in zip(lines, is_good, strict=True) if not good)
    return Block(_parse_json(b"\n".join(line for line, good in zip(lines, is_good, strict=True) if good)), bad)


def _parse_json(data: bytes) -> pa.Table:
    if not data.strip():
        return pa.table({})
    return pa_json.read_json(pa.BufferReader(data), pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1))


def _is_json_object(line: bytes, longest: int) -> bool:
    if len(line) > longest or is_too_deep(line):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _with_columns(table: pa.Table, columns: list[str], given: dict[str, str | None]) -> pa.Table:
    """These columns in this order; `given` are those of the path."""
    present = set(table.column_names)

    def column(name: str) -> Any:
        value = given.get(name)
        if name in present:
            return _filled(table[name], value)
        return pa.nulls(table.num_rows) if value is None else pa.repeat(pa.scalar(value), table.num_rows)

    return pa.table({name: column(name) for name in columns})


def _filled(column: Any, value: str | None) -> Any:
    """Nulls replaced by the path's value, as a number where the column holds numbers."""
    if value is None or not column.null_count:
        return column
    try:
        return column.fill_null(pa.scalar(value).cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column.cast(pa.string()).fill_null(value)

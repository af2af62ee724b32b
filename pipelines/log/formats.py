"""Read one file, or a run of its row groups, as Arrow tables of bounded size: Parquet, CSV, JSON lines, session lines,
and RecBole's atomic files, which are CSV with tabs, no quotes, and a header of name:type.

CSV and session values arrive as text: a text file has no types, and a guess from its first block would refuse the
first odd value later on. Whoever knows the whole column (pipelines.preprocess.preprocess, pipelines.log.sources)
decides. No Ray.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from pipelines.config.schema import EventSource, TableSource
from pipelines.errors import UserError, first_line
from pipelines.log.csv_rows import NO_CHARACTER, Dialect, csv_rows
from pipelines.log.csv_rows import column_names as csv_columns
from pipelines.log.event_lists import row_an_event, rows_at_once
from pipelines.log.ids import as_array
from pipelines.log.json_rows import MANY_KEYS, json_rows, keys_of, names_within
from pipelines.log.null_words import without_nulls
from pipelines.log.text_files import Read, open_bytes, open_text

BLOCK_BYTES = 16 * 2**20  # of text per block
BLOCK_ROWS = 2**20  # of Parquet per block
LONG_NAME = 60  # letters of a name in a message
BLANK_BYTES = 1024  # a compressed file of nothing is smaller: a header, at most with the file's name
SESSION_COLUMNS = ("user", "item", "time")
INSIDE = "lines that look like rows, inside quoted values"
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


Note = tuple[str, int, str]
"""What a person should know of a block: what it is, how often it is found, an example."""


@dataclass(frozen=True)
class Block:
    """Rows of a fragment, and the lines between them that are no rows at all."""

    table: pa.Table
    unreadable: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    names: tuple[str, ...] = ()  # JSON: what can be asked for of the objects


@contextmanager
def reading(path: str, file_format: str) -> Iterator[None]:
    """Turn what goes wrong inside a file into one line that names it."""
    try:
        yield
    except UnicodeError as error:
        raise UserError(f"{path}: not in the declared encoding ({error}); set encoding:, e.g. latin-1") from None
    except _UNREADABLE as error:
        text = first_line(error)
        if "straddl" in str(error):  # a line that no block holds
            text = f"a line of more than {BLOCK_BYTES // 2**20} MiB; is a quote never closed?"
        hint = "; set encoding:, e.g. latin-1" if "UTF8" in str(error) else ""
        raise UserError(f"{path}: cannot be read as {file_format}: {text}{hint}") from None


def is_blank(fragment: Fragment) -> bool:
    """Say whether a text file holds not a byte, once decompressed."""
    if fragment.size_bytes > BLANK_BYTES:
        return False
    with (
        reading(fragment.shown, fragment.format),
        open_bytes(fragment.filesystem, fragment.path, fragment.shown) as raw,
    ):
        return not raw.read(1)


def columns_inside(fragment: Fragment, source: TableSource) -> list[str]:
    """List the columns of the fragment's file, each as often as it is there; not of JSON, where rows have their own."""
    if fragment.format == "sessions":
        return list(SESSION_COLUMNS)
    if fragment.format == "csv" and source.columns is not None:
        return list(source.columns)
    with reading(fragment.shown, fragment.format):
        if fragment.format == "parquet":
            return list(pq.read_schema(fragment.path, filesystem=fragment.filesystem).names)
        with _text(fragment, source) as read:
            return csv_columns(read, _dialect(fragment, source), BLOCK_BYTES)


def names_inside(fragment: Fragment, source: TableSource) -> list[str]:
    """List the names that the fragment's file can be asked for: its columns, but of objects the values in them."""
    if fragment.format != "parquet":
        return columns_inside(fragment, source)
    with reading(fragment.shown, fragment.format):
        return list(names_within(pq.read_schema(fragment.path, filesystem=fragment.filesystem)))


def read_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    """Yield the fragment's rows, `columns` only, in file order; of a log with lists of events, an event a row.

    What the file has no value for is taken from the path, see `pipelines.log.sources.partition`.

    Raises
    ------
    UserError
        If the file lacks a column (the text lists those it has) or cannot be read.
    """
    for block in _blocks_as_written(fragment, source, columns):
        if isinstance(source, EventSource):
            table, wrong = row_an_event(block.table, source)
            block = replace(block, table=table, unreadable=(*block.unreadable, *wrong))
        yield block


def _blocks_as_written(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    given = dict(fragment.partition)
    if fragment.format == "jsonl":  # a line may leave out a key: that is a missing value, not a missing column
        yield from _json_blocks(fragment, source, columns, given)
        return
    inside = columns_inside(fragment, source)
    require_columns(fragment.shown, inside, columns, given)
    # CSV: no column at all would mean all of them
    wanted = list(dict.fromkeys(top for name in columns if (top := _top(name, inside)) in inside)) or inside[:1]
    with reading(fragment.shown, fragment.format):
        for block in _table_blocks(fragment, source, wanted):
            if lacks := [name for name in columns if name not in given and not has_column(block.table, name)]:
                listed = names_in_words(keys_of(block.table.schema))
                raise UserError(f"{fragment.shown}: no column {', '.join(map(repr, lacks))}; there is {listed}")
            yield Block(_with_columns(block.table, columns, given, source), block.unreadable, block.notes)


def _table_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    if fragment.format == "parquet":
        yield from _parquet_blocks(fragment, columns)
    elif fragment.format == "sessions":
        yield from _session_blocks(fragment, source, columns)
    else:
        yield from _csv_blocks(fragment, source, columns)


def require_columns(path: str, inside: Sequence[str], wanted: Sequence[str], given: Collection[str] = ()) -> None:
    """Raise a UserError naming the columns that the file lacks, or has twice.

    inside : the columns of the file. given : those that its path has.
    """
    tops = [_top(name, inside) for name in wanted]
    missing = [name for name, top in zip(wanted, tops, strict=True) if top not in inside and name not in given]
    if missing:
        listed = names_in_words(dict.fromkeys([*inside, *given]))
        raise UserError(f"{path}: no column {', '.join(map(repr, missing))}; the file has {listed}{_hint(inside)}")
    if twice := [top for top in dict.fromkeys(tops) if inside.count(top) > 1]:
        raise UserError(
            f"{path}: column {twice[0]!r} stands {inside.count(twice[0])} times in the file; rename all but one of them"
        )


def _top(name: str, inside: Sequence[str]) -> str:
    """Find the file's own column that holds the named one: itself, or what stands before a dot."""
    outer = name
    while outer not in inside and "." in outer:
        outer = outer.rpartition(".")[0]
    return outer if outer in inside else name


def names_in_words(names: Iterable[str]) -> str:
    r"""List names that a file has, in a line of bounded length, whatever they are.

    >>> names_in_words(["user", "a\nb", "x" * 70])
    "user, 'a\\nb', xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..."
    """
    all_of_them = list(names)
    cut = [name if len(name) <= LONG_NAME else f"{name[:LONG_NAME]}..." for name in all_of_them[:MANY_KEYS]]
    told = [name if name.isprintable() else repr(name) for name in cut]
    return ", ".join(told) + (", ..." if len(all_of_them) > MANY_KEYS else "")


def _hint(inside: Sequence[str]) -> str:
    """Say what a header of one name suggests."""
    found = [mark for mark in (";", "\t", "|") if len(inside) == 1 and mark in inside[0]]
    return f"; is it a file with delimiter: {json.dumps(found[0])}?" if found else ""


def _parquet_blocks(fragment: Fragment, columns: list[str]) -> Iterator[Block]:
    with fragment.filesystem.open_input_file(fragment.path) as raw:
        file = pq.ParquetFile(raw)
        rows = sum(file.metadata.row_group(number).num_rows for number in fragment.row_groups)
        size = rows_at_once(rows, _most_values(file, fragment.row_groups, columns), BLOCK_ROWS)
        for batch in file.iter_batches(size, row_groups=list(fragment.row_groups), columns=columns):
            yield Block(pa.Table.from_batches([batch]))


def _most_values(file: pq.ParquetFile, row_groups: Sequence[int], columns: Sequence[str]) -> int:
    """Count the values of that column of lists which has most; 0 without any.

    A broken description of a column chunk ends the process where it is asked for, and is an error where it is read:
    it is read first.
    """
    leaves = [(number, file.schema.column(number)) for number in range(file.metadata.num_columns)]
    lists = [n for n, leaf in leaves if leaf.max_repetition_level > 0 and leaf.path.split(".")[0] in columns]
    if not lists:
        return 0
    for group in row_groups:
        next(file.iter_batches(1, row_groups=[group], columns=list(columns)), None)
    groups = [file.metadata.row_group(number) for number in row_groups]
    return max(sum(int(group.column(n).num_values) for group in groups) for n in lists)


def _csv_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    with _text(fragment, source) as read:
        for rows in csv_rows(read, _dialect(fragment, source), columns, BLOCK_BYTES):
            yield Block(rows.table, rows.lines, ((INSIDE, len(rows.inside), rows.inside[0]),) if rows.inside else ())


def _text(fragment: Fragment, source: TableSource) -> AbstractContextManager[Read]:
    return open_text(
        fragment.filesystem, fragment.path, fragment.shown, source.encoding, expansion=source.max_expansion
    )


def _dialect(fragment: Fragment, source: TableSource) -> Dialect:
    if fragment.format == "recbole":
        return Dialect(fragment.shown, "\t", None, typed=True)
    return Dialect(fragment.shown, source.delimiter, source.quote or None, source.columns)


def _json_blocks(
    fragment: Fragment, source: TableSource, columns: list[str], given: dict[str, str | None]
) -> Iterator[Block]:
    times = source.time if isinstance(source, EventSource) else None
    with (
        reading(fragment.shown, fragment.format),
        _text(fragment, source) as read,
    ):
        for rows in json_rows(read, fragment.shown, columns, times, BLOCK_BYTES, source.max_row_bytes):
            table = rows.table
            listed = names_in_words(keys_of(table.schema))
            absent = [name for name in columns if name not in given and not has_column(table, name)]
            notes = tuple((absent_note(name), table.num_rows, listed) for name in absent if table.num_rows)
            yield Block(
                _with_columns(table, columns, given, source), rows.lines, notes, tuple(names_within(table.schema))
            )


def absent_note(column: str) -> str:
    """Name the note of a block of JSON in which no object has the key."""
    return f"no key {column!r}"


def has_column(table: pa.Table, name: str) -> bool:
    """Say whether there is a column of that name, or outer.inner is a value within the objects of another."""
    kind: Any = table.schema
    while name not in kind.names:
        outer, dot, name = name.partition(".")
        if not dot or outer not in kind.names or not pa.types.is_struct(kind.field(outer).type):
            return False
        kind = pa.schema(list(kind.field(outer).type))
    return True


def _column(table: pa.Table, name: str) -> Any:
    """Take a column that `has_column` finds."""
    while name not in table.column_names:
        outer, _, name = name.partition(".")
        column = as_array(table[outer])
        table = pa.table({each.name: pc.struct_field(column, each.name) for each in column.type})
    return table[name]


def _session_blocks(fragment: Fragment, source: TableSource, columns: list[str]) -> Iterator[Block]:
    """One session a line: the line's number (from 1) is the user, the place in the line (from 0) the time."""
    options = csv.ReadOptions(
        column_names=["line"], encoding=source.encoding, block_size=BLOCK_BYTES, use_threads=False
    )
    parse = csv.ParseOptions(delimiter=NO_CHARACTER, quote_char=False, ignore_empty_lines=False)
    convert = csv.ConvertOptions(column_types={"line": pa.string()})
    first = 1 + (fragment.number << 40)  # lines of several files are different users
    with open_bytes(fragment.filesystem, fragment.path, fragment.shown, source.max_expansion) as raw:
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


def _with_columns(table: pa.Table, columns: list[str], given: dict[str, str | None], source: TableSource) -> pa.Table:
    """These columns in this order; `given` are those of the path."""

    def column(name: str) -> Any:
        value = given.get(name)
        if has_column(table, name):
            found = _column(table, name)
            return found if value is None else _filled(without_nulls(found, source.null_values), value)
        return pa.nulls(table.num_rows) if value is None else pa.repeat(pa.scalar(value), table.num_rows)

    return pa.table({name: column(name) for name in columns})


def _filled(column: pa.Array, value: str) -> pa.Array:
    """Nulls replaced by the path's value, as a number where the column holds numbers."""
    if not column.null_count:
        return column
    try:
        return column.fill_null(pa.scalar(value).cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column.cast(pa.string()).fill_null(value)

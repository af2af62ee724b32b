"""CSV as Arrow tables of bounded size, every line of the file accounted for: a row, or named as none.

A quote that is never closed would swallow what follows it. So a quoted value begins after a delimiter and ends before
one, and a row over several lines has as many values as there are columns: a line that breaks this is set aside by
itself, and reading goes on with the next one. Files whose quotes stand as they should are checked by one look at all
quotes of a block; lines are looked at one by one from the first quote on that does not. No Ray.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv

from pipelines.errors import UserError
from pipelines.log.text_files import Read

NO_CHARACTER = "\x1f"  # ASCII unit separator: stands for a long delimiter, and splits nothing in a session line
LONGEST_LINE = 4  # blocks
_ENDS = b"\r\n"
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """How the columns of a file are written."""

    shown: str  # the file, as its owner knows it
    delimiter: str
    quote: str | None  # one character
    names: list[str] | None = None  # of the columns; None: the file's first line has them
    typed: bool = False  # the names in the first line have a type behind a colon, which is left out

    @property
    def is_long(self) -> bool:
        """Say whether the delimiter is more than the single byte that Arrow takes."""
        return len(self.delimiter.encode()) > 1

    @property
    def byte(self) -> bytes:
        """Return the delimiter that Arrow is given."""
        return NO_CHARACTER.encode() if self.is_long else self.delimiter.encode()

    @property
    def mark(self) -> bytes | None:
        """Return the quote's byte; formats with long delimiters do not quote."""
        return None if self.quote is None or self.is_long else self.quote.encode()

    @property
    def parse_options(self) -> dict[str, Any]:
        """Return what Arrow is told."""
        return {
            "delimiter": self.byte.decode(),
            "quote_char": False if self.mark is None else self.mark.decode(),
            "newlines_in_values": self.mark is not None,
        }


@dataclass(frozen=True)
class CsvRows:
    """Rows of one block.

    lines : those that are no rows. inside : lines within quoted values that have as many delimiters as a row.
    """

    table: pa.Table
    lines: tuple[str, ...]
    inside: tuple[str, ...]


def column_names(read: Read, dialect: Dialect, block_bytes: int) -> list[str]:
    """Read the names in a file's first line; none of an empty one."""
    for _, names in _blocks(read, dialect, block_bytes):
        return names
    return []


def csv_rows(read: Read, dialect: Dialect, columns: list[str], block_bytes: int) -> Iterator[CsvRows]:
    """Yield a file's rows as text, `columns` only; each of them is one of the file's."""
    for block, names in _blocks(read, dialect, block_bytes):
        data, bad = block.good, block.bad
        table, wrong = _parsed(data, names, columns, dialect)
        if any("\n" in text or "\r" in text for text in wrong):  # rows over several lines, of the wrong length
            block = _line_by_line(data, 0, len(names), dialect, final=True)
            data, bad = block.good, [*bad, *block.bad]
            table, wrong = _parsed(data, names, columns, dialect)
        lines = (*(line.decode(errors="replace") for line in bad), *wrong)
        spans = data.count(b"\n") > table.num_rows + len(wrong)
        yield CsvRows(table, lines, _lines_inside(block, len(names), dialect) if spans else ())


def _parsed(data: bytes, names: list[str], columns: list[str], dialect: Dialect) -> tuple[pa.Table, list[str]]:
    """Parse whole records: the rows, and the text of those that have another number of values than columns."""
    wrong: list[str] = []

    def skip(row: Any) -> str:
        wrong.append(row.text)
        return "skip"

    if not data.strip(_ENDS):
        return pa.schema([(name, pa.string()) for name in columns]).empty_table(), []
    if data.startswith(codecs.BOM_UTF8):  # a value that begins with U+FEFF: Arrow takes one from the start of any text
        data = codecs.BOM_UTF8 + data
    with _decoding_errors():
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=names, block_size=len(data) + 1, use_threads=False),
            csv.ParseOptions(**dialect.parse_options, invalid_row_handler=skip),
            csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    return table, wrong


@contextmanager
def _decoding_errors() -> Iterator[None]:
    """Raise that a wrong row is no UTF-8: Arrow cannot call a handler with it, prints a traceback and says less."""
    found: list[UnicodeDecodeError] = []
    before = sys.unraisablehook

    def keep(what: Any) -> None:
        if isinstance(what.exc_value, UnicodeDecodeError):
            found.append(what.exc_value)
        else:
            before(what)

    sys.unraisablehook = keep
    try:
        yield
    except pa.ArrowInvalid:
        if found:
            raise found[0] from None
        raise
    finally:
        sys.unraisablehook = before


# Lines to records


@dataclass(frozen=True)
class _Records:
    """good : whole records. bad : lines that are none. rest : a record that the block does not hold the end of.

    regular : the bytes of `good`, from its start, in which every quote stands as it should. longer : records after
    them that are of several lines.
    """

    good: bytes
    bad: list[bytes]
    regular: int
    longer: tuple[bytes, ...] = ()
    rest: bytes = b""


def _blocks(read: Read, dialect: Dialect, block_bytes: int) -> Iterator[tuple[_Records, list[str]]]:
    """Cut a file where records end, about every `block_bytes`; yield the names of its columns with each block."""
    names = dialect.names
    rest = b""
    while True:
        chunk = read(block_bytes)
        data = rest + chunk
        stop = len(data) if not chunk else 1 + max(data.rfind(b"\n"), data.rfind(b"\r"))
        if chunk and not stop and len(data) > LONGEST_LINE * block_bytes:
            raise UserError(f"{dialect.shown}: a line of more than {len(data) >> 20} MB; is it a text file with rows?")
        body, rest = data[:stop], data[stop:]
        if dialect.is_long:
            body = body.replace(dialect.delimiter.encode(), dialect.byte)
        if names is None:
            names, start = _header(body, dialect)
            body = body[start:]
        if names is not None:
            # a value of more than a block is a quote that nothing closes
            records = _records(body, len(names), dialect, final=not chunk or len(body) > 2 * block_bytes)
            rest = records.rest + rest
            yield records, names
        if not chunk:
            return


def _header(body: bytes, dialect: Dialect) -> tuple[list[str] | None, int]:
    """Find the names in the first line that is not blank, if there is one, and where the lines after it begin."""
    start = len(body) - len(body.lstrip(_ENDS))
    if start == len(body):
        return None, start
    found = None
    if dialect.mark is not None:
        found = _patterns(dialect.byte, dialect.mark, None).several_lines.match(body, start)
    stop = _line_end(body, start) if found is None else found.end()
    line = body[start:stop].rstrip(_ENDS) + b"\n"
    plain = {} if found is not None else {"quote_char": False}  # a quote that is not closed is part of a name
    header = csv.read_csv(
        pa.BufferReader(line),
        csv.ReadOptions(use_threads=False, block_size=len(line) + 1),
        csv.ParseOptions(**dialect.parse_options | plain),
    )
    names = header.schema.names
    return [name.rpartition(":")[0] or name for name in names] if dialect.typed else list(names), stop


def _records(body: bytes, columns: int, dialect: Dialect, final: bool) -> _Records:
    """Tell records from lines that are none; a look at all quotes at once, if they stand as they should."""
    if dialect.mark is None or dialect.mark not in body:
        return _Records(body, [], 0)
    raw = np.frombuffer(body, np.uint8)
    at = np.flatnonzero(raw == dialect.mark[0])
    edges = np.zeros(256, bool)
    edges[[*dialect.byte, *_ENDS, *dialect.mark]] = True  # a quote may stand beside a doubled one
    opens, closes = at[0::2], at[1::2]
    misplaced = np.zeros(len(at), bool)
    misplaced[0::2] = ~edges[raw[opens - 1]] & (opens > 0)
    misplaced[1::2] = ~edges[raw[np.minimum(closes + 1, len(raw) - 1)]] & (closes < len(raw) - 1)
    if not misplaced.any():
        if len(at) % 2 == 0:
            return _Records(body, [], len(body))
        misplaced[-1] = True  # opens what the block does not close
    return _line_by_line(body, _record_start(raw, at, int(misplaced.argmax())), columns, dialect, final)


def _record_start(raw: npt.NDArray[np.uint8], at: Places, number: int) -> int:
    """Find where the record begins that holds a quote: after the last line end before it that no quotes are around."""
    before = raw[: at[number]]
    ends = np.flatnonzero((before == _ENDS[0]) | (before == _ENDS[1]))
    outside = ends[np.searchsorted(at, ends) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0


def _line_by_line(body: bytes, start: int, columns: int, dialect: Dialect, final: bool) -> _Records:
    """Tell records from lines that are none, from `start` on.

    final : nothing comes after the body, so that a value that is still open there is never closed.
    """
    assert dialect.mark is not None, "without quotes a line is a record"
    patterns = _patterns(dialect.byte, dialect.mark, columns)
    good = [body[:start]]
    bad: list[bytes] = []
    longer: list[bytes] = []
    regular = start
    while (quote := body.find(dialect.mark, start)) >= 0:
        line = max(start, body.rfind(b"\n", start, quote) + 1, body.rfind(b"\r", start, quote) + 1)
        good.append(body[start:line])
        if (found := patterns.one_line.match(body, line)) is not None:
            good.append(found[0])
            start = found.end()
        elif (found := patterns.several_lines.match(body, line)) is not None:
            good.append(found[0])
            longer.append(found[0])
            start = found.end()
        elif not final and patterns.unfinished.match(body, line):
            return _Records(b"".join(good), bad, regular, tuple(longer), body[line:])
        else:
            start = _line_end(body, line)
            bad.append(body[line:start].rstrip(_ENDS))
    return _Records(b"".join([*good, body[start:]]), bad, regular, tuple(longer))


def _line_end(body: bytes, start: int) -> int:
    """Find where the line after that at `start` begins."""
    found = _LINE.match(body, start)
    assert found is not None, "any text is a line"
    return found.end()


_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class _Patterns:
    """What a record looks like: of one line, over several, and one whose last value is still open."""

    one_line: re.Pattern[bytes]
    several_lines: re.Pattern[bytes]
    unfinished: re.Pattern[bytes]


@cache
def _patterns(delimiter: bytes, quote: bytes, columns: int | None) -> _Patterns:
    """columns : that a record over several lines must have; None: any number."""
    d, q = re.escape(delimiter), re.escape(quote)
    plain = rb"(?!%b)[^%b\r\n]*+" % (q, d)
    end = rb"(?:\r\n|\r|\n|\Z)"

    def record(inner: bytes, values: bytes) -> bytes:
        value = rb"(?:%b%b*+(?:%b%b%b*+)*+%b|%b)" % (q, inner, q, q, inner, q, plain)
        return rb"%b(?:%b%b)%b%b" % (value, d, value, values, end)

    narrow, wide = rb"[^%b\r\n]" % q, rb"[^%b]" % q
    value = rb"(?:%b%b*+(?:%b%b%b*+)*+%b|%b)" % (q, wide, q, q, wide, q, plain)
    open_value = rb"%b%b*+(?:%b%b%b*+)*+\Z" % (q, wide, q, q, wide)
    # not possessive, as the others are: Python before 3.11.5 forgets where a value began that such a group gave up
    # half-way (python/cpython#106052). No shorter match is found, as an open value begins with a mark
    most = b"*" if columns is None else b"{0,%d}" % (columns - 1)
    exactly = b"*+" if columns is None else b"{%d}+" % (columns - 1)
    return _Patterns(
        re.compile(record(narrow, b"*+")),
        re.compile(record(wide, exactly)),
        re.compile(rb"(?:%b%b)%b%b" % (value, d, most, open_value)),
    )


def _lines_inside(block: _Records, columns: int, dialect: Dialect) -> tuple[str, ...]:
    """List the lines that stand within one quoted value and have as many delimiters as a row."""
    if dialect.mark is None or columns == 1:
        return ()
    found: list[str] = []
    for text in (block.good[: block.regular], *block.longer):
        raw = np.frombuffer(text, np.uint8)
        at = np.flatnonzero(raw == dialect.mark[0])
        ends = np.flatnonzero(raw == _ENDS[1])
        quotes = np.searchsorted(at, ends)  # before each line end
        inside = (quotes[:-1] % 2 == 1) & (quotes[1:] == quotes[:-1])
        lines = (text[first + 1 : stop] for first, stop in zip(ends[:-1][inside], ends[1:][inside], strict=True))
        found += [line.decode(errors="replace") for line in lines if line.count(dialect.byte) == columns - 1]
    return tuple(found)

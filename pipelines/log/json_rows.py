"""JSON as Arrow tables of bounded size: an object a line; one array of objects, or objects over several lines, too.

Each block infers its own types, so that a key first seen, or null, late in the file is no error. No Ray.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from pipelines.errors import UserError
from pipelines.log.limits import MAX_DEPTH, is_too_deep, shortened, suspects
from pipelines.log.text_files import Read

MANY_KEYS = 30
_OVER_LINES = re.compile(rb"\s*(\[\s*[{\]]|\{\s*[\r\n])")  # an array, or an object of which the first line is {
_INDENTED_NULL = re.compile(rb"\n[ \t\r]+null")
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class JsonRows:
    """Rows of one block, and the lines that are no rows."""

    table: pa.Table
    lines: tuple[str, ...] = ()


def json_rows(
    read: Read, shown: str, columns: Collection[str], times: str | None, block_bytes: int, longest: int = 2**20
) -> Iterator[JsonRows]:
    """Yield a file's rows with whatever keys they have.

    Parameters
    ----------
    columns
        Those that are wanted; with none, a block has whatever keys there are. Text that looks like a time is text in
        all of them but the column `times`.
    longest
        Bytes of a line; a longer one is no row.
    """
    texts: dict[str, pa.DataType] = {}  # what the blocks before held text in that Arrow took for times
    for lines in _lines(read, shown, block_bytes, longest):
        lines.isascii() or lines.decode()  # Arrow takes any bytes for UTF-8
        yield _rows(lines, columns, times, texts, longest)


def keys_of(kind: pa.Schema | pa.DataType, prefix: str = "") -> Iterator[str]:
    """Yield the names of the values in an object, those of objects within it as outer.inner."""
    for each in kind:
        name = f"{prefix}{each.name}"
        inner = each.type
        while pa.types.is_list(inner):
            inner, name = inner.value_type, f"{name}[]"
        if pa.types.is_struct(inner):
            yield from keys_of(inner, f"{name}.")
        else:
            yield name


def names_within(kind: pa.Schema | pa.DataType, prefix: str = "") -> Iterator[str]:
    """Yield the names by which the values in an object can be asked for: its keys, and outer.inner of objects in it.

    A list is one value, whatever is in it; a key may be called a[] itself.
    """
    for each in kind:
        name = f"{prefix}{each.name}"
        if pa.types.is_struct(each.type):
            yield from names_within(each.type, f"{name}.")
        else:
            yield name


def is_over_lines(chunk: bytes) -> bool:
    """Say whether a file that begins so is an array, or has objects over several lines."""
    return _OVER_LINES.match(chunk) is not None


def _lines(read: Read, shown: str, block_bytes: int, longest: int) -> Iterator[bytes]:
    """Yield whole lines with an object each, about `block_bytes` at a time; of a line too long to be held, a part."""
    chunk = read(block_bytes)
    if is_over_lines(chunk):
        yield from _objects(chunk, read, shown, block_bytes)
        return
    rest, skips = b"", False  # the beginning of a line, and whether more of it has been left out
    while chunk:
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield lines.partition(b"\n")[2] if skips else lines
            skips = False
        if len(rest) > longest:
            if not skips:
                yield _characters(rest[: longest + 4])
            rest, skips = b"", True
        chunk = read(block_bytes)
    if rest.strip() and not skips:
        yield rest


def _characters(data: bytes) -> bytes:
    """Leave out the character that was cut at the end."""
    return data.decode(errors="ignore").encode() if data[-4:].isascii() is False else data


def _objects(chunk: bytes, read: Read, shown: str, block_bytes: int) -> Iterator[bytes]:
    """Yield one object after the other, of an array or not, each on a line of its own."""
    utf8, decoder = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder()
    text = utf8.decode(chunk).lstrip().removeprefix("[")
    place, found, size = 0, list[str](), 0
    while True:
        between = _BETWEEN.match(text, place)
        assert between is not None, "nothing may stand between two objects"
        place = between.end()
        if text.startswith("]", place):
            break
        try:
            _, stop = decoder.raw_decode(text, place)
        except RecursionError:
            raise UserError(f"{shown}: cannot be read as JSON: nested deeper than {MAX_DEPTH}") from None
        except ValueError as error:  # cut off, or broken
            chunk = read(block_bytes)
            if not chunk or len(text) - place > 2 * block_bytes:
                if chunk or place < len(text):
                    shortened = " ".join(text[place : place + 60].split())
                    raise UserError(f"{shown}: cannot be read as JSON from {shortened!r} on: {error}") from None
                break
            text, place = text[place:] + utf8.decode(chunk), 0
            continue
        if text[place] in "-0123456789" and stop > len(text) - 3 and (chunk := read(block_bytes)):  # it may go on
            text, place = text[place:] + utf8.decode(chunk), 0
            continue
        found.append(" ".join(text[place:stop].splitlines()))
        size += stop - place
        place = stop
        if size >= block_bytes:
            yield "\n".join(found).encode()
            found, size = [], 0
    if found:
        yield "\n".join(found).encode()


def _rows(
    data: bytes, columns: Collection[str], times: str | None, texts: dict[str, pa.DataType], longest: int
) -> JsonRows:
    try:
        if _has_null_line(data) or suspects(data, longest):
            raise pa.ArrowInvalid("a line is null, too long or too deep")
        return JsonRows(_parsed(data, columns, times, texts))
    except pa.ArrowInvalid:  # slow, and only for a block that holds a broken line, or several types in a column
        good: list[bytes] = []
        bad: list[bytes] = []
        for line in filter(bytes.strip, data.split(b"\n")):
            (good if _is_object(line, longest) else bad).append(line)
        lines = tuple(shortened(line, longest) for line in bad)
        try:
            return JsonRows(_parsed(b"\n".join(good), columns, times, texts), lines)
        except pa.ArrowInvalid:
            return _of_many_types(good, columns, lines)


def _has_null_line(data: bytes) -> bool:
    """Say whether a line begins with null, of which Arrow makes a row, or dies."""
    indented = b"\n " in data or b"\n\t" in data
    return (
        data[:99].lstrip().startswith(b"null")
        or b"\nnull" in data
        or (indented and _INDENTED_NULL.search(data) is not None)
    )


def _parsed(data: bytes, columns: Collection[str], times: str | None, texts: dict[str, pa.DataType]) -> pa.Table:
    """Parse a block; text that looks like a time stays text, and is remembered to."""
    if not data.strip():
        return pa.table({})
    try:
        table = _parse(data, texts)
    except pa.ArrowInvalid:
        if not texts:
            raise
        table = _parse(data, {})
    tops = {name.split(".", 1)[0] for name in columns} | {*columns}
    dated = {
        each.name: text
        for each in table.schema
        if each.name in tops and each.name != times and (text := _without_times(each.type)) != each.type
    }
    if not dated:
        return table
    texts |= dated
    return _parse(data, texts)


def _parse(data: bytes, texts: dict[str, pa.DataType]) -> pa.Table:
    options = pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    table = pa_json.read_json(
        pa.BufferReader(data), options, pa_json.ParseOptions(explicit_schema=pa.schema(texts.items()))
    )
    return table


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Put text for times, at any depth."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _without_times(each.type)) for each in kind])
    return kind


def _is_object(line: bytes, longest: int) -> bool:
    """Say whether a line is one object, not too long or too deep, in which no key stands twice."""
    if len(line) > longest or is_too_deep(line):
        return False
    try:
        return isinstance(json.loads(line, object_pairs_hook=_no_key_twice), dict)
    except (ValueError, RecursionError):
        return False


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _of_many_types(lines: list[bytes], columns: Collection[str], bad: tuple[str, ...]) -> JsonRows:
    """Read lines of which a key holds numbers here and text there: that column is text.

    Where most values are lists, another one is a list of itself; where most are not, a line with a list or an object is
    no row.
    """
    objects = [json.loads(line) for line in lines]
    found: dict[str, list[Any]] = {}
    is_row = [True] * len(lines)
    for name in columns or _names(objects):
        values = [_value(each, name) for each in objects]
        nested = [isinstance(value, (list, dict)) for value in values]
        if 2 * sum(nested) > len(values) - values.count(None):
            values = [value if value is None or held else [value] for value, held in zip(values, nested, strict=True)]
        else:
            is_row = [is_good and not held for is_good, held in zip(is_row, nested, strict=True)]
        found[name] = values
    rows = list(compress(objects, is_row))
    bad += tuple(line.decode() for line, is_good in zip(lines, is_row, strict=True) if not is_good)
    table = {
        name: _column(list(compress(values, is_row)))
        for name, values in found.items()
        if not rows or any(_has(each, name) for each in rows)
    }
    return JsonRows(pa.table(table), bad)


def _names(objects: list[dict[str, Any]], prefix: str = "") -> Iterator[str]:
    """Yield what `names_within` yields of a table; a key that is an object in most of its places is one."""
    for key in dict.fromkeys(key for each in objects for key in each):
        values = [each[key] for each in objects if each.get(key) is not None]
        inner = [value for value in values if isinstance(value, dict)]
        if 2 * len(inner) > len(values):
            yield from _names(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _column(values: list[Any]) -> pa.Array:
    """Make a column of them; of text, where they are of several types."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        if any(isinstance(value, list) for value in values):
            return pa.array([None if value is None else list(_texts(value)) for value in values], pa.list_(pa.string()))
        return pa.array([_text(value) for value in values], pa.string())


def _texts(value: Any) -> Iterator[str | None]:
    """Yield all values within lists as text, objects as a whole."""
    if not isinstance(value, list):
        yield _text(value)
        return
    for each in value:
        yield from _texts(each)


def _value(row: Any, name: str) -> Any:
    """Look up a key; outer.inner is the key of an object within."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    return _value(row[outer], inner) if dot and isinstance(row.get(outer), dict) else None


def _has(row: Any, name: str) -> bool:
    outer, dot, inner = name.partition(".")
    return name in row or bool(dot and isinstance(row.get(outer), dict) and _has(row[outer], inner))


def _text(value: Any) -> str | None:
    """Write a value as text; whole numbers without a fraction, as an id has them."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return json.dumps(value)

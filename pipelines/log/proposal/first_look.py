"""A first look at a file that nobody has described: how it is written, and what each column seems to hold. No Ray.

What is guessed is guessed from the first blocks, and said to be: `pipelines.log.proposal.write` writes it down.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from pipelines.config.schema import NULL_WORDS, EventSource, TableSource
from pipelines.errors import UserError
from pipelines.log.event_lists import is_list, row_an_event
from pipelines.log.formats import names_inside, read_blocks
from pipelines.log.ids import Int64s, as_array
from pipelines.log.null_words import without_nulls
from pipelines.log.sources import find_files, fragments, guess_format
from pipelines.log.text_files import open_bytes
from pipelines.log.times import (
    EpochUnit,
    is_number,
    is_numeric,
    number_of,
    parse_times,
    share_in,
    time_formats,
    time_unit,
)

BLOCKS = 3  # that are looked at
HEAD_LINES = 50
ALIKE = 10  # lines of as many values each: a table
DELIMITERS = ("::", "\t", ";", "|", ",")
EPOCHS: tuple[tuple[EpochUnit, float, float], ...] = (
    ("s", 1e8, 1e10),
    ("ms", 1e11, 1e13),
    ("us", 1e14, 1e16),
    ("ns", 1e17, 1e19),
)
DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
MOST_UNREAD = 0.1  # of the values of a column that holds times
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_VALUE = re.compile(
    rf"{_NUMBER.pattern}|[0-9]{{1,4}}([-/.])[0-9]{{1,2}}\2[0-9]{{1,4}}([T ].*)?"
)  # a number or a day: no name
_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Column:
    """What a column holds, in the rows looked at. kind : ints, floats, text, times, lists, bools or other."""

    name: str
    kind: str
    values: pa.Array  # nulls where nothing is
    distinct: int
    missing: float  # share
    unit: EpochUnit | None = None  # of times, or of numbers that are times by their size: s, ms, us, ns
    forms: tuple[str, ...] = ()  # of times that are not ISO text: the likeliest first

    @property
    def form(self) -> str | None:
        """The form of times that are not ISO text, as far as can be told."""
        return self.forms[0] if self.forms else None

    @property
    def words(self) -> str:
        """The name without what writers put between words."""
        return _WORD.sub("", re.sub(r"([a-z])([A-Z])", r"\1_\2", self.name).lower())


@dataclass(frozen=True)
class Look:
    """How a table is written, as settings of its source, and its columns."""

    path: str
    settings: dict[str, Any]  # format, delimiter, encoding, columns: where they are not the usual
    rows: int
    not_rows: int  # lines among them that are none
    is_whole: bool  # whether all rows were looked at
    columns: tuple[Column, ...]
    unrolled: tuple[str, ...] = ()  # columns of which a row has a list, a value an event
    twice: tuple[str, ...] = ()  # columns that stand several times in the file, and are left out
    time_format: str | None = None  # as whoever asked for the look says

    def column(self, name: str) -> Column:
        """Find the column of that name."""
        return next(each for each in self.columns if each.name == name)


def look_at(path: str, events: bool = False, time_format: str | None = None) -> Look:
    """Look at the first rows of a file, a folder or a glob.

    events : of a log; where its rows have several lists of one length each, their values are the events.
    time_format : of the times, where it is known.

    Raises
    ------
    UserError
        If there is nothing to look at, it cannot be read, or the form is none.
    """
    if time_format is not None:
        _require_form(time_format)
    settings = _how_written(path)
    source = TableSource.model_validate({"path": path, **settings})  # of a log, read_blocks would unroll lists
    pieces = fragments(source, [])
    names, twice = _names(source, pieces)
    read = (block for piece in pieces for block in read_blocks(piece, source, names))
    blocks = list(islice((block for block in read if block.table.num_rows or block.unreadable), BLOCKS + 1))
    not_rows = sum(len(block.unreadable) for block in blocks[:BLOCKS])
    seen = [block.table for block in blocks[:BLOCKS] if block.table.num_rows]
    if not seen:
        raise UserError(f"{path}: no row to look at" + (f"; {not_rows:,} lines are no rows" if not_rows else ""))
    lists = _lists_of_events(seen) if events else []
    if lists:
        others = [name for name in names if name not in lists and any(is_list(table[name].type) for table in seen)]
        names = [name for name in names if name not in others]  # their rows are not those of events
        rows = EventSource.model_validate({"path": path, **settings, "item": lists[0]})
        seen = [row_an_event(table.select(names), rows)[0] for table in seen]
    columns = []
    for name in names:
        arrays = [as_array(table[name]) for table in seen]
        kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
        if len(kinds) > 1:
            arrays = [pa.array([None if v is None else str(v) for v in a.to_pylist()], pa.string()) for a in arrays]
        elif kinds:
            (kind,) = kinds
            arrays = [pa.nulls(len(each), kind) if pa.types.is_null(each.type) else each for each in arrays]
        columns.append(_column(name, pa.concat_arrays(arrays), time_format))
    rows = sum(table.num_rows for table in seen)
    is_whole = len(blocks) <= BLOCKS
    return Look(path, settings, rows, not_rows, is_whole, tuple(columns), tuple(lists), twice, time_format)


def _require_form(form: str) -> None:
    try:
        EventSource(path="", time_format=form)
    except ValidationError as error:
        raise UserError(f"--time-format: {error.errors()[0]['msg'].partition(', ')[2]}") from None


def _lists_of_events(tables: Sequence[pa.Table]) -> list[str]:
    """Find the columns of lists that have one length in each row, if there are two or more.

    Those of the names that a log's columns usually have are events in any case, as whoever reads the log takes them.
    """
    found = [name for name in tables[0].column_names if all(is_list(table[name].type) for table in tables)]

    def lengths(name: str) -> list[pa.Array]:
        return [pc.fill_null(pc.list_value_length(as_array(table[name])), 0) for table in tables]

    usual = [EventSource.model_fields[role].default for role in ("item", "time")]
    if named := [name for name in usual if name in found]:
        return [name for name in found if name in named or lengths(name) == lengths(named[0])]
    same = len(found) > 1 and all(lengths(name) == lengths(found[0]) for name in found[1:])
    return found if same else []


def _names(source: TableSource, pieces: Sequence[Any]) -> tuple[list[str], tuple[str, ...]]:
    """List the columns, and those that stand several times in the file."""
    if pieces[0].format == "jsonl":
        first = next(iter(read_blocks(pieces[0], source, [])), None)
        return ([] if first is None else [*first.names]), ()
    own = names_inside(pieces[0], source)
    count = Counter(own)
    twice = tuple(name for name in count if count[name] > 1)
    return list(dict.fromkeys([*(name for name in own if count[name] == 1), *dict(pieces[0].partition)])), twice


def _how_written(path: str) -> dict[str, Any]:
    """Guess what a path's files need to be told beside their names."""
    filesystem, infos = find_files(path)
    file = next((info for info in infos if info.size), infos[0])
    forms = {_form(info.path): info.path.rpartition("/")[2] for info in infos}
    if len(forms) > 1:
        raise UserError(
            f"{path}: holds files of several formats ({', '.join(sorted(forms.values()))}); give the log alone, as a "
            "file or a glob, and other tables with --items and --profile"
        )
    form = _form(file.path)
    if form in ("parquet", "jsonl", "recbole"):
        return {}
    with open_bytes(filesystem, file.path, path) as raw:
        head = raw.read(2**16)
    found: dict[str, Any] = {}
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        found["encoding"] = "utf-16"
    else:
        try:
            head[:-4].decode()
        except UnicodeDecodeError as error:
            if error.start < len(head) - 8:
                found["encoding"] = "latin-1"
    text = head.decode(found.get("encoding", "utf-8"), errors="replace")
    lines = [line for line in text.splitlines() if line.strip()][:HEAD_LINES]
    return found | _layout(lines, form)


def _form(path: str) -> str:
    """Tell the format by a file's name: text if that does not say."""
    try:
        return guess_format(path)
    except UserError:
        return "text"


def _layout(lines: list[str], form: str) -> dict[str, Any]:
    """Guess format, delimiter and names from the first lines."""

    def counts(mark: str) -> list[int]:
        return [line.count(mark) for line in lines[:-1] or lines]

    marks = [mark for mark in DELIMITERS if lines and min(counts(mark)) > 0]
    if form == "text" and not marks and len(lines) >= ALIKE and min(counts(" ")) == max(counts(" ")) >= 2:
        marks = [" "]  # sessions differ in length
    mark = max(marks, key=lambda mark: (min(counts(mark)), len(mark)), default=",")
    if form == "text" and not marks:
        return {"format": "sessions"}
    found: dict[str, Any] = {"format": "csv"} if form == "text" else {}
    if mark != ",":
        found["delimiter"] = mark
    first = [each.strip('" ') for each in lines[0].split(mark)] if lines else []
    if any(_VALUE.fullmatch(each) for each in first) and not _is_header(first, lines[1:], mark):
        found["columns"] = [f"column_{n}" for n in range(1, len(first) + 1)]
    return found


def _is_header(first: Sequence[str], lines: Sequence[str], mark: str) -> bool:
    """Say whether a line with a number or a day in it has names all the same: a word above a column of numbers."""
    rows = [[each.strip('" ') for each in line.split(mark)] for line in lines]
    columns = zip(first, *(row for row in rows if len(row) == len(first)), strict=True)
    return any(
        name not in ("", *NULL_WORDS)
        and not _VALUE.fullmatch(name)
        and bool(below)
        and all(map(_NUMBER.fullmatch, below))
        for name, *below in columns
    )


def _column(name: str, raw: pa.Array, said: str | None = None) -> Column:
    """Say what a column holds. said : the form of the log's times, where it is known."""
    array = without_nulls(raw, NULL_WORDS)
    if pa.types.is_floating(array.type):  # what is no number says nothing
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    kind, unit, forms = _kind(array)
    if said is not None and _reads(array, said):
        kind, unit, forms = "times" if kind == "text" else kind, None, (said,)
    try:
        within = array.drop_null().flatten() if is_list(array.type) else array  # what a list holds is told apart
        distinct = len(pc.unique(within.drop_null()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        distinct = 0
    return Column(name, kind, array, distinct, array.null_count / max(1, len(array)), unit, forms)


def _kind(array: pa.Array) -> tuple[str, EpochUnit | None, tuple[str, ...]]:
    """Tell the kind of values, the unit if they may be epoch times, and the forms if they may be times in another."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "times", None, ()
    if pa.types.is_boolean(kind):
        return "bools", None, ()
    if is_numeric(kind):
        return _numbers(array)
    if not pa.types.is_string(kind):
        return ("lists" if "list" in str(kind) else "other"), None, ()
    text = array.drop_null()
    if not len(text):
        return "other", None, ()
    if pc.all(is_number(text)).as_py():
        return _numbers(text)
    forms = likeliest(text, time_formats([text])[0]) if time_unit(text, "") == "us" else ()
    times = parse_times(text, "us", "", form=forms[0] if forms else None)
    return ("times", None, forms) if times.null_count < MOST_UNREAD * len(text) else ("text", None, ())


def likeliest(text: pa.Array, forms: Sequence[str]) -> tuple[str, ...]:
    """Sort forms of which any may be that of the times: logs go forward in time, and seldom skip most days of a month.

    text : in the order of the rows.
    """
    if len(forms) < 2:
        return tuple(forms)

    def unlikely(form: str) -> tuple[float, int]:
        times = parse_times(text, "us", "", form=form).drop_null().to_numpy()
        back = float(np.mean(np.diff(times) < 0)) if len(times) > 1 else 0.0
        return round(back, 1), int(times.max()) - int(times.min())

    return tuple(sorted(forms, key=unlikely))


def _reads(array: pa.Array, form: str) -> bool:
    """Say whether values are times in that form."""
    values = array.drop_null()
    if not len(values) or not (is_numeric(values.type) or pa.types.is_string(values.type)):
        return False
    texts = pc.unique(values if pa.types.is_string(values.type) else number_of(values)[0].cast(pa.string()))
    is_any = share_in(texts.drop_null(), form) > 0  # ISO text is read beside any form
    return is_any and parse_times(values, "us", "", form=form).null_count < MOST_UNREAD * len(values)


def _numbers(array: pa.Array) -> tuple[str, EpochUnit | None, tuple[str, ...]]:
    whole, fraction = number_of(array.drop_null())
    values = whole.drop_null().to_numpy()
    if not len(values):
        return "other", None, ()
    has_fraction = fraction is not None and bool(pc.any(pc.not_equal(fraction, 0.0)).as_py())
    if not has_fraction and (form := _as_digits(values)) is not None:
        return "ints", None, (form,)
    low, high = np.quantile(values, [0.05, 0.95])
    unit = next((unit for unit, least, most in EPOCHS if least <= low and high <= most), None)
    return ("floats" if has_fraction else "ints"), unit, ()


def _as_digits(values: Int64s) -> str | None:
    """Find the form of days and hours that are written as one number: 20240131."""
    low, high = str(values.min()), str(values.max())
    form = DIGITS.get(len(low))
    if form is None or len(high) != len(low) or not "1950" <= low[:4] <= high[:4] <= "2100":
        return None
    times = parse_times(pa.array(np.unique(values)), "us", "", form=form)
    return None if times.null_count else form


def distinct_texts(column: Column, most: int) -> Iterator[str]:
    """Yield some of the values, the commonest first; none of what cannot be counted."""
    try:
        counted = column.values.drop_null().value_counts()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # of lists and objects, which are not counted
        return
    order = np.argsort(-counted.field("counts").to_numpy(), kind="stable")[:most]
    yield from (str(counted.field("values")[int(place)].as_py()) for place in order)

"""A first look at a file that nobody has described: how it is written, and what each column seems to hold. No Ray.

What is guessed is guessed from the first blocks, and said to be: `pipelines.log.proposal.write` writes it down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import NULL_WORDS, EventSource, TableSource
from pipelines.errors import UserError
from pipelines.log.event_lists import is_list, row_an_event
from pipelines.log.formats import names_inside, read_blocks
from pipelines.log.ids import as_array
from pipelines.log.null_words import without_nulls
from pipelines.log.sources import find_files, fragments, guess_format
from pipelines.log.text_files import open_bytes
from pipelines.log.times import EpochUnit, is_number, is_numeric, number_of, parse_times, time_format, time_unit

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
    form: str | None = None  # of times that are not ISO text

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
    is_whole: bool  # whether all rows were looked at
    columns: tuple[Column, ...]
    unrolled: tuple[str, ...] = ()  # columns of which a row has a list, a value an event

    def column(self, name: str) -> Column:
        """Find the column of that name."""
        return next(each for each in self.columns if each.name == name)


def look_at(path: str, events: bool = False) -> Look:
    """Look at the first rows of a file, a folder or a glob.

    events : of a log; where its rows have several lists of one length each, their values are the events.

    Raises
    ------
    UserError
        If there is nothing to look at, or it cannot be read.
    """
    settings = _how_written(path)
    source = TableSource.model_validate({"path": path, **settings})  # of a log, read_blocks would unroll lists
    pieces = fragments(source, [])
    names = _names(source, pieces)
    blocks = islice((block for piece in pieces for block in read_blocks(piece, source, names)), BLOCKS + 1)
    tables = [block.table for block in blocks if block.table.num_rows]
    if not tables:
        raise UserError(f"{path}: no row to look at")
    seen = tables[:BLOCKS]
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
        columns.append(_column(name, pa.concat_arrays(arrays)))
    return Look(
        path, settings, sum(table.num_rows for table in seen), len(tables) <= BLOCKS, tuple(columns), tuple(lists)
    )


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


def _names(source: TableSource, pieces: Sequence[Any]) -> list[str]:
    if pieces[0].format == "jsonl":
        first = next(iter(read_blocks(pieces[0], source, [])), None)
        return [] if first is None else [*first.names]
    own = names_inside(pieces[0], source)
    return list(dict.fromkeys([*(name for name in own if own.count(name) == 1), *dict(pieces[0].partition)]))


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
    if any(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", each) for each in first):  # no header: a number is no name
        found["columns"] = [f"column_{n}" for n in range(1, len(first) + 1)]
    return found


def _column(name: str, raw: pa.Array) -> Column:
    array = without_nulls(raw, NULL_WORDS)
    if pa.types.is_floating(array.type):  # what is no number says nothing
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    kind, unit, form = _kind(array)
    try:
        within = array.drop_null().flatten() if is_list(array.type) else array  # what a list holds is told apart
        distinct = len(pc.unique(within.drop_null()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        distinct = 0
    return Column(name, kind, array, distinct, array.null_count / max(1, len(array)), unit, form)


def _kind(array: pa.Array) -> tuple[str, EpochUnit | None, str | None]:
    """Tell the kind of values, the unit if they may be epoch times, and the form of text that is times."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "times", None, None
    if pa.types.is_boolean(kind):
        return "bools", None, None
    if is_numeric(kind):
        return _numbers(array)
    if not pa.types.is_string(kind):
        return ("lists" if "list" in str(kind) else "other"), None, None
    text = array.drop_null()
    if not len(text):
        return "other", None, None
    if pc.all(is_number(text)).as_py():
        return _numbers(text)
    try:
        form = time_format([text], "") if time_unit(text, "") == "us" else None
        times = parse_times(text, "us", "", form=form)
    except UserError:  # days that may be months: said where it is written down
        return "times", None, "?"
    return ("times", None, form) if times.null_count < 0.1 * len(text) else ("text", None, None)


def _numbers(array: pa.Array) -> tuple[str, EpochUnit | None, str | None]:
    whole, fraction = number_of(array.drop_null())
    values = whole.drop_null().to_numpy()
    if not len(values):
        return "other", None, None
    has_fraction = fraction is not None and bool(pc.any(pc.not_equal(fraction, 0.0)).as_py())
    low, high = np.quantile(values, [0.05, 0.95])
    unit = next((unit for unit, least, most in EPOCHS if least <= low and high <= most), None)
    return ("floats" if has_fraction else "ints"), unit, None


def distinct_texts(column: Column, most: int) -> Iterator[str]:
    """Yield some of the values, the commonest first; none of what cannot be counted."""
    try:
        counted = column.values.drop_null().value_counts()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # of lists and objects, which are not counted
        return
    order = np.argsort(-counted.field("counts").to_numpy(), kind="stable")[:most]
    yield from (str(counted.field("values")[int(place)].as_py()) for place in order)

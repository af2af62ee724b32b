"""One raw block of the event log -> clean events, and a count of the rows set aside by reason.

Columns out: user, item (int64, uint64 or string), time (int64: microseconds UTC, or the log's plain numbers), then
tie (int64) and type (string) where configured. Pure Arrow and NumPy; no Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import NULL_WORDS, EventSource, Exclusion
from pipelines.errors import UserError
from pipelines.log.formats import Note
from pipelines.log.ids import as_array, canonical
from pipelines.log.null_words import without_nulls
from pipelines.log.order_keys import tie_of
from pipelines.log.times import TimeUnit, is_numeric, parse_times

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

UNREADABLE = "unreadable row"
MISSING_USER = "missing user"
MISSING_ITEM = "missing item"
MISSING_TIME = "missing time"
BAD_TIME = "time cannot be parsed"
OTHER_TYPE = "other event type"
LONGEST_EXAMPLE = 120  # characters
MANY_TYPES = 100  # of which more than so many are no event types
MALFORMED = (UNREADABLE, MISSING_USER, MISSING_ITEM, MISSING_TIME, BAD_TIME)  # what max_bad_fraction counts


def needed_columns(source: EventSource) -> list[str]:
    """List the log's columns that are read, each once."""
    return list(dict.fromkeys([*used_columns(source), *(exclusion.column for exclusion in source.exclude)]))


def used_columns(source: EventSource) -> list[str]:
    """List the columns that events are made of."""
    return [source.user, source.item, source.time, *filter(None, (source.tie_break, source.event_type))]


@dataclass(frozen=True)
class Normalised:
    """What became of a block.

    events : the rows kept, in the order of the block.
    set_aside : count of the others by reason; the first reason that applies counts, in the order of the tests.
    examples : by reason, the column and its value in the first of them.
    notes : of exclusions by number, how many values were numbers, and how many were not.
    types : rows by event type, of all rows, the commonest MANY_TYPES.
    quarantine : those of them that are no good (not those of another event type), as text: reason, then the columns.
    """

    events: pa.Table
    set_aside: Counter[str]
    quarantine: pa.Table
    examples: dict[str, str]
    notes: tuple[Note, ...] = ()
    types: Counter[str] = field(default_factory=Counter)


def normalise(block: pa.Table, source: EventSource, unit: TimeUnit, where: str) -> Normalised:
    """Clean one block.

    Raises
    ------
    UserError
        If a column's type cannot serve its purpose; the text names `where` and the column.
    """
    given = {name: without_nulls(block[name], source.null_values) for name in dict.fromkeys(used_columns(source))}
    user = canonical(given[source.user], f"{where}: user column {source.user!r}")
    item = canonical(given[source.item], f"{where}: item column {source.item!r}")
    raw_time = given[source.time]
    label = f"{where}: time column {source.time!r}"
    time = parse_times(raw_time, unit, label, source.time_unit, source.time_format)
    tests = [
        (MISSING_USER, source.user, _mask(pc.is_null(user))),
        (MISSING_ITEM, source.item, _mask(pc.is_null(item))),
        (MISSING_TIME, source.time, _mask(pc.is_null(raw_time, nan_is_null=True))),
        (BAD_TIME, source.time, _mask(pc.is_null(time))),
        *((rule.reason, rule.column, excluded(block[rule.column], rule, where)) for rule in source.exclude),
    ]
    columns = {"user": user, "item": item, "time": time}
    types: Counter[str] = Counter()
    if source.tie_break is not None:
        label = f"{where}: tie_break column {source.tie_break!r}"
        tie = given[source.tie_break]
        columns["tie"] = tie_of(tie, label)
    if source.event_type is not None:
        columns["type"] = _as_text(given[source.event_type], f"{where}: event_type column {source.event_type!r}")
        counted = columns["type"].drop_null().value_counts().to_pylist()
        types = Counter({each["values"]: each["counts"] for each in counted})
        if source.keep_types is not None:
            kept = pc.is_in(columns["type"], value_set=pa.array(source.keep_types, pa.string()))
            tests.append((OTHER_TYPE, source.event_type, ~_mask(kept)))
    keep = np.ones(block.num_rows, bool)
    set_aside: Counter[str] = Counter()
    bad: list[tuple[str, Rows]] = []
    examples: dict[str, str] = {}
    for reason, name, hit in tests:
        rows = np.flatnonzero(hit & keep)
        if len(rows):
            set_aside[reason] += len(rows)
            if (value := block[name][int(rows[0])].as_py()) is not None:
                examples.setdefault(reason, f"{name}={value!r}"[:LONGEST_EXAMPLE])
            keep[rows] = False
            if reason != OTHER_TYPE:
                bad.append((reason, rows))
    events = pa.table(columns)
    if not keep.all():
        events = events.filter(pa.array(keep))
    notes = tuple(note for rule in source.exclude for note in _numbers_seen(block[rule.column], rule))
    return Normalised(
        events, set_aside, _quarantine(block, bad), examples, notes, Counter(dict(types.most_common(MANY_TYPES)))
    )


def _quarantine(block: pa.Table, bad: list[tuple[str, Rows]]) -> pa.Table:
    """Write the rows as text, block by block in the order of the reasons."""
    rows = pa.array(np.concatenate([np.zeros(0, np.int64), *(found for _, found in bad)]))
    reasons = pa.concat_arrays([pa.array([], pa.string()), *(pa.array([reason] * len(found)) for reason, found in bad)])
    texts = {name: as_text(as_array(block[name]).take(rows)) for name in block.column_names}
    return pa.table({"reason": reasons, **texts})


def as_text(column: Any) -> pa.Array:
    """Write any column as text that a person can read."""
    array = as_array(column)
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())


def excluded(column: Any, rule: Exclusion, where: str) -> Mask:
    """Find the rows that an exclusion sets aside, (n,) bool; a missing value is never excluded."""
    label = f"{where}: column {rule.column!r} of exclusion {rule.reason!r}"
    array = as_array(column)
    if rule.below is not None:
        if pa.types.is_string(array.type):
            array = text_numbers(array)
        if not (is_numeric(array.type) or pa.types.is_null(array.type)):
            raise UserError(f"{label}: type {array.type} has no 'below'; use prefix or values")
        return _mask(pc.less(array.cast(pa.float64()), rule.below))
    text = _as_text(array, label)
    if rule.prefix is not None:
        return _mask(pc.starts_with(text, rule.prefix))
    wanted = pa.array([str(value) for value in rule.values or []], pa.string())
    return _mask(pc.is_in(text, value_set=wanted)) & _mask(pc.is_valid(text))


def numbers_note(rule: Exclusion, are_numbers: bool) -> str:
    """Name the note of how many values an exclusion by number has met that were numbers, or were not."""
    return f"values of {rule.column!r} that are {'' if are_numbers else 'no '}numbers, for exclusion {rule.reason!r}"


def _numbers_seen(column: Any, rule: Exclusion) -> Iterator[Note]:
    """Count the numbers and the others in text that is compared with a number."""
    array = as_array(column)
    if rule.below is None or not pa.types.is_string(array.type):
        return
    given = without_nulls(array, NULL_WORDS)
    numbers = text_numbers(given)
    wrong = given.filter(pc.and_(pc.is_null(numbers), pc.is_valid(given)))
    for are_numbers, count, example in (
        (True, len(array) - numbers.null_count, ""),
        (False, len(wrong), wrong[0].as_py() if len(wrong) else ""),
    ):
        if count:
            yield numbers_note(rule, are_numbers), count, example


def text_numbers(text: pa.Array) -> pa.Array:
    """Parse text as float64, null where it is no number."""
    numbers = pd.to_numeric(pd.Series(text.to_numpy(zero_copy_only=False), dtype=object), errors="coerce")
    return pa.array(numbers.to_numpy(np.float64), from_pandas=True)


def _as_text(column: Any, label: str) -> pa.Array:
    try:
        return as_array(column).cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(f"{label}: its values cannot be compared as text") from None


def _mask(flags: Any) -> Mask:
    if flags.null_count:
        flags = pc.fill_null(flags, False)
    return np.array(flags.to_numpy(zero_copy_only=False), bool)

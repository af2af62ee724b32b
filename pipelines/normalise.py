"""One raw block of the event log -> clean events, and a count of the rows set aside by reason.

Columns out: user, item (int64, uint64 or string), time (int64: microseconds UTC, or the log's plain numbers), then
tie (int64) and type (string) where configured. Pure Arrow and NumPy; no Ray.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import EventSource, Exclusion
from pipelines.errors import UserError
from pipelines.ids import as_array, canonical

TimeUnit = Literal["us", "number"]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

UNREADABLE = "unreadable row"
MISSING_USER = "missing user"
MISSING_ITEM = "missing item"
MISSING_TIME = "missing time"
BAD_TIME = "time cannot be parsed"
OTHER_TYPE = "other event type"
MALFORMED = (UNREADABLE, MISSING_USER, MISSING_ITEM, MISSING_TIME, BAD_TIME)  # what max_bad_fraction counts

_NUMBER_TEXT = r"^\s*[-+]?[0-9]+(\.[0-9]*)?\s*$"
_FIRST_TIE = np.iinfo(np.int64).min  # a missing tie_break sorts first


def needed_columns(source: EventSource) -> list[str]:
    """The log's columns that are read, each once."""
    optional = [source.tie_break, source.event_type, *(exclusion.column for exclusion in source.exclude)]
    return list(dict.fromkeys([source.user, source.item, source.time, *(name for name in optional if name)]))


def time_unit(column: Any, where: str) -> TimeUnit:
    """What the time column of a first block holds: instants ("us") or plain numbers.

    Raises
    ------
    UserError
        If its type is neither a timestamp, a date, a number nor text.
    """
    array = as_array(column)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return "us"
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type):
        return "number"
    if pa.types.is_string(array.type):
        numbers = pc.sum(pc.match_substring_regex(array, _NUMBER_TEXT)).as_py() or 0
        return "number" if 2 * numbers >= max(1, len(array) - array.null_count) else "us"
    raise UserError(f"{where}: type {array.type} cannot be a time; use timestamps, dates, numbers or ISO text")


def parse_times(column: Any, unit: TimeUnit, where: str) -> pa.Array:
    """Times as int64, null where missing or not parseable.

    "us": microseconds since 1970 UTC; instants without a zone are taken as UTC. "number": the number itself, a
    fraction cut off.
    """
    array = as_array(column)
    kind = array.type
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.int64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if unit != "us":
            raise UserError(f"{where}: holds timestamps, but the log began with numbers; use one kind of time")
        return array.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False).view(
            pa.int64()
        )
    if pa.types.is_string(kind) and unit == "us":
        return _parse_iso(array)
    if unit == "us" or not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"{where}: holds {kind}, but the log began with another kind of time; use one kind")
    if pa.types.is_string(kind):
        numeric = pc.match_substring_regex(array, _NUMBER_TEXT)
        text = pc.utf8_trim_whitespace(pc.if_else(numeric, array, pa.scalar(None, pa.string())))
        whole = pc.replace_substring_regex(text, r"^\+|\.[0-9]*$", "")
        array = pc.if_else(pc.less_equal(pc.utf8_length(whole), 18), whole, pa.scalar(None, pa.string()))
    elif pa.types.is_floating(kind):
        fits = pc.and_(pc.is_finite(array), pc.less(pc.abs(array), 2.0**63))
        array = pc.floor(pc.if_else(fits, array, pa.scalar(None, kind)))
    try:
        return array.cast(pa.int64())
    except pa.ArrowInvalid:
        raise UserError(f"{where}: a number above 2^63 cannot be a time") from None


def _parse_iso(text: pa.Array) -> pa.Array:
    """ISO 8601 text -> int64 microseconds UTC, null where it is none (Arrow would refuse the whole column)."""
    encoded = text.dictionary_encode()
    values = pd.Series(encoded.dictionary.to_numpy(zero_copy_only=False), dtype=object)
    instants = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
    stamps = pa.array(instants.dt.tz_localize(None).astype("datetime64[us]"), pa.timestamp("us"))
    return stamps.view(pa.int64()).take(encoded.indices)


@dataclass(frozen=True)
class Normalised:
    """What became of a block.

    events : the rows kept, in the order of the block.
    set_aside : count of the others by reason; the first reason that applies counts, in the order of the tests.
    quarantine : those of them that are no good (not those of another event type), as text: reason, then the columns.
    """

    events: pa.Table
    set_aside: Counter[str]
    quarantine: pa.Table


def normalise(block: pa.Table, source: EventSource, unit: TimeUnit, where: str) -> Normalised:
    """Clean one block.

    Raises
    ------
    UserError
        If a column's type cannot serve its purpose; the text names `where` and the column.
    """
    user = canonical(block[source.user], f"{where}: user column {source.user!r}")
    item = canonical(block[source.item], f"{where}: item column {source.item!r}")
    raw_time = as_array(block[source.time])
    time = parse_times(raw_time, unit, f"{where}: time column {source.time!r}")
    tests = [
        (MISSING_USER, _mask(pc.is_null(user))),
        (MISSING_ITEM, _mask(pc.is_null(item))),
        (MISSING_TIME, _mask(pc.is_null(raw_time, nan_is_null=True))),
        (BAD_TIME, _mask(pc.is_null(time))),
        *((rule.reason, excluded(block[rule.column], rule, where)) for rule in source.exclude),
    ]
    columns = {"user": user, "item": item, "time": time}
    if source.tie_break is not None:
        label = f"{where}: tie_break column {source.tie_break!r}"
        tie = block[source.tie_break]
        columns["tie"] = parse_times(tie, time_unit(tie, label), label).fill_null(_FIRST_TIE)
    if source.event_type is not None:
        columns["type"] = _as_text(block[source.event_type], f"{where}: event_type column {source.event_type!r}")
        if source.keep_types is not None:
            kept = pc.is_in(columns["type"], value_set=pa.array(source.keep_types, pa.string()))
            tests.append((OTHER_TYPE, ~_mask(kept)))
    keep = np.ones(block.num_rows, bool)
    set_aside: Counter[str] = Counter()
    bad: list[tuple[str, Rows]] = []
    for reason, hit in tests:
        rows = np.flatnonzero(hit & keep)
        if len(rows):
            set_aside[reason] += len(rows)
            keep[rows] = False
            if reason != OTHER_TYPE:
                bad.append((reason, rows))
    events = pa.table(columns)
    if not keep.all():
        events = events.filter(pa.array(keep))
    return Normalised(events, set_aside, _quarantine(block, bad))


def _quarantine(block: pa.Table, bad: list[tuple[str, Rows]]) -> pa.Table:
    """The rows as text, block by block in the order of the reasons."""
    rows = block.take(pa.array(np.concatenate([np.zeros(0, np.int64), *(found for _, found in bad)])))
    reasons = pa.concat_arrays([pa.array([], pa.string()), *(pa.array([reason] * len(found)) for reason, found in bad)])
    texts = {name: as_text(column) for name, column in zip(rows.column_names, rows.columns, strict=True)}
    return pa.table({"reason": reasons, **texts})


def as_text(column: Any) -> pa.Array:
    """Any column as text that a person can read."""
    array = as_array(column)
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())


def excluded(column: Any, rule: Exclusion, where: str) -> Mask:
    """The rows that an exclusion sets aside, (n,) bool; a missing value is never excluded."""
    label = f"{where}: column {rule.column!r} of exclusion {rule.reason!r}"
    array = as_array(column)
    if rule.below is not None:
        if pa.types.is_string(array.type):
            array = text_numbers(array)
        if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
            raise UserError(f"{label}: type {array.type} has no 'below'; use prefix or values")
        return _mask(pc.less(array.cast(pa.float64()), rule.below))
    text = _as_text(array, label)
    if rule.prefix is not None:
        return _mask(pc.starts_with(text, rule.prefix))
    wanted = pa.array([str(value) for value in rule.values or []], pa.string())
    return _mask(pc.is_in(text, value_set=wanted)) & _mask(pc.is_valid(text))


def text_numbers(text: pa.Array) -> pa.Array:
    """Text as float64, null where it is no number."""
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

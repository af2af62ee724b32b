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

from pipelines.config.schema import EventSource, Exclusion
from pipelines.errors import UserError
from pipelines.log.ids import as_array, canonical
from pipelines.log.null_words import without_nulls

TimeUnit = Literal["us", "number"]
EpochUnit = Literal["s", "ms", "us", "ns"]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

UNREADABLE = "unreadable row"
MISSING_USER = "missing user"
MISSING_ITEM = "missing item"
MISSING_TIME = "missing time"
BAD_TIME = "time cannot be parsed"
OTHER_TYPE = "other event type"
MALFORMED = (UNREADABLE, MISSING_USER, MISSING_ITEM, MISSING_TIME, BAD_TIME)  # what max_bad_fraction counts

_LAST = np.iinfo(np.int64).max
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}  # per unit
_DAY = 86_400 * 10**6  # microseconds
_NUMBER_TEXT = r"^\s*[-+]?[0-9]+(\.[0-9]*)?\s*$"
_FIRST_TIE = np.iinfo(np.int64).min  # a missing tie_break sorts first


def needed_columns(source: EventSource) -> list[str]:
    """List the log's columns that are read, each once."""
    return list(dict.fromkeys([*used_columns(source), *(exclusion.column for exclusion in source.exclude)]))


def used_columns(source: EventSource) -> list[str]:
    """List the columns that events are made of."""
    return [source.user, source.item, source.time, *filter(None, (source.tie_break, source.event_type))]


def time_unit(column: Any, where: str) -> TimeUnit:
    """Say what the time column of a first block holds: instants ("us") or plain numbers.

    Raises
    ------
    UserError
        If its type is neither a timestamp, a date, a number nor text.
    """
    array = as_array(column)
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        return "us"
    if _is_numeric(array.type) or pa.types.is_null(array.type):
        return "number"
    if pa.types.is_string(array.type):
        numbers = pc.sum(pc.match_substring_regex(array, _NUMBER_TEXT)).as_py() or 0
        given = len(array) - array.null_count - (pc.sum(pc.equal(array, "")).as_py() or 0)
        return "number" if 2 * numbers >= given else "us"
    raise UserError(f"{where}: type {array.type} cannot be a time; use timestamps, dates, numbers or ISO text")


def parse_times(column: Any, unit: TimeUnit, where: str, epoch: EpochUnit | None = None) -> pa.Array:
    """Parse times as int64, null where missing or not parseable, among them those that int64 cannot hold.

    Parameters
    ----------
    column
        Arrow array of timestamps, dates, numbers or text.
    unit
        "us": microseconds since 1970 UTC; instants without a zone are taken as UTC. "number": the number itself, a
        fraction cut off.
    where
        Names the file and column in an error.
    epoch
        What numbers count since 1970 UTC if `unit` is "us"; without it they are an error there.

    Raises
    ------
    UserError
        If the column's type is none of these, or another kind of time than `unit`.
    """
    array = as_array(column)
    kind = array.type
    is_text = pa.types.is_string(kind)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.int64())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if unit != "us":
            raise UserError(f"{where}: holds timestamps, but the log began with numbers; use one kind of time")
        return _instants(array)
    if _is_numeric(kind) and unit == "us" and epoch is None:
        raise UserError(f"{where}: holds numbers, but the log began with instants; set time_unit to what they count")
    if not (is_text or _is_numeric(kind)):
        raise UserError(f"{where}: holds {kind}, but the log began with another kind of time; use one kind")
    if unit == "number":
        return _number(array)[0]
    if not is_text:
        return _microseconds(*_number(array), epoch)
    if epoch is None:
        return _parse_iso(array)
    others = pc.if_else(pc.match_substring_regex(array, _NUMBER_TEXT), pa.scalar(None, pa.string()), array)
    return pc.coalesce(_microseconds(*_number(array), epoch), _parse_iso(others))


def _is_numeric(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _instants(array: pa.Array) -> pa.Array:
    """Timestamps and dates -> int64 microseconds UTC. No cast, in which a date too far away becomes a near one."""
    kind = array.type
    if pa.types.is_date32(kind):
        return _times(array.view(pa.int32()).cast(pa.int64()), _DAY)
    return _microseconds(array.view(pa.int64()), None, "ms" if pa.types.is_date64(kind) else kind.unit)


def _number(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """Numbers or their text -> int64 without the fraction, null where int64 cannot hold it; and float64, the fraction.

    Text is cut in two, so that a number of 19 digits loses none.
    """
    kind = array.type
    if pa.types.is_floating(kind):
        values = array.cast(pa.float64())
        values = pc.if_else(pc.less(pc.abs(values), 2.0**63), values, pa.scalar(None, pa.float64()))
        whole = pc.trunc(values)
        return whole.cast(pa.int64()), pc.subtract(values, whole)
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            array = pc.if_else(pc.less_equal(array, pa.scalar(_LAST, kind)), array, pa.scalar(None, kind))
        return array.cast(pa.int64()), None
    text = array.cast(pa.string())
    text = pc.utf8_trim_whitespace(
        pc.if_else(pc.match_substring_regex(text, _NUMBER_TEXT), text, pa.scalar(None, pa.string()))
    )
    sign = pc.if_else(pc.starts_with(text, "-"), -1, 1)
    digits = pc.replace_substring_regex(text, r"^[-+]|\.[0-9]*$", "")
    digits = pc.if_else(pc.less_equal(pc.utf8_length(digits), 19), digits, pa.scalar(None, pa.string()))
    whole = pc.multiply(_number(digits.cast(pa.uint64()))[0], sign)
    if not pc.any(pc.match_substring(text, "."), min_count=0).as_py():
        return whole, None
    fraction = pc.replace_substring_regex(text, r"^[-+]?[0-9]+\.?", "0.").cast(pa.float64())
    return whole, pc.multiply(fraction, sign.cast(pa.float64()))


def _microseconds(whole: pa.Array, fraction: pa.Array | None, epoch: EpochUnit | None) -> pa.Array:
    """Numbers of `epoch` -> microseconds, int64, null where it cannot hold them; what is finer is rounded."""
    if epoch == "ns":
        return pc.if_else(pc.is_valid(whole), pa.array(whole.fill_null(0).to_numpy() // 1000), whole)
    assert epoch is not None
    scale = _MICROSECONDS[epoch]
    times = _times(whole, scale)
    if fraction is None:
        return times
    return pc.add(times, pc.round(pc.multiply(fraction, float(scale))).cast(pa.int64()))


def _times(whole: pa.Array, scale: int) -> pa.Array:
    """Multiply, null where int64 cannot hold the product and a fraction besides."""
    limit = _LAST // scale - 1
    fits = pc.and_(pc.less_equal(whole, limit), pc.greater_equal(whole, -limit))
    return pc.multiply(pc.if_else(fits, whole, pa.scalar(None, pa.int64())), scale)


def _parse_iso(text: pa.Array) -> pa.Array:
    """ISO 8601 text -> int64 microseconds UTC, null where it is none (Arrow would refuse the whole column)."""
    encoded = text.dictionary_encode()
    times = _strict_iso(encoded.dictionary)
    if times.null_count:
        times = pc.coalesce(times, _strict_iso(_tidy(pc.if_else(pc.is_null(times), encoded.dictionary, None))))
    return times.take(encoded.indices)


def _strict_iso(text: pa.Array) -> pa.Array:
    values = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    instants = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
    stamps = pa.array(instants.dt.tz_localize(None).astype("datetime64[us]"), pa.timestamp("us"))
    return stamps.view(pa.int64())


def _tidy(text: pa.Array) -> pa.Array:
    """Undo what writers of ISO text do otherwise than pandas reads it."""
    text = pc.ascii_upper(pc.utf8_trim_whitespace(text))
    text = pc.replace_substring_regex(text, r" UTC$", "Z")  # BigQuery
    return pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")  # among nanoseconds, pandas ends in 2262


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
    given = {name: without_nulls(block[name], source.null_values) for name in dict.fromkeys(used_columns(source))}
    user = canonical(given[source.user], f"{where}: user column {source.user!r}")
    item = canonical(given[source.item], f"{where}: item column {source.item!r}")
    raw_time = given[source.time]
    time = parse_times(raw_time, unit, f"{where}: time column {source.time!r}", source.time_unit)
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
        tie = given[source.tie_break]
        columns["tie"] = parse_times(tie, time_unit(tie, label), label).fill_null(_FIRST_TIE)
    if source.event_type is not None:
        columns["type"] = _as_text(given[source.event_type], f"{where}: event_type column {source.event_type!r}")
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
        if not (_is_numeric(array.type) or pa.types.is_null(array.type)):
            raise UserError(f"{label}: type {array.type} has no 'below'; use prefix or values")
        return _mask(pc.less(array.cast(pa.float64()), rule.below))
    text = _as_text(array, label)
    if rule.prefix is not None:
        return _mask(pc.starts_with(text, rule.prefix))
    wanted = pa.array([str(value) for value in rule.values or []], pa.string())
    return _mask(pc.is_in(text, value_set=wanted)) & _mask(pc.is_valid(text))


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

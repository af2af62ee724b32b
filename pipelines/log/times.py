"""Times of any writer -> int64: microseconds since 1970 UTC, or the log's plain numbers. Pure Arrow; no Ray."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.log.ids import as_array

TimeUnit = Literal["us", "number"]
EpochUnit = Literal["s", "ms", "us", "ns"]

ACCEPTED = (
    "timestamps, dates, numbers, ISO text as 2024-01-31T08:26:00Z, or text of any form that time_format: says, such as "
    "'%d.%m.%Y %H:%M'"
)
_LAST = np.iinfo(np.int64).max
_MICROSECONDS = {"s": 10**6, "ms": 10**3, "us": 1}  # per unit
_DAY = 86_400 * 10**6  # microseconds
_NUMBER_TEXT = r"^\s*[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?\s*$"
_DATES = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y",
          "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%m %d, %Y", "%Y.%m.%d")  # fmt: skip
_HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S", ", %I:%M %p")
_WHOLE = ("%a, %d %b %Y %H:%M:%S %Z", "%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y",
          "%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %I:%M %p", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %H.%M.%S")  # fmt: skip
FORMATS = (*(f"{date}{hour}" for date in _DATES for hour in _HOURS), *_WHOLE)
"""What is tried where text is neither a number nor ISO 8601."""
_LOOKED_AT = 50  # distinct values that rule most of them out
_MOST = 0.9  # of the distinct values that a format must read


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
    if is_numeric(array.type) or pa.types.is_null(array.type):
        return "number"
    if pa.types.is_string(array.type):
        numbers = pc.sum(is_number(array)).as_py() or 0
        given = len(array) - array.null_count - (pc.sum(pc.equal(array, "")).as_py() or 0)
        return "number" if 2 * numbers >= given else "us"
    raise UserError(f"{where}: type {array.type} cannot be a time; use {ACCEPTED}")


def time_format(texts: Iterable[pa.Array], where: str) -> str | None:
    """Find the form in which text says times; None: ISO 8601, or none that is known.

    texts : a column, block by block; it is read on as long as the day and the month might change places.

    Raises
    ------
    UserError
        If they might in all of it.

    >>> time_format([pa.array(["3/4/2010 8:26", "3/14/2010 9:00"])], "")
    '%m/%d/%Y %H:%M'
    """
    forms, example = time_formats(texts)
    if len(forms) > 1:
        told = " or ".join(map(repr, forms))
        raise UserError(f"{where}: {example!r} may be {told}; set time_format: to the one that it is")
    return forms[0] if forms else None


def time_formats(texts: Iterable[pa.Array]) -> tuple[list[str], str]:
    """Find the forms in which text may say times, and a value that may be in any of them.

    Of ISO 8601, and of what is in no known form, there are none. texts : as `time_format` has them.
    """
    found: list[str] | None = None
    example = ""
    for text in texts:
        values = pc.unique(pc.utf8_trim_whitespace(as_array(text).drop_null()))
        values = values.filter(pc.not_equal(values, ""))
        if not len(values):
            continue
        if found is None:
            sample = values.slice(0, _LOOKED_AT)
            if 2 * (len(sample) - _parse_iso(sample).null_count) >= len(sample):
                return [], ""
            found = [form for form in FORMATS if share_in(sample, form) >= _MOST]
        shares = {form: share_in(values, form) for form in found}
        found = [form for form in found if shares[form] >= _MOST and shares[form] == max(shares.values())]
        example = values[0].as_py()
        if len(found) <= 1:
            break
    return found or [], example


def share_in(texts: pa.Array, form: str) -> float:
    """Return the share of texts that a form reads, 0 of none."""
    parsed = _formatted(texts, form)
    return 1 - float(parsed.null_count) / len(parsed) if len(parsed) else 0.0


def parse_times(
    column: Any, unit: TimeUnit, where: str, epoch: EpochUnit | None = None, form: str | None = None
) -> pa.Array:
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
    form
        Of text, and of numbers as 20240131, as strptime takes it; ISO text is read beside it.

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
    if is_numeric(kind) and form is not None and epoch is None:  # 20240131
        return _parse_text(number_of(array)[0].cast(pa.string()), form)
    if is_numeric(kind) and unit == "us" and epoch is None:
        raise UserError(f"{where}: holds numbers, but the log began with instants; set time_unit to what they count")
    if not (is_text or is_numeric(kind)):
        raise UserError(f"{where}: holds {kind}, but the log began with another kind of time; use one kind")
    if unit == "number":
        return number_of(array)[0]
    if not is_text:
        return _microseconds(*number_of(array), epoch)
    if epoch is None:
        return _parse_text(array, form)
    others = pc.if_else(is_number(array), pa.scalar(None, pa.string()), array)
    return pc.coalesce(_microseconds(*number_of(array), epoch), _parse_text(others, form))


def is_number(text: pa.Array) -> pa.Array:
    """Say of each text whether it is a number; null where it is null."""
    return pc.match_substring_regex(text, _NUMBER_TEXT)


def is_numeric(kind: pa.DataType) -> bool:
    """Say whether values are numbers."""
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _instants(array: pa.Array) -> pa.Array:
    """Timestamps and dates -> int64 microseconds UTC. No cast, in which a date too far away becomes a near one."""
    kind = array.type
    if pa.types.is_date32(kind):
        return _times(array.view(pa.int32()).cast(pa.int64()), _DAY)
    return _microseconds(array.view(pa.int64()), None, "ms" if pa.types.is_date64(kind) else kind.unit)


def number_of(array: pa.Array) -> tuple[pa.Array, pa.Array | None]:
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
    text = pc.utf8_trim_whitespace(pc.if_else(is_number(text), text, pa.scalar(None, pa.string())))
    powers = pc.match_substring_regex(text, "[eE]")
    if pc.any(powers, min_count=0).as_py():
        big = number_of(pc.if_else(powers, text, pa.scalar(None, pa.string())).cast(pa.float64()))
        small = number_of(pc.if_else(powers, pa.scalar(None, pa.string()), text))
        fraction = pc.coalesce(big[1], pa.nulls(len(text), pa.float64()) if small[1] is None else small[1])
        return pc.coalesce(big[0], small[0]), fraction.fill_null(0.0)
    sign = pc.if_else(pc.starts_with(text, "-"), -1, 1)
    digits = pc.replace_substring_regex(text, r"^[-+]|\.[0-9]*$", "")
    digits = pc.if_else(pc.less_equal(pc.utf8_length(digits), 19), digits, pa.scalar(None, pa.string()))
    whole = pc.multiply(number_of(digits.cast(pa.uint64()))[0], sign)
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


def _parse_text(text: pa.Array, form: str | None) -> pa.Array:
    if form is None:
        return _parse_iso(text)
    encoded = text.dictionary_encode()
    values = pc.utf8_trim_whitespace(encoded.dictionary)
    times = _formatted(values, form)
    if times.null_count:
        times = pc.coalesce(times, _parse_iso(pc.if_else(pc.is_null(times), values, pa.scalar(None, pa.string()))))
    return times.take(encoded.indices)


def _formatted(text: pa.Array, form: str) -> pa.Array:
    """Text of one form -> int64 microseconds UTC, null where it is of another."""
    values = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    return _stamps(pd.to_datetime(values, format=form, utc=True, errors="coerce"))


def _stamps(instants: pd.Series[Any]) -> pa.Array:
    stamps = pa.array(instants.dt.tz_localize(None).astype("datetime64[us]"), pa.timestamp("us"))
    return stamps.view(pa.int64())


def _parse_iso(text: pa.Array) -> pa.Array:
    """ISO 8601 text -> int64 microseconds UTC, null where it is none (Arrow would refuse the whole column)."""
    encoded = text.dictionary_encode()
    times = _strict_iso(encoded.dictionary)
    if times.null_count:
        times = pc.coalesce(times, _strict_iso(_tidy(pc.if_else(pc.is_null(times), encoded.dictionary, None))))
    return times.take(encoded.indices)


def _strict_iso(text: pa.Array) -> pa.Array:
    values = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    return _stamps(pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce"))


def _tidy(text: pa.Array) -> pa.Array:
    """Undo what writers of ISO text do otherwise than pandas reads it."""
    text = pc.ascii_upper(pc.utf8_trim_whitespace(text))
    text = pc.replace_substring_regex(text, r" UTC$", "Z")  # BigQuery
    return pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")  # among nanoseconds, pandas ends in 2262

"""What orders events of equal time, `tie_break`: numbers with their fractions, times, or text. Pure Arrow; no Ray.

A block is kept as it came, as what a column is shows only over the whole log: `tie_kind` of each block, `common_tie` of
all of them, and `as_tie` brings each to that.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.log.ids import as_array
from pipelines.log.times import is_number, is_numeric, number_of, parse_times

WHOLE, NUMBER, TIME, TEXT = "whole", "number", "time", "text"


def tie_of(column: Any, where: str) -> pa.Array:
    """Bring a block's column to int64, float64, timestamps in microseconds, or text as it is.

    Raises
    ------
    UserError
        If its type has no order.
    """
    array = as_array(column)
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_null(kind):
        return array.cast(pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return parse_times(array, "us", where).cast(pa.timestamp("us"))
    if is_numeric(kind):
        whole, fraction = number_of(array)
        if fraction is None and whole.null_count == array.null_count:
            return whole
        return array.cast(pa.float64(), safe=False)
    raise UserError(f"{where}: values of type {kind} have no order; use numbers, times or text")


def tie_kind(tie: pa.Array) -> str:
    """Say what a block of `tie_of` holds; text may turn out to be numbers or times."""
    if pa.types.is_int64(tie.type):
        return WHOLE
    if pa.types.is_floating(tie.type):
        return NUMBER
    if pa.types.is_timestamp(tie.type):
        return TIME
    text = tie.drop_null()
    if not len(text):
        return f"{TEXT} nothing"
    if pc.all(is_number(text)).as_py():
        whole, fraction = number_of(text)
        exact = whole.null_count == 0 and (fraction is None or not pc.any(pc.not_equal(fraction, 0.0)).as_py())
        return f"{TEXT} {WHOLE if exact else NUMBER}"
    if not pc.any(is_number(text)).as_py() and not parse_times(text, "us", "").null_count:
        return f"{TEXT} {TIME}"
    return f"{TEXT} {TEXT}"


def common_tie(kinds: Collection[str], where: str) -> str:
    """Find what the column is as a whole.

    Raises
    ------
    UserError
        If some files hold times, and others hold something else.

    >>> common_tie({"whole", "text number"}, ""), common_tie({"text whole", "text text"}, "")
    ('number', 'text')
    """
    found = {kind.removeprefix(f"{TEXT} ") for kind in kinds} - {"nothing"}
    if not found:
        return TEXT
    if len(found) == 1:
        return found.pop()
    if found == {WHOLE, NUMBER}:
        return NUMBER
    if TIME in kinds:
        raise UserError(f"{where}: holds times in one file and other values in another; use one kind")
    return TEXT


def as_tie(tie: Any, kind: str) -> pa.Array:
    """Bring a block of `tie_of` to the kind of the whole column, without nulls: what is missing comes first."""
    array = as_array(tie)
    if kind == TEXT:
        return array.cast(pa.string()).fill_null("")
    if kind == TIME:
        times = parse_times(array, "us", "") if pa.types.is_string(array.type) else array.cast(pa.int64())
        return times.fill_null(-(2**63))
    if kind == WHOLE:
        return number_of(array)[0].fill_null(-(2**63))
    if pa.types.is_string(array.type):
        array = pc.utf8_trim_whitespace(pc.replace_substring_regex(array, r"^\s*\+", ""))
    numbers = array.cast(pa.float64(), safe=False)
    return pc.if_else(pc.or_kleene(pc.is_null(numbers), pc.is_nan(numbers)), float("-inf"), numbers)

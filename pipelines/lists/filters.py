"""A filter met with the columns of a model's items: which items it lets in. By pyarrow's compute functions.

As in SQL, a comparison with an empty value is neither true nor false, and lets the item out. Where a column holds
several values an item (genres, tags), `=` and `in` ask whether one of them is such a value, `!=` and `not in` whether
none is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.where import All, Compare, Condition, IsNull, IsTrue, Not, OneOf, Value, columns_of
from pipelines.config.where import Any as AnyOf
from pipelines.errors import UserError
from pipelines.lists.columns import ItemColumns
from pipelines.log.ids import as_array

_COMPARE = {"=": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


@dataclass(frozen=True)
class Filtered:
    """What a filter says of each item.

    inside : bool array without nulls, by item.  unknown : items that are out because a value is empty.
    """

    inside: pa.Array
    unknown: int


def filtered(condition: Condition, columns: ItemColumns, asked: str = "lists.where") -> Filtered:
    """Apply a filter.

    Parameters
    ----------
    asked : how a message begins.

    Raises
    ------
    UserError
        For a column that there is not, or a value of a kind that the column does not hold; in one line.
    """
    held = {name: columns.column(name, asked) for name in columns_of(condition)}
    said = as_array(_said(condition, held, asked))
    return Filtered(said.fill_null(False), said.null_count)


def _said(condition: Condition, held: dict[str, pa.Array], asked: str) -> pa.Array:
    """True, false or null by item."""
    if isinstance(condition, Not):
        return pc.invert(_said(condition.of, held, asked))
    if isinstance(condition, All | AnyOf):
        join = pc.and_kleene if isinstance(condition, All) else pc.or_kleene
        first, *others = condition.of
        said = _said(first, held, asked)
        for part in others:
            said = join(said, _said(part, held, asked))
        return said
    array, where = held[condition.column], f"{asked}: column {condition.column!r}"
    if isinstance(condition, IsNull):
        return pc.is_valid(array) if condition.negated else pc.is_null(array, nan_is_null=True)
    if isinstance(condition, IsTrue):
        if not pa.types.is_boolean(array.type) and not pa.types.is_null(array.type):
            raise UserError(f"{where} holds {_kind(array.type)}, not true or false; compare it with a value")
        return array.cast(pa.bool_())
    if _is_list(array.type):
        return _of_lists(condition, array, where)
    return _of_values(condition, array, where)


def _of_values(condition: Compare | OneOf, array: pa.Array, where: str) -> pa.Array:
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if pa.types.is_null(array.type):
        return array.cast(pa.bool_())
    if isinstance(condition, Compare):
        array, value = _alike(array, condition.value, where)
        return pc.call_function(_COMPARE[condition.operator], [array, value])
    said = pa.array(np.zeros(len(array), np.bool_))
    for value in dict.fromkeys(condition.values):
        same_type, scalar = _alike(array, value, where)
        said = pc.or_(said, pc.equal(same_type, scalar))
    return pc.invert(said) if condition.negated else said


def _of_lists(condition: Compare | OneOf, array: pa.Array, where: str) -> pa.Array:
    """Ask whether any value of a list is such a one; null for an item without a list."""
    if isinstance(condition, Compare) and condition.operator not in ("=", "!="):
        raise UserError(f"{where} holds several values an item: it can be asked with =, !=, in (...), not in (...)")
    values = (condition.value,) if isinstance(condition, Compare) else condition.values
    negated = condition.negated if isinstance(condition, OneOf) else condition.operator == "!="
    hit = _of_values(OneOf(condition.column, values, negated=False), as_array(array.flatten()), where)
    row = np.asarray(pc.list_parent_indices(array))[np.asarray(hit.fill_null(False))]
    said = np.zeros(len(array), np.bool_)
    said[row] = True
    return pa.array(said != negated, mask=np.asarray(pc.is_null(array)))


def _alike(array: pa.Array, value: Value, where: str) -> tuple[pa.Array, Any]:
    """A column and a value of one type."""
    kind = array.type
    text = isinstance(value, str)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        fits = text
    elif pa.types.is_boolean(kind):
        fits = isinstance(value, bool)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        fits = not text and not isinstance(value, bool)
    elif text:  # a date or a time, as ISO text
        try:
            return array, pa.scalar(value).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            fits = False
    else:
        fits = False
    if not fits:
        some = next((each for each in array.slice(0, 1000).to_pylist() if each is not None), None)
        like = "" if some is None else f", like {str(some)!r}" if pa.types.is_string(kind) else f", like {some}"
        raise UserError(f"{where} holds {_kind(kind)}{like}; it cannot be compared with {_written(value)}")
    if isinstance(value, float) or (isinstance(value, int) and pa.types.is_floating(kind)):
        return array.cast(pa.float64(), safe=False), pa.scalar(float(value), pa.float64())
    try:
        return array, pa.scalar(value, kind)
    except (pa.ArrowInvalid, OverflowError):  # a number that the column's type cannot hold
        return array.cast(pa.float64(), safe=False), pa.scalar(float(value), pa.float64())


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "text"
    return "true or false" if pa.types.is_boolean(kind) else f"numbers ({kind})" if _is_number(kind) else str(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}' (text)" if isinstance(value, str) else f"{value} (a number; text stands in quotes)"

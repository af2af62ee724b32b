"""Logs with a row a user and a list of events in it, as Yambda has them: a row an event, the rest of the row repeated.

No Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import EventSource
from pipelines.log.ids import as_array

LONGEST_LINE = 1000  # characters of a row that is set aside


def is_list(kind: pa.DataType) -> bool:
    """Say whether values of a type are lists, however they are laid out."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
             pa.types.is_large_list_view)  # fmt: skip
    return any(test(kind) for test in tests)


def row_an_event(table: pa.Table, source: EventSource) -> tuple[pa.Table, list[str]]:
    """Unroll the lists of a block, if its items or times are lists; and write the rows whose lists do not go together.

    Lists of a row must be of one length. A row of empty lists has no event; a missing list is a missing value, so that
    the row is counted and set aside like any other that lacks one.

    >>> block = pa.table({"user": [7], "item": [[1, 2]], "time": [[10, 20]]})
    >>> row_an_event(block, EventSource(path="x"))[0].to_pylist()
    [{'user': 7, 'item': 1, 'time': 10}, {'user': 7, 'item': 2, 'time': 20}]
    """
    names = [name for name in table.column_names if is_list(_plain(table[name].type))]
    if not {source.item, source.time} & set(names):
        return table, []
    lists = {name: _lists(table[name]) for name in names}
    lengths = {name: pc.list_value_length(each).to_numpy() for name, each in lists.items()}
    length = lengths[names[0]]
    agree = np.all([each == length for each in lengths.values()], axis=0)
    wrong = [] if agree.all() else list(_lines(table.filter(pa.array(~agree))))
    kept = pa.array(np.flatnonzero(agree))
    rows = pa.array(np.repeat(kept.to_numpy(), length[agree]))
    columns = {
        name: lists[name].take(kept).flatten() if name in lists else as_array(table[name]).take(rows)
        for name in table.column_names
    }
    return pa.table(columns), wrong


def rows_at_once(rows: int, values: int, most: int) -> int:
    """Say how many rows to read at a time so that no column has more than about `most` values in its lists."""
    return most if values <= rows else max(1, most * rows // values)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _lists(column: pa.ChunkedArray) -> pa.Array:
    """Give a column of lists one layout; a missing list is one of a missing value."""
    array = as_array(column)
    inner = array.type.value_type
    # Arrow chooses between no two lists of values without a type
    kind = pa.large_list(pa.string() if pa.types.is_null(inner) and array.null_count else inner)
    if pa.types.is_list_view(array.type) or pa.types.is_large_list_view(array.type):
        array = pa.array(array.to_pylist(), kind)  # a view's cast has too few offsets, in Arrow 25
    else:
        array = array.cast(kind)
    return pc.if_else(pc.is_null(array), pa.scalar([None], kind), array) if array.null_count else array


def _lines(rows: pa.Table) -> Iterator[str]:
    for row in rows.to_pylist():
        yield json.dumps(row, default=str, ensure_ascii=False)[:LONGEST_LINE]

"""A frame of any library as an Arrow table: pandas, Polars, DuckDB, Arrow itself. None of them is imported for it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.errors import UserError, first_line

VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}  # Polars' own, as Parquet has none


def as_arrow(frame: Any, what: str = "the frame") -> pa.Table:
    """Read a frame as an Arrow table, whose categories are plain values.

    Parameters
    ----------
    frame : pandas or Polars data frame, Arrow table, anything that exports Arrow's C stream, or a mapping of columns.
    what : how a message names it.

    Raises
    ------
    UserError
        For anything else, a column of mixed types, or two columns of one name.

    Examples
    --------
    >>> as_arrow({"user": [1, 1], "item": ["a", "b"]}).schema.types
    [DataType(int64), DataType(string)]
    """
    try:
        table = _read(frame)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{what}: cannot be read as a table ({first_line(error)[:200]})") from None
    if table is None:
        raise UserError(f"{what}: {type(frame).__name__}: must be a pandas or Polars frame, an Arrow table or a "
                        "mapping of columns")  # fmt: skip
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{what}: two columns are named {twice[0]!r}")
    return pa.table({name: _plain(table[name]) for name in names})


def _read(frame: Any) -> pa.Table | None:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if type(frame).__module__.partition(".")[0] == "pandas":  # through the C stream its index would be a column
        return None if frame.ndim != 2 else pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    if hasattr(frame, "collect") and not hasattr(frame, "__arrow_c_stream__"):  # Polars' lazy frame
        frame = frame.collect()
    if hasattr(frame, "__arrow_c_stream__"):
        stream = pa.RecordBatchReader.from_stream(frame)
        return stream.read_all()
    return pa.table(dict(frame)) if hasattr(frame, "keys") else None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        kind = VIEWS.get(column.type.value_type, column.type.value_type)
        column = pa.chunked_array([_decoded(chunk, kind) for chunk in column.chunks], kind)
    return column.cast(VIEWS[column.type]) if column.type in VIEWS else column


def _decoded(chunk: pa.DictionaryArray, kind: pa.DataType) -> pa.Array:
    return chunk.dictionary.cast(kind).take(chunk.indices)

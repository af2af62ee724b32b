"""Tables and texts as files of a home: written aside and renamed, so that a killed writer leaves no torn one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from pipelines.storage.atomic import whole
from pipelines.storage.home_files import fetch


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet in one step, so that a task that is killed and run again leaves one whole file."""
    dictionaries, encodings = [], {}
    for field in table.schema:
        is_list = pa.types.is_list(field.type)
        kind = field.type.value_type if is_list else field.type
        column = f"{field.name}.list.element" if is_list else field.name
        if pa.types.is_int64(kind):
            encodings[column] = "DELTA_BINARY_PACKED"  # ascending, as times and indices are: smaller, and faster read
        elif not pa.types.is_primitive(kind):
            dictionaries.append(column)  # text; numbers are written a third faster without
    with whole(path) as aside:
        pq.write_table(
            table, aside, compression="zstd", use_dictionary=dictionaries or False, column_encoding=encodings
        )


def write_scratch(table: pa.Table, path: Path) -> None:
    """Write Parquet that the next pass reads and deletes: in one step, as fast as it goes."""
    with whole(path) as aside:
        pq.write_table(table, aside, compression="lz4", use_dictionary=False, write_statistics=False)


def write_text(text: str, path: Path) -> None:
    """Write a text file in one step."""
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_arrow(table: pa.Table, path: Path) -> None:
    """Write an Arrow file in one step: aside, then renamed."""
    with whole(path) as aside:
        feather.write_feather(table, aside, compression="lz4", chunksize=max(1, table.num_rows))


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read what `write_table` wrote."""
    return pq.read_table(fetch(path), columns=columns)


def read_arrow(path: str | Path) -> pa.Table:
    """Read what `write_arrow` wrote, into memory."""
    return feather.read_table(fetch(path), memory_map=False)

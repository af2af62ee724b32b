"""The files of a split: how they are written, and how they are read without the rows that `--append` has superseded.

    <dataset>/sequences/<split>/part-NNNNN.parquet
    <dataset>/superseded/<split>/part-NNNNN.parquet     rows of that file that a later file holds anew: row

A superseded row stays where it is: rewriting the whole file for it would cost what a new dataset costs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ids import Int64s


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet in one step, so that a task that is killed and run again leaves one whole file."""
    aside = path.with_suffix(f".writing-{os.getpid()}")
    dictionaries, encodings = [], {}
    for field in table.schema:
        is_list = pa.types.is_list(field.type)
        kind = field.type.value_type if is_list else field.type
        column = f"{field.name}.list.element" if is_list else field.name
        if pa.types.is_int64(kind):
            encodings[column] = "DELTA_BINARY_PACKED"  # ascending, as times and indices are: smaller, and faster read
        elif not pa.types.is_primitive(kind):
            dictionaries.append(column)  # text; numbers are written a third faster without
    pq.write_table(table, aside, compression="zstd", use_dictionary=dictionaries or False, column_encoding=encodings)
    aside.rename(path)


def superseded_file(file: str | Path) -> Path:
    """Where the superseded rows of a split's file are listed, if there are any."""
    path = Path(file)
    return path.parent.parent.parent / "superseded" / path.parent.name / path.name


def superseded(file: str | Path) -> Int64s:
    """The superseded rows of a split's file, ascending."""
    listed = superseded_file(file)
    rows: Int64s = pq.read_table(listed)["row"].to_numpy() if listed.exists() else np.zeros(0, np.int64)
    return rows


def supersede(file: Path, rows: Int64s) -> None:
    """Take rows of a file out of the dataset; those that are listed already are listed once."""
    listed = superseded_file(file)
    listed.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.table({"row": np.union1d(rows, superseded(file)).astype(np.int64)}), listed)


def read_part(file: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a split's file that count."""
    table = pq.read_table(file, columns=columns)
    rows = superseded(file)
    if not len(rows):
        return table
    counts = np.ones(table.num_rows, bool)
    counts[rows] = False
    return table.filter(pa.array(counts))


def part_size(file: str | Path) -> tuple[int, int]:
    """Users and history events of the rows that count; the footer says it, unless rows are superseded."""
    if len(superseded(file)):
        items = read_part(file, ["items"])["items"]
        return len(items), pc.sum(pc.list_value_length(items)).as_py() or 0
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    # an empty list counts as one value there, but then it has no sample either
    return metadata.num_rows, sum(each.num_values for each in columns if each.path_in_schema.startswith("items."))

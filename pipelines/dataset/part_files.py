"""The files of a split: how they are written, and how they are read without the rows that `--append` has superseded.

    <dataset>/sequences/<split>/part-NNNNN.parquet
    <dataset>/superseded/part-NNNNN.parquet           users whose rows in those files a later file holds anew: user

A superseded row stays where it is: rewriting the whole file for it would cost what a new dataset costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.log.ids import Int64s, as_array
from pipelines.storage.home_files import exists, fetch
from pipelines.storage.tables import read_table, write_table


def superseded_file(file: str | Path) -> Path:
    """Say where the superseded users of a split's file are listed, if there are any."""
    path = Path(file)
    return path.parent.parent.parent / "superseded" / path.name


def superseded(file: str | Path) -> pa.Array:
    """Read which users, by index, have rows in a split's file that do not count."""
    listed = superseded_file(file)
    return as_array(read_table(listed)["user"]) if exists(listed) else pa.array([], pa.int64())


def supersede(file: Path, users: Int64s) -> None:
    """Take users' rows out of a split's file, and of the other splits' files of its name."""
    listed = superseded_file(file)
    known = superseded(file).to_numpy()
    write_table(pa.table({"user": np.union1d(users, known).astype(np.int64)}), listed)


def read_part(file: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of a split's file that count."""
    gone = superseded(file)
    if not len(gone):
        return read_table(file, columns)
    table = read_table(file, None if columns is None else list({"user": None, **dict.fromkeys(columns)}))
    table = table.filter(pc.invert(pc.is_in(table["user"], value_set=gone)))
    return table if columns is None else table.select(columns)


def part_size(file: str | Path) -> tuple[int, int]:
    """Count users and history events of the rows that count; the footer says it, unless rows are superseded."""
    if len(superseded(file)):
        items = read_part(file, ["items"])["items"]
        return len(items), pc.sum(pc.list_value_length(items)).as_py() or 0
    metadata = pq.read_metadata(fetch(file))
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    # an empty list counts as one value there, but then it has no sample either
    return metadata.num_rows, sum(each.num_values for each in columns if each.path_in_schema.startswith("items."))

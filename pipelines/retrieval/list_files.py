"""Top-N lists to one file, block by block, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.storage.home_files import push


def write_lists(blocks: Iterable[pa.Table], out: Path) -> int:
    """Write blocks of one schema as .parquet, .csv or .jsonl, by the file's suffix; the number of rows.

    Written aside and renamed when whole: a killed command leaves the older file as it was.

    Raises
    ------
    UserError
        Without any block.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    rows, writer = 0, None
    try:
        for block in blocks:
            if out.suffix == ".csv":
                block = _flat(block)
            writer = writer or _WRITERS[out.suffix](aside, block.schema)
            if block.num_rows:  # of none, JSON lines would get a blank line and Parquet an empty row group
                writer.write(block)
            rows += block.num_rows
        if writer is None:
            raise UserError(f"{out}: nobody to write a list for")
        writer.close()
        aside.replace(out)
        push(out)
    finally:
        aside.unlink(missing_ok=True)
    return rows


class _JsonLines:
    """One object a row, as pandas writes it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, block: pa.Table) -> None:
        block.to_pandas().to_json(self.file, orient="records", lines=True, force_ascii=False)

    def close(self) -> None:
        self.file.close()


_WRITERS: dict[str, Callable[[Path, pa.Schema], Any]] = {
    ".parquet": pq.ParquetWriter,
    ".csv": pyarrow.csv.CSVWriter,
    ".jsonl": _JsonLines,
}


def _flat(block: pa.Table) -> pa.Table:
    """Lists as text, their members separated by |, as a CSV cell cannot hold a list."""
    for place, field in enumerate(block.schema):
        if pa.types.is_list(field.type):
            text = pc.binary_join(block[field.name].cast(pa.list_(pa.string())), "|")
            block = block.set_column(place, field.name, text)
    return block

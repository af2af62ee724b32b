"""Top-N lists to one file, block by block, whole or not at all."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
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
    """One object a row: times as ISO text, objects as objects."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = path.open("w", encoding="utf-8")

    def write(self, block: pa.Table) -> None:
        nested = [field.name for field in block.schema if _is_deep(field.type)]
        frame = _texts(block.drop_columns(nested)).to_pandas()
        for name in nested:
            frame[name] = pd.Series([_jsonable(value) for value in block[name].to_pylist()], dtype=object)
        frame[block.column_names].to_json(self.file, orient="records", lines=True, force_ascii=False)

    def close(self) -> None:
        self.file.close()


_WRITERS: dict[str, Callable[[Path, pa.Schema], Any]] = {
    ".parquet": pq.ParquetWriter,
    ".csv": pyarrow.csv.CSVWriter,
    ".jsonl": _JsonLines,
}


def _flat(block: pa.Table) -> pa.Table:
    """Make every value one that a CSV cell holds: lists as text with | between, objects as JSON, times as ISO text."""
    for place, field in enumerate(block.schema):
        if _is_deep(field.type):
            values = [_jsonable(value) for value in block[field.name].to_pylist()]
            texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
            block = block.set_column(place, field.name, pa.array(texts, pa.string()))
        elif pa.types.is_list(field.type):
            text = pc.binary_join(block[field.name].cast(pa.list_(pa.string())), "|")
            block = block.set_column(place, field.name, text)
    return _texts(block)


def _is_deep(kind: pa.DataType) -> bool:
    """Say whether values are objects, or lists of anything but numbers and text."""
    return pa.types.is_nested(kind) and not (pa.types.is_list(kind) and _is_plain(kind.value_type))


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_null)
    return any(test(kind) for test in tests)


def _texts(block: pa.Table) -> pa.Table:
    """Write what is neither number nor text as text: times in ISO, bytes as they read."""
    for place, field in enumerate(block.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if not _is_plain(kind) and not pa.types.is_nested(kind):
            values = [_jsonable(value) for value in block[field.name].to_pylist()]
            texts = [None if value is None else str(value) for value in values]
            block = block.set_column(place, field.name, pa.array(texts, pa.string()))
    return block


def _jsonable(value: Any) -> Any:
    """Bring a value, at any depth, to what JSON has."""
    if isinstance(value, dict):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

"""Files that lists are ruled by: ids that are denied or allowed, and what is in stock.

A file of ids is Parquet, CSV or JSON lines with a column of ids, or anything else with an id a line. Local or at any
URI that a log may be at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.redact import redact
from pipelines.config.schema import FeatureTable, ListsConfig, StockTable, TableSource
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.errors import UserError
from pipelines.log.formats import absent_note, columns_inside, read_blocks
from pipelines.log.ids import WHOLE_NUMBER, as_array, canonical
from pipelines.log.sources import TEXT_FORMATS, fragments, guess_format, identity, read_source
from pipelines.storage.filesystems import hint, open_filesystem, reason

ID_NAMES = ("id", "item", "item_id")
TABLES = (".parquet", ".pq", ".csv", ".tsv", ".dat", ".jsonl", ".ndjson", ".json")
SHOWN = 3  # ids in a message


@dataclass(frozen=True)
class FoundIds:
    """The ids of a file.

    places : of items that the model knows.  unknown : how many it does not know.  some : of those.
    """

    path: str
    places: pa.Array
    unknown: int
    some: list[str]

    def told(self) -> str | None:
        """Say which ids the model does not know, if any."""
        if not self.unknown:
            return None
        listed = ", ".join(self.some) + (", ..." if self.unknown > len(self.some) else "")
        total = self.unknown + len(self.places)
        return f"{redact(self.path)}: {self.unknown:,} of {total:,} ids are of no item of the model: {listed}"


def read_ids(path: str, items: pa.Array, names: Sequence[str] = ()) -> FoundIds:
    """Read a file of item ids.

    Parameters
    ----------
    items : the ids that the model knows.
    names : of columns that hold ids, beside ID_NAMES; tried first.

    Raises
    ------
    UserError
        If the file cannot be read, has no column of ids, or holds none.
    """
    suffixes = PurePosixPath(path.split("?")[0].lower()).suffixes[-2:]
    if any(suffix in TABLES for suffix in suffixes):
        ids = _column(path, items, [*names, *ID_NAMES])
        from_text = guess_format(path) in TEXT_FORMATS
    else:
        ids, from_text = _lines(path), True
    ids = ids.drop_null().unique()
    if not len(ids):
        raise UserError(f"{redact(path)}: no item id in it")
    found = pc.index_in(_like(ids, items.type, from_text, path), value_set=items)
    missing = ids.filter(pc.is_null(found))
    return FoundIds(path, found.drop_null(), len(missing), [str(each) for each in missing[:SHOWN].to_pylist()])


def _lines(path: str) -> pa.Array:
    """An id a line; blank lines are none."""
    filesystem, where = open_filesystem(path)
    try:
        with filesystem.open_input_stream(where) as stream:
            text = stream.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{redact(path)}: no such file (looked for {where})") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{redact(path)}: cannot be read: {reason(error)}{hint(path)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{redact(path)}: not a text file in UTF-8; a table must end in {', '.join(TABLES)}") from None
    lines = [line.strip() for line in text.splitlines()]
    return pa.array([line for line in lines if line], pa.string())


def _column(path: str, items: pa.Array, names: Sequence[str]) -> pa.Array:
    """The column of a table that holds ids; in a CSV of one column the first line may be an id itself."""
    source = TableSource(path=path)
    (piece, *_) = fragments(source, [])
    if piece.format == "jsonl":  # each line has columns of its own
        first = next(read_blocks(piece, source, list(dict.fromkeys(names))), None)
        notes = () if first is None else first.notes
        absent = {note for note, _, _ in notes}
        present = [name for name in names if absent_note(name) not in absent] or [keys for *_, keys in notes[:1]]
    else:
        present = list(dict.fromkeys([*columns_inside(piece, source), *dict(piece.partition)]))
    name = next((name for name in names if name in present), None)
    if name is None and len(present) == 1 and piece.format != "jsonl":
        name = present[0]
    if name is None:
        raise UserError(f"{redact(path)}: no column of item ids; it must be named {' or '.join(dict.fromkeys(names))}, "
                        f"the file has {', '.join(present) or 'none of them'}")  # fmt: skip
    ids = as_array(read_source(source, [name], id_column=name)[0][name])
    if name not in names and piece.format == "csv" and name in items.cast(pa.string()).to_pylist():
        ids = pa.concat_arrays([pa.array([name]), ids.cast(pa.string())])
    return canonical(ids, f"{redact(path)}: column {name!r}")


def _like(ids: pa.Array, kind: pa.DataType, from_text: bool, path: str) -> pa.Array:
    """Ids of the type that the log has; what cannot be one of it is null."""
    if ids.type == kind:
        return ids
    if from_text and pa.types.is_string(kind):
        return ids.cast(kind)
    if from_text and pa.types.is_string(ids.type):
        whole = pc.and_(pc.match_substring_regex(ids, WHOLE_NUMBER), pc.less(pc.utf8_length(ids), 19))
        return pc.if_else(whole, ids, pa.scalar(None, ids.type)).cast(kind)
    if pa.types.is_integer(ids.type) and pa.types.is_integer(kind):
        return ids.cast(kind)
    raise UserError(f"{redact(path)}: holds ids of type {ids.type}, but the log has {kind}; write them as the log does")


def read_stock(source: StockTable, items: pa.Array, names: Sequence[str] = ()) -> dict[str, Any]:
    """Read a table with a row an item as columns by item; empty for an item that it lacks.

    Raises
    ------
    UserError
        If it cannot be read, has no column of ids or two rows of an item, or ids of another type.
    """
    (piece, *_) = fragments(source, [])
    if piece.format == "jsonl":
        raise UserError(f"{redact(source.path)}: a stock table must be Parquet or CSV, whose columns have names")
    present = list(dict.fromkeys([*columns_inside(piece, source), *dict(piece.partition)]))
    wanted = [source.id] if source.id is not None else [*names, *ID_NAMES]
    key = next((name for name in wanted if name in present), None)
    if key is None:
        raise UserError(f"{redact(source.path)}: no column of item ids; looked for {', '.join(dict.fromkeys(wanted))}, "
                        f"the file has {', '.join(present)}; say which with lists.stock.id")  # fmt: skip
    told = {name: value for name, value in source.model_dump().items() if name != "id"}
    rows = FeatureRows.read(FeatureTable(**told, id=key, show=[name for name in present if name != key]))
    rows = rows.aligned(items.type, "the log", log_is_text=False)
    table = rows.look_up(items)
    return {name: table[name] for name in table.column_names if name != key}


def file_stamps(settings: ListsConfig) -> list[list[Any]]:
    """Return what tells the files that lists are ruled by from what they were before: path, size and time of change.

    Raises
    ------
    UserError
        For a path that leads to no file.
    """
    sources = [TableSource(path=path, format="jsonl") for path in [*settings.allow, *settings.deny]]
    sources += [] if settings.stock is None else [settings.stock]
    return [identity(fragments(source, [])) for source in sources]

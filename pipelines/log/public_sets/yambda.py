"""Yambda, by Yandex: Parquet, flat (a row an event) or sequential (a row a user, with lists)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config.schema import TableSource
from pipelines.config.yaml_text import quoted
from pipelines.errors import UserError
from pipelines.log.event_lists import is_list
from pipelines.log.public_sets.files import LAST, Files, Lines
from pipelines.log.sources import fragments


def yambda(files: Files) -> Lines:
    """Write one of its Parquet files of events: flat, a row an event, or sequential, a row a user with lists."""
    log = files.one("listens.parquet", "multi_event.parquet", "likes.parquet")
    if log is None:
        raise files.none("listens.parquet, multi_event.parquet or likes.parquet, as Yambda has them")
    source = TableSource(path=log)
    piece = fragments(source, [])[0]
    schema = pq.read_schema(piece.path, filesystem=piece.filesystem)
    item, time = (_named(schema, log, name, f"{name}s") for name in ("item_id", "timestamp"))
    yield from (
        "data:",
        "  events:",
        f"    path: {quoted(log)}",
        "    user: uid",
        f"    item: {item}",
        f"    time: {time}",
    )
    yield "    # its times count seconds from the data set's own beginning: they order, and say no date"
    if is_list(schema.field(item).type):
        yield "    # a row a user, with lists: each of their values is an event"
    if (types := next((name for name in ("event_type", "event_types") if name in schema.names), None)) is not None:
        yield from (f"    event_type: {types}", "    # keep_types: [listen, like] # all are kept")
    if played := next((name for name in schema.names if name.startswith("played_ratio")), None):
        rule = f"{{column: {quoted(played)}, below: 50, reason: skipped}}"
        yield f"    # to leave out what was skipped: exclude: [{rule}]"
    if artists := files.one("artist_item_mapping.parquet"):
        yield from ("  items:", f"    path: {quoted(artists)}", "    id: item_id")
        yield from ("    duplicates: first # a track of several artists: the first of them", "    features:")
        yield "      artist_id: {min_count: 5}"
    yield LAST
    yield "evaluate: {seen: keep} # people play again what they like"


def _named(schema: pa.Schema, path: str, *names: str) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None or "uid" not in schema.names:
        raise UserError(f"{path}: no file of Yambda's: must have uid, item_id and timestamp; it has "
                        f"{', '.join(schema.names)}")  # fmt: skip
    return found

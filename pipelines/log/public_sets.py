"""Configurations for the public data sets that people start from, as YAML, from a folder as it was unpacked. No Ray.

What the publishers say of their columns is written down here; what differs from release to release (a file that was
not downloaded, a column, an encoding, which way a table is written) is looked up in the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal

import pyarrow as pa

from pipelines.config.redact import redact
from pipelines.config.schema import TableSource
from pipelines.errors import UserError
from pipelines.log.event_lists import is_list
from pipelines.log.first_look import Column, look_at
from pipelines.log.proposal import MANY, SHOWN, quoted
from pipelines.log.sources import find_files, fragments
from pipelines.log.text_files import open_bytes
from pipelines.storage.filesystems import open_filesystem

PublicSet = Literal["movielens", "amazon-reviews", "recbole", "yambda"]
Lines = Iterator[str]
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
LOOKED_AT = 100  # lines of JSON whose keys count
LAST = "  split: {protocol: leave_one_out} # each user's last event is the test, the one before the validation"


def configuration(kind: PublicSet, folder: str, name: str) -> str:
    """Write the configuration of a public data set.

    Parameters
    ----------
    folder : of its files, or one above them; local or a URI.
    name : of the dataset.

    Raises
    ------
    UserError
        If the folder does not hold it; the text says which files were looked for.
    """
    return "\n".join([f"# Written by `mind import {kind}`", f"name: {name}", *WRITERS[kind](Files(folder))]) + "\n"


class Files:
    """The files of a folder and below it, by their path within it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder.rstrip("/") or "/"
        _, where = open_filesystem(self.folder)
        self.filesystem, infos = find_files(self.folder)
        self.names = [str(info.path)[len(where) :].lstrip("/") for info in infos if info.size]

    def all(self, *endings: str) -> list[str]:
        """List the files whose path ends so, in the order of the endings."""
        return [self.path(name) for ending in endings for name in self.names if f"/{name}".endswith(ending)]

    def one(self, *names: str) -> str | None:
        """Find the only file of the first name that is there.

        Raises
        ------
        UserError
            If several folders have it.
        """
        for name in names:
            found = self.all(f"/{name}")
            if len(found) > 1:
                raise UserError(
                    f"{redact(self.folder)}: several files {name} ({', '.join(found)}); give the folder of one"
                )
            if found:
                return found[0]
        return None

    def path(self, name: str) -> str:
        """Write a file's path as the user wrote the folder's."""
        return f"{self.folder.rstrip('/')}/{name}" if name else self.folder

    def text(self, path: str, size: int = -1) -> bytes:
        """Read the beginning of a file, decompressed."""
        (piece,) = fragments(TableSource(path=path, format="jsonl"), [])
        with open_bytes(self.filesystem, piece.path, path) as raw:
            return bytes(raw.read() if size < 0 else raw.read(size))

    def none(self, wanted: str) -> UserError:
        """Make the error of a folder that lacks what it should hold."""
        there = ", ".join(self.names[:8]) or "nothing"
        more = f" and {len(self.names) - 8} more" if len(self.names) > 8 else ""
        return UserError(f"{redact(self.folder)}: must hold {wanted}; there is {there}{more}")


# ---------------------------------------------------------------- MovieLens


def _movielens(files: Files) -> Lines:
    """Write 100K (u.data), 1M and 10M (.dat), 20M and later (.csv)."""
    rating = (
        "    # every rating counts; to keep the good ones: exclude: [{column: rating, below: 4, reason: rated low}]"
    )
    if log := files.one("ratings.csv"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}")
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("movies.csv"):
            yield from ("  items:", f"    path: {quoted(movies)}", "    id: movieId")
            yield from _genres()
    elif log := files.one("ratings.dat"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}", '    delimiter: "::"')
        yield "    columns: [userId, movieId, rating, timestamp]"
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("movies.dat"):
            yield from ("  items:", f"    path: {quoted(movies)}", '    delimiter: "::"')
            yield from (*_encoding(files, movies), "    columns: [movieId, title, genres]", "    id: movieId")
            yield from _genres()
        if users := files.one("users.dat"):
            yield from ("  profile:", f"    path: {quoted(users)}", '    delimiter: "::"')
            yield from ("    columns: [userId, gender, age, occupation, zip]", "    id: userId")
            yield from ("    features:", "      gender: {}", "      age: {} # brackets, by their lower end")
            yield "      occupation: {}"
    elif log := files.one("u.data"):
        yield from ("data:", "  events:", f"    path: {quoted(log)}", "    format: csv", '    delimiter: "\\t"')
        yield "    columns: [userId, movieId, rating, timestamp]"
        yield from ("    user: userId", "    item: movieId", "    time: timestamp", "    time_unit: s", rating)
        if movies := files.one("u.item"):
            yield from ("  items:", f"    path: {quoted(movies)}", "    format: csv", '    delimiter: "|"')
            yield from ('    quote: ""', *_encoding(files, movies))
            yield f"    columns: [movieId, title, released, video, url, {', '.join(GENRES)}]"
            yield from ("    id: movieId", "    features: # a column a genre, 0 or 1")
            yield from (f"      {genre}: {{}}" for genre in GENRES)
            yield "    show: [title]"
        if users := files.one("u.user"):
            yield from ("  profile:", f"    path: {quoted(users)}", "    format: csv", '    delimiter: "|"')
            yield from ("    columns: [userId, age, gender, occupation, zip]", "    id: userId")
            yield from ("    features:", "      age: {kind: bucket}", "      gender: {}", "      occupation: {}")
    else:
        raise files.none("ratings.csv, ratings.dat or u.data, as MovieLens has them")
    yield LAST


def _genres() -> Lines:
    yield from ("    features:", '      genres: {kind: multi, separator: "|"}', "    show: [title, genres]")


def _encoding(files: Files, path: str) -> Lines:
    try:
        files.text(path).decode()
    except UnicodeDecodeError:
        yield "    encoding: latin-1"


# ---------------------------------------------------------------- Amazon reviews


def _amazon(files: Files) -> Lines:
    """Write 2014, 2018 (both reviewerID, asin, seconds) and 2023 (user_id, parent_asin, milliseconds)."""
    found = files.all(".json", ".json.gz", ".jsonl", ".jsonl.gz")
    metas = [path for path in found if path.rpartition("/")[2].startswith("meta_")]
    logs = [path for path in found if path not in metas]
    if not logs:
        raise files.none("reviews as JSON lines, such as reviews_Beauty_5.json.gz or All_Beauty.jsonl.gz")
    if len(logs) > 1:
        raise UserError(f"{redact(files.folder)}: several files of reviews ({', '.join(logs)}); give the folder of one")
    keys = _keys(files, logs[0])
    if {"user_id", "parent_asin", "timestamp"} <= set(keys):
        user, item, time, unit = "user_id", "parent_asin", "timestamp", "ms"
    elif {"reviewerID", "asin", "unixReviewTime"} <= set(keys):
        user, item, time, unit = "reviewerID", "asin", "unixReviewTime", "s"
    else:
        raise UserError(f"{logs[0]}: no reviews: must have reviewerID, asin, unixReviewTime (2014, 2018) or user_id, "
                        f"parent_asin, timestamp (2023); the keys are {', '.join(keys[:20])}")  # fmt: skip
    yield from ("data:", "  events:", f"    path: {quoted(logs[0])}", f"    user: {user}", f"    item: {item}")
    yield from (f"    time: {time}", f"    time_unit: {unit}")
    rating = "rating" if "rating" in keys else "overall"
    yield f"    # every review counts; without the bad ones: exclude: [{{column: {rating}, below: 4, reason: low}}]"
    if metas and files.text(metas[0], 2).startswith(b"{'"):
        yield f"  # items: {metas[0]} is left out: its lines are Python's notation, not JSON. To make it JSON:"
        yield "  #   python -c 'import ast, gzip, json, sys"
        yield "  #   for line in gzip.open(sys.argv[1]): print(json.dumps(ast.literal_eval(line.decode())))'"
        yield f"  #   {metas[0]} > meta_items.json"
    elif metas:
        yield from _amazon_items(files, metas[0], item)
    yield "  # most users wrote one review; the papers' 5-core: min_user_events: 5 and min_item_events: 5"
    yield "  min_user_events: 3"
    yield LAST


def _amazon_items(files: Files, path: str, item: str) -> Lines:
    keys = set(_keys(files, path))
    yield from ("  items:", f"    path: {quoted(path)}", f"    id: {item}")
    yield "    duplicates: last # some releases have an item twice"
    kinds = {"categories": "kind: multi, min_count: 5", "category": "kind: multi, min_count: 5",
             "brand": "min_count: 5", "store": "min_count: 5", "main_category": ""}  # fmt: skip
    if features := [f"      {key}: {{{kind}}}" for key, kind in kinds.items() if key in keys]:
        yield from (
            "    features: # price is text in some releases: as a feature {kind: bucket} it must be a number",
            *features,
        )
    if "title" in keys:
        yield "    show: [title]"


def _keys(files: Files, path: str) -> list[str]:
    """List the keys of the first objects of a file of JSON lines."""
    found: dict[str, None] = {}
    for line in files.text(path, 2**18).splitlines()[:LOOKED_AT]:
        with suppress(ValueError):
            value = json.loads(line)
            found |= dict.fromkeys(value if isinstance(value, dict) else ())
    return list(found)


# ---------------------------------------------------------------- RecBole


def _recbole(files: Files) -> Lines:
    """Write NAME.inter with NAME.item and NAME.user: tables with tabs, whose header has a type for each column."""
    logs = files.all(".inter")
    if not logs:
        raise files.none("NAME.inter, RecBole's file of interactions")
    if len(logs) > 1:
        raise UserError(
            f"{redact(files.folder)}: several files of interactions ({', '.join(logs)}); give the folder of one. "
            "RecBole's own splits are not read: mind splits by itself"
        )
    (log,) = logs
    types = _types(files, log)
    listed = ", ".join(f"{name}:{kind}" for name, kind in types.items())
    found = {}
    for role, kind in (("user", "token"), ("item", "token"), ("time", "float")):
        names = [name for name, its in types.items() if its == kind and _is_role(role, name)]
        if not names:
            lists = [name for name, its in types.items() if its.endswith("_seq") and _is_role(role, name)]
            why = (
                f"; {lists[0]} holds lists, as RecBole augments its sequences: use the file from before"
                if lists
                else ""
            )
            raise UserError(f"{log}: no column of the {role}s ({role}_id:token or timestamp:float) in {listed}{why}")
        found[role] = names[0]
    yield from ("data:", "  events:", f"    path: {quoted(log)}", f"    user: {quoted(found['user'])}")
    yield from (f"    item: {quoted(found['item'])}", f"    time: {quoted(found['time'])}")
    unit = next((each.unit for each in look_at(log).columns if each.name == found["time"]), None)
    yield f"    time_unit: {unit} # by their size, since 1970" if unit else "    # its numbers only order"
    for side, ending, role in (("items", ".item", "item"), ("profile", ".user", "user")):
        table = log.removesuffix(".inter") + ending
        if table in files.all(ending):
            yield from (f"  {side}:", f"    path: {quoted(table)}")
            yield from _recbole_table(table, _types(files, table), found[role])
    yield LAST


def _recbole_table(table: str, types: dict[str, str], key: str) -> Lines:
    if key not in types:
        raise UserError(f"{table}: no column {key!r}, as the interactions have it; there is {', '.join(types)}")
    looked = {each.name: each for each in look_at(table).columns}
    yield f"    id: {quoted(key)}"
    features = []
    shown = [name for name in types if any(word in looked[name].words for word in SHOWN) and name != key]
    for name, kind in types.items():
        column = looked[name]
        if name == key or name in shown or column.distinct < 2:
            continue
        if kind == "token_seq":
            features.append(f'{quoted(name)}: {{kind: multi, separator: "{_separator(column)}"}}')
        elif kind == "token" and column.distinct <= MANY:
            features.append(f"{quoted(name)}: {{min_count: 5}}" if column.distinct > 50 else f"{quoted(name)}: {{}}")
        elif kind == "float":
            features.append(f"{quoted(name)}: {{kind: bucket}}")
    if features:
        yield from ("    features:", *(f"      {each}" for each in features))
    if shown:
        yield f"    show: [{', '.join(map(quoted, shown))}]"


def _separator(column: Column) -> str:
    """RecBole's own is a blank; of values with commas it is a comma and a blank."""
    commas = sum(", " in str(value) for value in column.values.drop_null().slice(0, 1000).to_pylist())
    return ", " if commas > 0.2 * min(1000, max(1, len(column.values))) else " "


def _is_role(role: str, name: str) -> bool:
    return any(word in name.lower() for word in {"user": ["user"], "item": ["item"], "time": ["time"]}[role])


def _types(files: Files, path: str) -> dict[str, str]:
    """Read the header: type by name."""
    header = files.text(path, 2**16).decode("utf-8-sig", "replace").splitlines()[0]
    parts = [each.rpartition(":") for each in header.split("\t")]
    if not all(name and kind in ("token", "token_seq", "float", "float_seq") for name, _, kind in parts):
        raise UserError(f"{path}: its first line must name columns as name:type, of token, token_seq, float and "
                        f"float_seq; it is {header[:200]!r}")  # fmt: skip
    return {name: kind for name, _, kind in parts}


# ---------------------------------------------------------------- Yambda


def _yambda(files: Files) -> Lines:
    """Write one of its Parquet files of events: flat, a row an event, or sequential, a row a user with lists."""
    log = files.one("listens.parquet", "multi_event.parquet", "likes.parquet")
    if log is None:
        raise files.none("listens.parquet, multi_event.parquet or likes.parquet, as Yambda has them")
    source = TableSource(path=log)
    piece = fragments(source, [])[0]
    schema = pa.parquet.read_schema(piece.path, filesystem=piece.filesystem)
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
        yield f"    # to leave out what was skipped: exclude: [{{column: {played}, below: 50, reason: skipped}}]"
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


WRITERS: dict[PublicSet, Callable[[Files], Lines]] = {
    "movielens": _movielens,
    "amazon-reviews": _amazon,
    "recbole": _recbole,
    "yambda": _yambda,
}

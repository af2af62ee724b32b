"""Input as nobody means it, by seed: settings, logs, item tables and requests, near enough to real ones to get in."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

CONFS = sorted((Path(__file__).parents[2] / "conf").glob("*.yaml"))
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**22, 10**400, 0.5, -0.0, 1e308, float("inf"),
    float("-inf"), float("nan"), "", " ", "x", ".", "..", "/", "../x", "a/b", "a\\b", "~", "s3://", "s3://a:b@c",
    "http://x", "\t", "\n", "\r\n", "\x1f", "\u2028", "ä", "☃", "\U0001f600", "\ufeff", "1", "01", "1.0", "1e5", "nan",
    "null", "NULL", "2020-01-01", "2020-01-01T00:00:00Z", "9999-12-31",
    "0000-00-00", "x" * 300, [], {}, [1], [[]], {"a": 1}, ["a", None], [1, "a"],
    {"": {}}, "utf-16", "idna", "::", '"', "'", "default", "popularity", "temporal", "*", "[", "?", "package://x/y",
]  # fmt: skip
TOKENS = [
    *" \t\n:,-[]{}#&*!|>'\"%@`?",
    "a: ",
    "- ",
    "&a ",
    "*a",
    "!!int ",
    "<<: ",
    "---\n",
    "\x00",
    "\x85",
    "é",
    "\ufffd",
]


def settings(rng: random.Random) -> bytes:
    """Make the text of a configuration: a real one with a few values or characters changed."""
    text = rng.choice(CONFS).read_text("utf-8")
    kind = rng.random()
    if kind < 0.5:
        values = yaml.safe_load(text)
        for _ in range(rng.randint(1, 4)):
            _replace_one(values, rng)
        try:
            return yaml.safe_dump(values, allow_unicode=rng.random() < 0.5).encode("utf-8", "replace")
        except (ValueError, TypeError):
            return b""
    characters = list(text)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(characters) + 1)
        characters[place : place + rng.choice([0, 0, 1, 5])] = rng.choice(TOKENS) * rng.choice([1, 1, 1, 50])
    data = "".join(characters).encode()
    return _torn(data, rng) if kind > 0.9 else data


def request(rng: random.Random, ids: list[Any], profile: dict[str, Any]) -> bytes:
    """Make the body of a request to a model of items `ids`: a good one with a few values or characters changed."""
    some = [rng.choice(ids) for _ in range(rng.choice([0, 1, 3, 30, 500]))]
    values: dict[str, Any] = {
        "history": some, "n": rng.choice([1, 5, 20]), "profile": dict(profile), "exclude": some[:2], "only": ids[:30],
        "where": rng.choice(["shelf != 'shelf 1'", "id > 110 and id < 130", "is_null(shelf)"]),
        "seen": rng.choice(["filter", "keep"]), "explain": rng.random() < 0.3,
    }  # fmt: skip
    for name in list(values):
        if name != "history" and rng.random() < 0.5:
            del values[name]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        _replace_one(values, rng)
    if rng.random() < 0.1 and isinstance(values.get("where"), str):
        values["where"] = "".join(
            rng.choices([*"()'\"=<>!&|~ ", "shelf", "id", " and ", " in ", "not ", "1e999"], k=40)
        )
    if rng.random() < 0.05:
        deep = rng.choice([50, 3_000, 100_000])
        return b'{"history": ' + b"[" * deep + b"]" * rng.choice([0, deep]) + b"}"
    data = json.dumps(values, ensure_ascii=rng.random() < 0.5, default=str).encode("utf-8", "surrogatepass")
    return _torn(data, rng) if rng.random() < 0.2 else data


def _replace_one(values: Any, rng: random.Random) -> None:
    """Put something odd in the place of one value, at any depth."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(values[key], dict | list) and values[key] and rng.random() < 0.8:
            values = values[key]
            continue
        if isinstance(values, dict) and rng.random() < 0.1:
            values[str(rng.choice(ODD))] = deepcopy(rng.choice(ODD))
        values[key] = deepcopy(rng.choice(ODD))  # what is put in may be changed in its turn; ODD stays
        return


def _torn(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip or double some bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        if not changed:
            break
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                del changed[place:]
            case 1:
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                del changed[place : place + rng.randint(1, 20)]
            case _:
                changed[place:place] = changed[place : place + 50] * rng.randint(1, 20)
    return bytes(changed)


def value(rng: random.Random, usual: Callable[[], Any]) -> Any:
    """Choose a usual value, mostly, or an odd one."""
    return usual() if rng.random() < 0.7 else rng.choice(ODD)


def table_file(rng: random.Random, folder: Path, columns: list[str]) -> Path:
    """Write a small table of some format, with odd values, wrong types, torn bytes or a compression that lies."""
    rows = [
        {name: value(rng, lambda: rng.randint(0, 30)) for name in columns if rng.random() < 0.95}
        for _ in range(rng.randint(0, 12))
    ]
    kind = rng.choice(["csv", "jsonl", "parquet", "sessions", "csv", "jsonl", "parquet"])
    path = folder / {"csv": "t.csv", "jsonl": "t.jsonl", "parquet": "t.parquet", "sessions": "t.txt"}[kind]
    data = {"csv": _csv, "jsonl": _jsonl, "sessions": _sessions, "parquet": _parquet}[kind](rng, rows, columns)
    if rng.random() < 0.15:
        data = _torn(data, rng)
    if rng.random() < 0.1 and kind != "parquet":
        packed, suffix = rng.choice([(gzip.compress(data), ".gz"), (bz2.compress(data), ".bz2"), (data, ".zst")])
        data, path = (_torn(packed, rng) if rng.random() < 0.3 else packed), path.with_name(path.name + suffix)
    path.write_bytes(data)
    return path


def _csv(rng: random.Random, rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    lines = [",".join(columns)] + [",".join(_cell(rng, row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(lines).encode(rng.choice(["utf-8", "utf-8", "latin-1", "utf-16"]), "replace")


def _cell(rng: random.Random, given: Any) -> str:
    text = str(given)
    return f'"{text}"' if rng.random() < 0.2 else text


def _jsonl(rng: random.Random, rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    lines = [json.dumps(row) if rng.random() < 0.9 else json.dumps(rng.choice(ODD)) for row in rows]
    if rng.random() < 0.1:
        depth = rng.choice([10, 150, 3000])
        lines.append('{"user": ' + "[" * depth + "]" * depth + "}")
    return "\n".join(lines).encode("utf-8", "replace")


def _sessions(rng: random.Random, rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    return "\n".join(" ".join(str(each) for each in row.values()) for row in rows).encode("utf-8", "replace")


def _parquet(rng: random.Random, rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    kinds = [pa.int64(), pa.string(), pa.float64(), pa.uint64(), pa.bool_(), pa.binary(), pa.date32(), pa.null(),
             pa.timestamp("ns"), pa.timestamp("s", "Europe/Paris"), pa.decimal128(20, 4), pa.list_(pa.string()),
             pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.time64("us"), pa.duration("s"), pa.float16(),
             pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.int8(),
             pa.map_(pa.string(), pa.int64())]  # fmt: skip
    made = {}
    for name in columns:
        kind = rng.choice(kinds)
        try:
            made[name] = pa.array([row.get(name) for row in rows], kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            made[name] = pa.nulls(len(rows), kind)
            if not pa.types.is_nested(kind) and rng.random() < 0.7:
                made[name] = pa.array([None if row.get(name) is None else str(row[name]) for row in rows], pa.string())
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table(made), sink)
    except (pa.ArrowException, OverflowError, UnicodeError):
        return b"PAR1"
    return bytes(sink.getvalue())

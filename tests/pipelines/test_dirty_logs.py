"""The dirtiest logs that a generator can write: every row is accounted for, or one line says why not. No Ray.

Nothing here says what a good reading is (test_preprocess_properties.py does): files are bytes that resemble CSV, JSON
or Parquet, settings are drawn at random, and whatever comes of them must add up.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import pipelines.log.formats
import pipelines.log.sources
import pipelines.preprocess.exchange
import pipelines.preprocess.preprocess
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.log.normalise import OTHER_TYPE
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import preprocess
from tests.pipelines.local_data import local_data

PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
RARELY = st.integers(0, 11).map(lambda n: n == 11)
COLUMNS = ("user", "item", "time", "kind", "n")


@pytest.fixture(autouse=True, scope="module")
def _small_and_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, local_data():
        patch.setattr(pipelines.preprocess.exchange, "UNSHUFFLED_EVENTS", 3)
        patch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 4)
        patch.setattr(pipelines.log.sources, "FRAGMENT_BYTES", 500)
        patch.setattr(pipelines.log.sources, "ROWS_AT_ONCE", 2)
        patch.setattr(pipelines.log.formats, "BLOCK_ROWS", 3)
        patch.setattr(pipelines.log.formats, "BLOCK_BYTES", 400)
        yield


# Values

WORDS = [
    "",
    " ",
    "NA",
    "\\N",
    "None",
    "null",
    "nan",
    "0",
    "7",
    "7.0",
    "07",
    "-7",
    "1e3",
    "1.5",
    "$12.99",
    "12,99",
    "1e300",
    "1.7976931348623157e308",
    "inf",
    "9" * 19,
    "9" * 40,
    "buy",
    "view",
    "é",
    "\N{GRINNING FACE}",
    "2024-01-01",
    "12/1/2010 8:26",
    "13/1/2010 8:26",
    "Wed, 01 Dec 2010 08:26:00 GMT",
    "01.12.2010",
    "8:26 PM",
    "True",
    "a b",
    "[1]",
    "{}",
    "\ufeff",
    "\x00",
    "a;b|c",
]
GOOD = {
    "user": ["1", "2", "3"],
    "item": ["a", "b", "c"],
    "time": ["1", "2", "3"],
    "kind": ["buy", "view"],
    "n": ["1", "-1"],
}


def value(column: str) -> st.SearchStrategy[str]:
    """Twice as often something that belongs there."""
    return st.sampled_from(GOOD[column]) | st.sampled_from(GOOD[column]) | st.sampled_from(WORDS)


@st.composite
def csv_bytes(draw: st.DrawFn) -> bytes:
    """Lines with any number of values and quotes anywhere, in one encoding or with bytes of none."""
    delimiter = draw(st.sampled_from([";", "\t"])) if draw(RARELY) else ","
    header = draw(st.sampled_from([COLUMNS[::-1], (*COLUMNS, "user"), COLUMNS[:3], ()])) if draw(RARELY) else COLUMNS
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [delimiter.join(header)] if header else []
    for _ in range(draw(st.integers(0, 12))):
        values = [draw(value(name)) for name in header or COLUMNS]
        values = [f'"{each}"' if draw(st.integers(0, 5)) == 5 else each for each in values]
        line = delimiter.join(values)
        if draw(st.integers(0, 7)) == 7:
            place = draw(st.integers(0, len(line)))
            line = line[:place] + draw(st.sampled_from(['"', '""', "\n", delimiter, "'", end, '"\n"'])) + line[place:]
        lines.append(line)
    data = end.join(lines).encode(draw(st.sampled_from(["utf-16", "utf-8-sig"])) if draw(RARELY) else "utf-8")
    return data + draw(st.sampled_from([b"\xff", b"\xc3", end.encode(), b"\x00"])) if draw(RARELY) else data


PLAIN = st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.sampled_from(WORDS)
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
)


@st.composite
def json_bytes(draw: st.DrawFn) -> bytes:
    rows: list[Any] = []
    for _ in range(draw(st.integers(0, 10))):
        names = draw(st.sampled_from([COLUMNS[:3], COLUMNS[1:]])) if draw(RARELY) else COLUMNS
        row = {name: draw(ANYTHING if draw(RARELY) else value(name) | st.integers(0, 3)) for name in names}
        rows.append(draw(ANYTHING) if draw(RARELY) else row)
    text = json.dumps(rows, indent=draw(st.sampled_from([None, 1])))
    if draw(st.booleans()):
        text = "\n".join(json.dumps(row) for row in rows)
    place = draw(st.integers(0, len(text)))
    return (text if not draw(RARELY) else text[:place] + draw(st.sampled_from(["", '"', "{", "]", "\n"]))).encode()


TYPES = [
    pa.int64(),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.large_string(),
    pa.bool_(),
    pa.binary(),
    pa.decimal128(30, 2),
    pa.date32(),
    pa.timestamp("ns", "UTC"),
    pa.timestamp("s"),
    pa.duration("us"),
    pa.null(),
    pa.list_(pa.int64()),
    pa.map_(pa.string(), pa.int64()),
    pa.struct({"a": pa.string()}),
    pa.dictionary(pa.int8(), pa.string()),
    pa.list_(pa.list_(pa.string())),
    pa.time32("s"),
]
CASTABLE = ["1", "2", "3", "7.0", None, "0"]


@st.composite
def parquet_bytes(draw: st.DrawFn) -> bytes:
    rows = draw(st.integers(0, 8))
    columns, names = [], []
    for name in draw(st.sampled_from([COLUMNS[:3], (*COLUMNS, "user")])) if draw(RARELY) else COLUMNS:
        kind = draw(st.sampled_from(TYPES) if draw(RARELY) else st.sampled_from([pa.int64(), pa.string()]))
        texts = pa.array([draw(st.sampled_from(CASTABLE)) for _ in range(rows)], pa.string())
        if pa.types.is_string(kind):
            texts = pa.array([draw(value(name)) for _ in range(rows)], pa.string())
        try:
            column = texts.cast(pa.float64()).cast(kind, safe=False) if not pa.types.is_string(kind) else texts
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            column = pa.nulls(rows, kind)
        columns.append(column)
        names.append(name)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, names=names), sink, row_group_size=3)
    data = bytes(sink.getvalue())
    return data[: draw(st.integers(0, len(data)))] if draw(RARELY) else data


MAKERS = {"csv": csv_bytes(), "jsonl": json_bytes(), "json": json_bytes(), "parquet": parquet_bytes()}


@st.composite
def files(draw: st.DrawFn, most: int = 3) -> list[tuple[str, bytes]]:
    found = []
    for number in range(draw(st.integers(1, most))):
        suffix = draw(st.sampled_from(["csv", "csv", *MAKERS]))
        data = draw(MAKERS[suffix])
        if draw(st.integers(0, 5)) == 5:
            data, suffix = gzip.compress(data), draw(st.sampled_from([suffix, f"{suffix}.gz"]))
        found.append((f"{number}.{suffix}", data))
    return found


# Settings

EXCLUSIONS = [
    {"column": "n", "below": 0, "reason": "back"},
    {"column": "kind", "prefix": "v", "reason": "view"},
    {"column": "n", "values": [1, "x"], "reason": "one"},
]
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "tie_break": st.sampled_from(["n", "kind", "time"]),
    "event_type": st.just("kind"),
    "duplicates": st.sampled_from(["drop", "keep"]),
    "repeats": st.sampled_from(["keep", "collapse"]),
    "null_values": st.sampled_from([[], ["7"], [7, -1, 1e300]]),
    "exclude": st.lists(st.sampled_from(EXCLUSIONS), max_size=2),
}
ODD = USUAL | {
    "time_unit": st.sampled_from(["s", "ms", "us", "ns"]),
    "time_format": st.sampled_from(["%m/%d/%Y %H:%M", "%d.%m.%Y"]),
    "quote": st.sampled_from(["", "'"]),
    "delimiter": st.sampled_from([";", "\t", "::"]),
    "encoding": st.sampled_from(["latin-1", "utf-16"]),
}
EVENTS = RARELY.flatmap(lambda odd: st.fixed_dictionaries({}, optional=ODD if odd else USUAL))
FEATURE = st.fixed_dictionaries(
    {"kind": st.sampled_from(["categorical", "multi", "numeric", "bucket"])},
    optional={"separator": st.just("|"), "min_count": st.just(2), "null_values": st.just([7, "NA"])},
)
TABLE = st.fixed_dictionaries(
    {"features": st.dictionaries(st.sampled_from(["kind", "n", "time", "user"]), FEATURE, max_size=2)},
    optional={"show": st.just(["kind"]), "duplicates": st.sampled_from(["first", "last"]), "cold_start": st.booleans()},
)
DATA = st.fixed_dictionaries(
    {},
    optional={
        "min_user_events": st.integers(1, 2),
        "min_item_events": st.integers(1, 2),
        "max_user_events": st.integers(1, 3),
        "time_gaps": st.just(True),
        "split": st.sampled_from(
            [
                {"protocol": "user_holdout", "held_out": 0.3},
                {"protocol": "temporal", "validation_from": 2, "test_from": 3},
                {"protocol": "temporal", "validation_from": "2010-12-01", "test_from": "2024-01-01"},
            ]
        ),
        "items": TABLE,
    },
)


def write(folder: Path, found: list[tuple[str, bytes]]) -> Path:
    folder.mkdir()
    for name, data in found:
        (folder / name).write_bytes(data)
    return folder


def made(stage: Any, *arguments: Any) -> Dataset | None:
    """Run a stage; what it refuses, it refuses in one line."""
    refusal = ""
    try:
        found: Dataset = stage(*arguments)
        return found
    except UserError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) == 1
    return None


def assert_adds_up(dataset: Dataset) -> None:
    manifest = dataset.manifest
    assert manifest.rows_read == manifest.events + sum(manifest.set_aside.values())
    kept_back = {"duplicate", "repeat of the item before", "item below min_item_events", "user below min_user_events",
                 "older than the newest max_user_events", OTHER_TYPE}  # fmt: skip
    quarantined = sum(pq.read_metadata(file).num_rows for file in dataset.layout.quarantine.glob("*.parquet"))
    assert quarantined == sum(n for reason, n in manifest.set_aside.items() if reason not in kept_back)
    counts = dataset.vocabulary("users")["count"].to_pylist()
    assert sum(counts) == manifest.events
    assert sum(source["rows"] for source in manifest.sources["events"]) == manifest.rows_read
    assert dataset.items()["item"].to_pylist() == list(range(2, 2 + manifest.items))


@PATIENT
@given(log=files(), more=files(1), table=files(1), events=EVENTS, data=DATA | st.just({}), grow=st.booleans())
def test_whatever_a_log_holds_every_row_is_accounted_for_or_one_line_says_why_not(
    log: list[tuple[str, bytes]],
    more: list[tuple[str, bytes]],
    table: list[tuple[str, bytes]],
    events: dict[str, Any],
    data: dict[str, Any],
    grow: bool,
) -> None:
    with TemporaryDirectory(prefix="mind-") as name:
        folder = Path(name)
        if "items" in data:
            data = data | {"items": {"path": str(write(folder / "items", table)), "id": "item", **data["items"]}}
        source = {"path": str(write(folder / "log", log)), **events}
        try:
            config = Config.model_validate({"name": "dirty", "home": name, "data": {"events": source, **data}})
        except ValidationError:
            return
        dataset = made(preprocess, config)
        event("refused" if dataset is None else "made")
        if dataset is None:
            return
        assert_adds_up(dataset)
        if grow:
            grown = made(append, config, str(write(folder / "more", [(f"x{each}", data) for each, data in more])))
            if grown is not None:
                assert_adds_up(grown)

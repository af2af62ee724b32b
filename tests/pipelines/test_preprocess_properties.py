"""The stage as a whole on random logs, against a plain Python reading of the documentation. No Ray: tasks run here."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pipelines.log.formats
import pipelines.log.sources
import pipelines.preprocess.append
import pipelines.preprocess.exchange
import pipelines.preprocess.preprocess
from pipelines.config.schema import NULL_WORDS, Config
from pipelines.dataset.behaviours import gap_buckets, sessions, time_since_last
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SPLITS
from pipelines.errors import UserError
from pipelines.log.normalise import BAD_TIME, MALFORMED, MISSING_TIME
from pipelines.preprocess.append import append
from pipelines.preprocess.preprocess import preprocess
from tests.pipelines.local_data import local_data

Row = tuple[Any, Any, Any]  # user, item, time: what is written
Event = tuple[str, str, int]  # user, item, time: what is to come out, ids as text

INT64 = (-(2**63), 2**63 - 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AWKWARD = [
    "1",
    "2",
    "7",
    "007",
    "-1",
    "+1",
    "1.0",
    "7.",
    "NaN",
    "null",
    "None",
    "\\N",
    " NA",
    " ",
    "",
    "a\nb",
    "\r",
    'q"q',
    "a,b",
    "é",
    "e\u0301",
    "\x00",
    "\ufeff",
    "\N{GRINNING FACE}",
    "9" * 18,
    str(2**63 - 1),
    "9" * 20,
]

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(autouse=True, scope="module")
def _small_and_here() -> Iterator[None]:
    """Several parts, blocks and pieces of a few rows; the passes in this process, whatever session is open."""
    with pytest.MonkeyPatch.context() as patch, local_data():
        patch.setattr(pipelines.preprocess.exchange, "UNSHUFFLED_EVENTS", 3)
        patch.setattr(pipelines.preprocess.preprocess, "EVENTS_PER_PART", 2)
        patch.setattr(pipelines.log.sources, "FRAGMENT_BYTES", 300)
        patch.setattr(pipelines.log.formats, "BLOCK_ROWS", 2)
        patch.setattr(pipelines.log.formats, "BLOCK_BYTES", 600)  # longer than any line
        yield


# What is written


@dataclass(frozen=True)
class File:
    """A file of a log. A kind is an Arrow type in Parquet; in a text file it only says what the values look like."""

    format: str
    rows: tuple[Row, ...]
    kinds: tuple[Any, Any, Any] = (pa.int64(), pa.int64(), pa.int64())
    order: tuple[str, ...] = ("user", "item", "time")
    row_group: int = 3
    broken: int = 0  # lines that are no rows
    blank: bool = False  # not a byte

    def write(self, folder: Path, number: int) -> Path:
        path = folder / f"{number:03d}.{self.format}"
        if self.blank:
            path.touch()
            return path
        columns: dict[str, Any] = dict(zip(("user", "item", "time"), zip(*self.rows, strict=True), strict=False))
        columns = {name: list(columns.get(name, ())) for name in ("user", "item", "time")}
        columns["extra"] = [f"more {n}" for n in range(len(self.rows))]
        if self.format == "parquet":
            kinds = dict(zip(("user", "item", "time"), self.kinds, strict=True)) | {"extra": pa.string()}
            table = pa.table({name: pa.array(columns[name], kinds[name]) for name in self.order})
            pq.write_table(table, path, row_group_size=self.row_group)
            return path
        lines = [{name: columns[name][n] for name in self.order} for n in range(len(self.rows))]
        with path.open("w", encoding="utf-8", newline="") as out:
            if self.format == "csv":
                out.write(",".join(self.order) + "\n")
                for n, line in enumerate(lines):
                    out.write(",".join(_csv_field(value, quoted=bool(n % 2)) for value in line.values()) + "\n")
                out.write("1,1\n" * self.broken)
            else:  # a key without a value may be left out
                for n, line in enumerate(lines):
                    kept = {name: value for name, value in line.items() if value is not None or n % 2}
                    out.write(json.dumps(kept, ensure_ascii=bool(n % 3)) + "\n")
                out.write('{"user": \n' * self.broken)
        return path


def _csv_field(value: Any, quoted: bool) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if quoted or set(text) & set(',"\r\n') else text


def write(files: list[File], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        file.write(folder, number)
    return folder


# What is to come out


def expected_id(value: Any, id_type: str) -> str | None:
    """The id as text, of a column that turns out to be of this type; None: missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        return str(int(value))
    if value.strip() in ("", *NULL_WORDS):
        return None
    return value if id_type == "string" else value.split(".")[0]


def expected_time(value: Any) -> int | None:
    """Return the time that a value of the strategies below means; None: missing or no time."""
    if isinstance(value, Said):
        return value.means
    if isinstance(value, float):
        return math.trunc(value) if math.isfinite(value) and abs(value) < 2.0**63 else None
    if isinstance(value, datetime):
        instant = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (instant - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - EPOCH.date()) // timedelta(microseconds=1)
    return value if value is None else int(value)


class Said(str):
    """A time written as text, and what it means."""

    means: int | None

    def __new__(cls, text: str, means: int | None) -> "Said":
        found = super().__new__(cls, text)
        found.means = means
        return found


def expected(files: list[File]) -> tuple[list[Event], Counter[str]]:
    """The clean events, and how many rows are set aside; a time is missing or no time."""
    events: list[Event] = []
    aside: Counter[str] = Counter()
    types = [id_type(files, side) for side in range(2)]
    for file in files:
        aside["unreadable row"] += file.broken
        for row in file.rows:
            user, item = (expected_id(value, kind) for value, kind in zip(row[:2], types, strict=True))
            time = expected_time(row[2])
            if user is None:
                aside["missing user"] += 1
            elif item is None:
                aside["missing item"] += 1
            elif time is None:
                aside["no time"] += 1
            else:
                events.append((user, item, time))
    return events, +aside


def id_type(files: list[File], side: int) -> str:
    """int64, uint64 or string: of one sort if all events' ids are, text otherwise.

    Text of a CSV is of integers if all of it is, 7.0 too; other text is where it stands beside integers and some of it
    is as 7.0.
    """
    found = set()
    for file in files:
        for row in file.rows:
            if None in (*(expected_id(value, "string") for value in row[:2]), expected_time(row[2])):
                continue
            value = row[side]
            if file.format == "csv":
                found.add("int64" if _is_whole(str(value).split(".")[0]) and _is_decimal(str(value)) else "string")
            elif isinstance(value, str):
                whole = _is_whole(value.split(".")[0]) and _is_decimal(value)
                found.add(("decimal" if "." in value else "whole") if whole else "string")
            else:
                found.add("uint64" if file.kinds[side] == pa.uint64() else "int64")
    if found <= {"int64", "whole", "decimal"} and {"int64", "decimal"} <= found:
        return "int64"
    return found.pop() if len(found) == 1 and found <= {"int64", "uint64"} else "string"


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 18
    return plain and (digits[0] != "0" or text == "0")


def _is_decimal(text: str) -> bool:
    """Nothing but zeros after the point, if there is one."""
    return not text.partition(".")[2].strip("0")


def histories(events: list[Event], item_type: str, drop: bool) -> dict[str, list[tuple[int, str]]]:
    """Each user's (time, item), oldest first, ties by item id."""
    found: dict[str, list[tuple[int, str]]] = {}
    for user, item, time in set(events) if drop else events:
        found.setdefault(user, []).append((time, item))
    for own in found.values():
        own.sort(key=lambda event: (event[0], event[1].encode() if item_type == "string" else int(event[1])))
    return found


def content(own: dict[str, list[tuple[int, str]]]) -> dict[str, Any]:
    """What `decoded` finds in a dataset of these histories, split by leave-one-out."""
    splits: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    for user, events in own.items():
        cuts = [("train", len(events))]
        if len(events) >= 3:
            cuts = [("train", len(events) - 2), ("validation", len(events) - 2), ("test", len(events) - 1)]
        for split, stop in cuts:
            targets = [] if split == "train" else [events[stop][1]]
            splits[split][user] = ([item for _, item in events[:stop]], [time for time, _ in events[:stop]], targets)
    items = Counter(item for events in own.values() for _, item in events)
    trained = Counter(item for known, _, _ in splits["train"].values() for item in known)
    return {
        "users": {user: len(events) for user, events in own.items()},
        "items": {item: (count, trained[item]) for item, count in items.items()},
        **splits,
    }


def decoded(dataset: Dataset) -> dict[str, Any]:
    """A dataset by the log's own ids, as text; its counts are checked on the way."""
    manifest, users, items = dataset.manifest, dataset.vocabulary("users"), dataset.items()
    assert users["index"].to_pylist() == list(range(len(users)))
    assert items["item"].to_pylist() == list(range(2, 2 + len(items)))
    user, item = ([str(id_) for id_ in table["id"].to_pylist()] for table in (users, items))
    counts = zip(items["count"].to_pylist(), items["train_count"].to_pylist(), strict=True)
    found: dict[str, Any] = {
        "users": {id_: count for id_, count in zip(user, users["count"].to_pylist(), strict=True) if count},
        "items": {id_: both for id_, both in zip(item, counts, strict=True) if both != (0, 0)},  # after an append
    }
    for split in SPLITS:
        rows = dataset.table(split).to_pylist()
        found[split] = {
            user[row["user"]]: (
                [item[n - 2] for n in row["items"]],
                row["times"],
                [item[n - 2] for n in row["targets"]],
            )
            for row in rows
        }
        assert len(found[split]) == len(rows), "no user has two rows"
        said = manifest.splits[split]
        assert said.users == len(rows)
        assert said.events == sum(len(row["items"]) for row in rows)
        assert said.targets == sum(len(row["targets"]) for row in rows)
        assert said.users + said.skipped_users == manifest.users
    assert manifest.rows_read == manifest.events + sum(manifest.set_aside.values()), "every row is accounted for"
    assert manifest.events == sum(found["users"].values())
    assert manifest.users == len(found["users"])
    assert_quarantine_is_whole(dataset)
    return found


def assert_quarantine_is_whole(dataset: Dataset) -> None:
    found = Counter(
        reason
        for file in dataset.layout.quarantine.glob("*.parquet")
        for reason in pq.read_table(file, columns=["reason"])["reason"].to_pylist()
    )
    said = {reason: n for reason, n in dataset.manifest.set_aside.items() if reason in MALFORMED}
    assert found == said


def set_aside(dataset: Dataset) -> Counter[str]:
    """By reason, with the two reasons for which a row has no time as one."""
    found = Counter(dataset.manifest.set_aside)
    no_time = found.pop(MISSING_TIME, 0) + found.pop(BAD_TIME, 0)
    return +(found + Counter({"no time": no_time}))


# Making it


@contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory(prefix="mind-") as folder:
        yield Path(folder)


def configured(folder: Path, path: str = "log", events: dict[str, Any] | None = None, **data: Any) -> Config:
    source = {"path": str(folder / path), **(events or {})}
    name = path.replace("/", "-")
    return Config.model_validate({"name": name, "home": str(folder / "home"), "data": {"events": source, **data}})


def made(stage: Callable[..., Dataset], *arguments: Any) -> Dataset | UserError:
    """What a stage makes, or how it refuses to."""
    try:
        return stage(*arguments)
    except UserError as error:
        return error


def assert_clear(error: UserError, folder: Path) -> None:
    """One line that names a file or a key, and nothing half-written stays."""
    text = str(error)
    assert text
    assert len(text.splitlines()) == 1
    assert str(folder) in text or "data." in text
    datasets = folder / "home" / "datasets"
    assert not datasets.exists() or not [each for each in datasets.iterdir() if not each.name.startswith(".")]


# Random logs

EDGES = st.sampled_from([*INT64, 10**17, 10**18, -(10**18), 2**53 + 1])
INTEGERS = st.sampled_from([0, 1, 2, 7, -1]) | EDGES | st.integers(*INT64)
TEXT = st.sampled_from(["0", "1", "2", "7"]) | st.sampled_from(AWKWARD) | st.text(max_size=5)
IDS: dict[Any, st.SearchStrategy[Any]] = {
    pa.int64(): INTEGERS,
    pa.int32(): st.sampled_from([0, 1, 2, 7, -1, -(2**31), 2**31 - 1]),
    pa.uint8(): st.sampled_from([0, 1, 2, 7, 255]),
    pa.uint64(): st.sampled_from([0, 1, 2, 7, 10**18, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1),
    pa.float64(): st.sampled_from([0.0, 1.0, 2.0, 7.0, -1.0, 2.0**53 - 1, math.nan]),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.dictionary(pa.int32(), pa.string()): TEXT,
    pa.null(): st.none(),
}
SMALL = st.integers(-3, 3)  # many ties
NUMBER_TEXTS = st.builds(
    lambda n, form: Said(form.format(n), n),
    SMALL | st.integers(-(10**17) + 1, 10**17),
    st.sampled_from(["{}", " {} ", "{}.", "{}.0", "{:03d}", "{:+d}"]),
)
DAYS = st.sampled_from([0, 1, -1, 19_000, -719_162, 2_932_896])  # years 1 and 9999 too
MOMENTS = st.builds(
    lambda days, us: EPOCH + timedelta(days, microseconds=us), DAYS, st.sampled_from([0, 1, 10**6, 86_399_999_999])
)
ZONE = timezone(timedelta(hours=5, minutes=30))


def _iso(moment: datetime, zoned: bool) -> Said:
    inner = 2 < moment.year < 9998
    text = (moment.astimezone(ZONE) if zoned and inner else moment.replace(tzinfo=None)).isoformat()
    return Said(text, expected_time(moment))


def _whole(unit_us: int) -> st.SearchStrategy[datetime]:
    return MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // unit_us * unit_us))


NEAR = st.builds(lambda s: EPOCH + timedelta(seconds=s), st.sampled_from([0, 1, -1, 9_223_372_036, -9_223_372_036]))
FLOATS = st.sampled_from([0.5, -0.5, 2.0**62, 2.0**63, 1e300, -1e300, math.nan, math.inf, -math.inf])
TIMES: dict[str, dict[Any, st.SearchStrategy[Any]]] = {
    "number": {
        pa.int64(): SMALL | INTEGERS,
        pa.int16(): SMALL,
        pa.uint64(): st.integers(0, 3) | st.just(2**63 - 1),
        pa.float64(): SMALL.map(float) | FLOATS,
        pa.string(): NUMBER_TEXTS,
        pa.null(): st.none(),
    },
    "us": {
        pa.timestamp("s"): _whole(10**6),
        pa.timestamp("ms", "Asia/Kolkata"): _whole(1000),
        pa.timestamp("us"): MOMENTS,
        pa.timestamp("ns"): NEAR,
        pa.timestamp("ns", "UTC"): NEAR,
        pa.date32(): DAYS.map(lambda days: EPOCH.date() + timedelta(days)),
        pa.date64(): DAYS.map(lambda days: EPOCH.date() + timedelta(days)),
        pa.string(): st.builds(_iso, MOMENTS, st.booleans()),
        pa.null(): st.none(),
    },
}  # fmt: skip
NO_TIMES = st.builds(Said, st.sampled_from(["noon", "x", "12:30 o'clock", "1e", "--1", "\N{GRINNING FACE}"]), st.none())
FORMATS = ("parquet", "csv", "jsonl")


@st.composite
def a_file(draw: st.DrawFn, unit: str, odd_times: bool) -> File:
    format = draw(st.sampled_from(FORMATS))
    if draw(st.integers(0, 9)) == 9:
        return File(format, (), blank=True)
    if format == "parquet":
        sides = [draw(st.sampled_from(list(IDS))) for _ in range(2)]
        kind = draw(st.sampled_from(list(TIMES[unit])))
    else:  # one sort of value per column: a JSON file with several cannot be read
        sides = [draw(st.sampled_from([pa.int64(), pa.string()])) for _ in range(2)]
        kind = pa.string() if unit == "us" else draw(st.sampled_from([pa.int64(), pa.string()]))
    time = SMALL if format == "csv" and kind == pa.int64() else TIMES[unit][kind]
    if odd_times and pa.types.is_string(kind):
        time |= NO_TIMES
    row = st.tuples(*(st.one_of(*[each] * 3, st.none()) for each in (*(IDS[side] for side in sides), time)))
    rows = draw(st.lists(row, max_size=12))
    rows += draw(st.lists(st.sampled_from(rows), max_size=4)) if rows else []  # duplicates
    names = ["user", "item", "time", *(["extra"] if draw(st.booleans()) else [])]
    order = tuple(draw(st.permutations(names)))
    broken = 0 if format == "parquet" else draw(st.sampled_from([0, 0, 1, 2]))
    return File(format, tuple(rows), (*sides, kind), order, draw(st.integers(1, 5)), broken)


@st.composite
def logs(draw: st.DrawFn) -> list[File]:
    unit = draw(st.sampled_from(["number", "us"]))
    first = draw(st.booleans())
    # the first time there is says what kind of time the log has: no nonsense before it
    files = draw(st.lists(a_file(unit, odd_times=first), max_size=4))
    if first:
        good = Said("5", 5) if unit == "number" else Said("2024-01-01", 1_704_067_200_000_000)
        files = [File("csv", (("1", "1", good),)), *files]
    return files


NUMBERS = tuple((n, n, 1) for n in range(9))
NAMES = tuple((str(n), str(n), 2) for n in range(9))


@settings(PATIENT, max_examples=80)
@given(log=logs())
@example(log=[File("parquet", NUMBERS), File("parquet", NAMES, (pa.string(), pa.string(), pa.int64()))])
@example(log=[File("csv", NUMBERS), File("csv", (*NAMES, ("x", "y", 3)))])
def test_any_log_becomes_the_dataset_one_would_write_by_hand_or_is_refused_in_one_line(log: list[File]) -> None:
    events, aside = expected(log)
    with scratch() as folder:
        write(log, folder / "log")
        dataset = made(preprocess, configured(folder))
        if isinstance(dataset, UserError):
            assert_clear(dataset, folder)
            assert not events, f"a good row is lost: {dataset}"
            return
        assert events
        item_type = id_type(log, 1)
        assert decoded(dataset) == content(histories(events, item_type, drop=True))
        assert str(dataset.items()["id"].type) == item_type
        assert str(dataset.vocabulary("users")["id"].type) == id_type(log, 0)
        duplicates = len(events) - len(set(events))
        assert set_aside(dataset) == aside + Counter({"duplicate": duplicates})
        by_file = [source["rows"] for source in dataset.manifest.sources["events"]]
        assert sum(by_file) == dataset.manifest.rows_read == sum(len(file.rows) + file.broken for file in log)


# The same rows in other files


@st.composite
def uniform_logs(draw: st.DrawFn, ids: Any = None, min_size: int = 1, max_size: int = 30) -> File:
    """Rows of one schema without nonsense, many of a few users; each has a time, or nothing would say which kind."""
    format = "parquet" if ids is not None else draw(st.sampled_from(FORMATS))
    if ids is None:
        ids = draw(st.sampled_from([pa.int64(), pa.string(), *([pa.uint64()] if format == "parquet" else [])]))
    side = IDS[ids].filter(lambda value: expected_id(value, "string") is not None)
    users = draw(st.lists(side, min_size=1, max_size=4, unique_by=str))
    items = draw(st.lists(side, min_size=1, max_size=5, unique_by=str))
    kind = draw(st.sampled_from([pa.int64(), pa.string()]))
    time = SMALL if kind == pa.int64() else SMALL.map(lambda n: Said(str(n), n))
    row = st.tuples(st.sampled_from(users), st.sampled_from(items), time)
    return File(format, tuple(draw(st.lists(row, min_size=min_size, max_size=max_size))), (ids, ids, kind))


def cut(draw: st.DrawFn, whole: File) -> list[File]:
    """Its rows in another order, in some files, of which some are empty."""
    rows = draw(st.permutations(whole.rows))
    edges = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    order = st.permutations(["user", "item", "time", "extra"]).map(tuple)
    return [
        replace(whole, rows=tuple(rows[start:stop]), order=draw(order), row_group=draw(st.integers(1, 5)))
        for start, stop in zip([0, *edges], [*edges, len(rows)], strict=True)
    ]


@settings(PATIENT, max_examples=40)
@given(data=st.data())
def test_the_fingerprint_is_of_the_rows_not_of_how_they_lie_in_files(data: st.DataObject) -> None:
    whole = data.draw(uniform_logs())
    with scratch() as folder:
        one, two = (preprocess(configured(write(cut(data.draw, whole), folder / name).parent, name)) for name in "12")
        assert one.manifest.fingerprint == two.manifest.fingerprint
        assert decoded(one) == decoded(two)
        assert one.manifest.set_aside == two.manifest.set_aside


# Settings that drop events


def without(own: dict[str, list[tuple[int, str]]], rare: set[str], rules: dict[str, Any]) -> Any:
    """The histories without rare items, then repeats, then what is old, then short users."""
    found = {}
    for user, events in own.items():
        left = [event for event in events if event[1] not in rare]
        if rules.get("collapse"):
            left = [event for n, event in enumerate(left) if n == 0 or left[n - 1][1] != event[1]]
        if rules.get("max_user_events"):
            left = left[-rules["max_user_events"] :]
        if left and len(left) >= rules.get("min_user_events", 1):
            found[user] = left
    return found


def settled(own: dict[str, list[tuple[int, str]]], rules: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    rare: set[str] = set()
    while True:
        left = without(own, rare, rules)
        count = Counter(item for events in left.values() for _, item in events)
        few = {item for item, n in count.items() if n < rules.get("min_item_events", 1)}
        if not few:
            return left
        rare |= few


def k_core(own: dict[str, list[tuple[int, str]]], user: int, item: int) -> dict[str, list[tuple[int, str]]]:
    """Event by event, until every user and item left has its minimum."""
    while True:
        count = Counter(each for events in own.values() for _, each in events)
        left = {u: [event for event in events if count[event[1]] >= item] for u, events in own.items()}
        left = {u: events for u, events in left.items() if len(events) >= user}
        if left == own:
            return own
        own = left


def data_settings(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules as a data section has them."""
    events = {
        "duplicates": "keep" if rules.get("keep") else "drop",
        "repeats": "collapse" if rules.get("collapse") else "keep",
    }
    return {"events": events, **{name: value for name, value in rules.items() if name not in ("keep", "collapse")}}


def assert_made(log: list[File], rules: dict[str, Any], want: dict[str, list[tuple[int, str]]]) -> None:
    """The dataset of these histories; without any, a refusal that names a setting."""
    with scratch() as folder:
        write(log, folder / "log")
        config = configured(folder, **data_settings(rules))
        if not want:
            with pytest.raises(UserError, match="no event is left with min_user_events") as error:
                preprocess(config)
            assert_clear(error.value, folder)
            return
        assert decoded(preprocess(config)) == content(want)


MINIMUM = st.integers(1, 4)


@settings(PATIENT, max_examples=40)
@given(whole=uniform_logs(pa.string()), keep=st.booleans(), user=MINIMUM, item=MINIMUM)
def test_minimum_counts_leave_the_k_core(whole: File, keep: bool, user: int, item: int) -> None:
    own = histories(expected([whole])[0], "string", drop=not keep)
    rules = {"keep": keep, "min_user_events": user, "min_item_events": item}
    assert_made([whole], rules, k_core(own, user, item))


RULES = st.fixed_dictionaries(
    {"keep": st.booleans(), "collapse": st.booleans(), "max_user_events": st.none() | st.integers(1, 5)},
    optional={"min_user_events": MINIMUM, "min_item_events": MINIMUM},
)


@settings(PATIENT, max_examples=40)
@given(whole=uniform_logs(pa.int64()), rules=RULES)
def test_the_newest_events_of_each_user_stay(whole: File, rules: dict[str, Any]) -> None:
    own = histories(expected([whole])[0], "int64", drop=not rules["keep"])
    assert_made([whole], rules, settled(own, rules))


# Append


@settings(PATIENT, max_examples=40)
@given(data=st.data(), ids=st.sampled_from([pa.int64(), pa.string()]), rules=st.just({}) | RULES)
def test_appended_logs_equal_one_dataset_of_all_logs(data: st.DataObject, ids: Any, rules: dict[str, Any]) -> None:
    whole = data.draw(uniform_logs(ids, min_size=2))
    row = st.tuples(*(st.none() | st.sampled_from([row[side] for row in whole.rows]) for side in range(3)))
    files = cut(data.draw, replace(whole, rows=whole.rows + tuple(data.draw(st.lists(row, max_size=6)))))
    with scratch() as folder:
        write(files, folder / "log")
        grown: Dataset | None = None
        taken = []
        for number, path in enumerate(sorted((folder / "log").iterdir())):
            config = configured(folder, f"log/{path.name}", **data_settings(rules)).model_copy(update={"name": "grown"})
            found = made(preprocess, config) if grown is None else made(append, config, str(path))
            if isinstance(found, UserError):
                assert len(str(found).splitlines()) == 1
                assert str(path) in str(found)
                assert grown is None or Dataset.open(grown.path) == grown, "the dataset stays as it was"
                if expected([files[number]])[0]:
                    assert "no event is left with min_user_events" in str(found)
            else:
                grown = found
                taken.append(files[number])
        if grown is None:
            return
        write([replace(file, row_group=5) for file in taken], folder / "all")
        everything = preprocess(configured(folder, "all", **data_settings(rules)))
        assert decoded(grown) == decoded(everything)
        for key in ("rows_read", "events", "users", "set_aside", "splits"):
            assert getattr(grown.manifest, key) == getattr(everything.manifest, key), key


# Columns that no one should bring

ODD: dict[Any, list[Any]] = {
    pa.bool_(): [True, False],
    pa.float32(): [1.0, 0.5, math.nan, math.inf],
    pa.float64(): [1.0, 0.5, 2.0**63, 1e300, math.inf],
    pa.uint64(): [1, 2**63, 2**64 - 1],
    pa.int64(): [*INT64, 0],
    pa.string(): ["", "1", "noon", "2024-01-01", "9" * 25, "-1e5", "nan"],
    pa.binary(): [b"", b"\xff"],
    pa.binary(16): [b"0123456789abcdef", bytes(16)],
    pa.list_(pa.int64()): [[], [1]],
    pa.struct({"a": pa.int64()}): [{"a": 1}],
    pa.decimal128(20, 2): [],
    pa.date32(): [date(1, 1, 1), date(9999, 12, 31)],
    pa.time64("us"): [],
    pa.duration("s"): [timedelta(1)],
    pa.timestamp("us"): [datetime(1, 1, 1), datetime(9999, 12, 31)],
    pa.timestamp("ns", "Asia/Kolkata"): [EPOCH],
    pa.dictionary(pa.int8(), pa.string()): ["a", ""],
    pa.dictionary(pa.int8(), pa.int64()): [1, 2],
}


@st.composite
def odd_files(draw: st.DrawFn) -> File:
    """Each column of any type at all."""
    kinds = tuple(draw(st.sampled_from(list(ODD))) for _ in range(3))
    rows = draw(st.lists(st.tuples(*(st.sampled_from([None, *ODD[kind]]) for kind in kinds)), max_size=5))
    return File("parquet", tuple(rows), kinds)


def rows_of_events(file: File) -> int:
    """Count a file's rows as they are read: an event of a list each, if items or times are lists of one length."""
    lists = [side for side, kind in enumerate(file.kinds) if pa.types.is_list(kind)]
    if not {1, 2} & set(lists):
        return len(file.rows)
    lengths = [{1 if row[side] is None else len(row[side]) for side in lists} for row in file.rows]
    return sum(length.pop() if len(length) == 1 else 1 for length in lengths)


LIST = pa.list_(pa.int64())


@settings(PATIENT, max_examples=80)
@example(log=[File("parquet", ((7, 7, None), (7, 7, [1]), (7, 7, [])), (pa.int64(), pa.int64(), LIST))], repair=set())
@given(log=st.lists(odd_files(), min_size=1, max_size=2), repair=st.sets(st.integers(0, 2), max_size=2))
def test_columns_of_any_type_are_taken_or_refused_in_one_line(log: list[File], repair: set[int]) -> None:
    for side in repair:  # or hardly any log would get past its first column
        log = [
            replace(
                file,
                rows=tuple((*row[:side], 7, *row[side + 1 :]) for row in file.rows),
                kinds=(*file.kinds[:side], pa.int64(), *file.kinds[side + 1 :]),
            )
            for file in log
        ]
    with scratch() as folder:
        write(log, folder / "log")
        dataset = made(preprocess, configured(folder))
        if isinstance(dataset, UserError):
            assert_clear(dataset, folder)
        else:
            decoded(dataset)
            assert dataset.manifest.rows_read == sum(rows_of_events(file) for file in log)


# The smallest cases of what went wrong


def table_log(folder: Path, **columns: pa.Array) -> Config:
    (folder / "log").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "log" / "000.parquet", use_dictionary=False)
    return configured(folder)


def test_the_first_time_may_come_after_a_block_without_any(tmp_path: Path) -> None:
    ids, times = pa.array([1, 1, 1]), pa.array([None, None, EPOCH], pa.timestamp("us", "UTC"))  # blocks of two rows
    manifest = preprocess(table_log(tmp_path, user=ids, item=ids, time=times)).manifest
    assert (manifest.time_unit, manifest.events, manifest.set_aside) == ("us", 1, {MISSING_TIME: 2})


def test_times_further_apart_than_64_bits_are_sorted_and_open_a_session() -> None:
    time = np.array([INT64[0], -1, 0, INT64[1]])
    since_last = time_since_last(np.zeros(4, np.int32), time)
    assert since_last.tolist() == [-1, INT64[1], 1, INT64[1]]
    assert sessions(np.zeros(4, np.int32), since_last, 60).tolist() == [0, 1, 1, 2]
    assert gap_buckets(since_last, 1).tolist() == [0, 64, 2, 64]
    ends = np.array(INT64)
    assert time_since_last(np.zeros(2, np.int32), ends).tolist() == [-1, INT64[1]], "the longest gap there is"


def test_text_without_offsets_of_its_own_is_a_column_like_another(tmp_path: Path) -> None:
    text = pa.array(["a", None], pa.string_view())
    assert preprocess(table_log(tmp_path, user=text, item=text, time=pa.array([1, 2]))).manifest.events == 1


def test_a_file_without_rows_may_have_a_row_group(tmp_path: Path) -> None:
    none = pa.array([], pa.int64())
    with pytest.raises(UserError, match="empty"):
        preprocess(table_log(tmp_path, user=none, item=none, time=none))


def test_a_first_block_of_blank_times_says_nothing_of_their_kind(tmp_path: Path) -> None:
    config = table_log(tmp_path, user=pa.array([1] * 3), item=pa.array([1] * 3), time=pa.array(["", "", "5"]))
    manifest = preprocess(config).manifest
    assert (manifest.time_unit, manifest.events) == ("number", 1)


@pytest.mark.parametrize("whole", [-1, 0, 1])
def test_a_fraction_is_cut_off_alike_in_numbers_and_in_text(whole: int, tmp_path: Path) -> None:
    found = []
    for name, times in (("numbers", pa.array([whole + 0.5])), ("text", pa.array([f"{whole + 0.5}"]))):
        ids = pa.array([1])
        dataset = preprocess(table_log(tmp_path / name, user=ids, item=ids, time=times))
        found += dataset.table("train")["times"].to_pylist()
    assert found[0] == found[1]

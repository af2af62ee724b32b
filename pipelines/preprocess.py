"""`mind preprocess`: event log (+ item and profile tables) -> the dataset folder of pipelines.dataset.

Four passes, each over pieces that fit a worker; the driver sees counts and vocabularies, never events.

1. read       a file piece -> clean blocks on disk; what is set aside is counted; a sample of the users comes back
2. partition  Ray Data: shuffle the blocks to ranges of users, sort each range, drop duplicates, write it
3. settle     item counts per range, again and again until no item or user is below its minimum
4. write      per range: encode, split, write its part of the dataset

Ranges of users depend on the set of users and the number of clean rows alone, so the parts come out the same however
the input was cut into files and blocks. The staging files lie inside the unpublished folder: on a cluster, `home` is
on storage that all nodes share.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import ray
import ray.data
import ray.exceptions

from pipelines.config import Config, DataConfig, EventSource
from pipelines.dataset import (
    SCHEMA_VERSION,
    Dataset,
    FeatureInfo,
    Layout,
    Manifest,
    SplitCounts,
    digest,
    feature_info,
    write_table,
)
from pipelines.errors import UserError
from pipelines.feature_rows import FeatureRows
from pipelines.formats import Fragment, read_blocks
from pipelines.histories import DUPLICATE, Histories, item_counts, settle, sort_events, write_arrow
from pipelines.ids import Int64s, as_array, buckets, common_type, is_whole_numbers, smallest_hashes
from pipelines.normalise import MALFORMED, UNREADABLE, TimeUnit, needed_columns, normalise, parse_times, time_unit
from pipelines.progress import progress
from pipelines.publish import published
from pipelines.session import raise_user_error, ray_session, run_tasks
from pipelines.sources import TEXT_FORMATS, fragments, lineage
from pipelines.splits import SPLITS, first_occurrences, gather, split_users
from pipelines.vocabulary import FIRST_ITEM, FeatureEncoder, build_items, encode_columns

EVENTS_PER_PART = 2**19  # a range of users holds about that many
RANGES_PER_BLOCK = 4  # of the shuffle: several small ranges even out what a hash puts together by chance
SAMPLE = 16_384  # users that the ranges are cut by


def preprocess(config: Config) -> Dataset:
    """Make the dataset at ``config.dataset_path``; an older one is replaced only by a whole new one.

    Raises
    ------
    UserError
        For whatever is wrong with the input; nothing half-written stays.
    """
    data = config.data
    pieces = fragments(data.events, needed_columns(data.events))
    unit = _log_time_unit(data.events, pieces)
    cutoffs = _cutoffs(data, unit)
    item_rows = None if data.items is None else FeatureRows.read(data.items)
    profile_rows = None if data.profile is None else FeatureRows.read(data.profile)
    with ray_session(config.ray, workers=config.train.workers), published(config.dataset_path) as folder:
        staging = folder / "staging"
        staging.mkdir()
        log = _read_log(data, pieces, unit, staging)
        if item_rows is not None:
            item_rows = item_rows.aligned(log.item_type, *_described(data.events, data.events.item, pieces))
        if profile_rows is not None:
            profile_rows = profile_rows.aligned(log.user_type, *_described(data.events, data.events.user, pieces))
        ranges, duplicates = _partition(data, log, staging)
        core = _settle(data, ranges)
        content = _write(data, core, item_rows, profile_rows, cutoffs, Layout(folder), staging)
        shutil.rmtree(staging)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=config.name,
            config=data.model_dump(mode="json"),
            rows_read=log.rows_read,
            set_aside=dict(sorted((log.set_aside + duplicates + content.set_aside).items())),
            events=sum(each.events for each in core.ranges),
            users=sum(each.users for each in core.ranges),
            items=core.items.num_rows,
            splits=content.splits,
            item_features=content.item_features,
            profile_features=content.profile_features,
            time_unit=unit,
            fingerprint=content.fingerprint,
            sources={
                "events": lineage(pieces, log.rows_by_file),
                "items": [] if item_rows is None else item_rows.files,
                "profile": [] if profile_rows is None else profile_rows.files,
            },
            versions={"ray": ray.__version__, "pyarrow": pa.__version__},
        )
        Layout(folder).manifest.write_text(manifest.to_json(), encoding="utf-8")
    return Dataset.open(config.dataset_path)


def _described(source: EventSource, column: str, pieces: list[Fragment]) -> tuple[str, bool]:
    """A log column's name for an error, and whether its values are text without a type."""
    return f"column {column!r} of {source.path}", pieces[0].format in TEXT_FORMATS


# --- 1. read -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CleanPiece:
    """A piece of the log after cleaning."""

    rows_read: int
    set_aside: Counter[str]
    blocks: list[str]  # Arrow files of clean events
    events: int  # in the blocks
    sample: pa.Array  # user ids of the smallest hashes
    user_types: set[pa.DataType]  # over the blocks
    item_types: set[pa.DataType]


@dataclass(frozen=True)
class CleanLog:
    """All pieces together."""

    rows_read: int
    rows_by_file: Counter[int]
    set_aside: Counter[str]
    blocks: list[str]
    events: int
    sample: pa.Array
    user_type: pa.DataType
    item_type: pa.DataType


def _log_time_unit(source: EventSource, pieces: list[Fragment]) -> TimeUnit:
    """From the first block with a time in it."""
    for piece in pieces:
        for block in read_blocks(piece, source, [source.time]):
            if block.table[source.time].null_count < block.table.num_rows:
                return time_unit(block.table[source.time], f"{piece.path}: time column {source.time!r}")
            break
    return "number"


def _cutoffs(data: DataConfig, unit: TimeUnit) -> tuple[int, int] | None:
    """The temporal cut-offs in the unit of the dataset's times."""
    split = data.split
    if split.validation_from is None or split.test_from is None:
        return None
    dates = (split.validation_from, split.test_from)
    texts = [f"{date:.0f}" if isinstance(date, float) else date for date in dates]
    first, second = parse_times(pa.array(texts), unit, "split").to_pylist()
    for key, text, value in zip(("validation_from", "test_from"), texts, (first, second), strict=True):
        if value is None:
            allowed = "a date or ISO text" if unit == "us" else "a number, as the log's times are"
            raise UserError(f"data.split.{key}={text!r}: must be {allowed}")
    if first >= second:
        raise UserError(f"data.split: validation_from={texts[0]} must be before test_from={texts[1]}")
    return first, second


def _read_log(data: DataConfig, pieces: list[Fragment], unit: TimeUnit, staging: Path) -> CleanLog:
    arguments = [(piece, data.events, unit, str(staging / f"read-{n:05d}")) for n, piece in enumerate(pieces)]
    cleaned = list(run_tasks(_read_piece, arguments, "Reading the log"))
    rows_by_file, set_aside = Counter[int](), Counter[str]()
    for piece, part in zip(pieces, cleaned, strict=True):
        rows_by_file[piece.number] += part.rows_read
        set_aside += part.set_aside
    rows_read = rows_by_file.total()
    _stop_if_bad(data, rows_read, set_aside)
    some = [part for part in cleaned if part.blocks]
    if not some:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in set_aside.items())
        raise UserError(f"{data.events.path}: no row is left of {rows_read:,} read ({listed})")
    user_type = common_type(set().union(*(part.user_types for part in some)))
    return CleanLog(
        rows_read,
        rows_by_file,
        set_aside,
        [path for part in some for path in part.blocks],
        sum(part.events for part in some),
        smallest_hashes(pa.concat_arrays([part.sample.cast(user_type) for part in some]), SAMPLE),
        user_type,
        common_type(set().union(*(part.item_types for part in some))),
    )


def _read_piece(piece: Fragment, source: EventSource, unit: TimeUnit, prefix: str) -> CleanPiece:
    """Task: clean a piece of the log into Arrow files beginning with `prefix`."""
    rows_read = rows_kept = 0
    set_aside: Counter[str] = Counter()
    blocks: list[str] = []
    types: dict[str, set[pa.DataType]] = {"user": set(), "item": set()}
    sample = pa.nulls(0, pa.int64())
    for number, block in enumerate(read_blocks(piece, source, needed_columns(source))):
        events, reasons = normalise(block.table, source, unit, piece.path)
        rows_read += block.table.num_rows + block.unreadable
        set_aside += reasons + Counter({UNREADABLE: block.unreadable})
        if not events.num_rows:
            continue
        for side, found in types.items():
            found.add(_own_type(events[side], piece.format))
        users = as_array(events["user"])
        kind = common_type({users.type, sample.type}) if len(sample) else users.type
        sample = smallest_hashes(pa.concat_arrays([sample.cast(kind), users.cast(kind)]), SAMPLE)
        path = f"{prefix}-{number:05d}.arrow"
        write_arrow(events, Path(path))
        blocks.append(path)
        rows_kept += events.num_rows
    return CleanPiece(rows_read, set_aside, blocks, rows_kept, sample, types["user"], types["item"])


def _own_type(ids: pa.ChunkedArray, file_format: str) -> pa.DataType:
    """The ids' type; a text file's are integers if all of them are (over the whole log: see `common_type`)."""
    whole = file_format in TEXT_FORMATS and pa.types.is_string(ids.type) and is_whole_numbers(ids)
    return pa.int64() if whole else ids.type


def _stop_if_bad(data: DataConfig, rows_read: int, set_aside: Counter[str]) -> None:
    if rows_read == 0:
        raise UserError(f"{data.events.path}: empty log, it has no row")
    bad = {reason: set_aside[reason] for reason in MALFORMED if set_aside[reason]}
    if sum(bad.values()) > data.max_bad_fraction * rows_read:
        listed = ", ".join(f"{count:,} {reason}" for reason, count in bad.items())
        raise UserError(
            f"{data.events.path}: {sum(bad.values()):,} of {rows_read:,} rows cannot be used ({listed}), more "
            f"than data.max_bad_fraction={data.max_bad_fraction}; mend the log or raise the limit"
        )


# --- 2. partition ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """The sorted events of consecutive users, and what settling left of them."""

    number: int
    path: str
    users: int = 0
    events: int = 0


def _partition(data: DataConfig, log: CleanLog, staging: Path) -> tuple[list[Range], Counter[str]]:
    bounds = _bounds(log.sample, -(-log.events // EVENTS_PER_PART))
    count = len(bounds) + 1
    types = {"user": log.user_type, "item": log.item_type}

    def load(files: pa.Table) -> pa.Table:
        table = feather.read_table(files["path"][0].as_py(), memory_map=False)
        for side, kind in types.items():
            place = table.column_names.index(side)
            table = table.set_column(place, side, table[side].cast(kind))
        if "type" in table.column_names:  # null does not pass the shuffle's type unification when a block has no type
            place = table.column_names.index("type")
            table = table.set_column(place, "type", pc.fill_null(table["type"], "\0"))
        return table.append_column("range", pa.array(buckets(as_array(table["user"]), bounds)))

    def write_ranges(block: pa.Table) -> pa.Table:
        written: dict[str, list[Any]] = {"number": [], "path": [], "duplicates": []}
        numbers = block["range"].to_numpy() if block.num_columns else np.array([], np.int64)
        for number in np.unique(numbers):  # a handful of ranges per block
            events = block.filter(pa.array(numbers == number)).drop_columns(["range"])
            histories, dropped = sort_events(events, data.events.duplicates == "drop")
            path = staging / f"range-{number:05d}.arrow"
            histories.write(path)
            for name, value in zip(written, (int(number), str(path), dropped), strict=True):
                written[name].append(value)
        return pa.table(
            written, schema=pa.schema({"number": pa.int64(), "path": pa.string(), "duplicates": pa.int64()})
        )

    blocks = data.partitions or min(count, max(2, -(-count // RANGES_PER_BLOCK)))
    files = [pa.table({"path": [path]}) for path in log.blocks]
    shuffled = (
        ray.data.from_arrow(files)
        .map_batches(load, batch_size=1, batch_format="pyarrow")
        .repartition(blocks, keys=["range"])
        .map_batches(write_ranges, batch_size=None, batch_format="pyarrow")
    )
    ranges, duplicates = [], 0
    try:
        with progress("Partitioning by user", total=count) as advance:
            for row in shuffled.iter_rows():
                ranges.append(Range(row["number"], row["path"]))
                duplicates += row["duplicates"]
                advance(1)
    except ray.exceptions.RayError as error:
        raise_user_error(error)
        raise
    for path in log.blocks:
        Path(path).unlink()
    return sorted(ranges, key=lambda each: each.number), +Counter({DUPLICATE: duplicates})


def _bounds(sample: pa.Array, ranges: int) -> pa.Array:
    """Ascending user ids that cut the users into at most that many ranges of about equal numbers."""
    ordered = sample.take(pc.sort_indices(sample))
    places = np.unique(np.arange(1, ranges) * len(ordered) // max(ranges, 1))
    return ordered.take(pa.array(places[places > 0], pa.int64()))


# --- 3. settle ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Core:
    """The fixed point: every user and item left has its minimum of events."""

    ranges: list[Range]
    items: pa.Table  # the item vocabulary: index, id, count
    rare: pa.Array | None  # ids of the items dropped


def _settle(data: DataConfig, ranges: list[Range]) -> Core:
    """Grow the set of rare items until nothing falls below its minimum (the k-core)."""
    rare: pa.Array | None = None
    rounds = 0
    while True:
        rounds += 1
        shared = ray.put(rare)
        what = "Counting items" if rounds == 1 else f"Dropping rare items and short users, round {rounds}"
        settled: list[Range] = []
        counts = _Counts()
        for left, counted in run_tasks(_settle_range, [(each, shared, data) for each in ranges], what):
            settled.append(left)
            counts.add(counted)
        items = counts.total()
        if not items.num_rows:
            raise UserError(
                f"{data.events.path}: no event is left with min_user_events={data.min_user_events} and "
                f"min_item_events={data.min_item_events}; lower them"
            )
        few = as_array(items.filter(pc.less(items["count"], data.min_item_events))["id"])
        if not len(few):
            return Core(settled, build_items(items), rare)
        rare = few if rare is None else pa.concat_arrays([rare, few])


def _settle_range(each: Range, rare: pa.Array | None, data: DataConfig) -> tuple[Range, pa.Table]:
    """Task: what is left of a range without the rare items, and its item counts."""
    histories, _ = _settled(each, rare, data)
    return Range(each.number, each.path, len(histories.users), len(histories.item)), item_counts(histories)


def _settled(each: Range, rare: pa.Array | None, data: DataConfig) -> tuple[Histories, Counter[str]]:
    histories = Histories.read(Path(each.path))
    if rare is None:
        drop = np.zeros(len(histories.items), bool)
    else:
        drop = pc.is_in(histories.items, value_set=rare).to_numpy(zero_copy_only=False)
    return settle(histories, drop, data.min_user_events, data.events.repeats == "collapse")


class _Counts:
    """A running sum of (id, count) tables that holds a few of them at most."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        if len(self._tables) > 8:
            self._tables = [self.total()]

    def total(self) -> pa.Table:
        joined = pa.concat_tables(self._tables).group_by("id").aggregate([("count", "sum")])
        return joined.rename_columns({"count_sum": "count"}).select(["id", "count"])


# --- 4. write ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """What the manifest says of the files written."""

    set_aside: Counter[str]
    splits: dict[str, SplitCounts]
    item_features: tuple[FeatureInfo, ...]
    profile_features: tuple[FeatureInfo, ...]
    fingerprint: str


@dataclass(frozen=True)
class Shared:
    """What every task of the last pass needs; in the object store once per node."""

    data: DataConfig
    rare: pa.Array | None
    item_ids: pa.Array  # in vocabulary order
    profile: FeatureRows | None
    profile_encoders: list[FeatureEncoder]
    cutoffs: tuple[int, int] | None
    layout: Layout
    staging: Path


@dataclass(frozen=True)
class Part:
    """What one task of the last pass wrote."""

    set_aside: Counter[str]
    splits: dict[str, SplitCounts]
    train_items: tuple[Int64s, Int64s]  # vocabulary places, occurrences
    users_file: Path
    digests: list[str]


def _write(
    data: DataConfig,
    core: Core,
    item_rows: FeatureRows | None,
    profile_rows: FeatureRows | None,
    cutoffs: tuple[int, int] | None,
    layout: Layout,
    staging: Path,
) -> Content:
    layout.create()
    profile_encoders = [] if profile_rows is None else _fit_profile(data, core, profile_rows)
    shared = ray.put(
        Shared(data, core.rare, as_array(core.items["id"]), profile_rows, profile_encoders, cutoffs, layout, staging)
    )
    first = np.cumsum([0, *(each.users for each in core.ranges)])
    arguments = [(each, number, int(first[number]), shared) for number, each in enumerate(core.ranges)]
    parts: list[Part] = list(run_tasks(_write_range, arguments, "Writing sequences"))
    train_count = np.zeros(core.items.num_rows, np.int64)
    for part in parts:
        places, occurrences = part.train_items
        train_count[places] += occurrences
    items, item_encoders = _item_table(core.items, train_count, item_rows)
    write_table(items, layout.items)
    write_table(core.items, layout.vocabulary("items"))
    for side, encoders in (("item", item_encoders), ("profile", profile_encoders)):
        for encoder in encoders:
            if (table := encoder.table()) is not None:
                write_table(table, layout.vocabulary(f"{side}_features/{encoder.name}"))
    _join_tables([part.users_file for part in parts], layout.vocabulary("users"))
    features = {
        "item": tuple(feature_info(encoder) for encoder in item_encoders),
        "profile": tuple(feature_info(encoder) for encoder in profile_encoders),
    }
    digests = [SCHEMA_VERSION, digest(items), repr(features), *(each for part in parts for each in part.digests)]
    return Content(
        sum((part.set_aside for part in parts), Counter()),
        {split: _total([part.splits[split] for part in parts]) for split in SPLITS},
        features["item"],
        features["profile"],
        hashlib.sha256("\n".join(map(str, digests)).encode()).hexdigest(),
    )


def _fit_profile(data: DataConfig, core: Core, rows: FeatureRows) -> list[FeatureEncoder]:
    """Learn the profile features from the rows of users in the vocabulary."""
    shared = ray.put((data, core.rare, rows))
    used = np.zeros(len(rows.ids), bool)
    for found in run_tasks(_profile_rows, [(each, shared) for each in core.ranges], "Matching profiles"):
        used[found] = True
    if not used.any():
        raise UserError(f"{rows.source.path}: no value of {rows.source.id!r} is a user of {data.events.path}")
    return rows.fit(used)


def _profile_rows(each: Range, shared: tuple[DataConfig, pa.Array | None, FeatureRows]) -> Int64s:
    """Task: the profile table's rows of a range's users."""
    data, rare, rows = shared
    histories, _ = _settled(each, rare, data)
    return np.asarray(rows.find(histories.users).drop_null().to_numpy(), np.int64)


def _write_range(each: Range, number: int, first_user: int, shared: Shared) -> Part:
    """Task: write the sequences of a range's users as part `number` of every split."""
    histories, set_aside = _settled(each, shared.rare, shared.data)
    place = pc.index_in(histories.items, value_set=shared.item_ids).fill_null(-1).to_numpy()
    items = (place[histories.item] + FIRST_ITEM).astype(np.int32)
    count = np.bincount(histories.user, minlength=len(histories.users))
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    profile: dict[str, pa.Array] = {}
    if shared.profile is not None:
        profile = encode_columns(shared.profile_encoders, shared.profile.look_up(histories.users), "profile")
    splits, digests = {}, []
    train_items = np.array([], np.int32)
    stretches = split_users(shared.data.split, histories.users, offsets, histories.time, shared.cutoffs)
    for split, cut in stretches.items():
        columns = {
            "user": pa.array(first_user + cut.user, pa.int64()),
            "items": gather(items, cut.start, cut.stop),
            "times": gather(histories.time, cut.start, cut.stop),
            "targets": first_occurrences(gather(items, cut.target_start, cut.target_stop)),
            **{name: column.take(pa.array(cut.user)) for name, column in profile.items()},
        }
        table = pa.table(columns)
        write_table(table, shared.layout.part(split, number))
        digests.append(digest(table))
        known, wanted = columns["items"].values, columns["targets"].values
        splits[split] = SplitCounts(len(cut.user), len(known), len(wanted), cut.skipped)
        if split == "train":
            train_items = known.to_numpy()
    users = pa.table(
        {
            "index": np.arange(first_user, first_user + len(count), dtype=np.int64),
            "id": histories.users,
            "count": count.astype(np.int64),
        }
    )
    users_file = shared.staging / f"users-{number:05d}.arrow"
    write_arrow(users, users_file)
    places, occurrences = np.unique(train_items, return_counts=True)
    return Part(
        set_aside, splits, (places.astype(np.int64) - FIRST_ITEM, occurrences), users_file, [*digests, digest(users)]
    )


def _item_table(
    vocabulary: pa.Table, train_count: Int64s, rows: FeatureRows | None
) -> tuple[pa.Table, list[FeatureEncoder]]:
    """The item table of the dataset, and the encoders that its features went through."""
    columns = {
        "item": as_array(vocabulary["index"]),
        "id": as_array(vocabulary["id"]),
        "count": as_array(vocabulary["count"]),
        "train_count": pa.array(train_count),
    }
    if rows is None:
        return pa.table(columns), []
    used = np.zeros(len(rows.ids), bool)
    used[rows.find(columns["id"]).drop_null().to_numpy()] = True
    if not used.any():
        raise UserError(f"{rows.source.path}: no value of {rows.source.id!r} is an item of the log")
    encoders = rows.fit(used)
    raw = rows.look_up(columns["id"])
    columns |= encode_columns(encoders, raw, "feature")
    columns |= {f"show_{name}": as_array(raw[name]) for name in rows.source.show}
    return pa.table(columns), encoders


def _total(counts: list[SplitCounts]) -> SplitCounts:
    return SplitCounts(*(sum(values) for values in zip(*(astuple(each) for each in counts), strict=True)))


def _join_tables(files: list[Path], target: Path) -> None:
    """Concatenate Arrow files into one Parquet file, one at a time."""
    with pq.ParquetWriter(target, feather.read_table(files[0]).schema, compression="zstd") as writer:
        for file in files:
            writer.write_table(feather.read_table(file, memory_map=False))

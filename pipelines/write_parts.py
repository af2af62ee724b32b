"""Pass 4 of preprocessing: per range of users, encode, split, write one part of every split; then the item table."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import ray

from pipelines.config import DataConfig
from pipelines.core_items import Core, settle_range
from pipelines.dataset import (
    SCHEMA_VERSION,
    FeatureInfo,
    Layout,
    SplitCounts,
    digest,
    feature_info,
    write_table,
)
from pipelines.errors import UserError
from pipelines.feature_rows import FeatureRows
from pipelines.histories import write_arrow
from pipelines.ids import Int64s, as_array
from pipelines.ranges import Range
from pipelines.session import run_tasks
from pipelines.splits import SPLITS, first_occurrences, gather, split_users
from pipelines.vocabulary import FIRST_ITEM, FeatureEncoder, encode_columns


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


def write_parts(
    data: DataConfig,
    core: Core,
    item_rows: FeatureRows | None,
    profile_rows: FeatureRows | None,
    cutoffs: tuple[int, int] | None,
    layout: Layout,
    staging: Path,
) -> Content:
    """Write everything of the dataset but its manifest.

    Raises
    ------
    UserError
        If a table shares no id with the log, or a feature's kind does not suit its column.
    """
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
    histories, _ = settle_range(each, rare, data)
    return np.asarray(rows.find(histories.users).drop_null().to_numpy(), np.int64)


def _write_range(each: Range, number: int, first_user: int, shared: Shared) -> Part:
    """Task: write the sequences of a range's users as part `number` of every split."""
    histories, set_aside = settle_range(each, shared.rare, shared.data)
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

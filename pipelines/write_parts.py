"""Pass 4 of preprocessing: per part, encode, split, write one file of every split; then the item table."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import ray

from pipelines.behaviours import gap_buckets, sessions, time_since_last, type_weights
from pipelines.config import DataConfig
from pipelines.core_items import Core, settled
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
from pipelines.histories import Histories, write_arrow
from pipelines.ids import Int64s, Lookup, as_array
from pipelines.normalise import TimeUnit
from pipelines.session import run_tasks
from pipelines.sort_parts import Part
from pipelines.splits import SPLITS, first_occurrences, gather, split_users
from pipelines.vocabulary import FIRST_ITEM, FeatureEncoder, build_items, encode_columns
from pipelines.workspace import Workspace

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Content:
    """What the manifest says of the files written."""

    set_aside: Counter[str]
    splits: dict[str, SplitCounts]
    events: int
    users: int
    items: int
    item_features: tuple[FeatureInfo, ...]
    profile_features: tuple[FeatureInfo, ...]
    fingerprint: str


@dataclass(frozen=True)
class Shared:
    """What every task of the last pass needs; in the object store once per node."""

    data: DataConfig
    unit: TimeUnit
    rare: pa.Array | None
    items: Lookup  # by vocabulary order
    profile: FeatureRows | None
    profile_encoders: list[FeatureEncoder]
    cutoffs: tuple[int, int] | None
    layout: Layout
    counts: Path  # folder of the parts' counts of items in train


def write_parts(
    data: DataConfig,
    unit: TimeUnit,
    parts: list[Part],
    core: Core,
    item_rows: FeatureRows | None,
    profile_rows: FeatureRows | None,
    cutoffs: tuple[int, int] | None,
    layout: Layout,
    work: Workspace,
) -> Content:
    """Write everything of the dataset but its manifest.

    Raises
    ------
    UserError
        If a table shares no id with the log, or a feature's kind does not suit its column.
    """
    layout.create()
    vocabulary = build_items(core.items, cold_items(data, core.items, item_rows))
    profile_encoders = [] if profile_rows is None else _fit_profile(data, parts, core, profile_rows)
    counts = work.root / "write"
    lookup = Lookup(as_array(vocabulary["id"]))
    shared = ray.put(Shared(data, unit, core.rare, lookup, profile_rows, profile_encoders, cutoffs, layout, counts))
    first = np.cumsum([0, *core.users])
    arguments = [(part, int(first[part.number]), shared) for part in parts]
    written = work.run("write", _write_part, arguments, "Writing sequences")
    train_count = np.zeros(vocabulary.num_rows, np.int64)
    for part in parts:
        found = feather.read_table(counts / f"train-{part.number:05d}.arrow", memory_map=False)
        train_count[found["place"].to_numpy()] += found["count"].to_numpy()
    items, item_encoders = _item_table(vocabulary, train_count, item_rows)
    write_table(items, layout.items)
    write_table(vocabulary, layout.vocabulary("items"))
    for side, encoders in (("item", item_encoders), ("profile", profile_encoders)):
        for encoder in encoders:
            if (table := encoder.table()) is not None:
                write_table(table, layout.vocabulary(f"{side}_features/{encoder.name}"))
    features = {
        "item": tuple(feature_info(encoder) for encoder in item_encoders),
        "profile": tuple(feature_info(encoder) for encoder in profile_encoders),
    }
    digests = [SCHEMA_VERSION, digest(items), repr(features), *(each for part in written for each in part["digests"])]
    return Content(
        sum((Counter(part["set_aside"]) for part in written), Counter()),
        {split: _total([SplitCounts(**part["splits"][split]) for part in written]) for split in SPLITS},
        sum(part["events"] for part in written),
        sum(core.users),
        vocabulary.num_rows,
        features["item"],
        features["profile"],
        hashlib.sha256("\n".join(map(str, digests)).encode()).hexdigest(),
    )


def cold_items(data: DataConfig, counted: pa.Table, rows: FeatureRows | None) -> pa.Array | None:
    """Ids of the item table that the log never names, if the dataset is to have them."""
    if rows is None or data.items is None or not data.items.cold_start:
        return None
    return rows.ids.filter(pc.invert(pc.is_in(rows.ids, value_set=as_array(counted["id"]))))


def _fit_profile(data: DataConfig, parts: list[Part], core: Core, rows: FeatureRows) -> list[FeatureEncoder]:
    """Learn the profile features from the rows of users in the vocabulary."""
    shared = ray.put((data, core.rare, rows))
    used = np.zeros(len(rows.ids), bool)
    for found in run_tasks(_profile_rows, [(part, shared) for part in parts], "Matching profiles"):
        used[found] = True
    if not used.any():
        raise UserError(f"{rows.source.path}: no value of {rows.source.id!r} is a user of {data.events.path}")
    return rows.fit(used)


def _profile_rows(part: Part, shared: tuple[DataConfig, pa.Array | None, FeatureRows]) -> Int64s:
    """Task: the profile table's rows of a part's users."""
    data, rare, rows = shared
    histories, _ = settled(Histories.read(Path(part.path)), rare, data)
    return np.asarray(rows.find(histories.users).drop_null().to_numpy(), np.int64)


def _write_part(part: Part, first_user: int, shared: Shared) -> dict[str, Any]:
    """Task: write the sequences of a part's users."""
    histories, set_aside = settled(Histories.read(Path(part.path)), shared.rare, shared.data)
    index = np.arange(first_user, first_user + len(histories.users))
    splits, train_items, digests = write_sequences(histories, index, part.number, shared)
    count = np.bincount(histories.user, minlength=len(histories.users)).astype(np.int64)
    users = pa.table({"index": index, "id": histories.users, "count": count})
    write_table(users, shared.layout.users(part.number))
    places, occurrences = np.unique(train_items, return_counts=True)
    write_arrow(
        pa.table({"place": places.astype(np.int64) - FIRST_ITEM, "count": occurrences}),
        shared.counts / f"train-{part.number:05d}.arrow",
    )
    return {
        "set_aside": dict(set_aside),
        "splits": {name: asdict(counts) for name, counts in splits.items()},
        "events": len(histories.item),
        "digests": [*digests, digest(users)],
    }


def write_sequences(
    histories: Histories, index: Int64s, number: int, shared: Shared
) -> tuple[dict[str, SplitCounts], Int32s, list[str]]:
    """Write the users' rows as part `number` of every split.

    Parameters
    ----------
    index : (U,) of the users.

    Returns
    -------
    splits, train_items (all items of the train rows), digests.
    """
    data = shared.data
    items = (shared.items.places(histories.items)[histories.item] + FIRST_ITEM).astype(np.int32)
    count = np.bincount(histories.user, minlength=len(histories.users))
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    behaviours: dict[str, npt.NDArray[Any]] = {
        "items": items,
        "times": histories.time,
        **_behaviours(histories, data, shared.unit),
    }
    profile: dict[str, pa.Array] = {}
    if shared.profile is not None:
        profile = encode_columns(shared.profile_encoders, shared.profile.look_up(histories.users), "profile")
    splits, digests = {}, []
    train_items = np.array([], np.int32)
    stretches = split_users(data.split, histories.users, offsets, histories.time, shared.cutoffs)
    for split, cut in stretches.items():
        columns = {
            "user": pa.array(index[cut.user], pa.int64()),
            **{name: gather(values, cut.start, cut.stop) for name, values in behaviours.items()},
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
    return splits, train_items, digests


def _behaviours(histories: Histories, data: DataConfig, unit: TimeUnit) -> dict[str, npt.NDArray[Any]]:
    """What the configuration wants to know of each event beside its item and time."""
    second = 1e6 if unit == "us" else 1
    found: dict[str, npt.NDArray[Any]] = {}
    if data.events.type_weights is not None:
        assert histories.type is not None, "the configuration requires event_type"
        found["weights"] = type_weights(histories.type, data.events.type_weights)
    since_last = time_since_last(histories.user, histories.time)
    if data.session_gap is not None:
        found["sessions"] = sessions(histories.user, since_last, data.session_gap * second)
    if data.time_gaps:
        found["gaps"] = gap_buckets(since_last, second)
    return found


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

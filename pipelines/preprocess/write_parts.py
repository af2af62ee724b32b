"""Pass 4 of preprocessing: per part, encode, split, write one file of every split; then the item table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray

from mind_core.special_rows import FIRST_ITEM
from pipelines.cluster.ray_data import mapped, pieces, run
from pipelines.config.schema import DataConfig
from pipelines.dataset.column_summary import ColumnSummary
from pipelines.dataset.dataset import (
    NEWCOMERS,
    NOTHING,
    RAW,
    SCHEMA_VERSION,
    FeatureInfo,
    Layout,
    Side,
    SplitCounts,
    feature_info,
)
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.dataset.split_rows import COUNTED, SplitRows, item_occurrences, newcomers, split_rows, stretches
from pipelines.dataset.splits import SPLITS
from pipelines.dataset.vocabulary import FeatureEncoder, build_items, encode_columns
from pipelines.log.formats import Note
from pipelines.log.ids import Int64s, Lookup, as_array
from pipelines.log.times import TimeUnit
from pipelines.preprocess.core_items import Core, settled
from pipelines.preprocess.sort_parts import Part
from pipelines.preprocess.workspace import Workspace
from pipelines.quality.part_stats import Stats, merge_stats, part_stats
from pipelines.storage.digests import joint_digest, table_digest
from pipelines.storage.tables import read_arrow, write_arrow, write_table

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
    stats: Stats  # of all parts
    test_count: Int64s  # (items,) how often each is a test target
    notes: list[Note]  # of the item and the profile table
    columns: list[ColumnSummary]  # of the same


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
    counts: Path  # folder of the parts' counts by item


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
    profile_encoders = [] if profile_rows is None else _fit_profile(data, parts, core, profile_rows, work)
    counts = work.root / "write"
    lookup = Lookup(as_array(vocabulary["id"]))
    shared = ray.put(Shared(data, unit, core.rare, lookup, profile_rows, profile_encoders, cutoffs, layout, counts))
    first = np.cumsum([0, *core.users])
    arguments = [(part, int(first[part.number]), shared) for part in parts]
    written = work.run("write", _write_part, arguments, "Writing sequences")
    occurrences = np.zeros((2, vocabulary.num_rows), np.int64)  # of train, of test
    for part in parts:
        add_occurrences(occurrences, counts / f"items-{part.number:05d}.arrow")
    train_count, test_count = occurrences
    items, item_encoders = item_table(vocabulary, train_count, item_rows)
    write_items(vocabulary, items, item_encoders, layout)
    write_encoders("profile", profile_encoders, layout)
    features = {
        "item": tuple(feature_info(encoder) for encoder in item_encoders),
        "profile": tuple(feature_info(encoder) for encoder in profile_encoders),
    }
    digests = [
        SCHEMA_VERSION,
        table_digest(items.drop_columns([name for name in items.column_names if name.startswith(RAW)])),
        repr(features),
        *(each for part in written for each in part["digests"]),
    ]
    return Content(
        sum((Counter(part["set_aside"]) for part in written), Counter()),
        {split: sum((SplitCounts(**part["splits"][split]) for part in written), NOTHING) for split in SPLITS},
        sum(part["events"] for part in written),
        sum(core.users),
        vocabulary.num_rows,
        features["item"],
        features["profile"],
        joint_digest(digests),
        merge_stats([part["stats"] for part in written]),
        test_count,
        [
            *(item_rows.notes(item_encoders) if item_rows else ()),
            *(profile_rows.notes(profile_encoders) if profile_rows else ()),
        ],
        [
            *(item_rows.summaries("items") if item_rows else ()),
            *(profile_rows.summaries("profile") if profile_rows else ()),
        ],
    )


def cold_items(data: DataConfig, counted: pa.Table, rows: FeatureRows | None) -> pa.Array | None:
    """Find the ids of the item table that the log never names, if the dataset is to have them."""
    if rows is None or data.items is None or not data.items.cold_start:
        return None
    return rows.ids.filter(pc.invert(pc.is_in(rows.ids, value_set=as_array(counted["id"]))))


def _fit_profile(
    data: DataConfig, parts: list[Part], core: Core, rows: FeatureRows, work: Workspace
) -> list[FeatureEncoder]:
    """Learn the profile features from the rows of users in the vocabulary."""
    given = ray.put((parts, data, core.rare, rows))

    def find_rows(block: pa.Table) -> pa.Table:
        parts, data, rare, rows = ray.get(given)
        found = [_profile_rows(parts[number], data, rare, rows) for number in block["key"].to_pylist()]
        return pa.table({"row": np.concatenate(found)})

    used = np.zeros(len(rows.ids), bool)
    what = "Matching profiles"
    for block in run(mapped(pieces(range(len(parts))), find_rows, what), what, None, work.report):
        used[block["row"].to_numpy()] = True
    if not used.any():
        raise rows.nothing_in_common(f"a user of {data.events.path}", parts[0].read().users)
    return rows.fit(used)


def _profile_rows(part: Part, data: DataConfig, rare: pa.Array | None, rows: FeatureRows) -> Int64s:
    """Look up the profile table's rows of a part's users."""
    histories, _ = settled(part.read(), rare, data)
    return np.asarray(rows.find(histories.users).drop_null().to_numpy(), np.int64)


def _write_part(part: Part, first_user: int, shared: Shared) -> dict[str, Any]:
    """Task: write the sequences of a part's users."""
    histories, set_aside = settled(part.read(), shared.rare, shared.data)
    index = np.arange(first_user, first_user + len(histories.users))
    rows, digests = write_sequences(histories, index, part.number, shared)
    count = np.bincount(histories.user, minlength=len(histories.users)).astype(np.int64)
    users = pa.table({"index": index, "id": histories.users, "count": count})
    write_table(users, shared.layout.users(part.number))
    write_arrow(item_occurrences(rows), shared.counts / f"items-{part.number:05d}.arrow")
    return {
        "set_aside": dict(set_aside),
        "splits": {split: asdict(each.counts) for split, each in rows.items()},
        "events": len(histories.item),
        "digests": [*digests, table_digest(users)],
        "stats": part_stats(histories, stretches(rows), shared.unit),
    }


def write_sequences(
    histories: SortedEvents, index: Int64s, number: int, shared: Shared
) -> tuple[dict[str, SplitRows], list[str]]:
    """Write the users' rows as part `number` of every split, and of the newcomers if there are any.

    Parameters
    ----------
    index : (U,) of the users.

    Returns
    -------
    The rows, without profiles, and their digests.
    """
    items = (shared.items.places(histories.items)[histories.item] + FIRST_ITEM).astype(np.int32)
    profile: dict[str, pa.Array] = {}
    if shared.profile is not None:
        profile = encode_columns(shared.profile_encoders, shared.profile.look_up(histories.users), "profile")
    splits = split_rows(histories, items, index, shared.data, shared.unit, shared.cutoffs)
    digests = []
    others = newcomers(histories, items, index, splits)
    for split, rows in {**splits, **({NEWCOMERS: others} if others.table.num_rows else {})}.items():
        table = rows.table
        for name, column in profile.items():
            table = table.append_column(name, column.take(pa.array(rows.cut.user)))
        write_table(table, shared.layout.part(split, number))
        digests.append(table_digest(table))
    return splits, digests


def add_occurrences(total: Int64s, file: Path) -> None:
    """Add what `item_occurrences` of a part's rows found to (2, items) counts in train and test, in place."""
    found = read_arrow(file)
    place = found["item"].to_numpy() - FIRST_ITEM
    for row, (split, _) in zip(total, COUNTED, strict=True):
        row[place] += found[split].to_numpy()


def write_items(vocabulary: pa.Table, items: pa.Table, encoders: list[FeatureEncoder], layout: Layout) -> None:
    """Write the item table, the item vocabulary and those of the item features."""
    write_table(items, layout.items)
    write_table(vocabulary, layout.vocabulary("items"))
    write_encoders("item", encoders, layout)


def write_encoders(side: Side, encoders: list[FeatureEncoder], layout: Layout) -> None:
    """Write the vocabularies of features."""
    for encoder in encoders:
        if (table := encoder.table()) is not None:
            write_table(table, layout.vocabulary(f"{side}_features/{encoder.name}"))


def item_table(
    vocabulary: pa.Table, train_count: Int64s, rows: FeatureRows | None, older: Sequence[FeatureEncoder] = ()
) -> tuple[pa.Table, list[FeatureEncoder]]:
    """Make the item table of the dataset, and the encoders that its features went through.

    older : of the dataset that is appended to; their values keep their rows.
    """
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
        raise rows.nothing_in_common("an item of the log", columns["id"])
    encoders = rows.fit(used)
    encoders = [encoder.after(old) for encoder, old in zip(encoders, older, strict=True)] if older else encoders
    raw = rows.look_up(columns["id"])
    columns |= encode_columns(encoders, raw, "feature")
    columns |= {f"show_{name}": as_array(raw[name]) for name in rows.source.show}
    features = [name for name in rows.source.features if name not in rows.source.show]  # for filters of lists
    columns |= {f"{RAW}{name}": as_array(raw[name]) for name in features}
    return pa.table(columns), encoders

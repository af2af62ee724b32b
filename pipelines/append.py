"""`mind preprocess --append LOG`: a new day's log onto a dataset, at the cost of the users that it touches.

The result is that of a new dataset of all the logs, but for the numbering: items and users keep their rows, new ones
come after. The pass over the parts is pipelines.append_parts. All files that stay as they are are linked, not copied,
into a folder that takes the old one's place when it is whole.

What stays as the first build learned it until the next one: the scale of numeric features, the edges of buckets, and
the values of profile features.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather

from pipelines.append_parts import Change, Touched, part_of, rewrite_part, touch_part, write_segment
from pipelines.clean_log import CleanLog, log_time_unit, read_log
from pipelines.config import Config, DataConfig
from pipelines.core_items import find_core, has_minimum, total
from pipelines.dataset import Dataset, Layout, SplitCounts, digest, feature_info
from pipelines.errors import UserError
from pipelines.feature_rows import FeatureRows
from pipelines.formats import Fragment
from pipelines.histories import DUPLICATE, SETTLED, write_arrow
from pipelines.ids import Lookup, as_array
from pipelines.load_config import resolved
from pipelines.normalise import needed_columns
from pipelines.part_files import write_table, write_text
from pipelines.part_stats import merge_stats, without
from pipelines.preprocess import UNCOUNTED, cutoffs_of, described
from pipelines.quality import write_quality
from pipelines.sequences import COUNTED
from pipelines.session import cluster_address, ray_session, share
from pipelines.sources import fragments, lineage
from pipelines.splits import SPLITS
from pipelines.vocabulary import grow_items
from pipelines.workspace import Workspace, swap, workspace
from pipelines.write_parts import Shared, add_occurrences, cold_items, item_table

INLINE_BYTES = 64 * 2**20  # a smaller log is not worth starting Ray for


def append(config: Config, path: str) -> Dataset:
    """Take the log at `path` onto the dataset at ``config.dataset_path``.

    Raises
    ------
    UserError
        If there is no dataset, its settings are others, a file of the log is part of it already, or whatever is wrong
        with the log; the dataset stays as it was.
    """
    dataset = Dataset.open(config.dataset_path)
    _require_same_settings(config, dataset)
    data = config.data.model_copy(update={"events": config.data.events.model_copy(update={"path": path})})
    pieces = fragments(data.events, needed_columns(data.events))
    _require_new(dataset, pieces)
    files = [[piece.path, piece.size_bytes, piece.modified_ns, list(piece.row_groups)] for piece in pieces]
    key = {"appended_to": dataset.manifest.fingerprint, "files": files}
    with workspace(config.dataset_path, key) as work, _session(config, data, pieces):
        folder = work.root / "dataset"
        _link(config.dataset_path, folder)
        _append(dataset, Layout(folder), data, pieces, work)
        swap(folder, config.dataset_path)
    return Dataset.open(config.dataset_path)


def _append(dataset: Dataset, layout: Layout, data: DataConfig, pieces: list[Fragment], work: Workspace) -> None:
    """Bring the linked copy of a dataset at `layout` to its new state."""
    manifest = dataset.manifest
    unit = log_time_unit(data.events, pieces)
    if unit != manifest.time_unit:
        raise UserError(f"{data.events.path}: its times are of another kind than the dataset's; make the dataset anew")
    generation, vocabulary = manifest.appended + 1, dataset.vocabulary("items")
    cutoffs = cutoffs_of(data, unit)
    log = read_log(data, pieces, unit, work, layout.quarantine, f"{generation:03d}-")
    kinds = _types(log, data, pieces, {"user": dataset.user_type(), "item": vocabulary["id"].type})
    runs = manifest.bucket_runs
    sort = [(number, *run, log.blocks, kinds, layout, generation, data) for number, run in enumerate(runs)]
    segments = work.run("segments", write_segment, sort, "Sorting the new events")
    parts = [part_of(number, layout, data) for number in range(len(runs))]
    minimum = has_minimum(data)
    core = find_core(data, parts, work) if minimum else None
    change = Change(
        data,
        unit,
        cutoffs,
        layout,
        work.root / "touch",
        generation,
        len(runs),
        minimum,
        layout.rare(),
        core and core.rare,
    )
    touched = [part for part, found in zip(parts, segments, strict=True) if minimum or found["events"]]
    shared = share(change)
    found = [
        Touched(**each)
        for each in work.run("touch", touch_part, [(part, shared) for part in touched], "Finding who changes")
    ]
    folder = change.folder
    deltas = total(_arrow(folder / f"items-{part.number:05d}.arrow") for part in touched)
    item_rows = None if data.items is None else FeatureRows.read(data.items)
    if item_rows is not None:
        item_rows = item_rows.aligned(kinds["item"], *described(data.events, data.events.item, pieces))
    profile_rows = None if data.profile is None else FeatureRows.read(data.profile)
    if profile_rows is not None:
        profile_rows = profile_rows.aligned(kinds["user"], *described(data.events, data.events.user, pieces))
    grown = grow_items(vocabulary, deltas, cold_items(data, vocabulary, item_rows))
    lookup = Lookup(as_array(grown["id"]))
    profile_encoders = dataset.encoders("profile")
    writing = share(
        (change, Shared(data, unit, None, lookup, profile_rows, profile_encoders, cutoffs, layout, work.root / "write"))
    )
    first = dataset.user_rows() + np.cumsum([0, *(each.new_users for each in found)])
    arguments = [(part.number, int(start), writing) for part, start in zip(touched, first, strict=False)]
    written = work.run("write", rewrite_part, arguments, "Writing sequences")

    occurrences = np.zeros((2, grown.num_rows), np.int64)  # of train, of test
    old_counts = dataset.items()["train_count"], _arrow(dataset.layout.test_count)["test_count"]
    for count, old_count in zip(occurrences, old_counts, strict=True):
        count[: len(old_count)] = old_count.to_numpy()
    for part in touched:
        gone = _arrow(folder / f"rows-{part.number:05d}.arrow")
        place = lookup.places(as_array(gone["id"]))
        for count, (split, _) in zip(occurrences, COUNTED, strict=True):
            count[place] -= gone[split].to_numpy()
        add_occurrences(occurrences, work.root / "write" / f"items-{part.number:05d}.arrow")
    train_count, test_count = occurrences
    items, encoders = item_table(grown, train_count, item_rows, dataset.encoders("item"))
    write_table(items, layout.items)
    write_table(grown, layout.vocabulary("items"))
    for encoder in encoders:
        if (table := encoder.table()) is not None:
            write_table(table, layout.vocabulary(f"item_features/{encoder.name}"))
    if core is not None:
        rare = pa.array([], kinds["item"]) if core.rare is None else core.rare
        write_arrow(pa.table({"id": rare}), layout.rare_file)
    splits = dict(manifest.splits)
    for split in SPLITS:
        for old, new in zip(found, written, strict=True):
            splits[split] += SplitCounts(**new["splits"][split]) - SplitCounts(**old.removed[split])
    digests = [manifest.fingerprint, digest(items), *(each for part in written for each in part["digests"])]
    kept = {reason: count for reason, count in manifest.set_aside.items() if reason not in SETTLED}
    settled = [Counter(each.set_aside) for each in found]
    duplicates = sum(each["duplicates"] for each in segments) + sum(each.duplicates for each in found)
    set_aside = sum(settled, Counter(kept) + log.set_aside + Counter({DUPLICATE: duplicates}))
    after = replace(
        manifest,
        rows_read=manifest.rows_read + log.rows_read,
        set_aside=dict(sorted((+set_aside).items())),
        events=manifest.events + sum(each.events for each in found),
        users=manifest.users + sum(each.users for each in found),
        items=grown.num_rows,
        splits=splits,
        item_features=tuple(feature_info(encoder) for encoder in encoders),
        fingerprint=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        sources=manifest.sources | {"events": manifest.sources["events"] + lineage(pieces, log.rows_by_file)},
        appended=generation,
    )
    stats = merge_stats(
        [
            json.loads(dataset.layout.stats.read_text("utf-8")),
            *(without(each.stats) for each in found),
            *(each["stats"] for each in written),
        ]
    )
    write_quality(layout, after, stats, test_count, dataset.path)
    write_text(after.to_json(), layout.manifest)


def _arrow(file: Path) -> pa.Table:
    return feather.read_table(file, memory_map=False)


@contextmanager
def _session(config: Config, data: DataConfig, pieces: list[Fragment]) -> Iterator[None]:
    """Ray, unless the work is a matter of seconds."""
    small = sum({piece.number: piece.size_bytes for piece in pieces}.values()) <= INLINE_BYTES
    if small and not has_minimum(data) and cluster_address(config.ray) is None:
        yield
    else:
        with ray_session(config.ray, workers=config.train.workers):
            yield


def _link(source: Path, target: Path) -> None:
    """A copy of a dataset that shares its files: whoever changes one puts a new file in its place."""
    for file in source.rglob("*"):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif file != Layout(source).manifest and not place.exists():
            try:
                os.link(file, place)
            except OSError:  # a file system without links
                place.write_bytes(file.read_bytes())


def _require_same_settings(config: Config, dataset: Dataset) -> None:
    """An appended log must go through what the others went through."""

    def settings(data: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in data.items() if name not in UNCOUNTED}
        return kept | {"events": {name: value for name, value in kept["events"].items() if name != "path"}}

    made = settings(dataset.config.model_dump(mode="json"))  # with defaults for settings that are newer than it
    given = settings(DataConfig.model_validate(resolved(config)["data"]).model_dump(mode="json"))
    others = [name for name in given if given[name] != made.get(name)]
    if others:
        raise UserError(
            f"{dataset.path}: was made with another data.{others[0]}; append with the settings that made it, or make "
            "it anew without --append"
        )


def _require_new(dataset: Dataset, pieces: list[Fragment]) -> None:
    known = {(source["path"], source["bytes"]) for source in dataset.manifest.sources["events"]}
    for source in lineage(pieces, Counter()):
        if (source["path"], source["bytes"]) in known:
            raise UserError(f"{source['path']}: is part of the dataset {dataset.path} already; append new files only")


def _types(
    log: CleanLog, data: DataConfig, pieces: list[Fragment], kinds: dict[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """The dataset's types of ids, to which the log's can be brought."""
    for side, found in (("user", log.user_type), ("item", log.item_type)):
        if found != kinds[side] and not pa.types.is_string(kinds[side]):
            where, _ = described(data.events, getattr(data.events, side), pieces)
            raise UserError(
                f"{where} holds {found}, the dataset's are {kinds[side]}; make the dataset anew of all logs"
            )
    return kinds

"""`mind preprocess --append LOG`: a new day's log onto a dataset, at the cost of the users that it touches.

The result is that of a new dataset of all the logs, but for the numbering: items and users keep their rows, new ones
come after. The pass over the parts is pipelines.preprocess.append_parts. All files that stay as they are are linked,
not copied, into a folder that takes the old one's place when it is whole.

What stays as the first build learned it until the next one: the scale of numeric features, the edges of buckets, and
the values of profile features.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipelines.cluster.session import ray_session
from pipelines.config.home_location import origin
from pipelines.config.load import resolved
from pipelines.config.schema import Config, DataConfig
from pipelines.dataset.dataset import READING, Dataset, Layout, Manifest, Side, SplitCounts, feature_info
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.dataset.sorted_events import DUPLICATE, SETTLED, SortedEvents
from pipelines.dataset.split_rows import COUNTED
from pipelines.dataset.splits import SPLITS
from pipelines.dataset.vocabulary import grow_items
from pipelines.errors import UserError
from pipelines.log.formats import Fragment
from pipelines.log.ids import Int64s, Lookup, as_array
from pipelines.log.normalise import needed_columns
from pipelines.log.order_keys import NUMBER, TEXT, TIME, WHOLE
from pipelines.log.sources import fragments, identity, lineage
from pipelines.preprocess.append_parts import Change, Touched, part_of, rewrite_part, touch_part, write_segment
from pipelines.preprocess.clean_log import CleanLog, Kinds, log_times, read_log
from pipelines.preprocess.core_items import find_core, has_minimum, total
from pipelines.preprocess.preprocess import UNCOUNTED, cutoffs_of, described, with_time_format
from pipelines.preprocess.sort_parts import Part, for_each_part
from pipelines.preprocess.workspace import Workspace, claimed, workspace
from pipelines.preprocess.write_parts import Shared, add_occurrences, cold_items, item_table, write_items
from pipelines.quality.part_stats import merge_stats, without
from pipelines.quality.write import write_quality
from pipelines.storage.at_once import at_once
from pipelines.storage.atomic import whole
from pipelines.storage.digests import joint_digest, table_digest
from pipelines.storage.home_files import copy, fetch, listed
from pipelines.storage.tables import read_arrow, write_arrow, write_text

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)  # of file systems without links

Tables = dict[str, FeatureRows | None]
"""The item and the profile table: "item", "user"."""
SIDES: dict[str, Side] = {"item": "item", "user": "profile"}
TABLES = {"item": "items", "user": "profile"}  # by the same, as the settings name them


def append(config: Config, path: str) -> Dataset:
    """Take the log at `path` onto the dataset at ``config.dataset_path``.

    Raises
    ------
    UserError
        If there is no dataset, its settings are others, a file of the log is part of it already, or whatever is wrong
        with the log; the dataset stays as it was.
    """
    target = config.dataset_path
    with claimed(target):
        dataset = Dataset.open(target)
        _require_same_settings(config, dataset)
        data = config.data.model_copy(update={"events": config.data.events.model_copy(update={"path": path})})
        pieces = [  # files go on being numbered: the users of session lines are, by file and line
            replace(piece, number=piece.number + dataset.manifest.file_numbers)
            for piece in fragments(data.events, needed_columns(data.events))
        ]
        _require_new(dataset, pieces)
        tables = {
            side: None if source is None else FeatureRows.read(source)
            for side, source in (("item", data.items), ("user", data.profile))
        }
        read = [rows.files for rows in tables.values() if rows is not None]
        key = {"appended_to": dataset.manifest.fingerprint, "files": identity(pieces), "tables": read}
        with (
            workspace(target, key) as work,
            ray_session(config.ray, home=config.home_path, inputs=[path]),
        ):
            _link(dataset.path, work.folder)
            _append(dataset, data, pieces, tables, work)
            work.publish()
    return Dataset.open(target)


def _append(dataset: Dataset, data: DataConfig, pieces: list[Fragment], tables: Tables, work: Workspace) -> None:
    """Bring the linked copy of a dataset to its new state. What was is read from the dataset itself."""
    manifest, layout = dataset.manifest, Layout(work.folder)
    if data.events.time_format is None:  # a day alone may not tell days from months
        data = with_time_format(data, manifest.time_format)
    unit, form = log_times(data.events, pieces)
    data = with_time_format(data, form)
    if unit != manifest.time_unit:
        raise UserError(f"{data.events.path}: its times are of another kind than the dataset's; make the dataset anew")
    generation, runs = manifest.appended + 1, [(first, stop) for first, stop in manifest.bucket_runs]
    log = read_log(data, pieces, unit, work, layout.quarantine, f"{generation:03d}-")
    old = dataset.vocabulary("items")
    kinds: Kinds = _types(log, data, pieces, {"user": dataset.user_type(), "item": old["id"].type})
    if log.tie is not None:
        kinds |= {"tie": _tie_kind(log.tie, dataset, data)}
    task = partial(write_segment, layout, generation, data)
    segments = for_each_part("segments", task, log, runs, kinds, work, "Sorting the new events")
    parts = [part_of(number, layout, data) for number in range(len(runs))]
    minimum = has_minimum(data)
    rare = find_core(data, parts, work).rare if minimum else None
    change = Change(
        data,
        unit,
        cutoffs_of(data, unit),
        layout,
        work.root / "touch",
        generation,
        len(runs),
        minimum,
        dataset.layout.rare(),
        rare,
    )
    touched = [part for part, found in zip(parts, segments, strict=True) if minimum or found["events"]]
    shared = ray.put(change)
    asked = [(part, shared) for part in touched]
    found = [Touched(**each) for each in work.run("touch", touch_part, asked, "Finding who changes")]
    tables = {
        side: rows and rows.aligned(kinds[side], *described(data.events, getattr(data.events, side), pieces))
        for side, rows in tables.items()
    }
    deltas = total(read_arrow(change.folder / f"items-{part.number:05d}.arrow") for part in touched)
    vocabulary = grow_items(old, deltas, cold_items(data, old, tables["item"]))
    lookup = Lookup(as_array(vocabulary["id"]))
    written = _rewrite(dataset, change, touched, found, lookup, tables["user"], work)
    train_count, test_count = _occurrences(dataset, change, touched, lookup, work)
    items, encoders = item_table(vocabulary, train_count, tables["item"], dataset.encoders("item"))
    write_items(vocabulary, items, encoders, layout)
    if minimum:
        write_arrow(pa.table({"id": pa.array([], kinds["item"]) if rare is None else rare}), layout.rare_file)
    duplicates = Counter({DUPLICATE: sum(each["duplicates"] for each in segments)})
    after = replace(
        _counted(manifest, found, written, log.set_aside + duplicates),
        rows_read=manifest.rows_read + log.rows_read,
        items=vocabulary.num_rows,
        item_features=tuple(feature_info(encoder) for encoder in encoders),
        fingerprint=_fingerprint(manifest, items, written),
        sources={
            "events": manifest.sources["events"] + lineage(pieces, log.rows_by_file),
            "items": [] if tables["item"] is None else tables["item"].files,
            "profile": [] if tables["user"] is None else tables["user"].files,
        },
        appended=generation,
        file_numbers=1 + max(piece.number for piece in pieces),
    )
    before = json.loads(fetch(dataset.layout.stats).read_text("utf-8"))
    gone, come = [without(each.stats) for each in found], [each["stats"] for each in written]
    notes = [
        note for side, rows in tables.items() if rows is not None for note in rows.notes(dataset.encoders(SIDES[side]))
    ]
    stats = merge_stats([before, *gone, *come]) | {"types": dict(Counter(before.get("types", {})) + log.types)}
    columns = [each for side, rows in tables.items() if rows is not None for each in rows.summaries(TABLES[side])]
    write_quality(layout, after, stats, test_count, dataset.path, [*log.notes, *notes], columns)
    write_text(after.to_json(), layout.manifest)


def _rewrite(
    dataset: Dataset,
    change: Change,
    touched: list[Part],
    found: list[Touched],
    items: Lookup,
    profile: FeatureRows | None,
    work: Workspace,
) -> list[dict[str, Any]]:
    """Return what `rewrite_part` wrote of each part."""
    encoders = dataset.encoders("profile")
    counts = work.root / "write"
    writing = Shared(change.data, change.unit, None, items, profile, encoders, change.cutoffs, change.layout, counts)
    shared = ray.put((change, writing))
    first = dataset.user_rows() + np.cumsum([0, *(each.new_users for each in found)])
    arguments = [(part.number, int(start), shared) for part, start in zip(touched, first, strict=False)]
    return work.run("write", rewrite_part, arguments, "Writing sequences")


def _occurrences(dataset: Dataset, change: Change, touched: list[Part], items: Lookup, work: Workspace) -> Int64s:
    """(2, items) how often each item stands in train, and is a test target."""
    occurrences = np.zeros((2, len(items)), np.int64)
    old_counts = dataset.items()["train_count"], read_arrow(dataset.layout.test_count)["test_count"]
    for count, old_count in zip(occurrences, old_counts, strict=True):
        count[: len(old_count)] = old_count.to_numpy()
    for part in touched:
        gone = read_arrow(change.folder / f"rows-{part.number:05d}.arrow")
        place = items.places(as_array(gone["id"]))
        for count, (split, _) in zip(occurrences, COUNTED, strict=True):
            count[place] -= gone[split].to_numpy()
        add_occurrences(occurrences, work.root / "write" / f"items-{part.number:05d}.arrow")
    return occurrences


def _counted(
    manifest: Manifest, found: list[Touched], written: list[dict[str, Any]], set_aside: Counter[str]
) -> Manifest:
    """Bring the counts of events, users, splits and rows set aside up to date."""
    splits = dict(manifest.splits)
    for split in SPLITS:
        for old, new in zip(found, written, strict=True):
            splits[split] += SplitCounts(**new["splits"][split]) - SplitCounts(**old.removed[split])
    reasons = Counter({reason: count for reason, count in manifest.set_aside.items() if reason not in SETTLED})
    reasons += set_aside
    for each in found:
        reasons += Counter(each.set_aside) + Counter({DUPLICATE: each.duplicates})
    return replace(
        manifest,
        set_aside=dict(sorted(reasons.items())),
        events=manifest.events + sum(each.events for each in found),
        users=manifest.users + sum(each.users for each in found),
        splits=splits,
    )


def _fingerprint(manifest: Manifest, items: pa.Table, written: list[dict[str, Any]]) -> str:
    """Digest what was, and what was written."""
    digests = [manifest.fingerprint, table_digest(items)]
    digests += [each for part in written for each in part["digests"]]
    return joint_digest(digests)


def _link(source: Path, target: Path) -> None:
    """Copy a dataset that shares its files: whoever changes one puts a new file in its place."""
    if origin(source) is not None:
        inside = {file: file.relative_to(source) for file in listed(source, "*") if file != Layout(source).manifest}
        there = {file.relative_to(target) for file in listed(target, "*")}
        missing = [file for file in inside if inside[file] not in there]
        at_once(lambda file: copy(file, target / inside[file]), missing)
        return
    target.mkdir(exist_ok=True)
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(exist_ok=True)
        elif file != Layout(source).manifest and not place.exists():
            try:
                os.link(file, place)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with whole(place) as aside:
                    shutil.copyfile(file, aside)


def _require_same_settings(config: Config, dataset: Dataset) -> None:
    """See that an appended log goes through what the others went through."""

    def settings(data: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in data.items() if name not in UNCOUNTED}
        return kept | {"events": {name: value for name, value in kept["events"].items() if name != "path"}}

    if dataset.manifest.reading != READING:
        raise UserError(
            f"{dataset}: was made by a version of this program that read some values otherwise, such as 'NA'; make it "
            "anew without --append"
        )
    made = settings(dataset.config.model_dump(mode="json"))  # with defaults for settings that are newer than it
    given = settings(DataConfig.model_validate(resolved(config)["data"]).model_dump(mode="json"))
    others = [name for name in given if given[name] != made.get(name)]
    if others:
        raise UserError(
            f"{dataset}: was made with another data.{others[0]}; append with the settings that made it, or make "
            "it anew without --append"
        )


def _require_new(dataset: Dataset, pieces: list[Fragment]) -> None:
    known = {source["path"]: source["bytes"] for source in dataset.manifest.sources["events"]}
    for source in lineage(pieces, Counter()):
        if source["path"] in known:
            changed = "" if source["bytes"] == known[source["path"]] else ", though it has changed since"
            raise UserError(
                f"{source['path']}: is part of the dataset {dataset} already{changed}; append files of new rows"
            )


def _tie_kind(new: str, dataset: Dataset, data: DataConfig) -> str:
    """Return what breaks ties in the dataset, to which the log's tie breaks can be brought."""
    (segment, *_) = part_of(0, dataset.layout, data).segments
    tie = SortedEvents.read(Path(segment)).tie
    assert tie is not None, "the settings are the same"
    if pa.types.is_string(tie.type):
        return TEXT
    if pa.types.is_floating(tie.type) and new in (WHOLE, NUMBER):
        return NUMBER
    if pa.types.is_int64(tie.type) and new in (WHOLE, TIME):
        return new
    raise UserError(
        f"{data.events.path}: {data.events.tie_break!r} holds {new}, the dataset's is {tie.type}; make the dataset "
        "anew of all logs"
    )


def _types(
    log: CleanLog, data: DataConfig, pieces: list[Fragment], kinds: dict[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """Return the dataset's types of ids, to which the log's can be brought."""
    for side, found in (("user", log.user_type), ("item", log.item_type)):
        if found != kinds[side] and not pa.types.is_string(kinds[side]):
            where, _ = described(data.events, getattr(data.events, side), pieces)
            raise UserError(
                f"{where} holds {found}, the dataset's are {kinds[side]}; make the dataset anew of all logs"
            )
    return kinds

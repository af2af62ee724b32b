"""`mind preprocess`: event log (+ item and profile tables) -> the dataset folder of pipelines.dataset.

Four passes, each over pieces that fit a worker; the driver sees counts and vocabularies, never events.

1. clean_log    a file piece -> clean blocks on disk; what is set aside is counted; a sample of the users comes back
2. ranges       Ray Data: shuffle the blocks to ranges of users, sort each range, drop duplicates, write it
3. core_items   item counts per range, again and again until no item or user is below its minimum
4. write_parts  per range: encode, split, write its part of the dataset

The staging files lie inside the unpublished folder: on a cluster, `home` is on storage that all nodes share.
"""

from __future__ import annotations

import shutil

import pyarrow as pa
import ray

from pipelines.clean_log import log_time_unit, read_log
from pipelines.config import Config, DataConfig, EventSource
from pipelines.core_items import find_core
from pipelines.dataset import (
    SCHEMA_VERSION,
    Dataset,
    Layout,
    Manifest,
)
from pipelines.errors import UserError
from pipelines.feature_rows import FeatureRows
from pipelines.formats import Fragment
from pipelines.load_config import resolved
from pipelines.normalise import TimeUnit, needed_columns, parse_times
from pipelines.publish import published
from pipelines.ranges import partition
from pipelines.session import ray_session
from pipelines.sources import TEXT_FORMATS, fragments, lineage
from pipelines.write_parts import write_parts


def preprocess(config: Config) -> Dataset:
    """Make the dataset at ``config.dataset_path``; an older one is replaced only by a whole new one.

    Raises
    ------
    UserError
        For whatever is wrong with the input; nothing half-written stays.
    """
    data = config.data
    pieces = fragments(data.events, needed_columns(data.events))
    unit = log_time_unit(data.events, pieces)
    cutoffs = _cutoffs(data, unit)
    item_rows = None if data.items is None else FeatureRows.read(data.items)
    profile_rows = None if data.profile is None else FeatureRows.read(data.profile)
    with ray_session(config.ray, workers=config.train.workers), published(config.dataset_path) as folder:
        staging = folder / "staging"
        staging.mkdir()
        log = read_log(data, pieces, unit, staging)
        if item_rows is not None:
            item_rows = item_rows.aligned(log.item_type, *_described(data.events, data.events.item, pieces))
        if profile_rows is not None:
            profile_rows = profile_rows.aligned(log.user_type, *_described(data.events, data.events.user, pieces))
        ranges, duplicates = partition(data, log, staging)
        core = find_core(data, ranges)
        content = write_parts(data, core, item_rows, profile_rows, cutoffs, Layout(folder), staging)
        shutil.rmtree(staging)
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            name=config.name,
            config=resolved(config)["data"],  # without credentials
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

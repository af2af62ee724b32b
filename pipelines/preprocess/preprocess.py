"""`mind preprocess`: event log (+ item and profile tables) -> the dataset folder of pipelines.dataset.dataset.

Four passes, each over pieces that fit a worker; the driver sees counts and vocabularies, never events.

1. clean_log    a piece of a file -> clean events on disk, by the hash of their user; what is no good is put aside
2. sort_parts   a part's run of hashes out of all pieces -> sorted events without duplicates
3. core_items   item counts per part, again and again until no item or user is below its minimum
4. write_parts  per part: encode, split, write its files of the dataset

A killed command is gone on with by the same command: pipelines.preprocess.workspace. On a cluster, `home` is on storage
that all nodes share. What is held where: docs/preprocessing.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray

from pipelines.cluster.beside import imported_beside
from pipelines.cluster.session import ray_session
from pipelines.config.load import UNHASHED, resolved
from pipelines.config.schema import Config, DataConfig, EventSource
from pipelines.dataset.dataset import (
    READING,
    SCHEMA_VERSION,
    Dataset,
    Layout,
    Manifest,
)
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.errors import UserError
from pipelines.log.formats import Fragment
from pipelines.log.normalise import needed_columns
from pipelines.log.sources import TEXT_FORMATS, fragments, identity, lineage
from pipelines.log.times import TimeUnit, parse_times
from pipelines.preprocess.buckets import group
from pipelines.preprocess.clean_log import log_times, read_log
from pipelines.preprocess.core_items import find_core
from pipelines.preprocess.sort_parts import EVENTS_PER_PART, sort_parts
from pipelines.preprocess.workspace import Workspace, claimed, workspace
from pipelines.preprocess.write_parts import write_parts
from pipelines.progress import console
from pipelines.quality.write import write_quality
from pipelines.storage.digests import key_digest
from pipelines.storage.generations import current
from pipelines.storage.home_files import exists, remove
from pipelines.storage.tables import write_arrow, write_text
from pipelines.tracking.store import imports_of

UNCOUNTED = {name for section, name in UNHASHED if section == "data"}  # settings that change no file of the dataset


def preprocess(config: Config, source: Source | None = None) -> Dataset:
    """Make the dataset at ``config.dataset_path``; an older one is replaced only by a whole new one.

    Parameters
    ----------
    source : the input, if it has been looked at before.

    Raises
    ------
    UserError
        For whatever is wrong with the input; an older dataset stays as it was.
    """
    source = source or Source.read(config.data)
    events = config.data.events.path
    cutoffs = cutoffs_of(with_time_format(config.data, source.time_format), source.unit)
    with (
        claimed(config.dataset_path),
        workspace(config.dataset_path, source.key(config)) as work,
        imported_beside(*imports_of(config.tracking.uri)),  # which the summary of the run needs
        ray_session(config.ray, home=config.home_path, inputs=[events]),
    ):
        if work.resumed:
            console.print(f"going on with the unfinished work of {config.dataset_path.name}")
        _make(config, source, cutoffs, work)
        work.publish()
    return Dataset.open(config.dataset_path)


def made_before(config: Config, source: Source | None = None) -> Dataset | None:
    """Open the dataset of `config` if it was made of the files as they are now; a day that was appended stays in.

    Parameters
    ----------
    source : the input, if it has been looked at before.

    Raises
    ------
    UserError
        If the input cannot be read.
    """
    if not exists(current(config.dataset_path) / "manifest.json"):
        return None
    dataset = Dataset.open(config.dataset_path)
    source = source or Source.read(config.data)
    return dataset if dataset.manifest.made_from == source.made_from(config) else None


@dataclass(frozen=True)
class Source:
    """The input as its files' heads describe it."""

    pieces: list[Fragment]
    unit: TimeUnit
    time_format: str | None
    item_rows: FeatureRows | None
    profile_rows: FeatureRows | None

    @classmethod
    def read(cls, data: DataConfig) -> Source:
        """Look at the log; read the tables."""
        pieces = fragments(data.events, needed_columns(data.events))
        return cls(
            pieces,
            *log_times(data.events, pieces),
            None if data.items is None else FeatureRows.read(data.items),
            None if data.profile is None else FeatureRows.read(data.profile),
        )

    def key(self, config: Config) -> dict[str, object]:
        """Return what unfinished work must have been begun with to be gone on with."""
        settings = {name: value for name, value in resolved(config)["data"].items() if name not in UNCOUNTED}
        tables = [file for rows in (self.item_rows, self.profile_rows) if rows is not None for file in rows.files]
        return {
            "schema": SCHEMA_VERSION,
            "reading": READING,
            "settings": settings,
            "files": identity(self.pieces),
            "tables": tables,
        }

    def made_from(self, config: Config) -> str:
        """Return a digest of the key, for the manifest."""
        return key_digest(self.key(config), 16)


def _make(config: Config, source: Source, cutoffs: tuple[int, int] | None, work: Workspace) -> None:
    """All four passes, and the manifest."""
    data, layout = with_time_format(config.data, source.time_format), Layout(work.folder)
    pieces, unit, item_rows, profile_rows = source.pieces, source.unit, source.item_rows, source.profile_rows
    layout.create()
    log = read_log(data, pieces, unit, work, layout.quarantine)
    if item_rows is not None:
        item_rows = item_rows.aligned(log.item_type, *described(data.events, data.events.item, pieces))
    if profile_rows is not None:
        profile_rows = profile_rows.aligned(log.user_type, *described(data.events, data.events.user, pieces))
    runs = group(log.bucket_counts, EVENTS_PER_PART)
    parts, duplicates = sort_parts(data, log, runs, work, layout.events)
    for file in log.files:  # a resumed command finds every part on record
        remove(Path(file.path))
    core = find_core(data, parts, work)
    if core.rare is not None:
        write_arrow(pa.table({"id": core.rare}), layout.rare_file)
    content = write_parts(data, unit, parts, core, item_rows, profile_rows, cutoffs, layout, work)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=config.name,
        config=resolved(config)["data"],  # without credentials
        rows_read=log.rows_read,
        set_aside=dict(sorted((log.set_aside + duplicates + content.set_aside).items())),
        events=content.events,
        users=content.users,
        items=content.items,
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
        bucket_runs=[list(run) for run in runs],
        file_numbers=1 + max(piece.number for piece in pieces),
        made_from=source.made_from(config),
        time_format=data.events.time_format,
        reading=READING,
    )
    stats = content.stats | {"types": dict(log.types)}
    notes = [*log.notes, *content.notes]
    write_quality(layout, manifest, stats, content.test_count, current(config.dataset_path), notes, content.columns)
    write_text(manifest.to_json(), layout.manifest)


def with_time_format(data: DataConfig, form: str | None) -> DataConfig:
    """Return the settings with the form of times that the log turned out to have."""
    return data.model_copy(update={"events": data.events.model_copy(update={"time_format": form})})


def described(source: EventSource, column: str, pieces: list[Fragment]) -> tuple[str, bool]:
    """Name a log column for an error, and say whether its values are text without a type."""
    return f"column {column!r} of {source.path}", pieces[0].format in TEXT_FORMATS


def cutoffs_of(data: DataConfig, unit: TimeUnit) -> tuple[int, int] | None:
    """Return the temporal cut-offs in the unit of the dataset's times."""
    split = data.split
    if split.validation_from is None or split.test_from is None:
        return None
    dates = (split.validation_from, split.test_from)
    texts = [f"{date:.0f}" if isinstance(date, float) else date for date in dates]
    first, second = parse_times(
        pa.array(texts), unit, "split", data.events.time_unit, data.events.time_format
    ).to_pylist()
    for key, text, value in zip(("validation_from", "test_from"), texts, (first, second), strict=True):
        if value is None:
            allowed = "a number, as the log's times are"
            if unit == "us":
                allowed = "a date or ISO text, or as the log's times are"
            raise UserError(f"data.split.{key}={text!r}: must be {allowed}")
    if first >= second:
        raise UserError(f"data.split: validation_from={texts[0]} must be before test_from={texts[1]}")
    return first, second

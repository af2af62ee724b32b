"""The dataset folder between `mind preprocess` and every later stage: the one place that knows its layout.

    manifest.json                      written last: a folder with a manifest is whole
    sequences/{train,validation,test}/part-NNNNN.parquet
                                       one row per user: user, items (oldest first), times, targets, profile_<feature>
    sequences/newcomers/part-NNNNN.parquet
                                       users that no split has, as all of their events are held out: items is empty
    items/part-00000.parquet           one row per item: item, id, count, train_count, feature_<name>, show_<column>,
                                       and raw_<name> of features that are not shown, as the item table has them
    vocabularies/items.parquet, vocabularies/users/part-NNNNN.parquet  index, id, count
    vocabularies/{item_features,profile_features}/<feature>.parquet    index, value, count; file: config.names.file_name
    quarantine/part-NNNNN.parquet      rows of the log that are no good, as text: reason, columns, line, file
    quality.json, quality.html         the data quality report, see pipelines.quality.report
    ray-data.txt                       Ray Data's statistics of the operators that made it
    events/                            for --append: the parts' clean events, before anything is dropped
    superseded/part-NNNNN.parquet      see pipelines.dataset.part_files

After an --append, a user whose sequences have changed has one row that counts, and superseded ones.

A sequence may also have, for each of its items, what pipelines.dataset.behaviours describes: weights, sessions, gaps.
Item and feature rows: see pipelines.dataset.vocabulary. Reading needs no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config.home_location import shown
from pipelines.config.names import file_name
from pipelines.config.redact import redact
from pipelines.config.schema import DataConfig
from pipelines.dataset.part_files import read_part
from pipelines.dataset.splits import SPLITS, SplitName
from pipelines.dataset.vocabulary import FeatureEncoder, FeatureKind
from pipelines.errors import UserError
from pipelines.storage.generations import current
from pipelines.storage.home_files import exists, fetch, listed
from pipelines.storage.publish import Mark
from pipelines.storage.tables import read_arrow, read_table
from pipelines.words import counted

SCHEMA_VERSION = 2
READING = 4  # of the rules by which a log and its tables are read: what is missing, what breaks ties, which row counts
MARK = Mark("manifest.json")
RAW = "raw_"  # of a column's name
Side = Literal["item", "profile"]
NEWCOMERS = "newcomers"  # beside the splits


@dataclass(frozen=True)
class FeatureInfo:
    """What a model must know of a feature; see pipelines.dataset.vocabulary.FeatureEncoder."""

    name: str
    kind: FeatureKind
    size: int  # embedding rows; 0 for numeric
    mean: float | None = None
    std: float | None = None
    edges: tuple[float, ...] | None = None
    separator: str | None = None
    low: float | None = field(default=None, repr=False)  # numeric; not in the fingerprint, which has what they do
    high: float | None = field(default=None, repr=False)


@dataclass(frozen=True)
class SplitCounts:
    """The counts of one split."""

    users: int
    events: int  # in histories
    targets: int
    skipped_users: int  # without history or without targets

    def __add__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


NOTHING = SplitCounts(0, 0, 0, 0)


@dataclass(frozen=True)
class Manifest:
    """manifest.json. `rows_read` equals `events` plus all of `set_aside`."""

    schema_version: int
    name: str
    config: dict[str, Any]  # the resolved data section
    rows_read: int
    set_aside: dict[str, int]  # by reason
    events: int
    users: int
    items: int
    splits: dict[str, SplitCounts]
    item_features: tuple[FeatureInfo, ...]
    profile_features: tuple[FeatureInfo, ...]
    time_unit: Literal["us", "number"]  # microseconds since 1970 UTC, or the log's own numbers
    fingerprint: str  # of the content alone: equal for equal events, however they were cut into files and blocks
    sources: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # events, items, profile: path, bytes, rows
    versions: dict[str, str] = field(default_factory=dict)
    # of each part: first bucket and last + 1, pipelines.preprocess.buckets
    bucket_runs: list[list[int]] = field(default_factory=list)
    appended: int = 0  # times that --append was run
    file_numbers: int = 0  # files of the log are numbered from 0; the next one's number
    time_format: str | None = None  # of the times' text, if it is not ISO
    reading: int = 1
    made_from: str = ""  # hash of the data settings and of the files as they were when preprocessing began

    @property
    def item_rows(self) -> int:
        """Rows of the item embedding table: the items, padding and unknown."""
        return self.items + 2

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse; the inverse of `to_json`."""
        raw = json.loads(text)
        raw["splits"] = {name: SplitCounts(**counts) for name, counts in raw["splits"].items()}
        for side in ("item_features", "profile_features"):
            raw[side] = tuple(
                FeatureInfo(**{**info, "edges": None if info["edges"] is None else tuple(info["edges"])})
                for info in raw[side]
            )
        return cls(**raw)

    def to_json(self) -> str:
        """Return the manifest as JSON: the same text for the same content."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, default=str) + "\n"


def described_data(manifest: Manifest) -> str:
    """Say in a sentence what a dataset is."""
    source = manifest.sources["events"][0]["path"] if manifest.sources.get("events") else "its log"
    if "/site-packages/" in source:  # as it was asked for, not where the package lies on this machine
        source = "package://" + source.rpartition("/site-packages/")[2]
    test = manifest.splits.get("test", NOTHING)
    protocol = manifest.config.get("split", {}).get("protocol", "leave_one_out").replace("_", " ")
    return (f"Dataset {manifest.name}: {counted(manifest.events, 'event')} of {counted(manifest.users, 'user')} and "
            f"{counted(manifest.items, 'item')}, from {redact(source)}; split {protocol}, "
            f"{counted(test.targets, 'test target')} (fingerprint {manifest.fingerprint[:12]}).")  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where things lie below the folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / MARK.file

    @property
    def quality(self) -> Path:
        return self.root / "quality.json"

    @property
    def quality_page(self) -> Path:
        return self.root / "quality.html"

    @property
    def engine(self) -> Path:
        """What Ray Data said of the operators that made it."""
        return self.root / "ray-data.txt"

    @property
    def items(self) -> Path:
        return self.root / "items" / "part-00000.parquet"

    def sequences(self, split: str) -> Path:
        return self.root / "sequences" / split

    def part(self, split: str, number: int) -> Path:
        return self.sequences(split) / f"part-{number:05d}.parquet"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def stats(self) -> Path:
        """What the quality report was made of, for that of an append: pipelines.quality.part_stats, merged."""
        return self.events / "stats.json"

    @property
    def test_count(self) -> Path:
        """How often each item is a test target, by vocabulary order."""
        return self.events / "test-count.arrow"

    @property
    def rare_file(self) -> Path:
        return self.events / "rare.arrow"

    def rare(self) -> pa.Array | None:
        """Return the file with the ids of the items that the minimum counts dropped."""
        if not exists(self.rare_file):
            return None
        rare = read_arrow(self.rare_file)["id"].combine_chunks()
        return rare if len(rare) else None

    def vocabulary(self, name: str) -> Path:
        """Find items, users (a folder), item_features/<name> or profile_features/<name>, of any feature."""
        if name == "users":
            return self.root / "vocabularies" / name
        side, slash, feature = name.partition("/")
        inside = f"{side}/{file_name(feature)}" if slash else name
        return self.root / "vocabularies" / f"{inside}.parquet"

    def users(self, number: int) -> Path:
        return self.vocabulary("users") / f"part-{number:05d}.parquet"

    def create(self) -> None:
        """Make the folders."""
        folders = [*(self.sequences(split) for split in SPLITS), self.items.parent, self.quarantine, self.events]
        folders += [self.root / "vocabularies" / name for name in ("users", "item_features", "profile_features")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Dataset:
    """A whole dataset, opened for reading."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Open a dataset folder.

        Raises
        ------
        UserError
            If there is none, or one of another schema version; the text names the command that makes one.
        """
        layout = Layout(current(Path(path)))
        if not exists(layout.manifest):
            raise UserError(f"{shown(path)}: no dataset (no manifest.json); make it with: mind preprocess CONFIG.yaml")
        text = fetch(layout.manifest).read_text(encoding="utf-8")
        version = json.loads(text).get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(f"{shown(path)}: dataset of schema version {version}, this program reads {SCHEMA_VERSION}; "
                            "make it anew with: mind preprocess CONFIG.yaml")  # fmt: skip
        return cls(layout.root, Manifest.from_json(text))

    def __str__(self) -> str:
        return shown(self.path)

    @property
    def layout(self) -> Layout:
        return Layout(self.path)

    @property
    def config(self) -> DataConfig:
        """The data section that made it."""
        return DataConfig.model_validate(self.manifest.config)

    def items(self) -> pa.Table:
        """Read one row per item, by index from 2: item, id, count, train_count, feature_<name>, show_<column>."""
        names = pq.read_schema(fetch(self.layout.items)).names
        return read_table(self.layout.items, [name for name in names if not name.startswith(RAW)])

    def raw_items(self) -> pa.Table:
        """Read what the item table says of each item: show_<column>, and raw_<name> of the other features.

        Datasets of before have no raw_<name>.
        """
        names = pq.read_schema(fetch(self.layout.items)).names
        return read_table(self.layout.items, [name for name in names if name.startswith((RAW, "show_"))])

    def vocabulary(self, name: str) -> pa.Table:
        """Read items, users, item_features/<name> or profile_features/<name>: index, id or value, count."""
        table = self._users() if name == "users" else read_table(self.layout.vocabulary(name))
        return table.sort_by("index") if name == "users" and self.manifest.appended else table

    def _user_files(self) -> list[Path]:
        return listed(self.layout.vocabulary("users"), "part-*.parquet")

    def _users(self) -> pa.Table:
        return pa.concat_tables(map(read_table, self._user_files()))

    def user_rows(self) -> int:
        """Count the rows of the user vocabulary; from footers, as it may be large."""
        return sum(pq.read_metadata(fetch(file)).num_rows for file in self._user_files())

    def user_type(self) -> pa.DataType:
        """Return the type of the user ids."""
        return pq.read_schema(fetch(self.layout.users(0))).field("id").type

    def split_files(self, split: SplitName) -> list[str]:
        """List the Parquet files of a split, for `part_files.read_part`; there is at least one, perhaps empty."""
        return list(map(str, listed(self.layout.sequences(split), "part-*.parquet")))

    def newcomer_files(self) -> list[str]:
        """List the files of users that no split has: user, items (empty), targets, profile_<feature>; perhaps none."""
        return list(map(str, listed(self.layout.sequences(NEWCOMERS), "part-*.parquet")))

    def require_learnable(self) -> None:
        """Refuse a dataset that nothing can be learned from.

        Raises
        ------
        UserError
        """
        splits = self.manifest.splits
        way_out = "check data.split and the minimum counts, then run: mind preprocess CONFIG.yaml"
        for split in ("train", "validation"):
            if not splits[split].users:
                raise UserError(f"{self}: no {split} users; {way_out}")
        if splits["train"].events <= splits["train"].users:
            raise UserError(f"{self}: no train user has a second event to predict; {way_out}")

    def tables(self, split: SplitName, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the files of a split as Arrow tables; in user order unless something was appended."""
        return (read_part(file, columns) for file in self.split_files(split))

    def table(self, split: SplitName, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a split as one Arrow table."""
        return pa.concat_tables(self.tables(split, columns)).combine_chunks()

    def rows_of(self, files: Sequence[str], users: Sequence[int]) -> pa.Table:
        """Read the rows of some users, by index, in files of a split; those that they lack are left out."""
        wanted = pa.array(users, pa.int64())
        found: list[pa.Table] = []
        for file in files:
            here = pc.is_in(read_part(file, ["user"])["user"], value_set=wanted)
            if pc.any(here, min_count=0).as_py() or not found:
                found.append(read_part(file).filter(here))
        return pa.concat_tables(found)

    def encoders(self, side: Side) -> list[FeatureEncoder]:
        """Read the fitted encoders of the item or profile features."""
        infos = self.manifest.item_features if side == "item" else self.manifest.profile_features
        encoders = []
        for info in infos:
            table = None if info.kind == "numeric" else self.vocabulary(f"{side}_features/{info.name}")
            encoders.append(
                FeatureEncoder(
                    info.name,
                    info.kind,
                    separator=info.separator,
                    values=None if table is None or info.edges is not None else table["value"].combine_chunks(),
                    counts=None if table is None else table["count"].combine_chunks(),
                    mean=info.mean,
                    std=info.std,
                    edges=info.edges,
                    low=info.low,
                    high=info.high,
                )
            )
        return encoders


def feature_info(encoder: FeatureEncoder) -> FeatureInfo:
    """Return what the manifest keeps of an encoder."""
    return FeatureInfo(
        encoder.name,
        encoder.kind,
        encoder.size,
        encoder.mean,
        encoder.std,
        encoder.edges,
        encoder.separator,
        encoder.low,
        encoder.high,
    )

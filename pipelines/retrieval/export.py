"""`mind export`: what a serving system loads: item vectors, every user's interest vectors and top-N lists.

<home>/exports/<model>-<key>/
    items/part-00000.parquet    id, vector (d): of every item that can be recommended
    users/part-<first>.parquet  user, interests (the user's own K' vectors of d): a row a user, as in a feature store
    lists/part-<first>.parquet  user, rank, id, score, interest (which found it)
    export.json                 written last: a folder with it is whole

score = max over interests of <interest, vector>, as vectors are stored. The key names all that shapes the content, so a
folder never changes: an export that was killed goes on with the parts it lacks, one that is whole is not made again.
Ray Data's actors write their parts themselves, slice by slice; the driver sees counts and the users' raw ids alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch
from rich.table import Table
from torch import Tensor

from mind_core.list_rules import NO_RULES, ListRules
from mind_core.sequences import Histories, full_histories
from mind_core.special_rows import FIRST_ITEM
from pipelines.cluster.session import ray_session
from pipelines.config.home_location import shown
from pipelines.config.load import resolved
from pipelines.config.schema import Config, ListsConfig
from pipelines.dataset.dataset import Dataset
from pipelines.errors import UserError
from pipelines.lists.tables import file_stamps
from pipelines.models.artifact import TRAINING, ModelCard, SavedModel, described, load_card, load_model
from pipelines.models.find import find_model
from pipelines.models.over_users import EVERYONE, SLICE_USERS, STATS, UserPass, UserWorker
from pipelines.progress import console, output
from pipelines.retrieval.recommend import told_rules
from pipelines.storage.atomic import TORN, whole
from pipelines.storage.digests import key_digest
from pipelines.storage.home_files import exists, fetch, listed, remove, renew, total_size
from pipelines.storage.locks import exclusive
from pipelines.storage.publish import Mark, require_own
from pipelines.storage.tables import write_text
from pipelines.tracking.run import known_run, open_run
from pipelines.tracking.versions import versions

FORMAT_VERSION = 2
MARK = "export.json"
PARTS = ("items", "users", "lists", STATS)
# of the vectors as they are stored, whatever the temperature
SCORE = "max over interests of the inner product, plus own_scores of the user's own items"
LISTED = ["user", "rank", "id", "score", "interest"]
PORTION_USERS = 2**14  # what a kill loses, and what a worker has at a time
ITEMS_AT_ONCE = 2**17  # rows of item vectors that are turned into Arrow together


@dataclass(frozen=True)
class Counts:
    """users : with a history.  interests : vectors of theirs.  recommendations : rows of their lists."""

    users: int
    interests: int
    recommendations: int


@dataclass(frozen=True)
class Export:
    """export.json.

    dataset, fingerprint : what the users and their histories come from.  run_id : of the MLflow training run.
    dim : d.  max_interests : K; a user has at most so many.  top_n, seen, latest : of the lists, as `mind recommend`.
    rules : of the lists, the settings `lists`; empty for the best match of all items.
    """

    format_version: int
    model: str
    run_id: str | None
    dataset: str
    fingerprint: str
    dim: int
    max_interests: int
    top_n: int
    seen: str
    latest: bool
    items: int
    counts: Counts
    score: str = SCORE
    versions: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Export | None:
        """Read the export in a folder; None unless it holds a whole one."""
        file = renew(folder / MARK)
        if not file.is_file():
            return None
        raw = json.loads(file.read_text("utf-8"))
        return cls(**{**raw, "counts": Counts(**raw["counts"])})


def export(config: Config, model: str | None = None, latest: bool = False) -> Path:
    """Write the vectors and lists of all users of the dataset of `config`; the folder.

    Parameters
    ----------
    model : as `find_model` takes it.
    latest : infer from the held-out items too, as production wants.

    Raises
    ------
    UserError
        Without a dataset, a model of it, or users, and while another process makes the same export.
    """
    dataset = Dataset.open(config.dataset_path)
    source = find_model(config, dataset, model)
    card = load_card(source)
    target = export_folder(config, card, latest)
    if (found := Export.read(target)) is not None:
        console.print(f"{shown(target)}: made before from this model and these settings; remove it to make it again")
        _print(found, target)
        return target
    trained = known_run(config, card.run_id)
    parent = None if trained is None else trained.run_id
    busy = f"{shown(target)}: another mind export is writing it; wait for it to end"
    require_own(target, Mark(MARK), PARTS)
    with (
        exclusive(target.with_name(f".{target.name}.lock"), busy),
        open_run(described(config, card), "export", target.name, parent=parent, without=TRAINING) as run,
    ):
        made = _make(config, dataset, source, card, target, latest)
        run.log_metrics({"export/items": made.items} | {f"export/{k}": v for k, v in asdict(made.counts).items()}, 0)
        run.log_dataset(config.name, made.fingerprint, made.dataset, "export")
        run.log_tags({"mind.model": str(source), "mind.export": shown(target)})
        run.log_artifact(target / MARK)
        run.log_artifact(target / STATS)
    _print(made, target)
    return target


def export_folder(config: Config, card: ModelCard, latest: bool = False) -> Path:
    """Say where the export of a model under the settings of `config` lies, or would."""
    shapes = [FORMAT_VERSION, asdict(card), config.evaluate.top_n, config.evaluate.seen, latest]
    if config.lists != ListsConfig():
        shapes += [resolved(config)["lists"], file_stamps(config.lists)]
    return config.place("exports", f"{card.name}-{key_digest(shapes, 4)}")


def _make(config: Config, dataset: Dataset, source: Path, card: ModelCard, target: Path, latest: bool) -> Export:
    """Write all parts that are not there, and last the mark."""
    loaded = load_model(source)
    rules = told_rules(config, loaded)
    vectors = loaded.retriever.item_vectors[FIRST_ITEM:]
    if not exists(items := target / "items" / "part-00000.parquet"):
        write_items(loaded.item_ids, vectors, items)
    there = {path.name for path in listed(target / "lists", "*.parquet")}  # of a portion, the last that is written
    if there:
        console.print(f"Going on with {shown(target)}: {len(there)} of its parts are there")
    arguments: dict[str, Any] = {"target": target, "there": there, "latest": latest}
    arguments |= {"top_n": config.evaluate.top_n, "exclude_seen": config.evaluate.seen == "filter"}
    with ray_session(config.ray, workers=config.train.workers, home=config.home_path):
        arguments["ids"] = ray.put(dataset.vocabulary("users")["id"].combine_chunks())
        arguments["rules"] = ray.put(rules)
        everyone = UserPass(dataset, EVERYONE, config, WriteVectorsAndLists, [source], arguments, PORTION_USERS)
        if not everyone.users:
            raise UserError(f"{dataset}: no user has a history to infer from")
        portions = pa.concat_tables(everyone.blocks("Exporting users"))
        write_text(everyone.stats(), target / STATS)
    for stale in there - set(portions["name"].to_pylist()):  # of users that were cut otherwise
        for folder in ("users", "lists"):
            remove(target / folder / stale)
    for torn in target.rglob(TORN):  # of writers that were killed: who reads a folder as one table would read them too
        torn.unlink(missing_ok=True)
    made = Export(
        format_version=FORMAT_VERSION,
        model=card.name,
        run_id=card.run_id,
        dataset=shown(dataset.path),
        fingerprint=dataset.manifest.fingerprint,
        dim=vectors.shape[1],
        max_interests=card.config.interests,
        top_n=config.evaluate.top_n,
        seen=config.evaluate.seen,
        latest=latest,
        items=len(vectors),
        counts=Counts(*(pc.sum(portions[each.name]).as_py() for each in fields(Counts))),
        versions=versions(),
        rules={} if config.lists == ListsConfig() else resolved(config)["lists"],
    )
    write_text(json.dumps(asdict(made), indent=1) + "\n", target / MARK)
    return made


def write_items(ids: pa.Array, vectors: Tensor, path: Path) -> None:
    """Write the items' raw ids beside their vectors (V, d), a row group at a time."""
    schema = pa.schema([("id", ids.type), ("vector", pa.list_(pa.float32(), vectors.shape[1]))])
    with whole(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for start in range(0, len(vectors), ITEMS_AT_ONCE):
            block = vectors[start : start + ITEMS_AT_ONCE]
            writer.write(pa.table([ids.slice(start, ITEMS_AT_ONCE), _fixed(block)], schema=schema))


class WriteVectorsAndLists(UserWorker):
    """Writes the vectors of the users of a portion, then their lists; a slice of them in memory at a time.

    What it did is a row of a table: name of the files, and what they hold as in `Counts`.
    """

    @cached_property
    def rules(self) -> ListRules:
        """One copy of a node, in the object store."""
        read: ListRules = ray.get(self.arguments["rules"])
        return read

    def work(  # type: ignore[override]
        self,
        table: pa.Table,
        *,
        ids: Any,
        rules: Any,
        target: Path,
        there: set[str],
        top_n: int,
        exclude_seen: bool,
        latest: bool,
    ) -> pa.Table:
        name = f"part-{pc.min(table['user']).as_py():012d}.parquet"
        if name not in there or counted(target, name).users != len(table):
            table = table.append_column("id", ray.get(ids).take(table["user"]))
            self.write(table, target, name, top_n, exclude_seen=exclude_seen, latest=latest)
        return pa.table({"name": [name], **{key: [value] for key, value in asdict(counted(target, name)).items()}})

    def write(self, table: pa.Table, target: Path, name: str, top_n: int, *, exclude_seen: bool, latest: bool) -> None:
        """Write both files of a portion, each whole or not at all."""
        with whole(target / "lists" / name) as last, whole(target / "users" / name) as first, ExitStack() as files:
            writers: list[pq.ParquetWriter] = []
            for start in range(0, len(table), SLICE_USERS):
                slice_ = table.slice(start, SLICE_USERS)
                blocks = users_and_lists(
                    self.models[0], slice_, top_n, exclude_seen=exclude_seen, latest=latest, rules=self.rules
                )
                writers = writers or [
                    files.enter_context(pq.ParquetWriter(path, block.schema, compression="zstd"))
                    for path, block in zip((first, last), blocks, strict=True)
                ]
                for writer, block in zip(writers, blocks, strict=True):
                    writer.write(block)


def users_and_lists(
    model: SavedModel,
    table: pa.Table,
    top_n: int,
    *,
    exclude_seen: bool,
    latest: bool,
    rules: ListRules = NO_RULES,
) -> tuple[pa.Table, pa.Table]:
    """Make the rows of both files for rows of a split that have raw ids."""
    sequences = model.sequences(table, latest)
    retriever = model.retriever
    histories = full_histories(sequences, torch.arange(len(sequences)), retriever.view)
    vectors, own = retriever.interests(histories)
    lists = model.recommend(sequences, top_n, exclude_seen=exclude_seen, rules=rules).select(LISTED)
    lists = lists.set_column(0, "user", table["id"].take(lists["user"]))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), own.sum(1).cumsum(0)])
    interests = pa.ListArray.from_arrays(pa.array(offsets.int().numpy()), _fixed(vectors[own]))
    remembered = _remembered(model, histories, retriever.memory(histories))
    return pa.table({"user": table["id"], "interests": interests, **remembered}), lists


def _remembered(model: SavedModel, histories: Histories, memory: Tensor | None) -> dict[str, pa.Array]:
    """Make the columns own_items and own_scores: what a user's own items score on top; empty without a memory."""
    kept = torch.zeros_like(histories.mask) if memory is None or histories.newest is None else histories.newest
    offsets = pa.array(torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)]).int().numpy())
    items = histories.items[kept]
    ids = model.item_ids.take(pa.array((items - FIRST_ITEM).clamp(min=0).numpy()))
    ids = pc.if_else(pa.array((items >= FIRST_ITEM).numpy()), ids, pa.scalar(None, ids.type))  # unknown to the model
    scores = memory[kept] if memory is not None else torch.zeros(0)
    return {
        "own_items": pa.ListArray.from_arrays(offsets, ids),
        "own_scores": pa.ListArray.from_arrays(offsets, pa.array(scores.numpy())),
    }


def _fixed(vectors: Tensor) -> pa.Array:
    """(n, d) as n lists of d."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.contiguous().flatten().numpy()), vectors.shape[1])


def counted(target: Path, name: str) -> Counts:
    """Count what the files of a portion hold, by their footers."""
    users, lists = (pq.read_metadata(fetch(target / folder / name)) for folder in ("users", "lists"))
    dim = pq.read_schema(target / "users" / name).field("interests").type.value_type.list_size
    groups = [users.row_group(number) for number in range(users.num_row_groups)]
    values = sum(group.column(1).num_values for group in groups)  # of a column of lists: its numbers
    return Counts(users.num_rows, values // dim, lists.num_rows)


def _print(made: Export, target: Path) -> None:
    output.print(f"Exported: {shown(target)}", soft_wrap=True)
    table = Table("files", "rows", "bytes", "what")
    rows: Sequence[tuple[str, int, str]] = (
        ("items", made.items, f"id, vector ({made.dim})"),
        (
            "users",
            made.counts.users,
            f"user, interests ({made.counts.interests:,} of {made.dim}), own_items, own_scores",
        ),
        ("lists", made.counts.recommendations, "user, rank, id, score, interest"),
    )
    for name, count, what in rows:
        table.add_row(name, f"{count:,}", f"{total_size(target / name, '*.parquet'):,}", what)
    output.print(table)

"""`mind export`: what a serving system loads: item vectors, every user's interest vectors and top-N lists.

<home>/exports/<model>-<key>/
    items/part-00000.parquet    number (from 0), id, vector (d): of every item that can be recommended
    users/part-<first>.parquet  user, interests (the user's own K' vectors of d), own_items, own_scores: a row a user
    lists/part-<first>.parquet  user, rank, id, score, interest (which found it)
    export.json                 written last: a folder with it is whole
    index-<kind>/               if asked for, then or later; see index

score = max over interests of <interest, vector>, as vectors are stored. The key names all that shapes the content, so a
folder never changes: an export that was killed goes on with the parts it lacks, one that is whole is not made again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.table import Table

from mind_core.special_rows import FIRST_ITEM
from pipelines.config.home_location import shown
from pipelines.config.load import resolved
from pipelines.config.schema import Config, ListsConfig
from pipelines.dataset.dataset import Dataset, described_data
from pipelines.errors import UserError
from pipelines.lists.tables import file_stamps
from pipelines.models.artifact import TRAINING, ModelCard, described, load_card, load_model
from pipelines.models.find import find_model
from pipelines.models.new_items import NewItems, read_new_items, with_new_items
from pipelines.models.over_users import EVERYONE, STATS, user_pass
from pipelines.progress import console, output
from pipelines.retrieval.export_files import Counts, WriteVectorsAndLists, write_items
from pipelines.retrieval.index import KINDS, IndexKind, build_index, require_faiss, save_index
from pipelines.retrieval.index_report import SAMPLED_USERS, measure_index, timed
from pipelines.retrieval.user_lists import told_rules
from pipelines.storage.atomic import TORN
from pipelines.storage.digests import key_digest
from pipelines.storage.home_files import exists, fetch, listed, remove, renew, total_size
from pipelines.storage.locks import exclusive
from pipelines.storage.publish import Mark, published, require_own
from pipelines.storage.tables import write_text
from pipelines.tracking.notes import note
from pipelines.tracking.run import known_run, open_run
from pipelines.tracking.versions import versions
from pipelines.words import counted

FORMAT_VERSION = 3
MARK = "export.json"
PARTS = ("items", "users", "lists", STATS, *(f"index-{kind}" for kind in KINDS))
# of the vectors as they are stored, whatever the temperature
SCORE = "max over interests of the inner product, plus own_scores of the user's own items"
PORTION_USERS = 2**14  # what a kill loses, and what a worker has at a time


@dataclass(frozen=True)
class Export:
    """export.json.

    dataset, fingerprint : what the users and their histories come from.  run_id : of the MLflow training run.
    dim : d.  max_interests : K; a user has at most so many.  top_n, seen : of the lists, as `mind recommend`.
    rules : of the lists, the settings `lists`; empty for the best match of all items.
    latest : the held-out events count too.  items : those of the catalogue, new_items of them added by --items.
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
    new_items: int
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


def export(
    config: Config,
    model: str | None = None,
    latest: bool = True,
    items: str | None = None,
    index: IndexKind | None = None,
) -> Path:
    """Write the vectors and lists of all users of the dataset of `config`; the folder.

    Parameters
    ----------
    model : as `find_model` takes it.
    latest : infer from the held-out items too, as production wants; else from what `mind evaluate` infers from.
    items : a file of rows of the item table that came after the training.
    index : to build of the item vectors, if it is not there.

    Raises
    ------
    UserError
        Without a dataset, a model of it, or users, and while another process makes the same export.
    """
    if index is not None:
        require_faiss()
    dataset = Dataset.open(config.dataset_path)
    source = find_model(config, dataset, model)
    card = load_card(source)
    new = None if items is None else read_new_items(config, dataset, load_model(source), items)
    for line in new.summary() if new is not None else ():
        console.print(line)
    target = export_folder(config, card, latest, new)
    busy = f"{shown(target)}: another mind export is writing it; wait for it to end"
    with exclusive(target.with_name(f".{target.name}.lock"), busy):
        made = Export.read(target)
        if made is not None:
            console.print(
                f"{shown(target)}: made before from this model and these settings; remove it to make it again"
            )
        else:
            require_own(target, Mark(MARK), PARTS)
            made = _make_and_record(config, dataset, source, card, target, latest, new)
        _print(made, target)
        if index is not None:
            _index(target, index, max(made.top_n, 100), card)
    return target


def export_folder(config: Config, card: ModelCard, latest: bool = True, new: NewItems | None = None) -> Path:
    """Say where the export of a model under the settings of `config` lies, or would."""
    shapes = [FORMAT_VERSION, asdict(card), config.evaluate.top_n, config.evaluate.seen, latest]
    if config.lists != ListsConfig():
        shapes += [resolved(config)["lists"], file_stamps(config.lists)]
    if new is not None:
        shapes.append(new.digest)
    return config.place("exports", f"{card.name}-{key_digest(shapes, 4)}")


def _make_and_record(
    config: Config, dataset: Dataset, source: Path, card: ModelCard, target: Path, latest: bool, new: NewItems | None
) -> Export:
    trained = known_run(config, card.run_id)
    parent = None if trained is None else trained.run_id
    with open_run(described(config, card), "export", target.name, parent=parent, without=TRAINING) as run:
        made = _make(config, dataset, source, card, target, latest, new)
        run.log_metrics({"export/items": made.items} | {f"export/{k}": v for k, v in asdict(made.counts).items()}, 0)
        run.log_dataset(config.name, made.fingerprint, made.dataset, "export")
        users = f"{counted(made.counts.users, 'user')} with {counted(made.counts.interests, 'interest')}"
        found = [f"{counted(made.items, 'item')} and {users}."]
        run.describe(note(f"Vectors and lists of {card.name} for a serving system.", described_data(dataset.manifest),
                          [*found, f"They lie in {shown(target)}."]))  # fmt: skip
        run.log_tags({"mind.model": str(source), "mind.export": shown(target)})
        run.log_artifact(target / MARK)
        run.log_artifact(target / STATS)
    return made


def _make(
    config: Config, dataset: Dataset, source: Path, card: ModelCard, target: Path, latest: bool, new: NewItems | None
) -> Export:
    """Write all parts that are not there, and last the mark."""
    loaded = load_model(source) if new is None else with_new_items(load_model(source), new)
    rules = told_rules(config, loaded)
    vectors = loaded.retriever.item_vectors[FIRST_ITEM:]
    if not exists(items := target / "items" / "part-00000.parquet"):
        write_items(loaded.item_ids, vectors, items)
    there = {path.name for path in listed(target / "lists", "*.parquet")}  # of a portion, the last that is written
    if there:
        console.print(f"Going on with {shown(target)}: {len(there)} of its parts are there")
    arguments: dict[str, Any] = {"target": target, "there": there, "latest": latest}
    arguments |= {"top_n": config.evaluate.top_n, "exclude_seen": config.evaluate.seen == "filter"}
    shared = {"ids": dataset.vocabulary("users")["id"].combine_chunks(), "rules": rules, "new": new}
    with user_pass(
        dataset, EVERYONE, config, WriteVectorsAndLists, [source], arguments, shared, PORTION_USERS, latest
    ) as everyone:
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
        new_items=0 if new is None else len(new),
        counts=Counts(*(pc.sum(portions[each.name]).as_py() for each in fields(Counts))),
        versions=versions(),
        rules={} if config.lists == ListsConfig() else resolved(config)["lists"],
    )
    write_text(json.dumps(asdict(made), indent=1) + "\n", target / MARK)
    return made


def _index(target: Path, kind: IndexKind, n: int, card: ModelCard) -> None:
    """Build an index of the exported vectors, unless it is there, and report what it finds, and how fast."""
    folder = target / f"index-{kind}"
    if exists(folder / "report.json"):
        console.print(f"{shown(folder)}: built before; remove it to build it again")
        return
    console.print(f"Building an index ({kind}) ...")
    table = pa.concat_tables(pq.read_table(fetch(path)) for path in listed(target / "items", "*.parquet"))
    dim = table.schema.field("vector").type.list_size
    flat = torch.tensor(table["vector"].combine_chunks().flatten().to_numpy())
    vectors = torch.cat([torch.zeros(FIRST_ITEM, dim), flat.view(-1, dim)])
    score = "cosine" if card.config.normalize_items and card.config.normalize_interests else "inner product"
    index, seconds = timed(lambda: build_index(kind, vectors[FIRST_ITEM:]))
    with published(folder, Mark("report.json", lambda report: f"index-{report['kind']}")) as aside:
        save_index(index, table["id"].combine_chunks(), aside)
        size = sum(file.stat().st_size for file in aside.iterdir())
        report = measure_index(index, seconds, size, vectors, _sampled_users(target), n, score)
        report.write(aside)
    report.show()
    output.print(f"Index: {shown(folder)}", soft_wrap=True)


def _sampled_users(target: Path) -> list[torch.Tensor]:
    """Read the interests (K', d) of some users, from all parts alike."""
    paths = listed(target / "users", "*.parquet")
    found: list[torch.Tensor] = []
    for path in random.Random(0).sample(paths, min(len(paths), 10)):
        column = pq.read_table(fetch(path), columns=["interests"])["interests"]
        rows = random.Random(0).sample(range(len(column)), min(len(column), -(-SAMPLED_USERS // min(len(paths), 10))))
        found += [torch.tensor(column[row].as_py()) for row in rows]
    return found


def _print(made: Export, target: Path) -> None:
    output.print(f"Exported: {shown(target)}", soft_wrap=True)
    known = (
        "all events, the held-out ones too, as serving wants"
        if made.latest
        else "the events before the held-out ones, as mind evaluate infers (--as-evaluated)"
    )
    output.print(f"Users' vectors and lists are inferred from {known}", soft_wrap=True)
    table = Table("files", "rows", "bytes", "what")
    rows: Sequence[tuple[str, int, str]] = (
        ("items", made.items, f"number, id, vector ({made.dim})"),
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

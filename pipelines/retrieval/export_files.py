"""The files of an export: item vectors, and of every user the interest vectors and the list, portion by portion.

Whoever works on a portion writes its parts, slice by slice; the driver sees counts alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mind_core.list_rules import NO_RULES, ListRules
from mind_core.sequences import Histories, full_histories
from mind_core.special_rows import FIRST_ITEM
from pipelines.models.artifact import SavedModel
from pipelines.models.new_items import with_new_items
from pipelines.models.over_users import SLICE_USERS
from pipelines.models.users.worker import UserWorker
from pipelines.storage.atomic import whole
from pipelines.storage.home_files import fetch

LISTED = ["user", "rank", "id", "score", "interest"]
ITEMS_AT_ONCE = 2**17  # rows of item vectors that are turned into Arrow together


@dataclass(frozen=True)
class Counts:
    """users : with a history.  interests : vectors of theirs.  recommendations : rows of their lists."""

    users: int
    interests: int
    recommendations: int


def write_items(ids: pa.Array, vectors: Tensor, path: Path) -> None:
    """Write the items' numbers from 0, raw ids and vectors (N, d), a row group at a time."""
    columns = [("number", pa.int64()), ("id", ids.type), ("vector", pa.list_(pa.float32(), vectors.shape[1]))]
    schema = pa.schema(columns)
    with whole(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for start in range(0, len(vectors), ITEMS_AT_ONCE):
            block = vectors[start : start + ITEMS_AT_ONCE]
            numbers = pa.array(range(start, start + len(block)), pa.int64())
            writer.write(pa.table([numbers, ids.slice(start, ITEMS_AT_ONCE), _fixed(block)], schema=schema))


class WriteVectorsAndLists(UserWorker):
    """Writes the vectors of the users of a portion, then their lists; a slice of them in memory at a time.

    What it did is a row of a table: name of the files, and what they hold as in `Counts`.

    shared : ids of the users, rules (ListRules), new (NewItems or None).
    """

    @cached_property
    def model(self) -> SavedModel:
        """The model, with the items that came after the training if there are any."""
        new = self.shared["new"]
        return self.models[0] if new is None else with_new_items(self.models[0], new)

    def work(  # type: ignore[override]
        self, table: pa.Table, *, target: Path, there: set[str], top_n: int, exclude_seen: bool, latest: bool
    ) -> pa.Table:
        name = f"part-{pc.min(table['user']).as_py():012d}.parquet"
        if name not in there or counted(target, name).users != len(table):
            table = table.append_column("id", self.shared["ids"].take(table["user"]))
            self.write(table, target, name, top_n, exclude_seen=exclude_seen, latest=latest)
        return pa.table({"name": [name], **{key: [value] for key, value in asdict(counted(target, name)).items()}})

    def write(self, table: pa.Table, target: Path, name: str, top_n: int, *, exclude_seen: bool, latest: bool) -> None:
        """Write both files of a portion, each whole or not at all."""
        with whole(target / "lists" / name) as last, whole(target / "users" / name) as first, ExitStack() as files:
            writers: list[pq.ParquetWriter] = []
            for start in range(0, len(table), SLICE_USERS):
                slice_ = table.slice(start, SLICE_USERS)
                blocks = users_and_lists(
                    self.model, slice_, top_n, exclude_seen=exclude_seen, latest=latest, rules=self.shared["rules"]
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
    remembered = _remembered(model, histories, retriever.memory(histories, vectors, own))
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

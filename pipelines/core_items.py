"""Pass 3 of preprocessing: count items per range, again and again until no item or user is below its minimum."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.config import DataConfig
from pipelines.errors import UserError
from pipelines.histories import Histories, item_counts, settle
from pipelines.ids import as_array
from pipelines.ranges import Range
from pipelines.session import run_tasks
from pipelines.vocabulary import build_items


@dataclass(frozen=True)
class Core:
    """The fixed point: every user and item left has its minimum of events."""

    ranges: list[Range]
    items: pa.Table  # the item vocabulary: index, id, count
    rare: pa.Array | None  # ids of the items dropped


def find_core(data: DataConfig, ranges: list[Range]) -> Core:
    """Grow the set of rare items until nothing falls below its minimum (the k-core).

    Raises
    ------
    UserError
        If that leaves nothing.
    """
    rare: pa.Array | None = None
    rounds = 0
    while True:
        rounds += 1
        shared = ray.put(rare)
        what = "Counting items" if rounds == 1 else f"Dropping rare items and short users, round {rounds}"
        settled: list[Range] = []
        counts = _Counts()
        for left, counted in run_tasks(_count_range, [(each, shared, data) for each in ranges], what):
            settled.append(left)
            counts.add(counted)
        items = counts.total()
        if not items.num_rows:
            raise UserError(
                f"{data.events.path}: no event is left with min_user_events={data.min_user_events} and "
                f"min_item_events={data.min_item_events}; lower them"
            )
        few = as_array(items.filter(pc.less(items["count"], data.min_item_events))["id"])
        if not len(few):
            return Core(settled, build_items(items), rare)
        rare = few if rare is None else pa.concat_arrays([rare, few])


def _count_range(each: Range, rare: pa.Array | None, data: DataConfig) -> tuple[Range, pa.Table]:
    """Task: what is left of a range without the rare items, and its item counts."""
    histories, _ = settle_range(each, rare, data)
    return Range(each.number, each.path, len(histories.users), len(histories.item)), item_counts(histories)


def settle_range(each: Range, rare: pa.Array | None, data: DataConfig) -> tuple[Histories, Counter[str]]:
    """Read a range and drop what the rare items and the minimum counts take away; see `histories.settle`."""
    histories = Histories.read(Path(each.path))
    if rare is None:
        drop = np.zeros(len(histories.items), bool)
    else:
        drop = pc.is_in(histories.items, value_set=rare).to_numpy(zero_copy_only=False)
    return settle(histories, drop, data.min_user_events, data.events.repeats == "collapse")


class _Counts:
    """A running sum of (id, count) tables that holds a few of them at most."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        if len(self._tables) > 8:
            self._tables = [self.total()]

    def total(self) -> pa.Table:
        joined = pa.concat_tables(self._tables).group_by("id").aggregate([("count", "sum")])
        return joined.rename_columns({"count_sum": "count"}).select(["id", "count"])

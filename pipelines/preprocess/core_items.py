"""Pass 3 of preprocessing: count items, again and again until no item or user is below its minimum (the k-core)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.cluster.ray_data import Report, mapped, pieces, run
from pipelines.config.schema import DataConfig
from pipelines.dataset.sorted_events import SortedEvents, item_counts, settle
from pipelines.errors import UserError
from pipelines.log.ids import as_array
from pipelines.preprocess.sort_parts import Part
from pipelines.preprocess.workspace import Workspace, read_json, write_json
from pipelines.storage.home_files import exists
from pipelines.storage.tables import read_arrow, write_arrow


@dataclass(frozen=True)
class Core:
    """The fixed point: every user and item left has its minimum of events."""

    items: pa.Table  # id, count
    rare: pa.Array | None  # ids of the items dropped
    users: list[int]  # left, by part


def find_core(data: DataConfig, parts: list[Part], work: Workspace) -> Core:
    """Grow the set of rare items until nothing falls below its minimum.

    Raises
    ------
    UserError
        If that leaves nothing.
    """
    items, rare, users = (work.root / f"core-{name}" for name in ("items.arrow", "rare.arrow", "users.json"))
    if not exists(users):  # written last
        core = _fixed_point(data, parts, work.report)
        write_arrow(core.items, items)
        write_arrow(pa.table({"id": core.items["id"].slice(0, 0) if core.rare is None else core.rare}), rare)
        write_json(core.users, users)
    dropped = as_array(read_arrow(rare)["id"])
    return Core(read_arrow(items), dropped if len(dropped) else None, read_json(users))


def _fixed_point(data: DataConfig, parts: list[Part], report: Report) -> Core:
    rare: pa.Array | None = None
    rounds = 0
    users = [part.users for part in parts]
    if drops_without_rare_items(data) or not all(part.counts for part in parts):
        counts, users = _count(data, parts, rare, rounds, report)
    else:  # pass 2 has counted what is there before anything is dropped
        counts = total(part.item_counts() for part in parts)
    while True:
        if not counts.num_rows:
            raise UserError(
                f"{data.events.path}: no event is left with min_user_events={data.min_user_events} and "
                f"min_item_events={data.min_item_events}; lower them"
            )
        few = as_array(counts.filter(pc.less(counts["count"], data.min_item_events))["id"])
        if not len(few):
            return Core(counts, None if rare is None else rare.sort(), users)
        rare = few if rare is None else pa.concat_arrays([rare, few])
        rounds += 1
        counts, users = _count(data, parts, rare, rounds, report)


def _count(
    data: DataConfig, parts: list[Part], rare: pa.Array | None, rounds: int, report: Report
) -> tuple[pa.Table, list[int]]:
    """Item counts over all parts, and users left by part."""
    what = f"Dropping rare items and short users, round {rounds}" if rounds else "Dropping short users"
    given = ray.put((parts, rare, data))

    def count_items(rows: pa.Table) -> pa.Table:
        parts, rare, data = ray.get(given)
        return pa.concat_tables([_count_part(n, parts[n], rare, data) for n in rows["key"].to_pylist()])

    users = [0] * len(parts)

    def counted() -> Iterator[pa.Table]:
        for block in run(mapped(pieces(range(len(parts))), count_items, what), what, len(parts), report):
            for number, left in zip(block["part"].to_pylist(), block["users"].to_pylist(), strict=True):
                users[number] = left
            lists = block.combine_chunks()
            yield pa.table({name: as_array(lists[name]).flatten() for name in ("id", "count")})

    return total(counted()), users


def has_minimum(data: DataConfig) -> bool:
    """Say whether an event can bring back or push out another one."""
    return drops_without_rare_items(data) or data.min_item_events > 1


def drops_without_rare_items(data: DataConfig) -> bool:
    """Say whether `settle` drops events even where no item is rare."""
    return data.min_user_events > 1 or data.max_user_events is not None or data.events.repeats == "collapse"


def _count_part(number: int, part: Part, rare: pa.Array | None, data: DataConfig) -> pa.Table:
    """One row: part, users left, and lists of the items' ids and counts, without the rare items."""
    histories, _ = settled(part.read(), rare, data)
    counts = item_counts(histories)
    offsets = pa.array([0, counts.num_rows], pa.int32())
    lists = {name: pa.ListArray.from_arrays(offsets, as_array(counts[name])) for name in ("id", "count")}
    return pa.table({"part": [number], "users": [len(histories.users)], **lists})


def settled(histories: SortedEvents, rare: pa.Array | None, data: DataConfig) -> tuple[SortedEvents, Counter[str]]:
    """Drop what the rare items and the minimum counts take away; see `histories.settle`."""
    if rare is None:
        drop = np.zeros(len(histories.items), bool)
    else:
        drop = pc.is_in(histories.items, value_set=rare).to_numpy(zero_copy_only=False)
    collapse = data.events.repeats == "collapse"
    return settle(histories, drop, data.min_user_events, collapse, data.max_user_events)


def total(tables: Iterable[pa.Table]) -> pa.Table:
    """Sum (id, count) tables by id; a few of them are held at most."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if len(held) > 8:
            held = [_sum(held)]
    return _sum(held)


def _sum(tables: list[pa.Table]) -> pa.Table:
    joined = pa.concat_tables(tables).group_by("id").aggregate([("count", "sum")])
    return joined.rename_columns({"count_sum": "count"}).select(["id", "count"])

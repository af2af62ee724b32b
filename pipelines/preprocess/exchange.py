"""The exchange between reading and sorting: clean events -> blocks that hold all events of whole parts.

Ray Data's keyed repartition moves them, through its object store or, from a size on, through files on the nodes' disks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import ray
import ray.data

from pipelines.cluster.ray_data import mapped
from pipelines.log.ids import as_array
from pipelines.preprocess.buckets import Run, part_of_users
from pipelines.preprocess.clean_log import CleanFile, CleanLog, Kinds, with_types
from pipelines.storage.home_files import located

KEY = "part"
UNSHUFFLED_EVENTS = 2**21  # so few are sorted by one task sooner than they are exchanged
EVENT_BYTES = 32  # user, item, time and part, roughly
ON_DISK = 1 / 8  # of the cluster's object store: an exchange of more goes through files
EXCHANGED_AT_ONCE = 64 * 2**20  # bytes that a task of the exchange takes in


def events_by_part(log: CleanLog, runs: Sequence[Run], wanted: Sequence[int], kinds: Kinds) -> ray.data.Dataset:
    """Bring the clean events of the parts `wanted` together, every part whole within one block; see `parts_in`.

    Parameters
    ----------
    runs : of buckets, one for each part.
    kinds : what the columns are brought to.
    """
    keep = np.zeros(len(runs), bool)
    keep[list(wanted)] = True

    def with_part(events: pa.Table) -> pa.Table:
        part = part_of_users(as_array(events["user"]), runs)
        events = with_types(events, kinds).append_column(KEY, pa.array(part))
        return events if keep.all() else events.filter(pa.array(keep[part]))

    context = ray.data.DataContext.get_current()  # a dataset keeps the settings of the moment when it is made
    context.shuffle_input_batch_bytes = EXCHANGED_AT_ONCE
    store = ray.cluster_resources().get("object_store_memory", 0)
    context.use_disk_based_hash_shuffle = EVENT_BYTES * log.events > ON_DISK * store
    by_type = groupby(sorted(log.files, key=_types), _types)
    tables = [mapped(_read([file.path for file in files]), with_part, "Part of each user") for _, files in by_type]
    events = tables[0] if len(tables) == 1 else tables[0].union(*tables[1:])
    if len(wanted) == 1 or log.events <= UNSHUFFLED_EVENTS:
        return events.repartition(1)
    return events.repartition(len(wanted), keys=[KEY])


def parts_in(block: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number and the events of each part in a block of `events_by_part`."""
    part = block[KEY].to_numpy()
    events = block.drop_columns([KEY])
    numbers = np.unique(part)
    for number in numbers.tolist():
        yield number, events if len(numbers) == 1 else events.filter(pa.array(part == number))


def _types(file: CleanFile) -> tuple[str, str, str]:
    return file.user_type, file.item_type, file.tie_type


def _read(files: list[str]) -> ray.data.Dataset:
    filesystem, paths = located(files)
    return ray.data.read_parquet(paths, filesystem=filesystem, override_num_blocks=len(files))

"""Generated event logs in the order of time, as a service writes them: every file holds events of all users.

(`mind generate` plants interests and writes user by user: nothing would be left for a shuffle to do.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 2**20
FIRST_TIME_US = 1_700_000_000_000_000
EVENTS_PER_USER, EVENTS_PER_ITEM = 100, 50
GAP_US = 250_000  # mean time between two events of the log


def events(number: int, count: int, users: int, items: int) -> pa.Table:
    """Block `number` of a log: a fifth of the users does half of it, items follow a Zipf law of exponent 1."""
    rng = np.random.default_rng(number)
    user = np.floor(users * rng.random(count) ** 1.75).astype(np.int64)
    rank = np.floor(np.exp(rng.random(count) * np.log(items + 1))).astype(np.int64) - 1
    time = FIRST_TIME_US + GAP_US * (BLOCK * number + np.sort(rng.random(count)) * count)
    columns = {
        "user_id": user * 7_919 % users,  # active ones are not neighbours
        "item_id": rank * 2_654_435_761 % items,
        "time": pa.array(time.astype(np.int64), pa.timestamp("us")),
    }
    return pa.table(columns)


def write_log(folder: Path, count: int) -> Path:
    """A log of `count` events in files of a million, made once."""
    if not (folder / "_SUCCESS").exists():
        folder.mkdir(parents=True, exist_ok=True)
        users, items = max(1, count // EVENTS_PER_USER), max(1, count // EVENTS_PER_ITEM)
        for number, start in enumerate(range(0, count, BLOCK)):
            table = events(number, min(BLOCK, count - start), users, items)
            pq.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")
        (folder / "_SUCCESS").touch()
    return folder

"""Generated logs of any size with planted interests, so that it can be measured whether a model finds them.

Items belong to clusters; inside one, rank r is seen in proportion to log(1 + 1/r), a Zipf law of exponent 1. A user has
a few clusters (the interests), stays with one for a while, then switches. Written block by block; memory does not grow
with the number of events. No Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK_EVENTS = 2**20
STAY = 0.7  # chance that the next event belongs to the interest of the last one
NOISE = 0.05  # share of events from any cluster
CATEGORY_TRUTH = 0.8  # share of items whose category is that of their cluster
GROUPS = 4  # values of the profile feature
FIRST_TIME_US = 1_700_000_000_000_000  # 2023-11-14
MEAN_GAP_US = 3_600_000_000  # one hour between a user's events

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Generated:
    """Where things lie. `truth` has item_id, cluster; `interests` has user_id, clusters (list)."""

    events: Path  # folder: user_id, item_id, time (timestamp[us])
    items: Path | None  # item_id, category, price
    profile: Path | None  # user_id, group
    truth: Path
    interests: Path


def generate(
    path: str | Path,
    events: int,
    users: int,
    items: int,
    interests_per_user: int = 3,
    clusters: int = 20,
    seed: int = 0,
    features: bool = True,
) -> Generated:
    """Write a log below `path`.

    Parameters
    ----------
    path
        Folder, made if needed.
    events, users, items
        Sizes; every user has at least one event, and about events / users of them, geometrically distributed.
    interests_per_user
        Distinct clusters planted in a user.
    clusters
        Items are dealt out to them evenly.
    seed
        The same arguments give the same files.
    features
        Write an item table (category, mostly that of the cluster, and a price) and a profile table (a group that
        prefers some clusters).

    Raises
    ------
    ValueError
        If the sizes cannot be met.
    """
    if not (interests_per_user <= clusters <= items and 1 <= users <= events):
        raise ValueError("need interests_per_user <= clusters <= items and 1 <= users <= events")
    root = Path(path)
    (root / "events").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cluster_of = rng.permutation(np.arange(items) % clusters)
    members = np.argsort(cluster_of, kind="stable")  # items of a cluster stand together, the most popular first
    starts = np.searchsorted(cluster_of[members], np.arange(clusters + 1))
    interests = rng.random((users, clusters)).argpartition(interests_per_user - 1, axis=1)[:, :interests_per_user]
    lengths = _lengths(rng, events, users)
    _write_events(rng, root / "events", lengths, interests, members, starts)

    truth, interests_file = root / "truth.parquet", root / "interests.parquet"
    pq.write_table(pa.table({"item_id": np.arange(items), "cluster": cluster_of}), truth)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(interests.ravel()), interests_per_user)
    pq.write_table(pa.table({"user_id": np.arange(users), "clusters": lists}), interests_file)
    if not features:
        return Generated(root / "events", None, None, truth, interests_file)
    item_file, profile_file = root / "items.parquet", root / "profile.parquet"
    honest = rng.random(items) < CATEGORY_TRUTH
    category = np.where(honest, cluster_of, rng.integers(clusters, size=items))
    price = np.round(rng.lognormal(2.0 + 0.1 * cluster_of, 0.5), 2)
    names = pa.array([f"category {n}" for n in range(clusters)]).take(pa.array(category))
    pq.write_table(pa.table({"item_id": np.arange(items), "category": names, "price": price}), item_file)
    groups = pa.array([f"group {n}" for n in range(GROUPS)]).take(pa.array(interests[:, 0] % GROUPS))
    pq.write_table(pa.table({"user_id": np.arange(users), "group": groups}), profile_file)
    return Generated(root / "events", item_file, profile_file, truth, interests_file)


def _lengths(rng: np.random.Generator, events: int, users: int) -> Int64s:
    """Events per user, (users,), at least 1 each and `events` in total."""
    activity = rng.exponential(size=users)
    lengths: Int64s = 1 + np.floor(activity / activity.sum() * (events - users)).astype(np.int64)
    lengths[: events - int(lengths.sum())] += 1  # what rounding left over
    return lengths


def _write_events(
    rng: np.random.Generator, folder: Path, lengths: Int64s, interests: Int64s, members: Int64s, starts: Int64s
) -> None:
    ends = np.cumsum(lengths)
    first = 0
    number = 0
    while first < len(lengths):
        done = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, done + BLOCK_EVENTS, side="right")))
        block = _block(rng, np.arange(first, last), lengths[first:last], interests[first:last], members, starts)
        pq.write_table(block, folder / f"part-{number:05d}.parquet")
        first, number = last, number + 1


def _block(
    rng: np.random.Generator, users: Int64s, lengths: Int64s, interests: Int64s, members: Int64s, starts: Int64s
) -> pa.Table:
    """Draw the events of some users, in random order as a log of many users would have them."""
    row = np.repeat(np.arange(len(users)), lengths)  # (E,)
    count = len(row)
    new_user = np.r_[True, row[1:] != row[:-1]]
    switch = new_user | (rng.random(count) >= STAY)
    choice = rng.integers(interests.shape[1], size=count)
    last_switch = np.maximum.accumulate(np.where(switch, np.arange(count), 0))
    cluster = interests[row, choice[last_switch]]
    clusters = len(starts) - 1
    cluster = np.where(rng.random(count) < NOISE, rng.integers(clusters, size=count), cluster)
    size = starts[cluster + 1] - starts[cluster]
    place = np.floor(np.exp(rng.random(count) * np.log(size + 1))).astype(np.int64) - 1  # rank r ~ log(1 + 1/r)
    item = members[starts[cluster] + np.minimum(place, size - 1)]
    gap = np.ceil(rng.exponential(MEAN_GAP_US, size=count)).astype(np.int64)
    total = np.cumsum(gap)
    before = (total - gap)[np.flatnonzero(new_user)][row]
    time = FIRST_TIME_US + total - before
    order = rng.permutation(count)
    return pa.table(
        {"user_id": users[row][order], "item_id": item[order], "time": pa.array(time[order], pa.timestamp("us"))}
    )

"""What every contestant of `make bench-quality` does alike: rank the catalogue for users, choose an epoch, write lists.

NumPy and the standard library only: peers run in environments of their own. A contestant writes one file,

    lists (U, 50) int32       the best items of each test user, best first, 0 where the candidates ran out
    new_lists (U, 50) int32   the same without the items of the user's history, where these are not filtered anyway
    told                      JSON: fit_seconds, list_seconds, peak_bytes, and what the contestant says of itself

which benchmarks/quality/score.py reads. Targets of the test split are in none of the files that a peer is given.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import peak_bytes

DEPTH = 50  # of a list
FIRST_ITEM = 2  # index 0 is padding, 1 unknown
USERS_AT_ONCE = 256

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """n users' histories, oldest first: user u's are items[offsets[u]:offsets[u + 1]]; profile (n, F) or None."""

    items: np.ndarray
    offsets: np.ndarray
    profile: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gather what `users` (B,) have: (row, item), flat; row counts from 0 in the order of `users`.

        >>> row, item = Split(np.array([7, 8, 9]), np.array([0, 2, 3])).of(np.array([1, 0]))
        >>> row.tolist(), item.tolist()
        ([0, 1, 1], [9, 7, 8])
        """
        sizes = self.offsets[users + 1] - self.offsets[users]
        row = np.repeat(np.arange(len(users)), sizes)
        within = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return row, self.items[self.offsets[users][row] + within]

    def lists(self, users: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the history of each of `users`."""
        return (self.items[self.offsets[user] : self.offsets[user + 1]] for user in users)


Score = Callable[[Split, np.ndarray], np.ndarray]
"""(split, users (B,)) -> (B, V) scores, -inf for items that are no candidates; the caller may overwrite them."""


def split_of(data: Arrays, name: str) -> Split:
    """Take train, validation or test out of the arrays that benchmarks/peers/export.py wrote."""
    prefix = "" if name == "train" else f"{name}_"
    return Split(data[f"{prefix}items"], data[f"{prefix}offsets"], data.get(f"{name}_profile"))


def counts_of(data: Arrays) -> np.ndarray:
    """Count each item's events in the train split, (V,)."""
    return np.bincount(data["items"], minlength=int(data["item_rows"]))


def top_lists(score: Score, split: Split, filtered: bool, depth: int = DEPTH) -> Arrays:
    """Rank the catalogue for all users of a split: `lists`, and `new_lists` where seen items are not `filtered`.

    Examples
    --------
    Items 2 and 3; the user did 3, which scores higher:

    >>> def score(split: Split, users: np.ndarray) -> np.ndarray:
    ...     return np.array([[9.0, 9.0, 1.0, 2.0]])
    >>> split = Split(np.array([3]), np.array([0, 1]))
    >>> {name: found.tolist() for name, found in top_lists(score, split, filtered=False, depth=2).items()}
    {'lists': [[3, 2]], 'new_lists': [[2, 0]]}
    >>> top_lists(score, split, filtered=True, depth=2)["lists"].tolist()
    [[2, 0]]
    """
    everything, new = [np.zeros((0, depth), np.int32)], [np.zeros((0, depth), np.int32)]
    for start in range(0, len(split), USERS_AT_ONCE):
        users = np.arange(start, min(start + USERS_AT_ONCE, len(split)))
        scores = score(split, users)
        scores[:, :FIRST_ITEM] = -np.inf
        if not filtered:
            everything.append(_best(scores, depth))
        scores[split.of(users)] = -np.inf
        new.append(_best(scores, depth))
    if filtered:
        return {"lists": np.concatenate(new)}
    return {"lists": np.concatenate(everything), "new_lists": np.concatenate(new)}


def _best(scores: np.ndarray, depth: int) -> np.ndarray:
    """(B, depth) int32 items by falling score."""
    most = min(depth, scores.shape[1])
    places = np.argpartition(-scores, most - 1, axis=1)[:, :most]
    found = np.take_along_axis(scores, places, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    places, found = np.take_along_axis(places, order, 1), np.take_along_axis(found, order, 1)
    out = np.zeros((len(scores), depth), np.int32)
    out[:, :most] = np.where(np.isneginf(found), 0, places)
    return out


def mean_metric(lists: np.ndarray, history: Split, targets: Split, metric: str, filtered: bool) -> float:
    """Average hit_rate@N, recall@N, ndcg@N or mrr@N over the users, as mind_core.metrics defines them.

    Peers choose their settings and epochs by it; what is reported is computed by mind_core itself.
    """
    kind, n = metric.split("@")
    everyone = np.arange(len(history))
    row, items = targets.of(everyone)
    if filtered:
        width = 1 + int(max(items.max(initial=0), history.items.max(initial=0)))
        seen_row, seen = history.of(everyone)
        kept = ~np.isin(row * width + items, seen_row * width + seen)
        row, items = row[kept], items[kept]
    if not len(row):
        return 0.0
    users, row = np.unique(row, return_inverse=True)
    found = lists[users[row], : int(n)] == items[:, None]
    hit, rank = found.any(1), found.argmax(1) + 1.0
    totals = np.bincount(row)
    if kind == "recall":
        each = np.bincount(row, hit) / totals
    elif kind == "hit_rate":
        each = np.bincount(row, hit) > 0
    elif kind == "mrr":
        each = np.zeros(len(users))
        np.maximum.at(each, row, hit / rank)
    else:
        ideal = np.cumsum(1 / np.log2(np.arange(2, int(n) + 2)))
        each = np.bincount(row, hit / np.log2(rank + 1)) / ideal[np.minimum(totals, int(n)) - 1]
    return float(each.mean())


def validator(data: Arrays, settings: Settings) -> Callable[[Score], float]:
    """Return what says how good a scorer is on the validation users: settings `metric`, seen items as `seen` says."""
    history = split_of(data, "validation")
    targets = Split(data["validation_targets"], data["validation_target_offsets"])
    filtered, depth = settings["seen"] == "filter", int(settings["metric"].split("@")[1])

    def value(score: Score) -> float:
        lists = top_lists(score, history, filtered, depth)["lists"]
        return mean_metric(lists, history, targets, settings["metric"], filtered)

    return value


class Watch:
    """Counts epochs without a better validation, and the time; says when a training is over and why.

    Examples
    --------
    >>> watch = Watch({"patience": 1, "epochs": 9, "cap_seconds": 60})
    >>> watch.is_better(0.2), watch.ended, watch.is_better(0.1), watch.ended, watch.best_epoch
    (True, None, False, 'patience', 1)
    """

    def __init__(self, settings: Settings):
        self.patience, self.epochs, self.cap = settings["patience"], settings["epochs"], settings["cap_seconds"]
        self.started = time.perf_counter()
        self.epoch = self.best_epoch = 0
        self.best = float("-inf")
        self.curve: list[float] = []

    def is_better(self, value: float) -> bool:
        """Take in the validation of the next epoch; true if it is the best so far."""
        self.epoch += 1
        self.curve.append(value)
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
        return self.best_epoch == self.epoch

    @property
    def out_of_time(self) -> bool:
        return time.perf_counter() - self.started > self.cap

    @property
    def ended(self) -> str | None:
        """The reason, or None."""
        if self.epoch - self.best_epoch >= self.patience:
            return "patience"
        return "cap" if self.out_of_time else "epochs" if self.epoch >= self.epochs else None

    def told(self) -> dict[str, Any]:
        return {"ended": self.ended, "epochs": self.epoch, "best_epoch": self.best_epoch, "validation": self.curve}


def write(path: Path, lists: Arrays, told: dict[str, Any]) -> None:
    """Write a contestant's file, whole or not at all."""
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez_compressed(file, **lists, told=np.array(json.dumps(told)))
    os.replace(aside, path)


def read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a contestant's file: its lists, and what it told."""
    with np.load(path) as file:
        arrays = dict(file)
    told = json.loads(str(arrays.pop("told")))
    return arrays, told


Fit = Callable[[Arrays, Settings], tuple[Score, dict[str, Any]]]


def compete(contestants: Mapping[str, Fit]) -> None:
    """Be the command of a peer: NAME DATA.npz OUT.npz SETTINGS, the settings as JSON with a `seed` and `threads`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=list(contestants))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", type=json.loads)
    arguments = parser.parse_args()
    with np.load(arguments.data) as file:
        data = dict(file)
    settings = arguments.settings
    started = time.perf_counter()
    score, told = contestants[arguments.name](data, settings)
    fitted = time.perf_counter()
    lists = top_lists(score, split_of(data, "test"), settings["seen"] == "filter")
    seconds = {"fit_seconds": fitted - started, "list_seconds": time.perf_counter() - fitted}
    write(arguments.out, lists, {**seconds, "peak_bytes": peak_bytes(), **told})

"""What the data quality report must know of the events, counted per part of the users; `merge_stats` adds parts up.

Every number is an integer: a count over fixed bins, a least or a greatest. So the total is the same however the users
are cut into parts. Pure NumPy; no Ray. What becomes of the numbers: pipelines.quality.report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mind_core.splitmix import GOLDEN
from pipelines.dataset.behaviours import elapsed, gap_buckets
from pipelines.dataset.sorted_events import SortedEvents
from pipelines.dataset.splits import Stretches
from pipelines.log.ids import Int64s
from pipelines.log.times import TimeUnit

Stats = dict[str, Any]
Range = tuple[Int64s, Int64s]  # (U,) first event row and last + 1 of each user; equal where there is none

MAX_TIME_BINS = 400
HEAVIEST = 10  # users that are named
HOUR_US = 3_600_000_000
MONDAY = 3 * 24  # hours from a Monday to 1970-01-01: weeks begin on Mondays
HOURS = (1, 24, 7 * 24, 28 * 24, 364 * 24)  # each holds the one before a whole number of times
LENGTH_BITS = 5  # lengths are kept to so many leading bits: exact below 32, to 1/16 above
GAP_BUCKETS = 66  # more than gap_buckets can tell apart
SLOT_BITS = 21
CHUNK = 2**15  # events whose intermediate arrays stay in the processor's cache


def part_stats(histories: SortedEvents, stretches: dict[str, Stretches], unit: TimeUnit) -> Stats:
    """Count what is in the events of some users, and what their splits would give away.

    Parameters
    ----------
    histories
        Events that the dataset is made of, E of U users.
    stretches
        train, validation and test, as `pipelines.dataset.splits.split_users` cuts them.
    unit
        Of the times.

    Returns
    -------
    dict
        What JSON can hold, of bounded size. Histograms are lists of [bin, count, ...], ascending.

        lengths : users, events, max, histogram by number of events (the bin's least).
        gaps : histogram by `gap_buckets`, of all events but each user's first; same_time counts gaps of 0.
        time : first, last; level (see `bin_width`); bins of [bin, events, in train, validation targets, test targets,
        users whose first event it is].
        leaks : users for whom a rule is broken that every split must keep, by rule; all 0 if the program is right.
        heaviest : [user, events] of the HEAVIEST users with most events, the id as text.
        split : train_last, test_first: times; test_users, of whom unknown_users have no row in train and tied_users
        have a target at the very time of their last known event; test_targets: target events, of which
        seen_targets are of items that stand in the user's history.
    """
    users = len(histories.users)
    length: Int64s = np.bincount(histories.user, minlength=users).astype(np.int64)
    stop = np.cumsum(length)
    own = (stop - length, stop)
    known, wanted = _by_user(stretches, users)
    backwards, same_time, gaps = _gaps(histories.time, stop[length > 0], unit)
    return {
        "lengths": {
            "users": int((length > 0).sum()),
            "events": len(histories.user),
            "max": int(length.max(initial=0)),
            "histogram": _length_histogram(length[length > 0]),
        },
        "heaviest": _heaviest(_longest(histories.users, length)),
        "gaps": {
            "same_time": same_time,
            "histogram": gaps,
        },
        "time": _time_bins(histories.time, own, known, wanted, unit),
        "leaks": {
            "events out of their order": backwards,
            **_broken_rules(histories.time, own, known, wanted),
        },
        "split": _split_numbers(histories, stretches, known["test"]),
    }


def merge_stats(stats: Sequence[Stats]) -> Stats:
    """Add up the statistics of parts that have no user in common; `stats` is not empty."""
    level = _common_level([each["time"] for each in stats])
    return {
        "lengths": {
            "users": sum(each["lengths"]["users"] for each in stats),
            "events": sum(each["lengths"]["events"] for each in stats),
            "max": max(each["lengths"]["max"] for each in stats),
            "histogram": _added([each["lengths"]["histogram"] for each in stats]),
        },
        "heaviest": _heaviest(pair for each in stats for pair in each.get("heaviest", ())),
        "gaps": {
            "same_time": sum(each["gaps"]["same_time"] for each in stats),
            "histogram": _added([each["gaps"]["histogram"] for each in stats]),
        },
        "time": {
            "unit": stats[0]["time"]["unit"],
            "first": _least([each["time"]["first"] for each in stats]),
            "last": _greatest([each["time"]["last"] for each in stats]),
            "level": level,
            "bins": _added([_coarser(each["time"], level) for each in stats]),
        },
        "leaks": {rule: sum(each["leaks"][rule] for each in stats) for rule in stats[0]["leaks"]},
        "split": {
            name: _greatest(values) if name == "train_last" else _least(values) if name == "test_first" else sum(values)
            for name in stats[0]["split"]
            for values in [[each["split"][name] for each in stats]]
        },
    }


def without(stats: Stats) -> Stats:
    """Make what takes users out again: ``merge_stats([all, without(some)])``; leasts and greatests stay as they are."""

    def turned(histogram: list[list[Any]]) -> list[list[Any]]:
        return [[row[0], *(-count for count in row[1:])] for row in histogram]

    lengths, gaps, time = stats["lengths"], stats["gaps"], stats["time"]
    counts = {name: -count for name, count in stats["split"].items() if name not in ("train_last", "test_first")}
    return {
        "lengths": {
            "users": -lengths["users"],
            "events": -lengths["events"],
            "max": 0,
            "histogram": turned(lengths["histogram"]),
        },
        "heaviest": turned(stats.get("heaviest", [])),
        "gaps": {"same_time": -gaps["same_time"], "histogram": turned(gaps["histogram"])},
        "time": time | {"first": None, "last": None, "bins": turned(time["bins"])},
        "leaks": {rule: -count for rule, count in stats["leaks"].items()},
        "split": {"train_last": None, "test_first": None, **counts},
    }


def _longest(users: pa.Array, length: Int64s) -> list[list[Any]]:
    """List the ids, as text, and events of users among whom the HEAVIEST with most events are, and few others."""
    least = np.partition(length, -HEAVIEST)[-HEAVIEST] if len(length) > HEAVIEST else 0
    places = np.flatnonzero(length > max(0, least))
    ties = np.flatnonzero(length == least) if least else places[:0]
    chosen = users.take(pa.array(np.concatenate([places, ties]))).cast(pa.string()).to_pylist()
    return [list(pair) for pair in zip(chosen, length[[*places, *ties]].tolist(), strict=True)]


def _heaviest(pairs: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Add up events by user: the HEAVIEST users, of equal ones those whose ids come first as text."""
    count = Counter[str]()
    for user, events in pairs:
        count[user] += events
    found = sorted((-events, user) for user, events in count.items() if events > 0)
    return [[user, -events] for events, user in found[:HEAVIEST]]


def bin_width(unit: TimeUnit, level: int) -> int:
    """Size the time bins, in hours ("us": an hour, a day, 7, 28 or 364 days, ten times more, ...) or numbers (2^level).

    Bin n of hours begins at hour ``n * width - MONDAY`` after 1970-01-01 UTC, of numbers at ``n * width``.
    """
    if unit == "number":
        return 1 << level
    return HOURS[level] if level < len(HOURS) else int(HOURS[-1] * 10 ** (level + 1 - len(HOURS)))


def tick(time: int, unit: TimeUnit) -> int:
    """Turn a time into what `bin_width` measures: hours since a Monday, or numbers."""
    return time // HOUR_US + MONDAY if unit == "us" else time


def _length_histogram(length: Int64s) -> list[list[int]]:
    count = np.bincount(length)
    value = np.flatnonzero(count)
    bits = np.frexp(value.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - LENGTH_BITS, 0)
    low, place = np.unique((value >> shift) << shift, return_inverse=True)
    return [
        [int(a), int(b)] for a, b in zip(low, np.bincount(place, count[value], len(low)).astype(np.int64), strict=True)
    ]


def _gaps(time: Int64s, stop: Int64s, unit: TimeUnit) -> tuple[int, int, list[list[int]]]:
    """Steps back in time, events at the time of the one before, and the histogram of gaps, all within users.

    From one user's last event to the next one's first is no gap: those few are counted and taken off again.
    """
    between = elapsed(time[stop[:-1] - 1], time[stop[:-1]])
    count = -_buckets(between, unit)
    same_time = -np.count_nonzero(between == 0)
    for first in range(0, len(time), CHUNK):
        part = time[first : first + CHUNK + 1]
        gap = elapsed(part[:-1], part[1:])
        count += _buckets(gap, unit)
        same_time += np.count_nonzero(gap == 0)
    histogram = [[int(place), int(count[place])] for place in np.flatnonzero(count) if place]
    return int(count[0]), int(same_time), histogram


def _buckets(gap: Int64s, unit: TimeUnit) -> Int64s:
    count: Int64s = np.bincount(gap_buckets(gap, 1e6 if unit == "us" else 1), minlength=GAP_BUCKETS)
    return count


def _time_bins(time: Int64s, own: Range, known: dict[str, Range], wanted: dict[str, Range], unit: TimeUnit) -> Stats:
    """Events over time, all and by what the splits make of them."""
    if not len(time):
        return {"unit": unit, "first": None, "last": None, "level": 0, "bins": []}
    first, last = int(time.min()), int(time.max())
    level = _level(tick(first, unit), tick(last, unit), unit)
    width = bin_width(unit, level)
    lowest = tick(first, unit) // width
    bins = tick(last, unit) // width - lowest + 1

    def place(some: Int64s) -> Int64s:
        return (some // HOUR_US + MONDAY if unit == "us" else some) // width - lowest

    def count(part: Range) -> Int64s:
        return _binned(time[_rows(*part)], place, bins)

    events = _binned(time, place, bins)
    train = events - sum(count(outside) for outside in _outside(own, known["train"]))
    first_seen = _binned(time[own[0][own[0] < own[1]]], place, bins)
    counts = np.stack([events, train, count(wanted["validation"]), count(wanted["test"]), first_seen], axis=1)
    filled = np.flatnonzero(events)
    rows = zip((filled + lowest).tolist(), counts[filled].tolist(), strict=True)
    return {"unit": unit, "first": first, "last": last, "level": level, "bins": [[low, *row] for low, row in rows]}


def _binned(values: Int64s, bin_of: Callable[[Int64s], npt.NDArray[Any]], bins: int) -> Int64s:
    """(bins,) how many of the values are in each bin."""
    count = np.zeros(bins, np.int64)
    for first in range(0, len(values), CHUNK):
        count += np.bincount(bin_of(values[first : first + CHUNK]), minlength=bins)
    return count


def _outside(own: Range, part: Range) -> tuple[Range, Range]:
    """Count what of the users' own events lies before and after a part of them."""
    there = part[0] < part[1]
    start = np.where(there, part[0].clip(*own), own[1])
    stop = np.where(there, part[1].clip(*own), own[1])
    return (own[0], start), (stop, own[1])


def _level(first: int, last: int, unit: TimeUnit) -> int:
    """Find the finest level at which the ticks from `first` to `last` lie in MAX_TIME_BINS bins."""
    level = 0
    while last // bin_width(unit, level) - first // bin_width(unit, level) >= MAX_TIME_BINS:
        level += 1
    return level


def _common_level(times: list[Stats]) -> int:
    filled = [each for each in times if each["first"] is not None]
    if not filled:
        return 0
    unit = filled[0]["unit"]
    first, last = min(each["first"] for each in filled), max(each["last"] for each in filled)
    return _level(tick(first, unit), tick(last, unit), unit)


def _coarser(time: Stats, level: int) -> list[list[int]]:
    """Join the bins to those of a coarser level; they nest."""
    times = bin_width(time["unit"], level) // bin_width(time["unit"], time["level"])
    return [[row[0] // times, *row[1:]] for row in time["bins"]]


def _rows(start: Int64s, stop: Int64s) -> Int64s:
    """List the rows of all ranges, one after the other."""
    length = stop - start
    end = np.cumsum(length)
    rows: Int64s = np.arange(end[-1] if len(end) else 0) + np.repeat(start - end + length, length)
    return rows


def _by_user(stretches: dict[str, Stretches], users: int) -> tuple[dict[str, Range], dict[str, Range]]:
    """SortedEvents and targets of each split as ranges of every user, empty where the split lacks the user."""
    known, wanted = {}, {}
    for name, cut in stretches.items():
        ranges = np.zeros((4, users), np.int64)
        ranges[:, cut.user] = cut.start, cut.stop, cut.target_start, cut.target_stop
        known[name], wanted[name] = (ranges[0], ranges[1]), (ranges[2], ranges[3])
    return known, wanted


def _broken_rules(time: Int64s, own: Range, known: dict[str, Range], wanted: dict[str, Range]) -> dict[str, int]:
    """Users who break a rule that holds for every protocol, by rule."""
    strangers = np.zeros(len(own[0]), bool)
    for start, stop in (*known.values(), *wanted.values()):
        strangers |= (start < stop) & ((start < own[0]) | (stop > own[1]))
    broken = {"rows with events of another user": int(strangers.sum())}
    for split in ("validation", "test"):
        both = np.flatnonzero((known[split][1] > known[split][0]) & (wanted[split][1] > wanted[split][0]))
        late = time[known[split][1][both] - 1] > time[wanted[split][0][both]]
        broken[f"{split} history later than its targets"] = int(late.sum())
    for holder, split in (
        ("train", "validation"), ("train", "test"), ("validation", "validation"), ("validation", "test"),
        ("test", "test"),
    ):  # fmt: skip
        broken[f"{split} targets in the {holder} history"] = _overlaps(known[holder], wanted[split])
    broken["validation targets that are test targets"] = _overlaps(wanted["validation"], wanted["test"])
    return broken


def _overlaps(one: Range, other: Range) -> int:
    return int((np.maximum(one[0], other[0]) < np.minimum(one[1], other[1])).sum())


def _split_numbers(histories: SortedEvents, stretches: dict[str, Stretches], test_known: Range) -> Stats:
    """Count what a split may give away across users, which is the protocol's to decide."""
    time, train, test = histories.time, stretches["train"], stretches["test"]
    in_train = np.zeros(len(histories.users), bool)
    in_train[train.user] = True
    targets, seen = _seen_targets(histories, test, test_known)
    return {
        "train_last": int(time[train.stop - 1].max()) if len(train.user) else None,
        "test_first": int(time[test.target_start].min()) if len(test.user) else None,
        "test_users": len(test.user),
        "unknown_users": int((~in_train[test.user]).sum()),
        "tied_users": int((time[test.stop - 1] == time[test.target_start]).sum()),
        "test_targets": targets,
        "seen_targets": seen,
    }


def _seen_targets(histories: SortedEvents, test: Stretches, known: Range) -> tuple[int, int]:
    """Target events of the test users, and how many are of an item that stands in their user's history.

    What shares no hash slot with the other side is no match; that leaves few events to be sorted.
    """
    items = np.int64(max(1, len(histories.items)))

    def key(rows: Int64s | slice) -> Int64s:
        return histories.user[rows] * items + histories.item[rows]

    targets = key(_rows(test.target_start, test.target_stop))
    table = _slot_table(targets)
    starts = range(0, len(histories.user), CHUNK)
    candidates = [np.flatnonzero(table[_slots(key(slice(start, start + CHUNK)))]) + start for start in starts]
    candidate = np.concatenate([np.zeros(0, np.int64), *candidates])
    user = histories.user[candidate]
    in_history = np.sort(key(candidate[(candidate >= known[0][user]) & (candidate < known[1][user])]))
    likely = targets[_slot_table(in_history)[_slots(targets)]]
    place = np.searchsorted(in_history, likely).clip(max=max(len(in_history) - 1, 0))
    seen = in_history[place] == likely if len(in_history) else likely[:0]
    return len(targets), int(np.count_nonzero(seen))


def _slot_table(key: Int64s) -> npt.NDArray[np.bool_]:
    table = np.zeros(1 << SLOT_BITS, bool)
    table[_slots(key)] = True
    return table


def _slots(key: Int64s) -> Int64s:
    slots: Int64s = ((key.view(np.uint64) * np.uint64(GOLDEN)) >> np.uint64(64 - SLOT_BITS)).view(np.int64)
    return slots


def _added(histograms: Sequence[list[list[int]]]) -> list[list[int]]:
    """Rows of the same bin become one, their counts added; ascending, without bins that hold nothing."""
    total: dict[int, Counter[int]] = {}
    for row in (row for histogram in histograms for row in histogram):
        total.setdefault(row[0], Counter()).update(dict(enumerate(row[1:])))
    rows = [[place, *(counts[column] for column in range(len(counts)))] for place, counts in sorted(total.items())]
    return [row for row in rows if any(row[1:])]


def _least(values: list[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: list[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)

"""The data quality report of `mind preprocess`: quality.json for programs, quality.html for people.

Assembled from the manifest, the numbers of pipelines.quality.part_stats and the item table; compared with the report
of the version that is about to be replaced (pipelines.quality.drift). What a dataset contains does not depend on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.dataset.column_summary import ColumnSummary
from pipelines.dataset.dataset import Layout, Manifest
from pipelines.log.formats import Note
from pipelines.log.ids import Int64s
from pipelines.log.normalise import MALFORMED
from pipelines.quality.drift import Check, drift, level, octaves
from pipelines.quality.part_stats import Stats, bin_width, tick
from pipelines.storage.home_files import fetch
from pipelines.words import counted

SCHEMA_VERSION = 1
WORDS = {"ok": "OK", "info": "BY DESIGN", "watch": "WARN", "alarm": "ALARM"}  # of levels
QUANTILES = (5, 25, 50, 75, 90, 95, 99)
LORENZ_POINTS = 100
BAD_ROWS = (0.01, 0.1)  # watch, alarm
SAME_TIME = (0.2, 1.01)  # of the steps from event to event; never an alarm
TIED_TARGETS = (0.05, 1.01)  # of the test users
UNKNOWN = (0.1, 0.5)  # of the test users, and of the test targets


@dataclass(frozen=True)
class Quality:
    """quality.json. Histograms are lists of [bin, count, ...]; their bins: pipelines.quality.part_stats."""

    schema_version: int
    name: str
    fingerprint: str  # of the dataset that it describes
    protocol: str
    settings: dict[str, Any]  # the data section
    rows_read: int
    set_aside: dict[str, int]  # by reason
    events: int
    users: int
    items: int
    splits: dict[str, dict[str, int]]
    lengths: dict[str, Any]  # of users: mean, max, quantiles, histogram
    popularity: dict[str, Any]  # of items: cold, mean, max, quantiles, gini, top shares, lorenz, histogram by octave
    gaps: dict[str, Any]  # same_time, histogram
    time: dict[str, Any]  # unit, first, last, level, bins
    checks: tuple[Check, ...]  # of the rows
    leakage: tuple[Check, ...]  # of the split
    drift: tuple[Check, ...] | None  # None: no previous version with a report
    columns: tuple[ColumnSummary, ...] = ()  # of the log and the tables
    heaviest: list[list[Any]] = field(default_factory=list)  # [user, events] of those with most
    top_items: list[list[Any]] = field(default_factory=list)  # [title or id, events]

    @classmethod
    def read(cls, layout: Layout) -> Quality | None:
        """Read the report of a dataset; None where it has none of this version of the program."""
        raw = raw_report(layout.quality)
        return None if raw is None else cls.from_dict(raw)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Quality:
        """Make a report of what ``dataclasses.asdict`` or `to_json` gave."""
        checks = {
            name: None if raw[name] is None else tuple(Check(**each) for each in raw[name])
            for name in ("checks", "leakage", "drift")
        }
        columns = tuple(
            ColumnSummary(**{**each, "top": tuple(map(tuple, each["top"]))}) for each in raw.get("columns", ())
        )
        return cls(**(raw | checks | {"columns": columns}))

    def to_json(self) -> str:
        """Return the report as JSON: the same text for the same content; without NaN."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def lines(self) -> list[str]:
        """Say each finding in a line, for the terminal as on the page."""
        return [f"{WORDS[c.level]} {c.name}: {c.found}" + (f". {c.note}" if c.note else "") for c in self.warnings]

    @property
    def warnings(self) -> list[Check]:
        """What a person should look at."""
        found = [*self.checks, *self.leakage, *(self.drift or ())]
        return [check for check in found if check.level in ("watch", "alarm")]

    def metrics(self) -> dict[str, float]:
        """Return the numbers for the tracked run."""
        numbers = {
            "warnings": len(self.warnings),
            "alarms": sum(check.level == "alarm" for check in self.warnings),
            "kept share": _ratio(self.events, self.rows_read),
            "events per user/mean": self.lengths["mean"],
            "events per user/median": self.lengths["quantiles"]["p50"],
            "popularity/gini": self.popularity["gini"],
            "popularity/top 10 percent share": self.popularity["top_10_percent"],
        }
        for kind, checks in (("leakage", self.leakage), ("drift", self.drift or ())):
            numbers |= {f"{kind}/{check.name}": check.value for check in checks if check.value is not None}
        return {f"quality/{name}": float(value) for name, value in numbers.items()}


def assemble(
    manifest: Manifest,
    stats: Stats,
    item_counts: Int64s,
    test_items: dict[str, int],
    previous: dict[str, Any] | None = None,
    notes: Sequence[Note] = (),
    columns: Sequence[ColumnSummary] = (),
    top: Sequence[Sequence[Any]] = (),
) -> Quality:
    """Put the report together.

    Parameters
    ----------
    stats : merged.
    item_counts : (items,) events of each item.
    previous : quality.json of the version before.
    notes : of what was odd in the log and the tables.
    columns, top : pipelines.quality.columns.
    """
    protocol = str(manifest.config["split"]["protocol"])
    lengths, gaps = stats["lengths"], stats["gaps"]
    quality = Quality(
        schema_version=SCHEMA_VERSION,
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        protocol=protocol,
        settings=manifest.config,
        rows_read=manifest.rows_read,
        set_aside=manifest.set_aside,
        events=manifest.events,
        users=manifest.users,
        items=manifest.items,
        splits={name: asdict(counts) for name, counts in manifest.splits.items()},
        lengths={
            "mean": _ratio(lengths["events"], lengths["users"]),
            "max": lengths["max"],
            "quantiles": quantiles(lengths["histogram"]),
            "histogram": lengths["histogram"],
        },
        popularity=popularity(item_counts),
        gaps=gaps,
        time=stats["time"],
        checks=(*_row_checks(manifest, gaps), *_split_checks(manifest, stats["time"]), *_note_checks(notes)),
        leakage=tuple(_leak_checks(stats, test_items, protocol)),
        drift=None,
        columns=tuple(columns),
        heaviest=[list(pair) for pair in stats.get("heaviest", ())],
        top_items=[list(pair) for pair in top],
    )
    differences = drift(previous, asdict(quality))
    return quality if differences is None else replace(quality, drift=tuple(differences))


def unknown_test_items(train_count: Int64s, test_count: Int64s) -> dict[str, int]:
    """Count the items that are test targets and how often they are, and how many and how often train never saw.

    train_count, test_count : (items,) times that each item is in a train history, and a test target.
    """
    unknown = train_count == 0
    return {
        "items": int(np.count_nonzero(test_count)),
        "targets": int(test_count.sum()),
        "unknown_items": int(np.count_nonzero(test_count[unknown])),
        "unknown_targets": int(test_count[unknown].sum()),
    }


def quantiles(histogram: Sequence[Sequence[int]]) -> dict[str, int]:
    """Find the least value of the bin in which each quantile lies: exact where bins hold one value."""
    if not histogram:
        return {f"p{q}": 0 for q in QUANTILES}
    bins = np.array(histogram)
    until = np.cumsum(bins[:, 1])
    ranks = [-(-int(until[-1]) * q // 100) for q in QUANTILES]  # the rank of the quantile, from 1
    return {f"p{q}": int(bins[np.searchsorted(until, r), 0]) for q, r in zip(QUANTILES, ranks, strict=True)}


def popularity(count: Int64s) -> dict[str, Any]:
    """Say how the events are spread over the items, (items,) events of each.

    gini : 0 if all items are equally popular, near 1 if one has all events.
    lorenz : [share of the items, share of the events on them], the most popular first.
    histogram : [octave, items]; -1: no event, n: 2^n to 2^(n+1) - 1 of them.
    """
    ascending = np.sort(count)
    values, times = np.unique(ascending, return_counts=True)
    total, items = int(ascending.sum()), len(ascending)
    cumulated = np.concatenate([[0], np.cumsum(ascending[::-1])])

    def on_top(share: float) -> float:
        return _ratio(int(cumulated[math.ceil(items * share)]), total)

    rank = np.arange(1, items + 1)
    places = np.unique(np.round(np.linspace(0, 1, LORENZ_POINTS + 1) ** 2 * items).astype(np.int64))  # finer at the top
    weighted = float((rank * ascending.astype(np.float64)).sum())
    bins = list(zip(values.tolist(), times.tolist(), strict=True))
    cold = int(np.count_nonzero(count == 0))
    return {
        "cold": cold,
        "mean": _ratio(total, items),
        "max": int(count.max(initial=0)),
        "quantiles": quantiles(bins),
        "top_1_percent": on_top(0.01),
        "top_10_percent": on_top(0.1),
        "gini": 2 * weighted / (items * total) - (items + 1) / items if total else 0.0,
        "lorenz": [[_ratio(int(place), items), _ratio(int(cumulated[place]), total)] for place in places],
        "histogram": octaves(bins),
    }


def _row_checks(manifest: Manifest, gaps: Stats) -> Iterator[Check]:
    """Yield what is said of the rows themselves."""
    accounted = manifest.events + sum(manifest.set_aside.values())
    yield Check(
        "Every row is accounted for",
        f"{manifest.rows_read:,} read, {accounted:,} kept or set aside",
        "ok" if accounted == manifest.rows_read else "alarm",
    )
    bad = _ratio(sum(manifest.set_aside.get(reason, 0) for reason in MALFORMED), manifest.rows_read)
    yield Check(
        "Unreadable or incomplete rows", f"{bad:.2%}", level(bad, BAD_ROWS), "See quarantine/." if bad else "", bad
    )
    steps = sum(count for _, count in gaps["histogram"])
    same = _ratio(gaps["same_time"], steps)
    mended = not same or manifest.config["events"].get("tie_break")
    note = "" if mended else "Their order is by item id: events.tie_break would mend it."
    yield Check("Events at the time of the user's event before", f"{same:.1%}", level(same, SAME_TIME), note, same)


def _split_checks(manifest: Manifest, time: Stats) -> Iterator[Check]:
    """Yield an alarm for each split that has no user, and what the log would have had to hold."""
    split = manifest.config["split"]
    for name, counts in manifest.splits.items():
        if counts.users or not manifest.users:
            continue
        span = " to ".join(_moment(time[end], manifest.time_unit) for end in ("first", "last"))
        note = {
            "leave_one_out": "No user has three events, the least that it takes.",
            "temporal": f"The log runs from {span}; validation_from is {split.get('validation_from')}, test_from "
            f"{split.get('test_from')}.",
            "user_holdout": f"Of {counted(manifest.users, 'user')} none was drawn, or none has an event to be found.",
        }[split["protocol"]]
        yield Check(f"Users of the {name} split", f"none: {note}", "alarm", value=0)


def _moment(time: int | None, unit: str) -> str:
    """Write a time of the dataset as a person does."""
    if time is None or unit != "us":
        return f"{time}"
    moment = np.datetime64(time, "us").astype("datetime64[s]")
    return str(moment).replace("T", " ")


def _note_checks(notes: Sequence[Note]) -> Iterator[Check]:
    for name, count, example in notes:
        found = f"{count:,}" + (f", such as {example!r}" if example else "")
        yield Check(name[:1].upper() + name[1:], found, "watch", value=count)


def _leak_checks(stats: Stats, test_items: dict[str, int], protocol: str) -> Iterator[Check]:
    """Rules that every split keeps, then what the protocol gives away."""
    for rule, users in stats["leaks"].items():
        found = f"broken for {counted(users, 'user')}" if users else "holds"
        yield Check(f"No {rule}", found, "alarm" if users else "ok", value=users or None)
    yield _later_than_test(stats, protocol)
    split = stats["split"]
    seen = _ratio(split["seen_targets"], split["test_targets"])
    note = "Repeat consumption; evaluate.seen: filter leaves such items out of the ranking." if seen else ""
    yield Check("Test targets already in the user's history", f"{seen:.1%}", "info" if seen else "ok", note, seen)
    tied = _ratio(split["tied_users"], split["test_users"])
    note = "Which of two simultaneous events is the target is a matter of the tie break." if tied else ""
    yield Check("Test users with a target at the time of the last known event", f"{tied:.1%}",
                level(tied, TIED_TARGETS), note, tied)  # fmt: skip
    unknown = _ratio(split["unknown_users"], split["test_users"])
    meant = protocol == "user_holdout"
    note = "Meant so: user_holdout tests on users that train never saw." if meant else ""
    yield Check("Test users that train never saw", f"{unknown:.1%}", "info" if meant else level(unknown, UNKNOWN),
                note, unknown)  # fmt: skip
    items = _ratio(test_items["unknown_items"], test_items["items"])
    targets = _ratio(test_items["unknown_targets"], test_items["targets"])
    yield Check("Test items that train never saw", f"{items:.1%} of the items, {targets:.1%} of the targets",
                level(targets, UNKNOWN), "Out of reach without item features." if targets else "", targets)  # fmt: skip


def _later_than_test(stats: Stats, protocol: str) -> Check:
    """Say whether the model learns from what happened after the first thing it is to foretell."""
    name = "Train events later than the earliest test target"
    time, split = stats["time"], stats["split"]
    if split["train_last"] is None or split["test_first"] is None or split["train_last"] <= split["test_first"]:
        return Check(name, "none", "ok", value=0.0)
    width = bin_width(time["unit"], time["level"])
    place = tick(split["test_first"], time["unit"]) // width
    later = _ratio(sum(row[2] for row in time["bins"] if row[0] > place), sum(row[2] for row in time["bins"]))
    if protocol == "temporal":
        return Check(name, f"at least {later:.1%}", "alarm", "A temporal split must have none.", later)
    note = f"A property of {protocol}: targets are the end of each user's own history, so train holds what others did "
    return Check(name, f"at least {later:.1%}", "info", note + "afterwards. The protocol temporal avoids that.", later)


def raw_report(file: Path) -> dict[str, Any] | None:
    """Read a report as a dict; None where there is none that this program can read."""
    try:
        raw: dict[str, Any] = json.loads(fetch(file).read_text(encoding="utf-8"))
        return raw if raw.get("schema_version") == SCHEMA_VERSION else None
    except (OSError, ValueError, AttributeError):
        return None


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

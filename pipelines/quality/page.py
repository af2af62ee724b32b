"""quality.html: the data quality report as one page that needs no other file and no script.

Headline figures, then plots, then what was checked, then the tables: templates/quality.html.j2, of what is said here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipelines.quality.part_stats import HOUR_US, HOURS, MONDAY, bin_width
from pipelines.quality.render import render
from pipelines.quality.svg_plots import Series, bars, curve, short

if TYPE_CHECKING:
    from pipelines.dataset.column_summary import ColumnSummary
    from pipelines.quality.report import Quality

EPOCH = datetime(1970, 1, 1)
ROLES = (("train", "s1"), ("validation targets", "s2"), ("test targets", "s3"), ("known before targets", "s4"))
WIDTHS = ("hour", "day", "week", "4 weeks", "52 weeks")
GAP_TICKS = {"1 s": 1, "1 min": 60, "1 h": 3600, "1 d": 86400, "30 d": 30 * 86400, "1 y": 365 * 86400}


@dataclass(frozen=True)
class Figure:
    """A plot with its title; below that a sentence, or what its colours mean. legend : names and CSS classes."""

    title: str
    plot: Markup
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()
    wide: bool = False


def page(quality: Quality) -> str:
    """Write the report as HTML."""
    time, popular = quality.time, quality.popularity
    figures = [
        Figure(f"Events per {_width_name(time)}", _over_time(time), legend=ROLES, wide=True),
        Figure(f"New users per {_width_name(time)}", _new_users(time), wide=True),
        Figure("How long are the sequences?", _lengths(quality.lengths), _said(quality.lengths, "events per user")),
        Figure("How long from one event to the user's next?", _gaps(quality), _same_time(quality.gaps)),
        Figure("How popular are the items?", _popularity(quality), _said(popular, "events per item")),
        Figure("How concentrated are the events?",
               curve([(x, y) for x, y in popular["lorenz"]], "items, the most popular first"), _concentration(popular)),
    ]  # fmt: skip
    from pipelines.quality.report import WORDS

    return render(
        "quality.html.j2",
        quality=quality,
        cards=_headline(quality),
        figures=figures,
        rows=_rows(quality),
        words=WORDS,
        columns=[_column(each) for each in quality.columns],
    )


def _column(column: ColumnSummary) -> tuple[str, str, str, str, str]:
    """Write a column: table, name, share missing, distinct values, the commonest with their counts."""
    missing = f"{column.missing / column.rows:.1%}" if column.rows else ""
    distinct = "" if column.distinct is None else f"{column.distinct:,}"
    return column.table, column.name, missing, distinct, ", ".join(f"{value} ({n:,})" for value, n in column.top)


def _headline(quality: Quality) -> list[tuple[str, str]]:
    """Return the figures at the top, each with what it counts."""
    kept = quality.events / max(1, quality.rows_read)
    spread = quality.events / max(1, quality.users * quality.items)
    figures = [
        (f"{quality.events:,}", f"events, {kept:.1%} of {quality.rows_read:,} rows"),
        (f"{quality.users:,}", "users"),
        (f"{quality.items:,}", f"items, {quality.popularity['cold']:,} without an event"),
        (f"{quality.lengths['mean']:.1f}", "events per user, on average"),
        (f"{spread:.2g}", "density: events per user and item"),
    ]
    if quality.time["unit"] == "us" and quality.time["first"] is not None:
        first, last = (_date(quality.time[end] // HOUR_US) for end in ("first", "last"))
        figures.append((f"{first} – {last}", "first and last event, UTC"))
    return figures


def _rows(quality: Quality) -> list[tuple[str, int, float, str]]:
    """Say where the rows of the log went, the events first: name, count, share of all, CSS class."""
    read = max(1, quality.rows_read)
    aside = sorted(quality.set_aside.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = [("kept as events", quality.events, "s1"), *((f"set aside: {why}", n, "s2") for why, n in aside)]
    return [(name, count, count / read, css) for name, count, css in lines]


def _over_time(time: dict[str, Any]) -> Markup:
    """Plot what the splits make of the events of each time bin."""
    rows = _filled(time["bins"])
    columns = [[row[2 + role] for row in rows] for role in range(3)]
    columns.append([max(0, row[1] - sum(row[2:5])) for row in rows])
    series = [Series(name, css, column) for (name, css), column in zip(ROLES, columns, strict=True)]
    return bars(series, *_time_axis(time, rows), width=1080, height=260)


def _new_users(time: dict[str, Any]) -> Markup:
    rows = _filled(time["bins"])
    return bars([Series("", "s1", [row[5] for row in rows])], *_time_axis(time, rows), width=1080, height=170)


def _filled(bins: list[list[int]]) -> list[list[int]]:
    """Add the bins that have no event."""
    known = {row[0]: row for row in bins}
    return [known.get(n, [n, 0, 0, 0, 0, 0]) for n in range(bins[0][0], bins[-1][0] + 1)] if bins else []


def _time_axis(time: dict[str, Any], rows: list[list[int]]) -> tuple[list[str], list[tuple[float, str]], str]:
    """Names of the bars, ticks and the axis' name."""
    width = bin_width(time["unit"], time["level"])
    if time["unit"] == "number":
        names = [f"{row[0] * width:,} – {(row[0] + 1) * width - 1:,}" if width > 1 else f"{row[0]:,}" for row in rows]
        starts = [f"{row[0] * width:,}" for row in rows]
        axis = "time, in the log's own numbers"
    else:
        starts = [_date(row[0] * width - MONDAY, with_hour=width < 24) for row in rows]
        names, axis = [f"{start} UTC" for start in starts], "UTC"
    every = max(1, -(-len(rows) // 9))
    return names, [(place, starts[place]) for place in range(0, len(rows), every)], axis


def _width_name(time: dict[str, Any]) -> str:
    width = bin_width(time["unit"], time["level"])
    if time["unit"] == "number":
        return "unit of time" if width == 1 else f"{width:,} units of time"
    return WIDTHS[time["level"]] if time["level"] < len(HOURS) else f"{width // HOURS[-1]:,} × 52 weeks"


def _lengths(lengths: dict[str, Any]) -> Markup:
    """Users by number of events, two bars to a doubling."""
    edges = [1, *(n for power in range(1, 63) for n in (2**power, 3 * 2 ** (power - 1)))]
    edges = edges[: 1 + sum(edge <= lengths["max"] for edge in edges)]
    bins = list(pairwise(edges))
    while bins and not any(bins[0][0] <= low < bins[0][1] for low, _ in lengths["histogram"]):
        bins.pop(0)  # min_user_events leaves none that short
    counts = [sum(count for low, count in lengths["histogram"] if first <= low < stop) for first, stop in bins]
    names = [f"{_span(first, stop)} events" for first, stop in bins]
    ticks = [(place, short(first)) for place, (first, _) in enumerate(bins)]
    return bars([Series("users", "s1", counts)], names, ticks, "events of a user (logarithmic)")


def _popularity(quality: Quality) -> Markup:
    """Items by number of events, one bar to a doubling."""
    found = dict(map(tuple, quality.popularity["histogram"]))
    places = range(min(found, default=0), max(found, default=0) + 1)
    names = [_span(2**n, 2 ** (n + 1)) if n >= 0 else "0" for n in places]
    ticks = [(place, short(2**n) if n >= 0 else "0") for place, n in enumerate(places)]
    counts = [found.get(n, 0) for n in places]
    named = [f"{name} events" for name in names]
    return bars([Series("items", "s2", counts)], named, ticks, "events of an item (logarithmic)")


def _gaps(quality: Quality) -> Markup:
    """Gaps above 0, which would dwarf the others; one bar to a doubling: bucket b holds 2^(b-1) - 1 up to 2^b - 1."""
    found = dict(map(tuple, quality.gaps["histogram"]))
    found[1] = found.get(1, 0) - quality.gaps["same_time"]
    found = {bucket: count for bucket, count in found.items() if count}
    places = range(min(found, default=1), max(found, default=1) + 1)
    is_time = quality.time["unit"] == "us"
    says = _duration if is_time else short
    names = [f"{says(2 ** (b - 1) - 1)} to {says(2**b - 1)}" for b in places]
    if is_time:
        known = [(math.log2(1 + seconds) - (places[0] - 1), text) for text, seconds in GAP_TICKS.items()]
        ticks = [(place, text) for place, text in known if 0 <= place <= len(places)]
    else:
        ticks = [(place, short(2 ** (b - 1) - 1)) for place, b in enumerate(places)]
    counts = [found.get(b, 0) for b in places]
    unit = "" if is_time else ", in the log's own numbers"
    return bars([Series("events", "s3", counts)], names, ticks, f"gap (logarithmic){unit}")


def _said(numbers: dict[str, Any], what: str) -> str:
    q = numbers["quantiles"]
    return (
        f"Half have at most {q['p50']:,} {what}, nine in ten at most {q['p90']:,}; "
        f"mean {numbers['mean']:.1f}, most {numbers['max']:,}."
    )


def _same_time(gaps: dict[str, Any]) -> str:
    steps = sum(count for _, count in gaps["histogram"])
    share = gaps["same_time"] / max(1, steps)
    return f"{share:.1%} of {steps:,} come at the very time of the one before: not shown."


def _concentration(popularity: dict[str, Any]) -> str:
    return (
        f"The top 1 % of the items has {popularity['top_1_percent']:.1%} of the events, the top 10 % "
        f"{popularity['top_10_percent']:.1%}; Gini {popularity['gini']:.2f}. Dashed: all equal."
    )


def _span(first: int, stop: int) -> str:
    """Whole numbers from `first` to before `stop`."""
    return f"{first:,}" if stop - first == 1 else f"{first:,}–{stop - 1:,}"


def _duration(seconds: float) -> str:
    for size, name in ((365 * 86400, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:g} seconds"


def _date(hours: int, with_hour: bool = False) -> str:
    """Hours since 1970 as a date; beyond what calendars hold, the year."""
    try:
        return (EPOCH + timedelta(hours=hours)).strftime("%Y-%m-%d %H:00" if with_hour else "%Y-%m-%d")
    except OverflowError:
        return f"year {1970 + hours // 8766}"

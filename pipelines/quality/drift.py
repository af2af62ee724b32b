"""What differs between a dataset's data quality report and that of the version it replaces. Pure Python.

Each difference has a level by thresholds that are fixed here:

    distributions   population stability index (PSI): watch from 0.1, alarm from 0.25
    counts          watch where a fifth more or less, alarm where doubled or halved
    rows set aside  share of all rows: watch from 1 percentage point more or less, alarm from 5
    newest event    watch where older than before
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "info", "watch", "alarm"]

PSI = (0.1, 0.25)  # watch, alarm: the usual rule of thumb
RATIO = (1.2, 2.0)
POINTS = (0.01, 0.05)
LEAST_SHARE = 1e-4  # an empty bin counts as this share, or the index would be infinite


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, what was found, how bad it is and what it means."""

    name: str
    found: str
    level: Level
    note: str = ""
    value: float | None = None  # what the level was decided by


def drift(previous: dict[str, Any] | None, current: dict[str, Any]) -> list[Check] | None:
    """Compare two reports, as `pipelines.quality.report.Quality` has them as dicts; None without a previous one."""
    if previous is None:
        return None
    checks = [_settings(previous["settings"], current["settings"])]
    checks += [_count(name, previous[key], current[key]) for name, key in COUNTS.items()]
    for reason in sorted({*previous["set_aside"], *current["set_aside"]}):
        checks.append(_set_aside(reason, previous, current))
    if previous["time"]["unit"] == current["time"]["unit"]:
        checks.append(_newest(previous["time"]["last"], current["time"]["last"]))
    for name, key in (("events per user", "lengths"), ("events per item", "popularity"), ("gaps", "gaps")):
        bins = [report[key]["histogram"] for report in (previous, current)]
        if key == "lengths":
            bins = [octaves(histogram) for histogram in bins]
        value = psi(*bins)
        checks.append(Check(f"Distribution of {name}", f"PSI {value:.3f}", level(value, PSI), value=value))
    return checks


COUNTS = {"Rows read": "rows_read", "Events": "events", "Users": "users", "Items": "items"}


def psi(previous: Sequence[Sequence[int]], current: Sequence[Sequence[int]]) -> float:
    """Compute the population stability index of two histograms, lists of [bin, count]: 0 for equal shares.

    Σ (q - p) ln(q / p) over the bins, p and q being the shares; 0 where a histogram is empty.

    >>> round(psi([[1, 50], [2, 50]], [[1, 75], [2, 25]]), 4)
    0.2747
    """
    before, after = (Counter({place: count for place, count in histogram}) for histogram in (previous, current))
    if not before.total() or not after.total():
        return 0.0
    total = 0.0
    for place in {*before, *after}:
        p, q = (max(each[place] / each.total(), LEAST_SHARE) for each in (before, after))
        total += (q - p) * math.log(q / p)
    return total


def octaves(histogram: Iterable[Sequence[int]]) -> list[list[int]]:
    """Join the bins into [floor(log2(value)), count]: fine bins would be noise."""
    counts: Counter[int] = Counter()
    for value, count in histogram:
        counts[value.bit_length() - 1] += count
    return [[place, counts[place]] for place in sorted(counts)]


def level(value: float, thresholds: tuple[float, float]) -> Level:
    """Say ok, watch or alarm."""
    return "alarm" if value >= thresholds[1] else "watch" if value >= thresholds[0] else "ok"


def _settings(previous: dict[str, Any], current: dict[str, Any]) -> Check:
    before, after = _flat(previous), _flat(current)
    others = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    others = [name for name in others if not name.endswith(".path")]  # another day's file is no other setting
    if not others:
        return Check("Settings", "the same", "ok")
    return Check("Settings", "changed: " + ", ".join(others), "watch", "What follows may be due to them.")


def _flat(settings: dict[str, Any], prefix: str = "data.") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _count(name: str, before: int, after: int) -> Check:
    ratio = max(before, after) / max(1, min(before, after))
    change = f"{(after - before) / before:+.1%}" if before else "from none"
    return Check(name, f"{before:,} → {after:,} ({change})", level(ratio, RATIO), value=after - before)


def _set_aside(reason: str, previous: dict[str, Any], current: dict[str, Any]) -> Check:
    before, after = (report["set_aside"].get(reason, 0) / max(1, report["rows_read"]) for report in (previous, current))
    found = f"{before:.2%} → {after:.2%} of the rows"
    return Check(f"Set aside: {reason}", found, level(abs(after - before), POINTS), value=after - before)


def _newest(before: int | None, after: int | None) -> Check:
    if before is None or after is None or after >= before:
        return Check("Newest event", "not older than before", "ok")
    return Check(
        "Newest event", "older than before", "watch", "The log ends earlier than that of the previous version."
    )

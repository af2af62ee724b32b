"""What a campaign's ledger says: the leaderboard, the winner and how sure it is, and what the settings did.

Pure functions from TrialRecords; conclusion.py puts what they return into words, figures.py draws it, html.py and the
decision read it. A metric is named without its prefix, such as ``ndcg@20``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.tuning.config import Campaign, Finish
from pipelines.tuning.ledger import TrialRecord

Cost = Literal["lookups", "multiply_adds"]
CONFIDENCE = 0.95
INTERESTS = "model.interests"  # which conclusion and figures look at whatever else there is


@dataclass(frozen=True)
class Row:
    """A point on the leaderboard.

    rank : from 1.
    metric : mean over seeds of the best validation; NaN where no training of the point came to a validation.
    deviation : standard deviation of that over seeds (n - 1); None with one.
    scores : seed -> best validation.
    best_epoch, epochs, seconds : of a training, as means over its trainings: when it was best, and what it took. Epochs
        are fractions where a validation comes within one.
    finished, stopped, failed : how many of its trainings ended how.
    reason : of the last failure.
    lookups, multiply_adds : what serving a user takes, by the best validation of all seeds; NaN where not reported.
    eligible : may win.
    """

    rank: int
    point: int
    values: dict[str, Any]
    metric: float
    deviation: float | None
    scores: dict[int, float]
    best_epoch: float
    epochs: float
    seconds: float
    finished: int
    stopped: int
    failed: int
    reason: str | None
    lookups: float
    multiply_adds: float
    eligible: bool = False

    @property
    def trials(self) -> int:
        return self.finished + self.stopped + self.failed

    @property
    def scored(self) -> bool:
        return bool(self.scores)

    @property
    def cut_short(self) -> bool:
        """Its metric is of an earlier epoch than others had: no training of it ran to its own end."""
        return self.scored and not self.finished

    def cost(self, of: Cost) -> float:
        return self.lookups if of == "lookups" else self.multiply_adds


@dataclass(frozen=True)
class Comparison:
    """The winner's mean metric minus that of `point`, with a 95 % interval."""

    point: int
    difference: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class ByValue:
    """The points that share a value of a setting: the best of them, and the mean metrics of all."""

    value: Any
    best: Row
    metrics: list[float]


@dataclass(frozen=True)
class HeatMap:
    """The best point of each pair of values.

    metrics : (Y, X), NaN where nothing ran.  points : (Y, X), 0 where nothing ran.
    cut_short : (Y, X) bool, the metric is of an earlier epoch.
    """

    x: str
    y: str
    x_values: list[Any]
    y_values: list[Any]
    metrics: NDArray[np.float64]
    points: NDArray[np.int64]
    cut_short: NDArray[np.bool_]


@dataclass(frozen=True)
class Savings:
    """What the trials took, and at most how much more it would have been without the scheduler's early stopping."""

    epochs: float
    seconds: float
    saved_epochs: float
    saved_seconds: float

    @property
    def saved_share(self) -> float:
        """The part saved of the seconds that all trials would have taken."""
        total = self.seconds + self.saved_seconds
        return self.saved_seconds / total if total else 0.0


def leaderboard(records: Sequence[TrialRecord], metric: str, campaign: Campaign) -> list[Row]:
    """Make one row per point that has a training which ended, best first.

    Parameters
    ----------
    records : of a ledger; those that have not ended are left out.
    metric : such as ``ndcg@20``.
    campaign : says whether points differ in how many seeds they were promised.

    Notes
    -----
    A training that was stopped early counts with its best validation, as the others do: more epochs could only have
    raised it, so the row is marked (`Row.cut_short`) instead of moved. It stays in its point's mean too, since dropping
    the seeds that did badly would flatter the point. Failed trainings are counted and no more.

    With `search.finalists`, points with all seeds come before the others, whose one seed was perhaps lucky. Where no
    point has all (failures), those with the most seeds do. Points without any validation come last.

    `Row.eligible`: among those that come first by seeds, the points with a training that ran to its end; if there is
    none, all of them.
    """
    groups: dict[int, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda each: each.number):
        if record.ended:
            groups.setdefault(record.point, []).append(record)
    rows = [_row(group, metric) for group in groups.values()]
    enough = 1
    if campaign.search.finalists is not None:
        enough = min(campaign.search.seeds, max((len(row.scores) for row in rows), default=1))
    rows.sort(key=lambda row: (not row.scored, len(row.scores) < enough, -row.metric if row.scored else 0, row.point))
    full = [row for row in rows if row.scored and len(row.scores) >= enough]
    able = {row.point for row in [row for row in full if not row.cut_short] or full}
    return [replace(row, rank=rank, eligible=row.point in able) for rank, row in enumerate(rows, start=1)]


def winner(rows: Sequence[Row], finish: Finish) -> Row | None:
    """Find the point to go on with, among those eligible; None without any.

    ``cheapest_within``: of the points whose metric is at least 1 - `tolerance` times the best, the one with the fewest
    lookups, then multiply-adds, then the best metric.
    """
    able = [row for row in rows if row.eligible]
    best = max(able, key=lambda row: row.metric, default=None)
    if best is None or finish.choose == "best":
        return best
    near = [row for row in able if row.metric >= best.metric * (1 - finish.tolerance)]
    return min(near, key=lambda row: (*(_or_inf(c) for c in (row.lookups, row.multiply_adds)), -row.metric))


def pareto(rows: Sequence[Row], cost: Cost = "lookups") -> list[Row]:
    """Find the rows that no other beats in metric or cost without losing in the other, the cheapest first."""
    known = [row for row in rows if row.scored and not math.isnan(row.cost(cost))]

    def beaten(row: Row) -> bool:
        at_least = (o for o in known if o.metric >= row.metric and o.cost(cost) <= row.cost(cost))
        return any(o.metric > row.metric or o.cost(cost) < row.cost(cost) for o in at_least)

    return sorted((row for row in known if not beaten(row)), key=lambda row: (row.cost(cost), row.rank))


def compare(rows: Sequence[Row], first: Row) -> dict[int, Comparison]:
    """Subtract every other point with several seeds from `first`, by point; empty where `first` has one seed.

    Notes
    -----
    Welch's interval. Not paired by seed although the seeds are often the same: two models that differ draw differently
    from the first batch on, so pairs have little in common and would halve the degrees of freedom. Not corrected for
    `first` being the best of many either; the test set is what judges it without that.
    """
    others = (row for row in rows if row.point != first.point and len(row.scores) > 1)
    return {row.point: _welch(first, row) for row in others} if len(first.scores) > 1 else {}


def rival_of(rows: Sequence[Row], first: Row, values: Mapping[str, Any]) -> Row | None:
    """Find what the winner is compared with: the best point that has `values`, or if the winner has, the best without.

    Those that may win come before those that were stopped; None without any.
    """
    wanted = {setting: key_of(value) for setting, value in values.items()}

    def has(row: Row) -> bool:
        return all(name in row.values and key_of(row.values[name]) == key for name, key in wanted.items())

    others = [row for row in rows if row.scored and has(row) != has(first)]
    return min(others, key=lambda row: (not row.eligible, row.rank), default=None)


def by_value(rows: Sequence[Row], setting: str) -> list[ByValue]:
    """Group points by their value of `setting`, in the order of values; those without it or a metric are left out.

    The best is the one that ranks first, so with finalists one with all seeds.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.scored and setting in row.values:
            groups.setdefault(key_of(row.values[setting]), []).append(row)
    found = [ByValue(group[0].values[setting], group[0], [row.metric for row in group]) for group in groups.values()]
    return sorted(found, key=lambda each: order_of(each.value))


def heat_map(rows: Sequence[Row], x: str, y: str) -> HeatMap:
    """Find the metric of the first-ranking point of each pair of values of two settings.

    A point that one of the two does not matter to (its values leave it out, as routing depth with one interest) stands
    in all cells along it. One that neither matters to stands nowhere.
    """
    x_values, y_values = values_of(rows, x), values_of(rows, y)
    shape = (len(y_values), len(x_values))
    metrics, points, cut = np.full(shape, np.nan), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    columns = {key_of(value): place for place, value in enumerate(x_values)}
    lines = {key_of(value): place for place, value in enumerate(y_values)}
    for row in reversed(rows):  # so that the first stays
        if row.scored and (x in row.values or y in row.values):
            column = columns[key_of(row.values[x])] if x in row.values else slice(None)
            line = lines[key_of(row.values[y])] if y in row.values else slice(None)
            metrics[line, column], points[line, column], cut[line, column] = row.metric, row.point, row.cut_short
    return HeatMap(x, y, x_values, y_values, metrics, points, cut)


def savings(records: Sequence[TrialRecord]) -> Savings:
    """Add up what the ended trials took, and at most what the scheduler saved.

    At most: `train.patience` might have ended a stopped trial too before its last epoch. Its seconds are those of its
    missing epochs at its own pace.
    """
    epochs = seconds = saved_epochs = saved_seconds = 0.0
    for record in records:
        if not record.ended or not record.reports:
            continue
        last = record.reports[-1]
        epochs, seconds = epochs + last["epoch"], seconds + last["seconds"]
        if record.status == "stopped":
            missing = max(0.0, record.epochs - last["epoch"])
            saved_epochs += missing
            saved_seconds += missing * last["seconds"] / last["epoch"]
    return Savings(epochs, seconds, saved_epochs, saved_seconds)


def values_of(rows: Sequence[Row], setting: str) -> list[Any]:
    """List the distinct values of a setting among points with a metric, in order."""
    return distinct([row.values[setting] for row in rows if row.scored and setting in row.values])


def distinct(values: Sequence[Any]) -> list[Any]:
    """Keep each value once, in order."""
    return sorted({key_of(value): value for value in values}.values(), key=order_of)


def key_of(value: Any) -> str:
    """Make keys that are equal for equal values only: a list is compared by its parts, and true is not 1."""
    return json.dumps(value)


def order_of(value: Any) -> tuple[Any, ...]:
    """Make a key to sort a setting's values by: switches, then numbers, words, and lists by their numbers."""
    if isinstance(value, bool):
        return (0, value)
    if isinstance(value, (int, float)):
        return (1, value)
    return (3, *value) if isinstance(value, (list, tuple)) else (2, str(value))


def best_report(record: TrialRecord, metric: str, until: float = math.inf) -> dict[str, float] | None:
    """Find the first best validation up to an epoch of a trial that did not fail; None without any that is a number."""
    if record.status not in ("finished", "stopped"):
        return None
    name = f"validation/{metric}"
    reached = (r for r in record.reports if r["epoch"] <= until and math.isfinite(r[name]))
    return max(reached, key=lambda report: report[name], default=None)


def _row(group: Sequence[TrialRecord], metric: str) -> Row:
    """One point's trials, by number."""
    # a seed trained twice counts once: the training that ran to its end, else the later one
    in_order = sorted(group, key=lambda r: (r.status == "finished", r.number))
    by_seed = {r.seed: r for r in in_order if best_report(r, metric)}
    bests = {seed: best for seed, r in sorted(by_seed.items()) if (best := best_report(r, metric)) is not None}
    scores = {seed: best[f"validation/{metric}"] for seed, best in bests.items()}
    top = bests[max(scores, key=lambda seed: scores[seed])] if scores else {}
    ran = [record.reports[-1] for record in (by_seed.values() if scores else group) if record.reports]
    reasons = [record.reason for record in group if record.status == "failed"]
    status = [record.status for record in group]
    return Row(
        rank=0,
        point=group[0].point,
        values=group[0].values,
        metric=_mean(list(scores.values())),
        deviation=float(np.std(list(scores.values()), ddof=1)) if len(scores) > 1 else None,
        scores=scores,
        best_epoch=_mean([best["epoch"] for best in bests.values()]),
        epochs=_mean([last["epoch"] for last in ran]),
        seconds=_mean([last["seconds"] for last in ran]),
        finished=status.count("finished"),
        stopped=status.count("stopped"),
        failed=status.count("failed"),
        reason=reasons[-1] if reasons else None,
        lookups=top.get("serving/lookups", math.nan),
        multiply_adds=top.get("serving/multiply_adds", math.nan),
    )


def _welch(first: Row, second: Row) -> Comparison:
    from scipy.stats import t  # here: slow to load

    samples = [np.array(list(row.scores.values())) for row in (first, second)]
    variances = [float(sample.var(ddof=1)) / len(sample) for sample in samples]
    difference, total = first.metric - second.metric, sum(variances)
    if total == 0:  # all seeds agree to the last digit
        return Comparison(second.point, difference, difference, difference)
    freedom = total**2 / sum(v**2 / (len(s) - 1) for v, s in zip(variances, samples, strict=True))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Comparison(second.point, difference, difference - reach, difference + reach)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _or_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value

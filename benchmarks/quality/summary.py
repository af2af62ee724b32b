"""What `make bench-quality` says of a data set: mean and spread over seeds, and paired differences to `default`."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.quality.contestants import DEFAULT
from benchmarks.quality.score import Floats
from benchmarks.report import Sheet
from pipelines.evaluation.report import Difference, difference, mean
from pipelines.evaluation.show_report import figure

FILTERED = ("hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20", "hit_rate@50")
KEPT = ("recall@20", "ndcg@20", "hit_rate@20", "recall@50", "again/recall@20", "new/recall@20", "shelf_new/recall@20")
COMPARED = ("ndcg@20", "shelf_new/recall@20")  # columns of the printed table that have one of differences beside


@dataclass(frozen=True)
class Outcome:
    """A contestant's runs over one data set.

    runs : of each seed: metric -> (U,) of each user.  told : of each seed: what the contestant said of itself.
    """

    label: str
    runs: list[dict[str, Floats]]
    told: list[dict[str, Any]]

    def means(self, metric: str) -> list[float]:
        """Average over the users who count, of each seed."""
        of_users = (run[metric] for run in self.runs)
        return [mean(values[~np.isnan(values)]) for values in of_users]

    def of_users(self, metric: str) -> Floats:
        """Average each user over the seeds, (U,)."""
        averaged: Floats = np.mean([run[metric] for run in self.runs], axis=0)
        return averaged

    @property
    def minutes(self) -> float:
        """To fit, settings and epochs chosen; the mean over the seeds."""
        return statistics.mean(told["fit_seconds"] for told in self.told) / 60

    @property
    def gigabytes(self) -> float:
        """The most that a run held."""
        return float(max(told["peak_bytes"] for told in self.told)) / 1e9


@dataclass(frozen=True)
class Table:
    """All that was found on a data set.

    outcomes : by contestant, in the order of the table.  left_out : contestant -> why it has no row.
    failed : those of `left_out` that should have had one.
    """

    name: str
    protocol: str
    filtered: bool
    outcomes: dict[str, Outcome]
    left_out: dict[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is shown; where seen items are kept but no target is in a history, or all are, a group has none."""
        wanted = FILTERED if self.filtered else KEPT
        return tuple(name for name in wanted if all(name in found.runs[0] for found in self.outcomes.values()))

    def differences(self, metric: str) -> dict[str, Difference]:
        """Compare each contestant but `default` with it, user by user, each user averaged over the seeds."""
        if DEFAULT not in self.outcomes:
            return {}
        base = self.outcomes[DEFAULT].of_users(metric)
        others = {name: found for name, found in self.outcomes.items() if name != DEFAULT}
        return {name: difference(found.of_users(metric), base, DEFAULT, metric) for name, found in others.items()}


def spread(values: list[float]) -> float | None:
    """Standard deviation of a sample; None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def with_spread(values: list[float]) -> str:
    """Write mean ± sd.

    >>> with_spread([0.125, 0.135]), with_spread([0.125])
    ('.1300 ±.0071', '.1250')
    """
    apart = spread(values)
    return figure(statistics.mean(values)) + ("" if apart is None else f" ±{figure(apart)}")


def apart(found: Difference) -> str:
    """Write a difference with half its interval; in brackets where the two are not told apart.

    >>> apart(Difference("default", "ndcg@20", 0.02, 0.01, 0.03))
    '+.0200 ±.0100'
    >>> apart(Difference("default", "ndcg@20", 0.0, -0.01, 0.01))
    '(+.0000 ±.0100)'
    """
    text = f"{'' if found.mean < 0 else '+'}{figure(found.mean)} ±{figure((found.high - found.low) / 2)}"
    return text if found.told else f"({text})"


def heading(metric: str) -> str:
    """Write a metric's name short enough for a column.

    >>> heading("hit_rate@10"), heading("again/recall@20"), heading("shelf_new/recall@20")
    ('HR@10', 'again R@20', 'new shelf R@20')
    """
    group, _, name = metric.rpartition("/")
    kind, n = name.split("@")
    short = {"hit_rate": "HR", "recall": "R", "ndcg": "NDCG", "mrr": "MRR"}[kind]
    return f"{'new shelf' if group == 'shelf_new' else group} {short}@{n}".strip()


def sheet(table: Table) -> Sheet:
    """Lay the table out for the terminal."""
    metrics = table.metrics
    compared = [name for name in COMPARED if name in metrics and DEFAULT in table.outcomes]
    columns = ["", *map(heading, metrics), *(f"{heading(name)} less default" for name in compared), "min", "GB"]
    against = {name: table.differences(name) for name in compared}
    rows = []
    for name, found in table.outcomes.items():
        cells = [with_spread(found.means(metric)) for metric in metrics]
        cells += [apart(against[metric][name]) if name in against[metric] else "" for metric in compared]
        rows.append([found.label, *cells, f"{found.minutes:.1f}", f"{found.gigabytes:.1f}"])
    notes = [
        "R: recall, HR: HitRate; mean ± standard deviation over seeds",
        "differences are paired by user: ± is half of the 95 % interval, in brackets what is not told apart",
    ]
    notes += [f"{name} is left out: {why}" for name, why in table.left_out.items()]
    cut = [name for name, found in table.outcomes.items() if any(told.get("ended") == "cap" for told in found.told)]
    notes += [f"{name}: training ended by the limit of time" for name in cut]
    return Sheet(f"{table.name}: {table.protocol}", columns, rows, notes)


def as_json(table: Table) -> dict[str, Any]:
    """Collect everything for the JSON file."""
    differences = {metric: table.differences(metric) for metric in table.metrics}
    contestants = {}
    for name, found in table.outcomes.items():
        metrics = {metric: found.means(metric) for metric in found.runs[0]}
        contestants[name] = {
            "label": found.label,
            "metrics": {
                metric: {"mean": statistics.mean(values), "sd": spread(values), "values": values}
                for metric, values in metrics.items()
            },
            "less_default": {
                metric: {"mean": each[name].mean, "low": each[name].low, "high": each[name].high}
                for metric, each in differences.items()
                if name in each
            },
            "minutes": found.minutes,
            "gigabytes": found.gigabytes,
            "told": found.told,
        }
    return {"protocol": table.protocol, "contestants": contestants, "left_out": table.left_out}

"""What `mind evaluate` says: averages, overall and by band, and how sure a difference between two models is.

Sums are exact (math.fsum): a report does not depend on the order or the cutting of the users.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.ranking import Floats, Ints, ModelRanking, Ranking

HISTORY_BANDS = ((1, 4), (5, 9), (10, 19), (20, 49), (50, None))
POPULARITY_BANDS = ("head", "mid", "tail", "cold")
HEAD, MID = 0.01, 0.20  # head: the most popular 1 % of the items seen in training; mid: up to 20 %; tail: the rest
RESAMPLES = 1000
CONFIDENCE = 0.95
DRAWS_AT_ONCE = 2**22  # of the bootstrap, to bound its memory


@dataclass(frozen=True)
class Band:
    """A group of users (`size` of them, all metrics) or of targets (recall only: the share found)."""

    name: str
    size: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class ModelReport:
    """One model's figures.

    label : short name for tables.  path, run_id : None for the popularity baseline.
    interest_share : of the places in the longest lists, by the interest that found the item.
    users_by_interests : users with 1, 2, ... interests.
    """

    name: str
    label: str
    path: str | None
    run_id: str | None
    metrics: dict[str, float]
    by_history: list[Band]
    by_popularity: list[Band]
    interest_share: list[float]
    users_by_interests: list[int]


@dataclass(frozen=True)
class Difference:
    """First model minus `against` in the headline metric, with a paired bootstrap interval over users."""

    against: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """report.json. The evaluated model comes first in `models`, the popularity baseline last."""

    dataset: str
    fingerprint: str
    split: str
    seen: str
    metric: str
    cutoffs: list[int]
    users: int
    targets: int
    seen_targets: int
    users_left_out: int
    catalogue: int
    models: list[ModelReport]
    differences: list[Difference]

    @property
    def protocol(self) -> str:
        """In one line."""
        seen = "filtered" if self.seen == "filter" else "kept"
        return f"full ranking of {self.catalogue:,} items, seen items {seen}, {self.split} split, {self.users:,} users"


def mean(values: Floats | Ints) -> float:
    """The exactly rounded mean."""
    return math.fsum(values.tolist()) / len(values)


def model_report(
    ranking: Ranking,
    model: ModelRanking,
    train_counts: Ints,
    *,
    name: str,
    label: str,
    path: str | None,
    run_id: str | None,
) -> ModelReport:
    """Average one model's outcome.

    train_counts : (items,) events in the training split; item index i is place i - 2.
    """
    catalogue = len(train_counts)
    metrics = {metric: mean(values) for metric, values in model.metrics.items()}
    metrics |= {f"coverage@{n}": len(items) / catalogue for n, items in model.recommended.items()}
    return ModelReport(
        name,
        label,
        path,
        run_id,
        metrics,
        _by_history(ranking, model),
        _by_popularity(ranking, model, train_counts),
        (model.found_by / max(1, model.found_by.sum())).tolist(),
        model.own.tolist(),
    )


def _by_history(ranking: Ranking, model: ModelRanking) -> list[Band]:
    """All metrics by the number of behaviours in a user's history; bands without users are left out."""
    bands = []
    for low, high in HISTORY_BANDS:
        inside = (ranking.lengths >= low) & (ranking.lengths <= (high or np.inf))
        if inside.any():
            metrics = {name: mean(values[inside]) for name, values in model.metrics.items()}
            bands.append(Band(f"{low}-{high}" if high else f"{low}+", int(inside.sum()), metrics))
    return bands


def _by_popularity(ranking: Ranking, model: ModelRanking, train_counts: Ints) -> list[Band]:
    """Share of the targets found, by how popular they are; bands without targets are left out."""
    band_of = popularity_bands(train_counts)[ranking.targets - 2]
    bands = []
    for number, name in enumerate(POPULARITY_BANDS):
        ranks = model.ranks[band_of == number]
        if len(ranks):
            found = {f"recall@{n}": float((ranks <= n).mean()) for n in sorted(model.recommended)}
            bands.append(Band(name, len(ranks), found))
    return bands


def popularity_bands(train_counts: Ints) -> Ints:
    """(items,) place in POPULARITY_BANDS; among equal counts the lower item index counts as the more popular."""
    order = np.argsort(-train_counts, kind="stable")
    band = np.full(len(train_counts), 2)
    seen = np.count_nonzero(train_counts)
    band[order[: math.ceil(MID * seen)]] = 1
    band[order[: math.ceil(HEAD * seen)]] = 0
    band[train_counts == 0] = 3
    return band


def difference(first: Floats, second: Floats, against: str, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Paired bootstrap over users of the mean difference between two models.

    first, second : (U,) the same metric of the same users.

    Notes
    -----
    A resample of users is a multinomial draw over the *distinct* differences, of which there are few: exact, and its
    cost does not grow with the number of users.
    """
    values, counts = np.unique(first - second, return_counts=True)
    users, generator = len(first), np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_ONCE // len(values))
    means = np.concatenate(
        [
            generator.multinomial(users, counts / users, size=min(chunk, resamples - start)) @ values / users
            for start in range(0, resamples, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(against, mean(first - second), float(low), float(high))


def relative(value: float, base: float) -> str:
    """``+12.3 %`` of `value` over `base`; empty where that says nothing."""
    return "" if base == 0 else f"{100 * (value / base - 1):+.1f} %"


def labels(names: Sequence[str], presets: Sequence[str]) -> list[str]:
    """Short names: the preset where it tells the models apart, else the model's own name."""
    return [
        preset if list(presets).count(preset) == 1 and preset != "popularity" else name
        for name, preset in zip(names, presets, strict=True)
    ]

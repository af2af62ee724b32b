"""What `mind evaluate` says: averages, overall, by group and by band, and how sure they and their differences are.

Sums are exact (math.fsum): a report does not depend on the order or the cutting of the users. Metrics are made here of
the ranks of the targets, a model at a time, so that nothing but ranks is held for all models at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mind_core.metrics import group_metrics, metrics_among, user_metrics
from mind_core.special_rows import FIRST_ITEM
from pipelines.evaluation.interests import InterestReport, interest_report
from pipelines.evaluation.lists import Categories, ListReport, list_report
from pipelines.evaluation.ranking import Bools, Int8s, Ints, ModelRanking, Ranking
from pipelines.evaluation.variety import PriceReport
from pipelines.words import counted

HISTORY_BANDS = ((1, 4), (5, 9), (10, 19), (20, 49), (50, None))
POPULARITY_BANDS = ("head", "mid", "tail", "cold 1-4", "cold 0")
HEAD, MID = 0.01, 0.20  # head: the most popular 1 % of the items seen in training; mid: up to 20 %; tail: the rest
COLD = 5  # train events that an item must have not to be cold, however popular it is among others
REPORT_VERSION = 2  # of report.json
RESAMPLES = 1000
CONFIDENCE = 0.95
DRAWS_AT_ONCE = 2**22  # of the bootstrap, to bound its memory
LEVELS = 512  # distinct values that are resampled
GROUPED = ("recall", "ndcg")  # metrics whose differences are told for `again` and `new` too

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """A group of users (`size` of them, all metrics) or of targets (recall only: the share found)."""

    name: str
    size: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class ModelReport:
    """One model's figures.

    label : short name for tables.  path, run_id : None for a baseline.  note : how a baseline was fitted.
    metrics : name -> mean over the users; names as `mind_core.metrics.group_metrics` has them, those of the targets
        that are cold items (``cold/recall@20``) and of `ListSample` (``list/novelty@20``), coverage and Gini.
    intervals : name -> [low, high], 95 % of resampled users.
    interest_share, hit_share : of the places in the longest lists, and of the targets in them, by the interest that
        found the item.
    lists : what the lists are made of.
    by_interests : users by how many interests they have; one band for a rule.
    interests : what they are worth, on a sample of the users; None for a single one.
    users_by_interests : users with 1, 2, ... interests.
    """

    name: str
    label: str
    path: str | None
    run_id: str | None
    note: str | None
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    by_history: list[Band]
    by_popularity: list[Band]
    by_interests: list[Band]
    lists: ListReport
    interest_share: list[float]
    hit_share: list[float]
    interests: InterestReport | None
    users_by_interests: list[int]


@dataclass(frozen=True)
class Difference:
    """First model minus `against` in a metric, with a paired bootstrap interval over users."""

    against: str
    metric: str
    mean: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the two are told apart: the interval does not hold zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Group:
    """Targets that are in their user's history (`again`), or not (`new`), and the users who have one."""

    users: int
    targets: int


@dataclass(frozen=True)
class Report:
    """report.json. The evaluated model comes first in `models`, then those beside it, then the baselines.

    groups : again and new; empty where seen items are filtered, and all targets are new.
    differences : of the headline metric to every other model, in their order; then of the groups' metrics.
    baselines_left_out : a line for each.
    version : of this format.
    price : what varied lists of the evaluated model cost; None where nothing tells the items' categories.
    """

    dataset: str
    fingerprint: str
    split: str
    seen: str
    metric: str
    cutoffs: list[int]
    users: int
    targets: int
    groups: dict[str, Group]
    seen_targets: int
    users_left_out: int
    catalogue: int
    models: list[ModelReport]
    differences: list[Difference]
    baselines_left_out: list[str]
    version: int = REPORT_VERSION
    price: PriceReport | None = None

    @property
    def headlines(self) -> list[Difference]:
        """The differences of the headline metric."""
        return [found for found in self.differences if found.metric == self.metric]

    @property
    def protocol(self) -> str:
        """In one line."""
        seen = "filtered" if self.seen == "filter" else "kept"
        catalogue, users = counted(self.catalogue, "item"), counted(self.users, "user")
        return f"full ranking of {catalogue}, seen items {seen}, {self.split} split, {users}"


def mean(values: Floats | Ints) -> float:
    """The exactly rounded mean."""
    return math.fsum(values.tolist()) / len(values)


def cutoff_of(metric: str) -> int:
    """Return the N of metric@N.

    >>> cutoff_of("recall@20")
    20
    """
    return int(metric.split("@")[1])


def metrics_of(
    ranking: Ranking, model: ModelRanking, cutoffs: list[int], train_counts: Ints | None = None
) -> dict[str, Floats]:
    """Compute a model's metrics of each user: name -> (U,), NaN where the user has no target of the name's group.

    train_counts : (items,) events in the training split, for the group of cold items; None: without it.
    """
    ranks, row, again = (torch.from_numpy(each) for each in (model.ranks, ranking.row, ranking.again))
    users = len(ranking.users)
    if model.shelf_ranks is None:
        found = user_metrics(ranks, row, users, cutoffs)
    else:
        found = group_metrics(ranks, torch.from_numpy(model.shelf_ranks), again, row, users, cutoffs)
    if train_counts is not None:
        cold = torch.from_numpy(train_counts[ranking.targets - FIRST_ITEM] < COLD)
        among = metrics_among(ranks, cold, row, users, cutoffs)
        found |= {f"cold/{name}": values for name, values in among.items()}
    return {name: values.numpy() for name, values in found.items()} | model.lists.by_user()


def groups_of(ranking: Ranking) -> dict[str, Group]:
    """Count the targets of each group, and the users who have one."""
    if ranking.models[0].shelf_ranks is None:
        return {}
    inside = {"again": ranking.again, "new": ~ranking.again}
    return {name: Group(len(np.unique(ranking.row[mask])), int(mask.sum())) for name, mask in inside.items()}


def model_report(
    ranking: Ranking,
    model: ModelRanking,
    metrics: dict[str, Floats],
    train_counts: Ints,
    categories: Categories | None = None,
    *,
    name: str,
    label: str,
    path: str | None = None,
    run_id: str | None = None,
    note: str | None = None,
) -> ModelReport:
    """Average one model's outcome.

    metrics : of `metrics_of`.
    train_counts : (items,) events in the training split; item index i is place i - 2.
    categories : of the items.
    """
    catalogue, own = len(train_counts), model.own
    bands = popularity_bands(train_counts)
    lists = list_report(model.lists, own, bands, len(POPULARITY_BANDS), categories)
    counted = {metric: values[~np.isnan(values)] for metric, values in metrics.items()}
    coverage = {f"coverage@{n}": len(items) / catalogue for n, items in model.recommended.items()}
    return ModelReport(
        name,
        label,
        path,
        run_id,
        note,
        {metric: mean(values) for metric, values in counted.items()} | coverage | {f"gini@{lists.depth}": lists.gini},
        {metric: interval(values) for metric, values in counted.items()},
        _by_history(ranking, metrics),
        _by_popularity(ranking, model, bands),
        _by_interests(own, metrics),
        lists,
        (model.found_by / max(1, model.found_by.sum())).tolist(),
        (model.hits_by / max(1, model.hits_by.sum())).tolist(),
        interest_report(model.interests),
        np.bincount(own, minlength=len(model.found_by) + 1)[1:].tolist(),
    )


def _by_history(ranking: Ranking, metrics: dict[str, Floats]) -> list[Band]:
    """Average the metrics of all targets by the length of a user's history; bands without users are left out."""
    bands = []
    for low, high in HISTORY_BANDS:
        inside = (ranking.lengths >= low) & (ranking.lengths <= (high or np.inf))
        if inside.any():
            name = f"{low}-{high}" if high else f"{low}+"
            bands.append(_band(name, inside, metrics))
    return bands


def _by_interests(own: Int8s, metrics: dict[str, Floats]) -> list[Band]:
    """Average the metrics of all targets by how many interests a user has."""
    return [_band(str(number), own == number, metrics) for number in np.unique(own).tolist()]


def _band(name: str, inside: Bools, metrics: dict[str, Floats]) -> Band:
    means = {name: mean(values[inside]) for name, values in metrics.items() if "/" not in name}
    return Band(name, int(inside.sum()), means)


def _by_popularity(ranking: Ranking, model: ModelRanking, bands_of_items: Ints) -> list[Band]:
    """Share of the targets found, by how popular they are; bands without targets are left out."""
    band_of = bands_of_items[ranking.targets - FIRST_ITEM]
    bands = []
    for number, name in enumerate(POPULARITY_BANDS):
        ranks = model.ranks[band_of == number]
        if len(ranks):
            found = {f"recall@{n}": float((ranks <= n).mean()) for n in sorted(model.recommended)}
            bands.append(Band(name, len(ranks), found))
    return bands


def popularity_bands(train_counts: Ints) -> Ints:
    """(items,) place in POPULARITY_BANDS; among equal counts the lower item index counts as the more popular.

    An item of fewer than COLD events is cold, wherever it stands.
    """
    order = np.argsort(-train_counts, kind="stable")
    band = np.full(len(train_counts), 2)
    seen = np.count_nonzero(train_counts)
    band[order[: math.ceil(MID * seen)]] = 1
    band[order[: math.ceil(HEAD * seen)]] = 0
    band[train_counts < COLD] = 3
    band[train_counts == 0] = 4
    return band


def interval(values: Floats, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Find between what 95 % of the means of resampled users lie: a bootstrap.

    values : (U,).

    Notes
    -----
    A resample of users is a multinomial draw over the *distinct* values, of which there are few: its cost does not grow
    with the number of users. More than LEVELS are put into as many bins of equal width, each standing for its own mean:
    the interval narrows by less than one part in ten thousand, and the mean stays what it is.
    """
    found, counts = np.unique(values, return_counts=True)
    if len(found) > LEVELS:
        place = ((found - found[0]) * ((LEVELS - 1) / (found[-1] - found[0]))).round().astype(np.int64)
        sums = np.bincount(place, weights=found * counts)
        counts = np.bincount(place, weights=counts).astype(np.int64)
        found, counts = sums[counts > 0] / counts[counts > 0], counts[counts > 0]
    users, generator = len(values), np.random.default_rng(seed)
    chunk = max(1, DRAWS_AT_ONCE // len(found))
    means = np.concatenate(
        [
            generator.multinomial(users, counts / users, size=min(chunk, resamples - start)) @ found / users
            for start in range(0, resamples, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def difference(first: Floats, second: Floats, against: str, metric: str) -> Difference:
    """Average the difference between two models, with its paired bootstrap `interval` over users.

    first, second : (U,) the same metric of the same users; NaN, in both, for a user who does not count.
    """
    apart = first - second
    apart = apart[~np.isnan(apart)]
    return Difference(against, metric, mean(apart), *interval(apart))


def compared_metrics(report_metric: str, metrics: dict[str, Floats]) -> list[str]:
    """Name the metrics whose differences are reported: the headline, and recall and NDCG of both groups."""
    cutoff = report_metric.split("@")[1]
    grouped = [f"{group}/{kind}@{cutoff}" for kind in GROUPED for group in ("again", "new")]
    return [report_metric, *(name for name in grouped if name in metrics)]


def labels(names: Sequence[str], presets: Sequence[str]) -> list[str]:
    """Short names: the preset where it tells the models apart, else the model's own name."""
    return [
        preset if list(presets).count(preset) == 1 and preset != "popularity" else name
        for name, preset in zip(names, presets, strict=True)
    ]

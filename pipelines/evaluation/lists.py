"""What the recommended lists are made of: how popular and how various their items are, whoever hits or misses.

Axes: U users that are counted, n places of a list, C categories. The worker's half (`list_samples`) sums what needs no
user and keeps what gets an interval; the driver's half (`list_report`) averages.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mind_core.evaluation import Outcome
from mind_core.features import Bags
from mind_core.inference import TILE_USERS
from mind_core.list_metrics import (
    calibration,
    category_shares,
    diversity_by_interest,
    gini,
    jaccard_distances,
    list_diversity,
    novelty,
    self_information,
)
from mind_core.sequences import Sequences as BehaviourSequences
from mind_core.shelves import history_pairs
from mind_core.special_rows import FIRST_ITEM, FIRST_VALUE
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.telling_feature import CATEGORICAL, telling_feature
from pipelines.errors import UserError

SHOWN_CATEGORIES = 12  # of all: the ones that histories have most of

Ints = npt.NDArray[np.int64]
Int8s = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Categories:
    """The categories of the items, by one feature: arrays only, so that actors share one copy in Ray's object store.

    offsets, rows, weights : of `Bags` over item indices; categories are numbered from 0.  names : (C,) of them.
    """

    feature: str
    offsets: Ints
    rows: Ints
    weights: Floats
    names: list[str]

    def bags(self) -> Bags:
        """Make the bags without a copy."""
        with warnings.catch_warnings():  # Ray's arrays are read-only, of which torch warns; nothing writes to them
            warnings.simplefilter("ignore", UserWarning)
            return Bags(*map(torch.from_numpy, (self.offsets, self.rows, self.weights)))


def category_feature(dataset: Dataset, asked: str | None) -> str | None:
    """Choose what the variety of lists is told by: `evaluate.category` if it is set, else the `telling_feature`.

    Raises
    ------
    UserError
        If what is asked for is no categorical item feature.
    """
    infos = dataset.manifest.item_features
    names = [info.name for info in infos if info.kind in CATEGORICAL]
    if asked is not None and asked not in names:
        raise UserError(f"evaluate.category={asked!r}: must be a categorical item feature of {dataset}: "
                        f"{', '.join(names) or 'it has none'}")  # fmt: skip
    return asked or telling_feature(infos)


def item_categories(dataset: Dataset, asked: str | None = None) -> Categories | None:
    """Read the categories of all items by `category_feature`; a rare or missing value is none. None without one."""
    feature = category_feature(dataset, asked)
    if feature is None:
        return None
    column = dataset.items()[f"feature_{feature}"].combine_chunks()
    names = [str(value) for value in dataset.vocabulary(f"item_features/{feature}")["value"].to_pylist()]
    multi = hasattr(column, "value_lengths")
    flat = (column.flatten() if multi else column).to_numpy(zero_copy_only=False).astype(np.int64) - FIRST_VALUE
    sizes = column.value_lengths().to_numpy() if multi else np.ones(len(column), np.int64)
    item = np.repeat(np.arange(len(column)) + FIRST_ITEM, sizes)[flat >= 0]
    flat = flat[flat >= 0]
    held = np.bincount(item, minlength=len(column) + FIRST_ITEM)
    offsets = np.concatenate([[0], np.cumsum(held)]).astype(np.int64)
    return Categories(feature, offsets, flat, (1 / held[item]).astype(np.float32), names)


@dataclass(frozen=True)
class ListSample:
    """What one model lists for a slice of users, in lists of `depth` places.

    novelty, diversity, within, across, calibration : (U,), the functions of mind_core.list_metrics; NaN where a list
        has no such thing, as none has without categories.
    used : (U,) interests that found an item of the list.
    popularity : (n,) sum of the train events of the items at each rank.  filled : (n,) lists that have an item there.
    items, times : (I,) the items of all lists, and in how many.
    history, shown : (C,) sums over `counted` users of the shares of categories in their histories, and in their lists.
    """

    depth: int
    novelty: Floats
    diversity: Floats
    within: Floats
    across: Floats
    calibration: Floats
    used: Int8s
    popularity: Doubles
    filled: Ints
    items: Ints
    times: Ints
    history: Doubles
    shown: Doubles
    counted: int

    def by_user(self) -> dict[str, Doubles]:
        """Name the metrics that users have, (U,) each; those that nobody has are left out."""
        one = np.isnan(self.across).all()  # interest that finds anything: it has no pairs to tell from others
        names = {} if one else {"diversity_within": self.within, "diversity_across": self.across}
        names |= {name: getattr(self, name) for name in ("novelty", "diversity", "calibration")}
        return {
            f"list/{name}@{self.depth}": values.astype(np.float64)
            for name, values in sorted(names.items())
            if not np.isnan(values).all()
        }


@dataclass(frozen=True)
class CategoryShare:
    """A category's mean share of the users' histories, and of their lists."""

    name: str
    history: float
    shown: float


@dataclass(frozen=True)
class ListReport:
    """What one model's lists of `depth` places are made of.

    feature : whose values are the categories; None where items have none.
    gini : of the places that the items of the catalogue get.
    popularity_by_rank : mean train events of the items at rank 1, 2, ...
    band_share : share of the places by popularity band of the item.
    categories : those that histories have most of.
    used_by_interests : users by their number of interests (down) and how many of them found an item (across), from 1.
    """

    depth: int
    feature: str | None
    gini: float
    popularity_by_rank: list[float]
    band_share: list[float]
    categories: list[CategoryShare]
    used_by_interests: list[list[int]]


def list_samples(
    outcomes: Sequence[Outcome],
    sequences: BehaviourSequences,
    counts: Tensor,
    categories: Categories | None,
    depth: int,
) -> list[ListSample]:
    """Look at the lists that each model made for the same users, a tile at a time.

    counts : (V,) events per item index in the train split.
    """
    users, information = outcomes[0].users, self_information(counts)
    bags = None if categories is None else categories.bags()
    width = 0 if categories is None else len(categories.names)
    parts: list[list[list[Tensor]]] = [[] for _ in outcomes]
    sums = torch.zeros(len(outcomes), 2, width, dtype=torch.float64)
    counted = [0] * len(outcomes)
    for tile in torch.arange(len(users)).split(TILE_USERS):
        history = None
        if bags is not None:
            history = category_shares(*history_pairs(sequences, users[tile]), bags, len(tile), width)
        for number, outcome in enumerate(outcomes):
            items, interest = outcome.top_items[tile, :depth], outcome.interest[tile, :depth]
            values = [novelty(items, information), _used(items, interest).float()]
            if bags is not None and history is not None:
                distances = jaccard_distances(items, bags)
                row = torch.arange(len(tile)).repeat_interleave(items.shape[1])
                shown = category_shares(row, items.flatten(), bags, len(tile), width)
                apart = calibration(history, shown)
                values += [list_diversity(distances), *diversity_by_interest(distances, interest), apart]
                known = ~apart.isnan()
                sums[number, 0] += history[known].double().sum(0)
                sums[number, 1] += shown[known].double().sum(0)
                counted[number] += int(known.sum())
            parts[number].append(values)
    return [
        _sample(outcome, found, counts, depth, categories is None, each_sums.numpy(), count)
        for outcome, found, each_sums, count in zip(outcomes, parts, sums, counted, strict=True)
    ]


def _sample(
    outcome: Outcome,
    parts: list[list[Tensor]],
    counts: Tensor,
    depth: int,
    bare: bool,
    sums: Doubles,
    counted: int,
) -> ListSample:
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)] or [np.zeros(0, np.float32)] * 6
    novel, used, *by_category = columns
    nothing = np.full(len(novel), np.nan, np.float32)
    diverse, within, across, apart = by_category if by_category and not bare else [nothing] * 4
    lists = outcome.top_items[:, :depth]
    there = lists > 0
    items, times = lists[there].unique(return_counts=True)
    return ListSample(
        depth=depth,
        novelty=novel,
        diversity=diverse,
        within=within,
        across=across,
        calibration=apart,
        used=used.astype(np.int8),
        popularity=(counts[lists] * there).double().sum(0).numpy(),
        filled=there.sum(0).numpy(),
        items=items.numpy(),
        times=times.numpy(),
        history=sums[0],
        shown=sums[1],
        counted=counted,
    )


def _used(items: Tensor, interest: Tensor) -> Tensor:
    """(B,) how many different interests found the items of a list, (B, n) both."""
    highest = int(interest.max()) + 1 if interest.numel() else 1
    found = torch.zeros(len(items), highest, dtype=torch.bool)
    row = torch.arange(len(items)).unsqueeze(1).expand_as(items)
    found[row[items > 0], interest[items > 0]] = True
    return found.sum(1)


def join_samples(parts: Sequence[ListSample]) -> ListSample:
    """Make one sample of all users, in slice order."""
    joined: dict[str, object] = {"depth": parts[0].depth, "counted": sum(part.counted for part in parts)}
    for field in fields(ListSample):
        arrays = [getattr(part, field.name) for part in parts]
        if field.name in ("popularity", "filled", "history", "shown"):
            joined[field.name] = np.sum(arrays, axis=0)
        elif field.name not in joined and field.name not in ("items", "times"):
            joined[field.name] = np.concatenate(arrays)
    items, place = np.unique(np.concatenate([part.items for part in parts]), return_inverse=True)
    times = np.bincount(place, weights=np.concatenate([part.times for part in parts]), minlength=len(items))
    return ListSample(**joined, items=items, times=times.astype(np.int64))  # type: ignore[arg-type]


def list_report(
    sample: ListSample, own: Int8s, bands: Ints, band_count: int, categories: Categories | None
) -> ListReport:
    """Average what one model lists.

    own : (U,) interests of each user.  bands : (items,) popularity band of each item; item index i is place i - 2.
    """
    times = np.zeros(len(bands), np.int64)
    times[sample.items - FIRST_ITEM] = sample.times
    places = max(1, int(times.sum()))
    share = np.bincount(bands, weights=times, minlength=band_count) / places
    most = int(own.max()) if len(own) else 1
    used = np.zeros((most, most), np.int64)
    np.add.at(used, (own[sample.used > 0] - 1, sample.used[sample.used > 0] - 1), 1)
    return ListReport(
        depth=sample.depth,
        feature=None if categories is None else categories.feature,
        gini=gini(torch.from_numpy(times)),
        popularity_by_rank=(sample.popularity / np.maximum(sample.filled, 1)).tolist(),
        band_share=share.tolist(),
        categories=_shares(sample, categories),
        used_by_interests=used.tolist(),
    )


def _shares(sample: ListSample, categories: Categories | None) -> list[CategoryShare]:
    if categories is None or not sample.counted:
        return []
    history, shown = sample.history / sample.counted, sample.shown / sample.counted
    order = np.argsort(-history, kind="stable")[:SHOWN_CATEGORIES]
    return [CategoryShare(categories.names[c], float(history[c]), float(shown[c])) for c in order.tolist()]

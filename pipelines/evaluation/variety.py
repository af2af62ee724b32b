"""What varied lists cost: recall and NDCG against categories and coverage, by policy and by lambda, on a sample.

The evaluated model's candidates of each interest are searched for once; every policy chooses among them, as `mind
recommend` with its section `lists` does (mind_core.diversity).

Axes: S sampled users, n places of a list, T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mind_core.diversity import NO_CATEGORY, Policy, pooled
from mind_core.evaluation import Outcome
from mind_core.hits import TopList
from mind_core.inference import MINDRetriever
from mind_core.list_rules import CANDIDATES, FEWEST, ListRules, interest_candidates
from mind_core.metrics import user_metrics
from mind_core.sequences import Sequences as BehaviourSequences
from mind_core.special_rows import FIRST_ITEM, MISSING
from mind_core.variety import variety
from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.evaluation.lists import category_feature
from pipelines.log.ids import as_array

SAMPLED_USERS = 2048  # about so many get a list of each policy
PLACES = 2  # of a list, for each interest by quota: the default of lists.quota

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PriceSettings:
    """What is tried on which users.

    category : the item feature.  codes : (V,) int64 its value by item index.
    rules : by label, the best match first.
    n : places of a list.
    every : the users whose index is a multiple of it.
    """

    category: str
    codes: Tensor
    rules: dict[str, ListRules]
    n: int
    every: int


@dataclass(frozen=True)
class PriceSample:
    """What one policy gave S users: `figures` by name (S,), and the distinct `recommended` items."""

    figures: dict[str, Floats]
    recommended: Ints


@dataclass(frozen=True)
class PriceRow:
    """One policy's means over the users, NaN as None; see mind_core.list_metrics.variety for the last five.

    coverage : distinct items in all lists, of the catalogue.
    """

    label: str
    policy: Policy
    weight: float
    recall: float
    ndcg: float
    coverage: float
    categories: float
    category_diversity: float | None
    intra_list: float | None
    across_interests: float | None
    interests: float


@dataclass(frozen=True)
class PriceReport:
    """What variety costs, on a sample of `users`; the best match comes first in `rows`."""

    category: str
    n: int
    users: int
    rows: list[PriceRow]


def price_settings(config: Config, dataset: Dataset, n: int, interests: int, users: int) -> PriceSettings | None:
    """Say what is to be tried; None without a categorical item feature, or if it is switched off.

    Parameters
    ----------
    n : places of a list.
    interests : K; with one, there are no places to share out among interests.
    users : of the split.

    Raises
    ------
    UserError
        If `evaluate.category` is no such feature.
    """
    category = category_feature(dataset, config.evaluate.category)
    if category is None or not config.evaluate.diversity:
        return None
    codes = _codes(dataset, category)
    rules: dict[str, ListRules] = {"best match": ListRules()}
    if interests > 1:
        rules[f"quota of {PLACES}"] = ListRules(policy="quota", places=PLACES)
        rules["round robin"] = ListRules(policy="round_robin")
    for weight in sorted(set(config.evaluate.diversity) - {0.0}):
        rules[f"λ = {weight:g}"] = ListRules(policy="greedy", weight=weight, category=codes)
    return PriceSettings(category, codes, rules, n, max(1, users // SAMPLED_USERS))


def _codes(dataset: Dataset, feature: str) -> Tensor:
    """(V,) the encoded value of each item, of several the first; rare values are one category, missing ones none."""
    column = as_array(dataset.items()[f"feature_{feature}"])
    if pa.types.is_list(column.type):
        column = pc.list_element(column, 0)  # never empty
    codes = torch.full((FIRST_ITEM + len(column),), NO_CATEGORY)
    codes[FIRST_ITEM:] = torch.from_numpy(np.asarray(column, np.int64).copy())
    return codes.masked_fill(codes == MISSING, NO_CATEGORY)


def price_sample(
    settings: PriceSettings,
    retriever: MINDRetriever,
    sequences: BehaviourSequences,
    outcome: Outcome,
    chosen: Tensor,
    *,
    exclude_seen: bool,
) -> list[PriceSample]:
    """Try every policy on the users of an outcome that are `chosen` (U,) bool: a sample each, none without users."""
    places = chosen.nonzero().squeeze(1)
    if not len(places):
        return []
    users, n = outcome.users[places], settings.n
    of_user = torch.full((len(outcome.users),), -1)
    of_user[places] = torch.arange(len(places))
    kept = of_user[outcome.row] >= 0
    row, targets = of_user[outcome.row][kept], outcome.targets[kept]
    depth = min(len(retriever.item_vectors), max(FEWEST, CANDIDATES * n))
    items, scores = interest_candidates(retriever, sequences, users, "new" if exclude_seen else "all", depth)
    pool, interests = pooled(items, scores), items.shape[1]
    samples = []
    for rules in settings.rules.values():
        if rules.scores_decide:  # the very lists that are evaluated
            top, by = outcome.top_items[places, :n], outcome.interest[places, :n]
            found = TopList(top, torch.zeros(top.shape), by)
        else:
            found = rules.choose(pool, n, interests)
        samples.append(_measured(found, settings, retriever.item_vectors, row, targets))
    return samples


def _measured(
    found: TopList, settings: PriceSettings, item_vectors: Tensor, row: Tensor, targets: Tensor
) -> PriceSample:
    """Measure lists by the places of the targets in them; every user has a target."""
    here = found.items[row] == targets.unsqueeze(1)
    ranks = torch.where(here.any(1), here.long().argmax(1) + 1, settings.n + 1)
    metrics = user_metrics(ranks, row, len(found.items), [settings.n])
    figures = {kind: metrics[f"{kind}@{settings.n}"] for kind in ("recall", "ndcg")}
    figures |= variety(found, settings.codes, item_vectors)
    recommended: Ints = found.items[found.items > 0].unique().numpy()
    return PriceSample({name: values.numpy() for name, values in figures.items()}, recommended)


def price_report(
    settings: PriceSettings | None, slices: Sequence[list[PriceSample]], catalogue: int
) -> PriceReport | None:
    """Average what was seen of all slices; None without any."""
    slices = [samples for samples in slices if samples]
    if settings is None or not slices:
        return None
    rows = []
    for (label, rules), samples in zip(settings.rules.items(), zip(*slices, strict=True), strict=True):
        figures = {name: _mean(np.concatenate([each.figures[name] for each in samples])) for name in samples[0].figures}
        items = np.unique(np.concatenate([each.recommended for each in samples]))
        named: dict[str, Any] = {"weight": rules.weight, "coverage": len(items) / catalogue, **figures}
        rows.append(PriceRow(label, rules.policy, **named))
    users = sum(len(samples[0].figures["recall"]) for samples in slices)
    return PriceReport(settings.category, settings.n, users, rows)


def _mean(values: Floats) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None

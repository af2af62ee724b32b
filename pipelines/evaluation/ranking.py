"""The worker's half of `mind evaluate`: rank the catalogue for a slice of users with every model, keep what counts.

Axes: U users that are counted, T their targets, M models (the baselines last), K interests. All metrics follow from the
targets' ranks, which are all that travels: pipelines.evaluation.report computes them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from mind_core.evaluation import Outcome, evaluate, pairs_in
from mind_core.inference import MINDRetriever, Scorer
from mind_core.sequences import Sequences, full_histories
from pipelines.dataset.tensors import to_targets
from pipelines.evaluation.baselines import FittedBaselines
from pipelines.evaluation.interests import InterestSample, interest_sample
from pipelines.evaluation.lists import Categories, ListSample, join_samples, list_samples
from pipelines.evaluation.variety import PriceSample, PriceSettings, price_sample
from pipelines.models.artifact import SavedModel
from pipelines.models.users.worker import UserWorker

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ModelRanking:
    """What one model made of the users.

    ranks : (T,) of the targets, above the largest cutoff where not found.
    shelf_ranks : (T,) among the items of the target's own group (history, or not); None where seen items are filtered.
    recommended : cutoff -> distinct item indices of all lists cut there.
    found_by : (K,) places in the longest lists that each interest filled.  hits_by : (K,) of them with a target.
    own : (U,) how many interests each user has.
    lists : what the lists are made of.
    interests : samples of users with several interests; none for a model or a rule with a single one.
    """

    ranks: Int32s
    shelf_ranks: Int32s | None
    recommended: dict[int, Ints]
    found_by: Ints
    hits_by: Ints
    own: Int8s
    lists: ListSample
    interests: list[InterestSample]


@dataclass(frozen=True)
class Ranking:
    """What all models made of a slice, or of all users.

    users : (U,) user index.  lengths : (U,) behaviours in the history.
    row, targets : (T,) each target's place in `users` and its item.  again : (T,) it lies in its user's history.
    seen_targets : targets left out because seen items are filtered.  left_out : users without any other target.
    prices : of each slice, what varied lists of the first model cost.
    """

    users: Ints
    lengths: Ints
    row: Ints
    targets: Ints
    again: Bools
    seen_targets: int
    left_out: int
    models: list[ModelRanking]
    prices: list[list[PriceSample]]


class RankUsers(UserWorker):
    """`rank_slice` with the models of a worker; its ranking is one row of a table.

    shared : baselines (FittedBaselines), categories (Categories or None), price (PriceSettings or None).
    """

    def work(  # type: ignore[override]
        self, table: pa.Table, *, cutoffs: list[int], exclude_seen: bool, every: int, depth: int
    ) -> pa.Table:
        ranking = rank_slice(
            self.models,
            self.shared["baselines"],
            table,
            cutoffs,
            exclude_seen,
            every,
            depth=depth,
            categories=self.shared["categories"],
            price=self.shared["price"],
        )
        return pa.table({"ranking": [pickle.dumps(ranking)]})


def rankings_in(blocks: Iterable[pa.Table]) -> Iterator[Ranking]:
    """What `RankUsers` made of each slice; its pickles come from an actor of this command's own and go to no disk."""
    for block in blocks:
        yield from map(pickle.loads, block["ranking"].to_pylist())


def rank_slice(
    models: list[SavedModel],
    baselines: FittedBaselines,
    table: pa.Table,
    cutoffs: list[int],
    exclude_seen: bool,
    every: int = 1,
    *,
    depth: int | None = None,
    categories: Categories | None = None,
    price: PriceSettings | None = None,
) -> Ranking:
    """Rank the whole catalogue for the rows of a split, with each model and with each baseline.

    every : interests are looked at one by one for each so manieth user of the dataset, however the rows are cut.
    depth : of the lists whose make-up is looked at; None: the largest cutoff.  categories : of the items.
    price : varied lists that the first model shall make.
    """
    sequences, targets = models[0].sequences(table), to_targets(table)
    everyone = torch.arange(len(sequences))
    chosen = torch.tensor(table["user"].to_numpy() % every == 0)
    scorers: list[Scorer] = [*(model.retriever for model in models), *baselines.scorers(exclude_seen).values()]
    outcomes = [
        evaluate(scorer, sequences, targets, everyone, cutoffs, exclude_seen=exclude_seen, shelves=not exclude_seen)
        for scorer in scorers
    ]
    counts = torch.tensor(baselines.counts)
    lists = list_samples(outcomes, sequences, counts, categories, depth or max(cutoffs))
    prices = []
    if price is not None and isinstance(scorers[0], MINDRetriever):
        some = torch.tensor(table["user"].to_numpy() % price.every == 0)[outcomes[0].users]
        prices = [price_sample(price, scorers[0], sequences, outcomes[0], some, exclude_seen=exclude_seen)]
    rankings = []
    for scorer, outcome, sample in zip(scorers, outcomes, lists, strict=True):
        own = _own(scorer, sequences, outcome)
        count = own.shape[1]
        rankings.append(
            ModelRanking(
                outcome.ranks.int().numpy(),
                None if outcome.shelf_ranks is None else outcome.shelf_ranks.int().numpy(),
                {n: _items_in(outcome.top_items[:, :n]) for n in cutoffs},
                torch.bincount(outcome.interest[outcome.top_items > 0], minlength=count).numpy(),
                torch.bincount(outcome.interest[_hits(outcome)], minlength=count).numpy(),
                own.sum(1).to(torch.int8).numpy(),
                sample,
                _interests(scorer, sequences, outcome, chosen[outcome.users] & (own.sum(1) > 1), exclude_seen),
            )
        )
    outcome = outcomes[0]  # whose targets count depends on the data alone, so it is the same for every model
    counted = outcome.users
    return Ranking(
        table["user"].to_numpy()[counted.numpy()],
        sequences.lengths[counted].numpy(),
        outcome.row.numpy(),
        outcome.targets.numpy(),
        outcome.again.numpy(),
        outcome.seen_targets,
        len(everyone) - len(counted),
        rankings,
        prices,
    )


def _hits(outcome: Outcome) -> Tensor:
    """(U, n) bool: a target stands there."""
    user = torch.arange(len(outcome.users)).unsqueeze(1)
    return pairs_in((user, outcome.top_items), (outcome.row, outcome.targets))


def _interests(
    scorer: Scorer, sequences: Sequences, outcome: Outcome, chosen: Tensor, exclude_seen: bool
) -> list[InterestSample]:
    if not isinstance(scorer, MINDRetriever) or scorer.model.config.interests == 1:
        return []
    return interest_sample(scorer, sequences, outcome, chosen, exclude_seen=exclude_seen)


def _own(scorer: Scorer, sequences: Sequences, outcome: Outcome) -> Tensor:
    """Say which interests are a user's own, (U, K) bool; a rule has one of everybody."""
    if not isinstance(scorer, MINDRetriever):
        return torch.ones(len(outcome.users), 1, dtype=torch.bool)
    return scorer.interests(full_histories(sequences, outcome.users, scorer.view))[1]


def join_rankings(slices: list[Ranking]) -> Ranking:
    """One ranking of all users, in slice order."""
    models = []
    for parts in zip(*(part.models for part in slices), strict=True):
        shelf_ranks = [part.shelf_ranks for part in parts if part.shelf_ranks is not None]
        models.append(
            ModelRanking(
                np.concatenate([part.ranks for part in parts]),
                np.concatenate(shelf_ranks) if shelf_ranks else None,
                {n: np.unique(np.concatenate([part.recommended[n] for part in parts])) for n in parts[0].recommended},
                np.sum([part.found_by for part in parts], axis=0),
                np.sum([part.hits_by for part in parts], axis=0),
                np.concatenate([part.own for part in parts]),
                join_samples([part.lists for part in parts]),
                [sample for part in parts for sample in part.interests],
            )
        )
    before = np.cumsum([0, *(len(part.users) for part in slices[:-1])])
    return Ranking(
        np.concatenate([part.users for part in slices]),
        np.concatenate([part.lengths for part in slices]),
        np.concatenate([part.row + first for part, first in zip(slices, before, strict=True)]),
        np.concatenate([part.targets for part in slices]),
        np.concatenate([part.again for part in slices]),
        sum(part.seen_targets for part in slices),
        sum(part.left_out for part in slices),
        models,
        [samples for part in slices for samples in part.prices],
    )


def _items_in(lists: Tensor) -> Ints:
    found: Ints = lists[lists > 0].unique().numpy()
    return found

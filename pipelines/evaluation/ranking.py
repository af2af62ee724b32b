"""The worker's half of `mind evaluate`: rank the catalogue for a slice of users with every model, keep what counts.

Axes: U users that are counted, T their targets, M models (the popularity baseline last), K interests.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from mind_core.evaluation import evaluate
from mind_core.inference import PopularityRetriever, Retriever
from mind_core.sequences import Sequences, full_histories
from pipelines.dataset.tensors import to_targets, train_counts
from pipelines.models.artifact import SavedModel
from pipelines.models.over_users import UserWorker

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ModelRanking:
    """What one model made of the users.

    metrics : name -> (U,).  ranks : (T,) of the targets, above the largest cutoff where not found.
    recommended : cutoff -> distinct item indices of all lists cut there.
    found_by : (K,) places in the longest lists that each interest filled.  own : (K,) users with 1, 2, ... interests.
    """

    metrics: dict[str, Floats]
    ranks: Ints
    recommended: dict[int, Ints]
    found_by: Ints
    own: Ints


@dataclass(frozen=True)
class Ranking:
    """What all models made of a slice, or of all users.

    users : (U,) user index.  lengths : (U,) behaviours in the history.  targets : (T,) item index.
    seen_targets : targets left out because seen items are filtered.  left_out : users without any other target.
    """

    users: Ints
    lengths: Ints
    targets: Ints
    seen_targets: int
    left_out: int
    models: list[ModelRanking]


def popularity_of(model: SavedModel) -> PopularityRetriever:
    """The baseline: the counts of the training split that the model was trained on."""
    return PopularityRetriever(train_counts(model.items), model.card.config.max_history)


class RankUsers(UserWorker):
    """`rank_slice` with the models of an actor; its ranking is one row of a table."""

    def work(self, table: pa.Table, *, cutoffs: list[int], exclude_seen: bool) -> pa.Table:  # type: ignore[override]
        return pa.table({"ranking": [pickle.dumps(rank_slice(self.models, table, cutoffs, exclude_seen))]})


def rankings_in(blocks: Iterable[pa.Table]) -> Iterator[Ranking]:
    """What `RankUsers` made of each slice; its pickles come from an actor of this command's own and go to no disk."""
    for block in blocks:
        yield from map(pickle.loads, block["ranking"].to_pylist())


def rank_slice(models: list[SavedModel], table: pa.Table, cutoffs: list[int], exclude_seen: bool) -> Ranking:
    """Rank the whole catalogue for the rows of a split, with each model and with popularity."""
    sequences, targets = models[0].sequences(table), to_targets(table)
    everyone = torch.arange(len(sequences))
    rankings = []
    for retriever in (*(model.retriever for model in models), popularity_of(models[0])):
        outcome = evaluate(retriever, sequences, targets, everyone, cutoffs, exclude_seen=exclude_seen)
        interest, own = found_by(retriever, sequences, outcome.users, outcome.top_items)
        count = own.shape[1]
        rankings.append(
            ModelRanking(
                {name: values.numpy() for name, values in outcome.metrics.items()},
                outcome.ranks.numpy(),
                {n: _items_in(outcome.top_items[:, :n]) for n in cutoffs},
                torch.bincount(interest[outcome.top_items > 0], minlength=count).numpy(),
                torch.bincount(own.sum(1), minlength=count + 1)[1:].numpy(),
            )
        )
    counted = outcome.users  # the same for every model: whose targets count depends on the data alone
    return Ranking(
        table["user"].to_numpy()[counted.numpy()],
        sequences.lengths[counted].numpy(),
        outcome.targets.numpy(),
        outcome.seen_targets,
        len(everyone) - len(counted),
        rankings,
    )


def found_by(retriever: Retriever, sequences: Sequences, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Which own interest scores each item highest.

    Parameters
    ----------
    users : (U,) rows of `sequences`.  items : (U, n).

    Returns
    -------
    interest : (U, n) int64.  own : (U, K) bool.
    """
    vectors, own = retriever.interests(full_histories(sequences, users, retriever.view))
    scores = vectors @ retriever.item_vectors[items].transpose(1, 2)  # (U, K, n)
    return scores.masked_fill(~own.unsqueeze(-1), float("-inf")).argmax(1), own


def join_rankings(slices: Sequence[Ranking]) -> Ranking:
    """One ranking of all users, in slice order."""
    models = []
    for parts in zip(*(part.models for part in slices), strict=True):
        models.append(
            ModelRanking(
                {name: np.concatenate([part.metrics[name] for part in parts]) for name in parts[0].metrics},
                np.concatenate([part.ranks for part in parts]),
                {n: np.unique(np.concatenate([part.recommended[n] for part in parts])) for n in parts[0].recommended},
                np.sum([part.found_by for part in parts], axis=0),
                np.sum([part.own for part in parts], axis=0),
            )
        )
    return Ranking(
        np.concatenate([part.users for part in slices]),
        np.concatenate([part.lengths for part in slices]),
        np.concatenate([part.targets for part in slices]),
        sum(part.seen_targets for part in slices),
        sum(part.left_out for part in slices),
        models,
    )


def _items_in(lists: Tensor) -> Ints:
    found: Ints = lists[lists > 0].unique().numpy()
    return found

"""The fixed model: what training-time evaluation, `mind evaluate`, `mind recommend` and the MLflow model all call.

    histories -> interests -> top lists of `all | again | new` items

A model's items are searched (mind_core.search); a rule scores a tile of users densely. Either way a user's lists of
several shelves come from the same scores.

A user's vectors must not depend on the batch the user sits in. Matrix kernels round differently for different shapes,
so users always pass the encoder in tiles of one fixed shape (ENCODER_USERS, max_history), padded where needed. The
search needs no such tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mind_core.embeddings import pool_all
from mind_core.features import Bags
from mind_core.hits import Hits, Pairs, TopList
from mind_core.model import MIND
from mind_core.repeats import TRAITS
from mind_core.search import Catalogue, inner_products, score_pairs, search_hits
from mind_core.sequences import Histories, Sequences, View, full_histories
from mind_core.shelves import Shelf, history_pairs, own_pairs, top_lists
from mind_core.special_rows import FIRST_ITEM

TILE_USERS = 128  # users that are ranked together
ENCODER_USERS = 16  # users that pass the encoder together


class Rule(Protocol):
    """A rule that scores every item (mind_core.baselines)."""

    def score(self, sequences: Sequences, users: Tensor) -> Tensor:
        """(B, V) scores of a tile, `users` (B,) rows of `sequences`, B <= TILE_USERS."""


@runtime_checkable
class Retriever(Protocol):
    """Interest vectors for users, one vector per item; score = best match, and the memory of the user's own items."""

    view: View
    """What of a user's sequence it sees."""
    catalogue: Catalogue
    """The item vectors, as they are searched."""

    @property
    def item_vectors(self) -> Tensor:
        """(V, d), as they are scored; rows 0 (padding) and 1 (unknown) are never recommended."""
        ...

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """(B, K, d) vectors and (B, K) bool mask of the users' own ones."""
        ...

    def memory(self, histories: Histories, interests: Tensor, own: Tensor) -> Tensor | None:
        """(B, L) r(u, i), what the items of the history score on top; 0 where there is none. None: no memory.

        interests, own : those of the histories.
        """
        ...


Scorer = Rule | Retriever
"""Whatever can rank."""


class MINDRetriever:
    """A trained MIND (or mean-pooling) model with its item vectors computed once.

    Parameters
    ----------
    behaviour_vectors : (V, d), e_i before any normalisation: what `of` computes, or as it was saved.
    """

    def __init__(self, model: MIND, behaviour_vectors: Tensor):
        self.model = model
        self.view = model.view
        self.behaviour_vectors = behaviour_vectors
        self.catalogue = Catalogue(model.score_vectors(behaviour_vectors))

    @property
    def item_vectors(self) -> Tensor:
        return self.catalogue.vectors

    @classmethod
    def of(cls, model: MIND, item_bags: Bags) -> MINDRetriever:
        """Compute the item vectors from the table, as it is now."""
        return cls(model, pool_all(model.item_table, item_bags))

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        vectors, own, _ = self.route(histories)
        return vectors, own

    @torch.no_grad()
    def memory(self, histories: Histories, interests: Tensor, own: Tensor) -> Tensor | None:
        if self.model.config.repeat != "memory":
            return None
        assert histories.newest is not None
        assert histories.traits is not None
        memory = self.model.encoder.memory
        shape, width = (ENCODER_USERS, self.view.max_history), histories.items.shape[1]
        parts = []
        for rows in _tiles(histories):
            items, traits = (
                _padded(histories.items[rows], shape),
                _padded(histories.traits[rows], (*shape, len(TRAITS))),
            )
            best = _padded(self._best_match(histories.items[rows], interests[rows], own[rows]), shape)
            behaviours = nn.functional.embedding(items, self.behaviour_vectors)
            found = memory(memory.of_items(behaviours), traits, best)
            parts.append(found[: rows.stop - rows.start, :width])
        return torch.cat(parts).masked_fill(~histories.newest, 0.0)

    def _best_match(self, items: Tensor, interests: Tensor, own: Tensor) -> Tensor:
        """(B, L) max_j v_j . e_i of items (B, L), summed as the search does."""
        vectors = nn.functional.embedding(items, self.item_vectors).unsqueeze(1)
        scores = inner_products(interests.unsqueeze(2), vectors)  # (B, K, L)
        return scores.masked_fill(~own.unsqueeze(2), float("-inf")).amax(1)

    @torch.no_grad()
    def route(self, histories: Histories) -> tuple[Tensor, Tensor, Tensor]:
        """Interests (B, K, d), own (B, K) and the coupling coefficients (B, K, max_history)."""
        training = self.model.training
        self.model.eval()  # a model that is being trained is looked at without its dropout
        parts = [self._tile(histories, rows) for rows in _tiles(histories)]
        self.model.train(training)
        vectors, own, weights = (torch.cat(column) for column in zip(*parts, strict=True))
        return vectors, own, weights

    def _tile(self, histories: Histories, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        size = rows.stop - rows.start
        shape = (ENCODER_USERS, self.view.max_history)
        items, mask = _padded(histories.items[rows], shape), _padded(histories.mask[rows], shape)
        traits = None if histories.traits is None else _padded(histories.traits[rows], (*shape, len(TRAITS)))
        profile = None
        features = len(self.model.profile_features)
        if features and histories.profile is None:  # nobody: a profile of nobody
            profile = self.behaviour_vectors.new_zeros(ENCODER_USERS, features * self.model.config.profile_dim)
        elif histories.profile is not None:
            index = torch.arange(rows.start * features, rows.stop * features, device=items.device)
            embedded = pool_all(self.model.profile_table, histories.profile.select(index))
            width = features * self.model.config.profile_dim
            profile = _padded(embedded.view(size, width), (ENCODER_USERS, width))
        behaviours = nn.functional.embedding(items, self.behaviour_vectors)
        vectors, own, weights = self.model.encoder(behaviours, mask, profile, traits=traits)
        return vectors[:size], own[:size], weights[:size]


class PopularityRetriever:
    """One constant user vector against log-counts: everybody gets the most popular items.

    counts : (V,) events per item index in the training split.
    """

    def __init__(self, counts: Tensor, max_history: int):
        self.view = View(max_history)
        self.catalogue = Catalogue(torch.log1p(counts.double()).float().unsqueeze(1))

    @property
    def item_vectors(self) -> Tensor:
        return self.catalogue.vectors

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        ones = self.item_vectors.new_ones(len(histories), 1, 1)
        return ones, ones[:, :, 0].bool()

    def memory(self, histories: Histories, interests: Tensor, own: Tensor) -> Tensor | None:
        return None


def _tiles(histories: Histories) -> list[slice]:
    """Cut the users into tiles; nobody is one empty tile."""
    starts = range(0, max(1, len(histories)), ENCODER_USERS)
    return [slice(start, min(start + ENCODER_USERS, len(histories))) for start in starts]


def _padded(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if values.shape == shape:
        return values
    out = values.new_zeros(shape)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def recommend(scorer: Scorer, sequences: Sequences, users: Tensor, n: int, *, exclude_seen: bool) -> TopList:
    """Find the top-n items of `users` in the full catalogue.

    Parameters
    ----------
    sequences : histories; the newest `max_history` items infer, all of them are "seen".
    users : (B,) rows of `sequences`.
    exclude_seen : whether the list is the shelf `new` or `all`.
    """
    shelf: Shelf = "new" if exclude_seen else "all"
    return recommend_shelves(scorer, sequences, users, {shelf: n})[shelf]


@torch.no_grad()
def recommend_shelves(
    scorer: Scorer,
    sequences: Sequences,
    users: Tensor,
    sizes: Mapping[Shelf, int],
    allowed: Tensor | None = None,
) -> dict[Shelf, TopList]:
    """Make a list of each shelf in `sizes`, so many items long, for `users` (B,), who are scored once.

    Parameters
    ----------
    allowed : (V,) bool, the items that may stand in a list; None: all.
    """
    tiles = []
    for tile in users.split(TILE_USERS):
        if isinstance(scorer, Retriever):
            tiles.append(_searched(scorer, sequences, tile, sizes, allowed))
        else:
            scores = scorer.score(sequences, tile)
            if allowed is not None:
                scores[:, ~allowed] = float("-inf")
            tiles.append(top_lists(scores, history_pairs(sequences, tile), sizes))
    return {shelf: TopList(*map(torch.cat, zip(*(tile[shelf] for tile in tiles), strict=True))) for shelf in sizes}


def _searched(
    retriever: Retriever,
    sequences: Sequences,
    users: Tensor,
    sizes: Mapping[Shelf, int],
    allowed: Tensor | None,
) -> dict[Shelf, TopList]:
    """Make the lists of a tile."""
    histories = full_histories(sequences, users, retriever.view)
    vectors, own = retriever.interests(histories)
    pairs = own_pairs(history_pairs(sequences, users), len(retriever.catalogue))
    memory = remembered(retriever, histories, vectors, own)
    return search_shelves(retriever.catalogue, vectors, own, pairs, memory, sizes, allowed)


class Remembered(NamedTuple):
    """r(u, i) of the users' own items: (M,) user, counting from 0, item and what it scores on top, each pair once."""

    user: Tensor
    item: Tensor
    more: Tensor


def remembered(retriever: Retriever, histories: Histories, interests: Tensor, own: Tensor) -> Remembered | None:
    """Compute what users remember of their own items; None: the model has no memory."""
    memory = retriever.memory(histories, interests, own)
    if memory is None:
        return None
    assert histories.newest is not None
    row, column = histories.newest.nonzero(as_tuple=True)  # each item of a user once
    item = histories.items[row, column]
    known = item >= FIRST_ITEM
    return Remembered(row[known], item[known], memory[row, column][known])


def with_memory(hits: Hits, memory: Remembered | None, catalogue: int) -> Hits:
    """Add r(u, i) to the hits that have one.

    Parameters
    ----------
    hits : by user, then item.
    catalogue : V.
    """
    if memory is None or not len(hits):
        return hits
    keys, remembered = hits.user * catalogue + hits.item, memory.user * catalogue + memory.item
    place = torch.searchsorted(keys, remembered).clamp(max=len(keys) - 1)
    there = keys[place] == remembered
    score = hits.score.index_add(0, place[there], memory.more[there])
    return Hits(hits.user, hits.item, score, hits.interest)


def search_shelves(
    catalogue: Catalogue,
    interests: Tensor,
    own: Tensor,
    history: Pairs,
    memory: Remembered | None,
    sizes: Mapping[Shelf, int],
    allowed: Tensor | None = None,
) -> dict[Shelf, TopList]:
    """Make a list of each shelf in `sizes`: the users' own items are all scored, the best of the others searched for.

    Parameters
    ----------
    interests : (B, K, d).  own : (B, K) bool.
    history : `own_pairs` of the users.
    allowed : (V,) bool, the items that may stand in a list; None: all.
    """
    again = with_memory(score_pairs(catalogue, interests, own, history), memory, len(catalogue))
    if allowed is not None:
        again = again[allowed[again.item]]
    longest = max(sizes.get("new", 0), sizes.get("all", 0))
    new = search_hits(catalogue, interests, own, longest, history, allowed)
    made: dict[Shelf, Hits] = {"again": again, "new": new, "all": new + again}
    return {shelf: made[shelf].top(len(interests), n) for shelf, n in sizes.items()}

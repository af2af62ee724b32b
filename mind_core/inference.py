"""The fixed model: what training-time evaluation, `mind evaluate`, `mind recommend` and the MLflow model all call.

A user's vectors must not depend on the batch the user sits in. Matrix kernels round differently for different shapes,
so users always pass through in tiles of one fixed shape (TILE_USERS, max_history), padded where needed.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from mind_core.embeddings import pool_all
from mind_core.features import Bags
from mind_core.model import MIND
from mind_core.repeats import TRAITS
from mind_core.sequences import Histories, Sequences, View, full_histories
from mind_core.special_rows import FIRST_ITEM

TILE_USERS = 128


class Retriever(Protocol):
    """Interest vectors for users, one vector per item; score = best match."""

    view: View
    """What of a user's sequence it sees."""
    item_vectors: Tensor
    """(V, d), as they are scored; rows 0 (padding) and 1 (unknown) are never recommended."""

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """(B, K, d) vectors and (B, K) bool mask of the users' own ones."""
        ...

    def memory(self, histories: Histories) -> Tensor | None:
        """(B, L) r(u, i), what the items of the history score on top; 0 where there is none. None: no memory."""
        ...


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
        self.item_vectors = model.score_vectors(behaviour_vectors)

    @classmethod
    def of(cls, model: MIND, item_bags: Bags) -> MINDRetriever:
        """Compute the item vectors from the table, as it is now."""
        return cls(model, pool_all(model.item_table, item_bags))

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        vectors, own, _ = self.route(histories)
        return vectors, own

    @torch.no_grad()
    def memory(self, histories: Histories) -> Tensor | None:
        if self.model.config.repeat == "none":
            return None
        assert histories.newest is not None
        assert histories.traits is not None
        parts = []
        shape = (TILE_USERS, self.view.max_history)
        for start in range(0, max(1, len(histories)), TILE_USERS):
            rows = slice(start, min(start + TILE_USERS, len(histories)))
            behaviours = nn.functional.embedding(_padded(histories.items[rows], shape), self.behaviour_vectors)
            traits = _padded(histories.traits[rows], (*shape, len(TRAITS)))
            found: Tensor = self.model.encoder.memory(behaviours, traits)
            parts.append(found[: rows.stop - rows.start, : histories.items.shape[1]])
        return torch.cat(parts).masked_fill(~histories.newest, 0.0)

    @torch.no_grad()
    def route(self, histories: Histories) -> tuple[Tensor, Tensor, Tensor]:
        """Interests (B, K, d), own (B, K) and the coupling coefficients (B, K, max_history)."""
        starts = range(0, max(1, len(histories)), TILE_USERS)  # nobody is one empty tile
        training = self.model.training
        self.model.eval()  # a model that is being trained is looked at without its dropout
        parts = [self._tile(histories, start) for start in starts]
        self.model.train(training)
        vectors, own, weights = (torch.cat(column) for column in zip(*parts, strict=True))
        return vectors, own, weights

    def _tile(self, histories: Histories, start: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = slice(start, min(start + TILE_USERS, len(histories)))
        size = rows.stop - rows.start
        shape = (TILE_USERS, self.view.max_history)
        items, mask = _padded(histories.items[rows], shape), _padded(histories.mask[rows], shape)
        traits = None if histories.traits is None else _padded(histories.traits[rows], (*shape, len(TRAITS)))
        profile = None
        features = len(self.model.profile_features)
        if features and histories.profile is None:  # nobody: a profile of nobody
            profile = self.behaviour_vectors.new_zeros(TILE_USERS, features * self.model.config.profile_dim)
        elif histories.profile is not None:
            index = torch.arange(rows.start * features, rows.stop * features, device=items.device)
            embedded = pool_all(self.model.profile_table, histories.profile.select(index))
            width = features * self.model.config.profile_dim
            profile = _padded(embedded.view(size, width), (TILE_USERS, width))
        behaviours = nn.functional.embedding(items, self.behaviour_vectors)
        vectors, own, weights = self.model.encoder(behaviours, mask, profile, traits=traits)
        return vectors[:size], own[:size], weights[:size]


class PopularityRetriever:
    """One constant user vector against log-counts: everybody gets the most popular items.

    counts : (V,) events per item index in the training split.
    """

    def __init__(self, counts: Tensor, max_history: int):
        self.view = View(max_history)
        self.item_vectors = torch.log1p(counts.double()).float().unsqueeze(1)

    def interests(self, histories: Histories) -> tuple[Tensor, Tensor]:
        ones = self.item_vectors.new_ones(len(histories), 1, 1)
        return ones, ones[:, :, 0].bool()

    def memory(self, histories: Histories) -> Tensor | None:
        return None


def _padded(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    if values.shape == shape:
        return values
    out = values.new_zeros(shape)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def recommend(
    retriever: Retriever, sequences: Sequences, users: Tensor, n: int, *, exclude_seen: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Top-n items of `users` by the best match over their own interests, from the full catalogue.

    Parameters
    ----------
    sequences : histories; the newest `max_history` items infer, all of them are "seen".
    users : (B,) rows of `sequences`.

    Returns
    -------
    items : (B, n) int64 by falling score, ties by item index; 0 where the catalogue ran out.
    scores : (B, n) float32; -inf where the catalogue ran out.
    interest : (B, n) int64, which interest found the item.
    """
    parts = []
    for tile in users.split(TILE_USERS):
        histories = full_histories(sequences, tile, retriever.view)
        vectors, own = retriever.interests(histories)
        bonus = _bonus(histories, retriever.memory(histories))
        seen = None
        if exclude_seen:
            sizes = sequences.lengths[tile]
            place = torch.arange(int(sizes.sum()), device=tile.device)
            start = sequences.offsets[tile] - (sizes.cumsum(0) - sizes)
            row = torch.repeat_interleave(torch.arange(len(tile), device=tile.device), sizes)
            seen = (row, sequences.items[place + start[row]].long())
        parts.append(search(retriever.item_vectors, vectors, own, n, seen, bonus))
    items, scores, interest = (torch.cat(column) for column in zip(*parts, strict=True))
    return items, scores, interest


@torch.no_grad()
def search(
    item_vectors: Tensor,
    interests: Tensor,
    own: Tensor,
    n: int,
    seen: tuple[Tensor, Tensor] | None = None,
    bonus: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Exact maximum-inner-product search: f(u, i) = max_j v_j . e_i over the user's own interests.

    Parameters
    ----------
    item_vectors : (V, d).  interests : (B, K, d).  own : (B, K) bool.
    seen : (row, item) index pairs to leave out, or None.
    bonus : (row, item, r), what items score on top of the best match, or None.

    Returns
    -------
    items, scores, interest : (B, n) each, as in `recommend`.
    """
    batch, count, dim = interests.shape
    tile = interests.new_zeros(max(batch, TILE_USERS), count, dim)  # one shape for every call: one rounding
    tile[:batch] = interests
    catalogue = len(item_vectors)
    by_interest = (tile.view(-1, dim) @ item_vectors.T).view(len(tile), count, catalogue)[:batch]  # (B, K, V)
    if count > 1:
        by_interest = by_interest.masked_fill_(~own.unsqueeze(-1), float("-inf"))
    scores = by_interest.amax(1)  # (B, V)
    if bonus is not None:
        scores[bonus[0], bonus[1]] += bonus[2]
    scores[:, :FIRST_ITEM] = float("-inf")
    if seen is not None:
        scores[seen] = float("-inf")
    items = _top_items(scores, min(n, scores.shape[1]))
    top, by_score = torch.sort(scores.gather(1, items), dim=1, descending=True, stable=True)
    items = items.gather(1, by_score)
    interest = by_interest.gather(2, items.unsqueeze(1).expand(-1, count, -1)).argmax(1)
    items = items.masked_fill(top == float("-inf"), 0)
    missing = n - items.shape[1]
    pad = nn.functional.pad
    return pad(items, (0, missing)), pad(top, (0, missing), value=float("-inf")), pad(interest, (0, missing))


def _bonus(histories: Histories, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """(row, item, r) of the items that a memory holds, each item of a user once."""
    if memory is None or histories.newest is None:
        return None
    row, column = histories.newest.nonzero(as_tuple=True)
    return row, histories.items[row, column], memory[row, column]


def _top_items(scores: Tensor, n: int) -> Tensor:
    """(B, n) indices of the n highest scores by rising index; among equal scores the lowest indices are taken."""
    places = min(n + 1, scores.shape[1])
    top, items = scores.topk(places, dim=1)
    items = items[:, :n].sort(dim=1).values
    if places > n:  # topk leaves open which of several equal scores it takes: settle that where it matters
        open_rows = (top[:, n - 1] == top[:, n]).nonzero().squeeze(1)
        row_scores, threshold = scores[open_rows], top[open_rows, n - 1 : n]
        above, equal = row_scores > threshold, row_scores == threshold
        taken = above | (equal & (equal.cumsum(1) <= n - above.sum(1, keepdim=True)))
        items[open_rows] = taken.nonzero()[:, 1].view(-1, n)
    return items


def merge_interests(items: Tensor, scores: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge one candidate list per interest (as an ANN index returns them) into one list per user.

    De-duplicates by item **id**: an item found by several interests appears once, with its best score.

    Parameters
    ----------
    items : (B, K, M) int64; 0 or less marks an empty place.
    scores : (B, K, M); -inf for interests that are not the user's own.

    Returns
    -------
    items, scores, interest : (B, n) each, as in `recommend`.
    """
    batch, count, depth = items.shape
    flat_items, flat_scores = items.reshape(batch, -1), scores.reshape(batch, -1)
    flat_scores = flat_scores.masked_fill(flat_items <= 0, float("-inf"))
    interest = torch.arange(count, device=items.device).repeat_interleave(depth).expand(batch, -1)
    # by item, its best score first: two stable sorts, the less significant key first
    order = torch.sort(flat_scores, dim=1, descending=True, stable=True).indices
    order = order.gather(1, torch.sort(flat_items.gather(1, order), dim=1, stable=True).indices)
    sorted_items, sorted_scores = flat_items.gather(1, order), flat_scores.gather(1, order)
    repeated = torch.zeros_like(sorted_items, dtype=torch.bool)
    repeated[:, 1:] = sorted_items[:, 1:] == sorted_items[:, :-1]
    sorted_scores = sorted_scores.masked_fill(repeated, float("-inf"))
    top, place = torch.sort(sorted_scores, dim=1, descending=True, stable=True)
    top, place = top[:, :n], place[:, :n]
    merged = sorted_items.gather(1, place).masked_fill(top == float("-inf"), 0)
    found_by = interest.gather(1, order).gather(1, place)
    missing = n - merged.shape[1]
    pad = nn.functional.pad
    return pad(merged, (0, missing)), pad(top, (0, missing), value=float("-inf")), pad(found_by, (0, missing))
